//! A program in the cluster that sees what the server sees: a Job of the server's own pod model,
//! followed to its end and removed.
//!
//! `build` and `judge` are pure.

mod build;
mod follow;
mod judge;

pub use build::{Task, build, spec, with_program};
pub use follow::{JOB, deployment, run};
