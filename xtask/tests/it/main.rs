//! The integration tests.

mod build;
mod image;
mod local;
mod lock;
mod readers;
mod registry;
