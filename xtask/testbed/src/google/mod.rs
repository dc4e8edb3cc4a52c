//! A fake of Google Cloud's control plane, for Google's own clients: gcloud, the google terraform
//! provider, the Cloud SQL Auth Proxy.
//!
//! One HTTP server, one path prefix per service; everything that exists is in memory, every call
//! is logged, and a rule makes a chosen call fail. What real servers do better is theirs: rows are
//! in a real PostgreSQL, objects in a fake-gcs-server if there is one, images are built by a hook.

mod artifacts;
mod authority;
mod billing;
mod buildah;
mod builds;
mod call;
mod compute;
mod container;
mod control;
mod core;
mod failure;
mod faults;
mod handle;
mod iam;
mod keys;
mod log;
mod metadata;
mod networking;
mod objects;
mod operations;
mod options;
mod permissions;
mod policy;
mod postgres;
mod projects;
mod proxy;
mod roles;
mod server;
mod sql;
mod sql_backups;
mod sql_rules;
mod sql_users;
mod state;
mod storage;
mod tokens;
mod tunnel;
mod usage;
mod workload;

pub use buildah::Buildah;
pub use builds::{BuildHook, BuildRequest};
pub use faults::{Fault, OperationFault, Rule};
pub use handle::{Google, Handle, OWNER_TOKEN, serve};
pub use log::Entry;
pub use options::{Metadata, Options, Project};
