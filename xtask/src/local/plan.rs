//! What a deploy will do, decided from what was observed. Touches nothing.

use std::fmt;

use mlflow_image::Digest;
use serde::Serialize;

use super::engine::Tool;
use super::state::{Pending, Phase, Release, State};

/// What was seen before anything is changed.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the files say.
    pub state: State,
    /// What runs.
    pub running: Option<Release>,
    /// Whether it serves.
    pub healthy: bool,
    /// Whether there is a database.
    pub database: bool,
    /// Whether the wanted image's layers are on this machine.
    pub fetched: bool,
    /// Whether it can be started: unpacked, or loaded into the engine.
    pub installed: bool,
}

/// One step of a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Build or pull what is missing of the image.
    Fetch { image: Digest },
    /// Unpack it into the cache.
    Unpack { image: Digest },
    /// Load it into docker or podman.
    Load { image: Digest, into: Tool },
    /// Stop the running server.
    Stop { release: String },
    /// Put back the database of before a migration that never ended.
    Restore { backup: String },
    /// Copy the database.
    Backup,
    /// Bring the database to the image's schema.
    Migrate { image: Digest },
    /// Start the server.
    Start { image: Digest, url: String },
    /// Wait until it serves.
    Wait,
    /// Prove it.
    Smoke,
    /// Write down that it works.
    Record,
}

impl Step {
    /// What is done, while it is done, and to what.
    pub fn words(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Fetch { image } => ("fetch", "Fetching", format!("image {}", image.short())),
            Self::Unpack { image } => ("unpack", "Unpacking", format!("image {}", image.short())),
            Self::Load { image, into } => ("load", "Loading", format!("image {} into {into}", image.short())),
            Self::Stop { release } => ("stop", "Stopping", format!("the server of release {release}")),
            Self::Restore { backup } => ("restore", "Restoring", format!("the database from backup {backup}")),
            Self::Backup => ("save", "Saving", "a backup of the database".to_owned()),
            Self::Migrate { image } => {
                ("migrate", "Migrating", format!("the database to the schema of image {}", image.short()))
            }
            Self::Start { image, url } => ("start", "Starting", format!("image {} at {url}", image.short())),
            Self::Wait => ("wait", "Waiting", "until it serves".to_owned()),
            Self::Smoke => ("prove", "Proving", "that it works".to_owned()),
            Self::Record => ("record", "Recording", "the release".to_owned()),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, _, object) = self.words();
        write!(f, "{verb} {object}")
    }
}

/// The steps to `wanted`; none when it runs, serves and was proven.
pub fn plan(observed: &Observed, wanted: &Release, smoke: bool) -> Vec<Step> {
    let image = wanted.image;
    let state = &observed.state;
    let proof = [Some(Step::Wait), smoke.then_some(Step::Smoke), Some(Step::Record)].into_iter().flatten();
    if let Some(running) = observed.running.as_ref().filter(|running| running.same_server(wanted)) {
        let proven = state.current.as_ref().is_some_and(|current| current.same_server(running));
        if state.pending.is_none() && proven && observed.healthy {
            return Vec::new();
        }
        // The one that was started last was not proven: an earlier deploy died on the way.
        let unproven = state.pending.as_ref().is_some_and(|pending| pending.release.id == running.id);
        if unproven {
            return proof.collect();
        }
    }
    let mut steps = Vec::new();
    if !observed.installed {
        if !observed.fetched {
            steps.push(Step::Fetch { image });
        }
        steps.push(match wanted.engine {
            None => Step::Unpack { image },
            Some(into) => Step::Load { image, into },
        });
    }
    if let Some(running) = &observed.running {
        steps.push(Step::Stop { release: running.id.clone() });
    }
    let mut schema = state.schema;
    if let Some(Pending { phase: Phase::Migrating, backup: Some(backup), .. }) = &state.pending {
        steps.push(Step::Restore { backup: backup.name.clone() });
        schema = backup.schema;
    }
    if observed.database && schema != Some(image) {
        steps.extend([Step::Backup, Step::Migrate { image }]);
    }
    steps.push(Step::Start { image, url: wanted.url.clone() });
    steps.extend(proof);
    steps
}

/// What to go back to when the deploy fails: the proven server that it replaces.
pub fn fallback(observed: &Observed, wanted: &Release) -> Option<Release> {
    let proven = |release: &&Release| !release.same_server(wanted);
    match &observed.state.pending {
        Some(pending) => pending.replaces.as_ref().filter(proven).cloned(),
        None => observed.running.as_ref().filter(proven).cloned(),
    }
}

#[cfg(test)]
mod tests;
