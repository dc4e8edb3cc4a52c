//! What there is before anything is changed: releases, what differs, and what the databases hold.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;

use super::migration::{self, Migration};
use super::{Options, Wanted};
use crate::cluster::diff::Change;
use crate::cluster::prune::{self, Found};
use crate::cluster::release::{self, Release};
use crate::cluster::{Cluster, apply, job, login, server_image};
use crate::commands::Run;
use crate::error::Result;
use crate::schema::{Heads, Store, status};

/// How long the databases may take to be asked, with the start of the pod that asks them.
const ASKING: Duration = Duration::from_secs(300);

/// What there is, seen under the lock or, for a dry run, without it.
pub struct Sight {
    /// All releases, the oldest first.
    pub releases: Vec<Release>,
    /// What differs.
    pub changes: Vec<Change>,
    /// What is ours and no longer wanted.
    pub stale: Vec<Found>,
    /// What becomes of the databases' schema.
    pub migration: Migration,
}

impl Sight {
    /// What differs, with what is deleted.
    pub fn all_changes(&self) -> Vec<Change> {
        self.changes.iter().cloned().chain(prune::changes(&self.stale)).collect()
    }
}

/// Looks. The databases are asked by a Job where `asking` is given and nothing else tells what they hold.
pub async fn look(asking: Option<&Run>, cluster: &Cluster, options: &Options, wanted: &Wanted) -> Result<Sight> {
    let objects = &wanted.objects;
    let releases = release::list(cluster).await?;
    let changes = apply::dry_run(cluster, objects, options.force).await?;
    let stale = prune::plan(&prune::find(cluster).await?, objects, &releases, options.keep);
    let migration = match &wanted.restore {
        Some(backup) => {
            let found = match (asking, cluster.deployment().await?) {
                (Some(run), Some(live)) => ask(run, cluster, &live).await?,
                _ => Vec::new(),
            };
            Migration::Restore { backup: backup.clone(), found }
        }
        None => schema(asking, cluster, &releases, wanted).await?,
    };
    Ok(Sight { releases, changes, stale, migration })
}

async fn schema(asking: Option<&Run>, cluster: &Cluster, releases: &[Release], wanted: &Wanted) -> Result<Migration> {
    // A release of before its schema was noted, whose image nobody can read any more: its pods find out.
    let Some(schema) = &wanted.schema else { return Ok(Migration::None) };
    let Some(live) = cluster.deployment().await? else { return Ok(Migration::Unknown) };
    let keeps_users = login::keeps_users(&wanted.deployment()?);
    let heads = schema.heads(keeps_users);
    let proven = proven(&live, releases);
    if proven.is_some_and(|proven| proven.fit(&heads)) {
        return Ok(Migration::None);
    }
    let found = match (asking, proven) {
        (Some(run), _) => ask(run, cluster, &live).await?,
        (None, Some(proven)) => foretold(proven),
        (None, None) => return Ok(Migration::Unknown),
    };
    migration::decide(found, schema, keeps_users)
}

/// Asks the databases of a server, by a Job of its pod model.
pub async fn ask(run: &Run, cluster: &Cluster, deployment: &Deployment) -> Result<Vec<status::Found>> {
    let task = job::Task { name: "schema", command: status::command(), deadline: ASKING };
    let lines = job::run(run, cluster, &job::build(deployment, &task)?, "ask the database for its schema").await?;
    status::read(&lines)
}

/// The revisions that the databases have for sure: MLflow works with one only, and all pods serve.
fn proven<'a>(live: &Deployment, releases: &'a [Release]) -> Option<&'a Heads> {
    let status = live.status.as_ref()?;
    let wanted = live.spec.as_ref()?.replicas.unwrap_or(1);
    let all = [status.replicas, status.updated_replicas, status.available_replicas];
    let serve = wanted > 0 && all == [Some(wanted); 3] && status.observed_generation == live.metadata.generation;
    let image = server_image(live)?;
    let known =
        releases.iter().rev().filter(|release| release.image == image).find_map(|release| release.heads.as_ref());
    known.filter(|_| serve)
}

/// What databases hold that have these revisions.
fn foretold(heads: &Heads) -> Vec<status::Found> {
    let stores = [(Store::Tracking, Some(&heads.tracking)), (Store::Login, heads.login.as_ref())];
    let found = stores.into_iter().filter_map(|(store, head)| Some((store, head?.clone())));
    found
        .map(|(store, head)| status::Found {
            store,
            revisions: vec![head],
            holds: true,
            head: None,
            server: String::new(),
            bytes: None,
        })
        .collect()
}
