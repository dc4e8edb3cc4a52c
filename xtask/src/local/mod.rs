//! The local server: the image in a sandbox of this machine.

pub mod backup;
pub mod deploy;
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
mod spec;
pub mod state;
