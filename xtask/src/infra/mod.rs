//! An environment's resources at Google: planned, made, destroyed, and what they are called.
//!
//! Two ways lead to the same resources, `terraform` and `gcloud`; both give a [`plan::Plan`] before
//! anything happens and [`crate::outputs::Outputs`] afterwards. Nothing here deploys a server.

pub mod deadline;
pub mod gcloud;
pub mod plan;
pub mod proposal;
pub mod secrets;
pub mod terraform;
pub mod way;
