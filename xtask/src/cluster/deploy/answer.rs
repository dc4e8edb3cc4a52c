//! What `deploy` and `rollback` answer.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use super::{Course, Ending, Migration, Wanted};
use crate::cluster::diff::Change;
use crate::cluster::plan::Step;
use crate::cluster::{Cluster, connect};
use crate::commands::Run;
use crate::error::{Kind, Result};
use crate::mlflow::smoke::SmokeReport;
use crate::report::{self, Report};

/// What a deploy planned, and how it ended.
#[derive(Debug, Serialize)]
pub struct Answer {
    env: String,
    context: String,
    namespace: String,
    image: String,
    version: Option<String>,
    pushed_bytes: u64,
    dry_run: bool,
    changed: bool,
    changes: Vec<Change>,
    steps: Vec<Step>,
    /// What becomes of the databases' schema, and whether they are backed up first.
    schema: Migration,
    backup: bool,
    #[serde(flatten)]
    ending: Option<Ending>,
    /// The exit code, by name.
    failure: Option<Kind>,
    smoke: Option<SmokeReport>,
    pruned: Vec<String>,
    seconds: f64,
}

impl Answer {
    /// Of a deploy of `wanted` that took `took`.
    pub fn new(env: &str, cluster: &Cluster, wanted: &Wanted, course: Course, backup: bool, took: Duration) -> Self {
        let dry_run = course.done.is_none();
        let (ending, smoke, pruned) = match course.done {
            Some(done) => (Some(done.ending), done.smoke, done.pruned),
            None => (None, None, Vec::new()),
        };
        let changes: Vec<Change> = course.changes.into_iter().filter(Change::is_change).collect();
        Self {
            env: env.to_owned(),
            context: cluster.context.clone(),
            namespace: cluster.namespace.clone(),
            image: wanted.image.clone(),
            version: wanted.version.clone(),
            pushed_bytes: wanted.pushed_bytes,
            dry_run,
            changed: !dry_run && !changes.is_empty(),
            changes,
            steps: course.steps,
            schema: course.migration,
            backup,
            failure: ending.as_ref().and_then(Ending::failure),
            ending,
            smoke,
            pruned,
            seconds: report::seconds(took),
        }
    }

    /// Prints it. The exit code says how it ended.
    pub fn give(&self, run: &Run) -> Result<ExitCode> {
        run.answer(self)?;
        Ok(self.failure.map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.exit_code())))
    }

    fn planned(&self, out: &mut dyn io::Write) -> io::Result<()> {
        if self.changes.is_empty() {
            writeln!(out, "nothing would be changed")?;
        }
        self.changes.iter().try_for_each(|change| change.human(out))?;
        self.schema.human(out, self.backup)?;
        self.steps.iter().enumerate().try_for_each(|(n, step)| writeln!(out, "{}. {step}", n + 1))
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Some(ending) = &self.ending else { return self.planned(out) };
        let place = connect::place(&self.context, &self.namespace);
        let version = self.version.as_deref().map_or(String::new(), |version| format!(" (MLflow {version})"));
        if let Some(cause) = ending.cause() {
            writeln!(out, "{cause}\n")?;
        }
        match ending {
            Ending::Deployed { release } => writeln!(out, "release {release}{version} serves in {place}")?,
            Ending::Unchanged => writeln!(out, "nothing changed: {}{version} serves in {place} already", self.image)?,
            Ending::RolledBack { release, to, restored, .. } => {
                writeln!(out, "release {release} failed and is undone: release {to} serves in {place}")?;
                restored
                    .iter()
                    .try_for_each(|backup| writeln!(out, "the databases are those of backup {backup} again"))?;
            }
            Ending::Removed { release, restored, .. } => {
                writeln!(out, "release {release} failed and is removed: nothing served before in {place}")?;
                restored
                    .iter()
                    .try_for_each(|backup| writeln!(out, "the databases are those of backup {backup} again"))?;
            }
            Ending::Moved { release, to, backup, .. } => {
                writeln!(out, "release {release} failed in {place} after it had migrated the databases")?;
                match (to, backup) {
                    (Some(to), Some(backup)) => {
                        writeln!(out, "going back to release {to} loses what was written since backup {backup}:")?;
                        writeln!(out, "  cargo xtask rollback --env {} --to {to} --restore", self.env)?;
                    }
                    (None, Some(backup)) => {
                        writeln!(
                            out,
                            "backup {backup} is from before: cargo xtask db restore {backup} --env {}",
                            self.env
                        )?;
                    }
                    (_, None) => writeln!(out, "no backup was made: mend what failed, and deploy again")?,
                }
            }
            Ending::Kept { release, .. } => {
                writeln!(out, "release {release} failed and was left as it is in {place}")?;
            }
            Ending::RollbackFailed { release, to, why, .. } => {
                writeln!(out, "release {release} failed, and so did going back to release {to} in {place}:\n{why}")?;
                if self.failure == Some(Kind::RollbackRefused) {
                    writeln!(out, "its databases have been migrated since; to go back with the data of before:")?;
                    writeln!(out, "  cargo xtask rollback --env {} --to {to} --restore", self.env)?;
                }
            }
            Ending::Superseded { release, by } => {
                writeln!(out, "release {release} was superseded in {place}: {by}")?;
            }
            Ending::Unhealthy { .. } => {
                writeln!(out, "nothing was to be changed in {place}, but what runs does not serve")?;
            }
        }
        if let Some(smoke) = &self.smoke {
            let passed = smoke.checks.iter().filter(|check| check.ok).count();
            writeln!(out, "{passed} of {} checks passed", smoke.checks.len())?;
        }
        match self.failure {
            None => writeln!(out, "look at it: cargo xtask open --env {}", self.env),
            Some(_) => Ok(()),
        }
    }
}
