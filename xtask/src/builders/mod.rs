//! The image builders: native, docker, cloud-build.

pub mod attest;
pub mod bytecode;
pub mod cloud_build;
mod context;
#[cfg(test)]
mod context_buildah;
pub mod docker;
mod dockerignore;
pub mod draft;
mod import;
#[cfg(test)]
mod import_tests;
pub mod native;
mod project;
pub mod push;
pub mod recipe;

/// What builds the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Builder {
    /// This program, from the locks.
    #[default]
    Native,
    /// docker, podman or buildah from the Dockerfile, the first that works on this machine.
    Docker,
    /// podman from the Dockerfile.
    Podman,
    /// buildah from the Dockerfile.
    Buildah,
    /// Google Cloud Build, from the Dockerfile.
    CloudBuild,
}
