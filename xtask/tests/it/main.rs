//! The integration tests.

mod local;
mod lock;
mod registry;
