//! The integration tests.

mod lock;
mod registry;
