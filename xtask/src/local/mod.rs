//! The local server: the image in a sandbox of this machine.

mod identity;
pub mod image;
pub mod rootfs;
#[cfg(target_os = "linux")]
pub mod sandbox;
mod spec;
pub mod state;
