//! Locks -> layers -> manifest: an OCI image built from Debian packages and Python wheels.
//!
//! This crate never touches the network, starts no program, knows no registry and no Kubernetes,
//! and is not async. Inputs are files whose hashes the locks name; outputs are bytes.

pub mod attestation;
pub mod bytecode;
mod deb;
mod digest;
pub mod dockerfile;
mod error;
pub mod exclude;
pub mod find;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod layer;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod overlap;
pub mod packages;
mod path;
pub mod plan;
mod platform;
pub mod python;
pub mod sbom;
pub mod unpack;
mod wheel;

pub use digest::{Digest, HashWriter};
pub use error::{Error, Result};
pub use platform::Platform;
