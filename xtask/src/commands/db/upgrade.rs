//! `db upgrade`: the databases are brought to the schema that the deployed server works with.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;

use super::Server;
use crate::backup;
use crate::cluster::deploy::{self, Migration};
use crate::cluster::lease::{self, Holder};
use crate::cluster::{Cluster, login, server_image};
use crate::commands::Run;
use crate::config::Config;
use crate::config::cluster::ClusterConfig;
use crate::error::{Error, Kind, Result};
use crate::local::source::Source;
use crate::registry::Reference;
use crate::report::{self, Report};
use crate::schema::migrate::{Brought, Did};
use crate::schema::status::Found;

/// Bring the databases to the schema that the deployed server works with
///
/// `deploy` does this by itself. This is for a server that another tool has applied, whose pods wait for
/// their schema: what is empty is made; what is behind is backed up and migrated.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long)]
    env: String,
    /// Ask no questions.
    #[arg(long, short)]
    yes: bool,
    /// Make no backup first.
    #[arg(long)]
    without_backup: bool,
    /// Seconds to wait for another run to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let config = Config::load(&args.env)?;
    let Server { settings, cluster, deployment } = &Server::of(&args.env).await?;
    let image = server_image(deployment).ok_or_else(|| Error::new(Kind::Refused, "the Deployment has no server"))?;
    let reference: Reference = image.parse()?;
    let (image, schema) = super::schema_of(run, &config, Some(Source::Registry(reference))).await?;
    let held = lease::take(run, cluster, Holder::this_process(), Duration::from_secs(args.lock_wait)).await?;
    let upgrade = Upgrade { run, cluster, settings, deployment, args: &args };
    let done = upgrade.under_lock(&held, |found| deploy::decide(found, &schema, login::keeps_users(deployment))).await;
    if let Err(error) = held.release().await {
        run.ui.warn(format!("{}: it expires by itself", error.lines().join(": ")));
    }
    let (stores, backup) = done?;
    let seconds = report::seconds(begun.elapsed());
    run.answer(&Answer { env: args.env, place: cluster.place(), image, backup, stores, seconds })
}

struct Upgrade<'a> {
    run: &'a Run,
    cluster: &'a Cluster,
    settings: &'a ClusterConfig,
    deployment: &'a Deployment,
    args: &'a Args,
}

impl Upgrade<'_> {
    /// Gives what was done with each store, and the backup that was made first.
    async fn under_lock(
        &self,
        held: &lease::Held,
        decide: impl Fn(Vec<Found>) -> Result<Migration>,
    ) -> Result<(Vec<Brought>, Option<String>)> {
        let Self { run, cluster, settings, deployment, args } = self;
        let deadline = settings.rollout.migration;
        let migration = decide(deploy::ask(run, cluster, deployment).await?)?;
        let Migration::Migrate(_) = migration else {
            held.confirm().await?;
            return Ok((deploy::bring(run, cluster, deployment, deadline, false).await?, None));
        };
        if let Some(pod) = deploy::serving(cluster).await? {
            return Err(Error::new(Kind::Check, format!("Pod/{pod} serves on the schema that is to be migrated"))
                .hint("cargo xtask deploy does this in the right order; or scale the old Deployment to 0 first"));
        }
        if !args.without_backup {
            backup::check(settings)?;
        }
        run.ui.show(|out| migration.human(out, !args.without_backup));
        if !args.yes {
            run.ui.confirm("Change the databases?", "--yes")?;
        }
        held.confirm().await?;
        let backup = match args.without_backup {
            true => None,
            false => Some(backup::take(run, cluster, settings, deployment, "before an upgrade").await?.id),
        };
        held.confirm().await?;
        Ok((deploy::bring(run, cluster, deployment, deadline, true).await?, backup))
    }
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    /// Whose pods reach the databases.
    place: String,
    /// The image whose MLflow they fit now.
    image: String,
    /// The backup that was made first.
    backup: Option<String>,
    stores: Vec<Brought>,
    seconds: f64,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for Brought { found, before, did } in &self.stores {
            let now = found.revisions.join(" ");
            match did {
                Did::Nothing => writeln!(out, "the {} database has schema {now} already", found.store)?,
                Did::Made => writeln!(out, "the {} database was empty, and has schema {now} now", found.store)?,
                Did::Migrated => {
                    writeln!(out, "the {} database is migrated from {} to {now}", found.store, before.join(" "))?;
                }
                Did::Left => writeln!(out, "the {} database is left at {now}", found.store)?,
            }
        }
        self.backup.iter().try_for_each(|backup| writeln!(out, "backup {backup} was made before"))?;
        writeln!(out, "in {}", self.place)
    }
}
