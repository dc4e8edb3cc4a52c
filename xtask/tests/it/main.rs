//! The integration tests.

mod build;
mod image;
mod local;
mod lock;
mod mlflow;
mod readers;
mod registry;
