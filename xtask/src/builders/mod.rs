//! The image builders: native, docker, cloud-build.

pub mod bytecode;
