//! The integration tests.

mod registry;
