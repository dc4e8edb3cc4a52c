//! `db upgrade`: the databases are brought to the schema that the deployed server works with.

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use super::{Change, Server};
use crate::backup;
use crate::cluster::deploy::{self, Migration};
use crate::cluster::lease::Held;
use crate::cluster::{login, server_image};
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::local::source::Source;
use crate::report::{self, Report};
use crate::schema::Schema;
use crate::schema::migrate::{Brought, Did};

/// Bring the databases to the schema that the deployed server works with
///
/// `deploy` does this by itself. This is for a server that another tool has applied, whose pods wait for
/// their schema: what is empty is made; what is behind is backed up and migrated.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    change: Change,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let change = args.change;
    let config = Config::load(&change.env)?;
    let server = Server::of(&change.env).await?;
    let image = server_image(&server.deployment);
    let image = image.ok_or_else(|| Error::new(Kind::Refused, "the Deployment has no server"))?;
    let (image, schema) = super::schema_of(run, &config, Some(Source::Registry(image.parse()?))).await?;
    let held = change.lock(run, &server.cluster).await?;
    let done = under_lock(run, &server, &held, &change, &schema).await;
    held.end(&run.ui).await;
    let (stores, backup) = done?;
    let seconds = report::seconds(begun.elapsed());
    run.answer(&Answer { env: change.env, place: server.cluster.place(), image, backup, stores, seconds })
}

/// Gives what was done with each store, and the backup that was made first.
async fn under_lock(
    run: &Run,
    server: &Server,
    held: &Held,
    change: &Change,
    schema: &Schema,
) -> Result<(Vec<Brought>, Option<String>)> {
    let Server { settings, cluster, deployment } = server;
    let deadline = settings.rollout.migration;
    let found = deploy::ask(run, cluster, deployment).await?;
    let migration = deploy::decide(found, schema, login::keeps_users(deployment))?;
    let Migration::Migrate(_) = migration else {
        held.confirm().await?;
        return Ok((deploy::bring(run, cluster, deployment, deadline, false).await?, None));
    };
    if let Some(pod) = deploy::serving(cluster).await? {
        return Err(Error::new(Kind::Check, format!("Pod/{pod} serves on the schema that is to be migrated"))
            .hint("cargo xtask deploy does this in the right order; or scale the old Deployment to 0 first"));
    }
    let backs_up = !change.without_backup;
    if backs_up {
        backup::check(settings)?;
    }
    run.ui.show(|out| migration.human(out, backs_up));
    change.agree(run, "Change the databases?")?;
    held.confirm().await?;
    let backup = match backs_up {
        true => Some(server.backups(run).take("before an upgrade").await?.id),
        false => None,
    };
    held.confirm().await?;
    Ok((deploy::bring(run, cluster, deployment, deadline, true).await?, backup))
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
