//! A rollout, followed to its end: the new pods run and stay up, or the cause of their failure is
//! known by name.
//!
//! `verdict` and `causes` are pure: a [`Snapshot`] goes in, a decision comes out. `watch` looks at
//! the cluster and sleeps; what is judged was always listed afresh, so nothing stale can look like
//! success. `diagnose` gathers what a person needs once the verdict is a failure.

mod causes;
mod diagnose;
mod logs;
mod observe;
mod pods;
mod snapshot;
#[cfg(test)]
mod tests;
mod text;
mod verdict;
mod watch;

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::error::{Error, Kind, Result};

use super::CONTAINER;

pub use causes::{Cause, Class, Code, refusal};
pub use diagnose::Diagnosis;
pub use text::clean;
pub use verdict::Complete;
pub use watch::follow;

/// The state of the Deployment that a rollout is to reach: what the API server answered to our
/// apply. Whatever differs from it later was changed by someone else.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The Deployment's name.
    pub name: String,
    /// Its uid: a Deployment that was deleted and made again is another one.
    pub uid: String,
    /// `metadata.generation` after our apply.
    pub generation: i64,
    /// The image of the server's container: `REPO@sha256:...`.
    pub image: String,
    /// The pod template as the API server stored it, as JSON.
    pub template: String,
    /// The label selector of the pods, as in a query.
    pub selector: String,
    /// When the change was applied, on our clock.
    pub started: Timestamp,
}

impl Expected {
    /// What an apply that was answered with `applied` has to lead to.
    ///
    /// # Errors
    /// `Internal` for an answer without the fields that every stored Deployment has.
    pub fn of(applied: &Deployment, started: Timestamp) -> Result<Self> {
        let name = applied.metadata.name.clone().unwrap_or_default();
        let lacks =
            |what: &str| Error::new(Kind::Internal, format!("the API server's Deployment/{name} has no {what}"));
        let spec = applied.spec.as_ref().ok_or_else(|| lacks("spec"))?;
        let pod = spec.template.spec.as_ref().ok_or_else(|| lacks("pod template"))?;
        let image = pod.containers.iter().find(|container| container.name == CONTAINER);
        Ok(Self {
            uid: applied.metadata.uid.clone().ok_or_else(|| lacks("uid"))?,
            generation: applied.metadata.generation.ok_or_else(|| lacks("generation"))?,
            image: image.and_then(|found| found.image.clone()).ok_or_else(|| lacks("container named mlflow"))?,
            template: verdict::template(applied),
            selector: observe::selector(&spec.selector).ok_or_else(|| lacks("selector"))?,
            started,
            name,
        })
    }
}

/// Why a pod of anyone's does not come up, by its state and events; `None` while nothing speaks
/// against it.
pub fn cause_of(pod: &Pod, events: &[Event], at: Timestamp) -> Option<Cause> {
    let snapshot = snapshot::Snapshot {
        at,
        deployment: None,
        replica_sets: Vec::new(),
        pods: Vec::new(),
        nodes: Vec::new(),
        events: events.to_vec(),
        logs: std::collections::BTreeMap::new(),
    };
    causes::of_pod(pod, &snapshot)
}

/// How long a rollout may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the apply until all new pods are up, on our own clock. Nothing extends it.
    pub deadline: Duration,
    /// How long they must then stay up, without a restart, before they are believed.
    pub soak: Duration,
}

/// How a rollout ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// All new pods are up, were seen to stay up, and run the image that was asked for.
    Complete(Complete),
    /// Someone else changed or deleted the Deployment: theirs stands. What happened, as a sentence.
    Superseded {
        /// Who did what, as far as the cluster knows it.
        message: String,
    },
    /// The new pods do not work.
    Failed(Box<Diagnosis>),
}
