//! A client of the MLflow server as far as a deploy needs it: waiting until it serves, and the
//! smoke test. Knows URLs and HTTP, not where the server runs.

mod client;
mod health;
mod otlp;
pub mod smoke;

pub use client::{Auth, Class, Client, DATABASE_PROBE, Failure, Outcome, is_loopback, send};
pub use health::wait_until_healthy;
