//! The integration tests.

mod bench;
mod build;
mod builders;
mod image;
mod local;
mod lock;
mod mlflow;
mod node;
mod readers;
mod registry;
mod render;
mod walk;
