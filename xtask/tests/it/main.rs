//! The integration tests.

mod local;
mod build;
mod lock;
mod registry;
