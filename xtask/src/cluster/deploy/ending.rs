//! How a deploy ended, and why it did not go well.

use std::fmt;

use serde::Serialize;

use crate::cluster::rollout::{Code, Diagnosis};
use crate::error::{Error, Kind};
use crate::mlflow::smoke::SmokeReport;
use crate::report::Report as _;

/// What a deploy did.
#[derive(Debug)]
pub struct Done {
    /// How it ended.
    pub ending: Ending,
    /// What the smoke test found in what serves now.
    pub smoke: Option<SmokeReport>,
    /// What was deleted because it is no longer wanted.
    pub pruned: Vec<String>,
}

/// How a deploy ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Ending {
    /// The new server runs and was proven.
    Deployed { release: u64 },
    /// What was wanted runs already, and serves.
    Unchanged,
    /// The new server failed; `to` serves again, with the databases of the backup `restored` where they
    /// had changed.
    RolledBack { release: u64, to: u64, restored: Option<String>, cause: Setback },
    /// The new server failed; nothing served before, and what was made is gone.
    Removed { release: u64, restored: Option<String>, cause: Setback },
    /// The new server failed after the databases were migrated, and may have written to them: going back
    /// loses that, so nobody does it unasked.
    Moved { release: u64, to: Option<u64>, backup: Option<String>, cause: Setback },
    /// The new server failed, and was left as it is on request.
    Kept { release: u64, cause: Setback },
    /// The new server failed, and so did going back.
    RollbackFailed { release: u64, to: u64, cause: Setback, why: Box<Setback> },
    /// Someone else changed the Deployment meanwhile: theirs stands.
    Superseded { release: u64, by: String },
    /// Nothing was to be changed, but what runs does not serve.
    Unhealthy { cause: Setback },
}

/// Why a rollout did not go well.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "setback")]
pub enum Setback {
    /// Something failed that is not about the pods, such as an object that was refused.
    Stopped { kind: Kind, message: String, causes: Vec<String>, hint: Option<String> },
    /// The new pods failed.
    Rollout { diagnosis: Box<Diagnosis> },
    /// They run, but the smoke test failed.
    Smoke { report: Box<SmokeReport> },
}

impl Ending {
    /// What the exit code says; `None` for success.
    pub fn failure(&self) -> Option<Kind> {
        match self {
            Self::Deployed { .. } | Self::Unchanged => None,
            Self::RolledBack { .. } => Some(Kind::RolledBack),
            Self::Removed { .. } | Self::Kept { .. } | Self::Unhealthy { .. } => Some(Kind::Failed),
            Self::Moved { .. } => Some(Kind::RollbackRefused),
            Self::RollbackFailed { why, .. } if why.is_schema() => Some(Kind::RollbackRefused),
            Self::RollbackFailed { .. } => Some(Kind::RollbackFailed),
            Self::Superseded { .. } => Some(Kind::Superseded),
        }
    }

    /// Why it did not go well.
    pub fn cause(&self) -> Option<&Setback> {
        match self {
            Self::Deployed { .. } | Self::Unchanged | Self::Superseded { .. } => None,
            Self::RolledBack { cause, .. }
            | Self::Removed { cause, .. }
            | Self::Moved { cause, .. }
            | Self::Kept { cause, .. }
            | Self::RollbackFailed { cause, .. }
            | Self::Unhealthy { cause } => Some(cause),
        }
    }
}

impl Setback {
    /// One line, for the release's record.
    pub fn summary(&self) -> String {
        match self {
            Self::Stopped { message, causes, .. } => match causes.first() {
                Some(cause) => format!("{message}: {cause}"),
                None => message.clone(),
            },
            Self::Rollout { diagnosis } => diagnosis.sentence.clone(),
            Self::Smoke { report } => {
                let failed = report.checks.iter().filter(|check| !check.ok).map(|check| check.name);
                format!("the smoke test failed: {}", failed.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Setback {
    /// Whether the server refuses the database because its schema is another release's.
    fn is_schema(&self) -> bool {
        matches!(self, Self::Rollout { diagnosis } if diagnosis.cause.code == Code::SchemaMismatch)
    }
}

impl From<&Error> for Setback {
    fn from(error: &Error) -> Self {
        let mut lines = error.lines();
        let message = lines.remove(0);
        Self::Stopped { kind: error.kind(), message, causes: lines, hint: error.hint_text().map(str::to_owned) }
    }
}

/// On one screen, without a trailing line break.
impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rollout { diagnosis } => diagnosis.fmt(f),
            Self::Smoke { report } => {
                let mut text = Vec::new();
                report.human(&mut text).map_err(|_| fmt::Error)?;
                write!(f, "the pods run, but the smoke test failed:\n{}", String::from_utf8_lossy(&text).trim_end())
            }
            Self::Stopped { message, causes, hint, .. } => {
                f.write_str(message)?;
                causes.iter().try_for_each(|cause| write!(f, "\n  because {cause}"))?;
                hint.iter().try_for_each(|hint| write!(f, "\n  hint: {hint}"))
            }
        }
    }
}
