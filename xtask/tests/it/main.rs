//! The integration tests.

mod image;
mod local;
mod build;
mod lock;
mod readers;
mod registry;
