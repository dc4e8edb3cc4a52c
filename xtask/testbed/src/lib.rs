//! The world around the program, for tests: real registries, a proxy that breaks things on
//! purpose, a token service, and a home folder that is not the developer's.
//!
//! Everything listens on 127.0.0.1 on a free port and ends, by its own id, when it is dropped.

pub mod actions;
mod certificate;
#[cfg(target_os = "linux")]
pub mod cluster;
#[cfg(unix)]
pub mod gcloud;
pub mod google;
mod home;
mod http;
mod issuer;
mod jwt;
mod loopback;
mod proxy;
mod registry;
mod service;
#[cfg(target_os = "linux")]
pub mod terraform;
mod token;
mod tool;
mod tunnel;

pub use certificate::Certificate;
pub use home::Home;
pub use issuer::{Client, Issuer, Person};
pub use jwt::Signer;
pub use proxy::{Exchange, Fault, Proxy, Rule};
pub use registry::{Auth, Options, Registry, Storage};
pub use service::{Service, free_port};
pub use token::{Policy, TokenRequest, TokenServer};
pub use tool::{command, have_namespaces, is_root, leave_out, nightly, require, run, skip};
pub use tunnel::Tunnel;
