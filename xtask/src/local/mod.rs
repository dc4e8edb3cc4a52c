//! The local server: the image in a sandbox of this machine, or in a container of docker or podman.

pub mod backend;
pub mod backup;
mod container;
pub mod deploy;
mod engine;
mod identity;
pub mod image;
pub mod plan;
pub mod port;
pub mod rootfs;
pub mod runner;
#[cfg(target_os = "linux")]
pub mod sandbox;
#[cfg(not(target_os = "linux"))]
#[path = "no_sandbox.rs"]
pub mod sandbox;
pub mod server;
pub mod source;
pub mod spec;
pub mod state;
