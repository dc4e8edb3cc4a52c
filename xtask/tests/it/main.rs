//! The integration tests.

mod backup;
mod bench;
mod build;
mod builders;
mod db;
mod doctor;
mod gc;
mod google;
mod image;
mod infra_faults;
mod infra_gcloud;
mod local;
mod lock;
mod migration;
mod mlflow;
mod node;
#[path = "../observability.rs"]
mod observability;
mod readers;
mod registry;
mod render;
mod schema;
mod signing;
mod terraform;
mod walk;
mod workflows;
