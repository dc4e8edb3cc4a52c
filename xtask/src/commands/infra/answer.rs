//! What the `infra` commands answer.

use std::io;

use serde::Serialize;

use crate::config::infra::Via;
use crate::infra::plan::Plan;
use crate::outputs::Outputs;
use crate::report::Report;

/// The answer of a command that plans, or does.
#[derive(Serialize)]
pub struct Answer {
    /// The environment.
    pub env: String,
    /// By what.
    pub via: Via,
    /// Nothing was done.
    pub dry_run: bool,
    /// Something was done, or, of a plan, would be.
    pub changed: bool,
    /// What.
    #[serde(flatten)]
    pub plan: Plan,
    /// What there is now; `None` where nothing is left, or nothing was done.
    pub outputs: Option<Outputs>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        if self.dry_run || !self.changed {
            self.plan.human(out)?;
        } else {
            writeln!(out, "environment {}: done, {}", self.env, self.plan.summary())?;
        }
        if let Some(outputs) = &self.outputs {
            show(outputs, out)?;
        }
        self.remarks.iter().try_for_each(|remark| writeln!(out, "{remark}"))
    }
}

/// The outputs for people.
pub fn show(outputs: &Outputs, out: &mut dyn io::Write) -> io::Result<()> {
    let database = &outputs.database;
    let mut rows = vec![
        ("project", outputs.project.clone()),
        ("bucket", format!("gs://{}", outputs.bucket)),
        ("database", format!("{} as {}", database.instance, database.user)),
        ("registry", outputs.registry.repository.clone()),
        ("server is", outputs.identities.server.clone()),
    ];
    if let Some(cluster) = &outputs.cluster {
        rows.push(("cluster", format!("{} in {}, {}", cluster.name, cluster.location, cluster.endpoint)));
    }
    if let Some(github) = &outputs.github {
        rows.push(("github logs in at", github.provider.clone()));
        rows.push(("github deploys as", github.deploy.clone()));
        rows.push(("github plans as", github.plan.clone()));
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().try_for_each(|(name, value)| writeln!(out, "{name:width$}  {value}"))
}
