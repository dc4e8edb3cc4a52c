//! The local server: the image in a sandbox of this machine.

pub mod backup;
mod identity;
pub mod image;
pub mod plan;
pub mod port;
pub mod rootfs;
pub mod runner;
#[cfg(target_os = "linux")]
pub mod sandbox;
pub mod server;
mod spec;
pub mod state;
