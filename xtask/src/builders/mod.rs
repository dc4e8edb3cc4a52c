//! The image builders: native, docker, cloud-build.

pub mod bytecode;
pub mod draft;
pub mod native;
mod project;
pub mod push;

/// What builds the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Builder {
    /// This program, from the locks.
    #[default]
    Native,
    /// docker, podman or buildah on this machine, from the Dockerfile.
    Docker,
    /// Google Cloud Build, from the Dockerfile.
    CloudBuild,
}
