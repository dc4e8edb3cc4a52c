//! What is wanted -> a plan -> the server that was wanted, proven; or the one that served before.

mod answer;
mod database;
mod ending;
mod execute;
mod lead;
mod look;
mod migration;

use std::time::Duration;

pub use answer::Answer;
pub use database::{bring, serving};
pub use ending::{Done, Ending, Setback};
pub use lead::{Course, carry_out, foresee};
pub use look::ask;
#[cfg(test)]
pub use migration::Needed;
pub use migration::{Migration, decide};

use k8s_openapi::api::apps::v1::Deployment;

use super::object::{Object, ObjectKind};
use super::rollout::Limits;
use crate::error::{Context as _, Error, Kind, Result};
use crate::provenance::Provenance;
use crate::schema::Schema;

/// What is to run.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Everything that is applied, in order.
    pub objects: Vec<Object>,
    /// `REGISTRY/PATH@sha256:...`.
    pub image: String,
    /// MLflow's version, where it is known.
    pub version: Option<String>,
    /// Who wants it.
    pub provenance: Provenance,
    /// The release that this one goes back to, where it is a rollback.
    pub restores: Option<u64>,
    /// What the image's MLflow knows about its databases; `None` of an old release whose image is gone.
    pub schema: Option<Schema>,
    /// The backup that the databases are brought back to, too.
    pub restore: Option<String>,
    /// An image with the programs that back up and restore; `None`: the wanted one has them.
    pub tools: Option<String>,
    /// Bytes sent to the registry for it.
    pub pushed_bytes: u64,
}

impl Wanted {
    /// The Deployment among the objects: the pod model of what runs beside the server, too.
    ///
    /// # Errors
    /// `Internal` where there is none.
    pub fn deployment(&self) -> Result<Deployment> {
        let found = self.objects.iter().find(|object| object.kind == ObjectKind::Deployment);
        let found = found.ok_or_else(|| Error::new(Kind::Internal, "there is no Deployment among the objects"))?;
        serde_json::from_value(found.value.clone()).context(Kind::Internal, || format!("{found} is none"))
    }
}

/// How to do it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long the new pods may take, and how long they must stay up.
    pub limits: Limits,
    /// Take over fields of other managers.
    pub force: bool,
    /// Go back when it fails.
    pub undo: bool,
    /// Prove it by the smoke test.
    pub smoke: bool,
    /// Ask no questions.
    pub yes: bool,
    /// Make a backup before the databases are changed.
    pub backup: bool,
    /// How many releases are kept.
    pub keep: usize,
    /// How long to wait for another run that is at work.
    pub patience: Duration,
}
