//! The image builders: native, docker, cloud-build.
