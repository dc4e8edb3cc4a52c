//! What the steps of a migration do: the old servers are stopped once the new ones are known to come up,
//! the databases are backed up and migrated by Jobs, and brought back where the new servers fail.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use tokio::time::Instant;

use super::execute::{Deploy, Halt, Progress};
use super::migration::{self, Migration};
use super::{Setback, look};
use crate::backup;
use crate::cluster::object::{Object, ObjectKind};
use crate::cluster::rollout::{self, Code, Outcome};
use crate::cluster::{CONTAINER, Cluster, call, failure, job, release, render};
use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::schema::migrate::{self, Brought, Did};
use crate::schema::status::Found;

/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(20);
/// Between two looks at the pods.
const PAUSE: Duration = Duration::from_secs(1);
/// How long old servers may take to end: their grace period, and a node that is busy.
const ENDING: Duration = Duration::from_secs(300);

impl Deploy<'_> {
    /// Waits until a new pod has come up to its gate: image, settings and the way to the database are
    /// good, and the old servers can be stopped.
    pub(super) async fn stage(&self) -> Result<(), Halt> {
        let expected = self.expect_live().await?;
        match rollout::follow(self.run, self.cluster, &expected, &self.options.limits).await? {
            // Someone else has migrated meanwhile.
            Outcome::Complete(_) => Ok(()),
            Outcome::Superseded { message } => Err(Halt::Superseded(message)),
            Outcome::Failed(diagnosis) if diagnosis.cause.code == Code::SchemaMismatch => Ok(()),
            Outcome::Failed(diagnosis) => Err(Halt::Setback(Setback::Rollout { diagnosis })),
        }
    }

    /// Stops all servers of `objects`' Deployment: new pods are made only after the old ones are gone, and
    /// wait at their gates.
    pub(super) async fn stop(&self, objects: &[Object]) -> Result<(), Halt> {
        let mut objects = objects.to_vec();
        for deployment in objects.iter_mut().filter(|object| object.kind == ObjectKind::Deployment) {
            deployment.value["spec"]["strategy"] = serde_json::json!({"type": "Recreate"});
        }
        self.apply(&objects, true).await?;
        let end = Instant::now() + ENDING;
        loop {
            match serving(self.cluster).await? {
                None => return Ok(()),
                Some(pod) if Instant::now() >= end => {
                    let message = format!("Pod/{pod} still runs {} s after it was told to stop", ENDING.as_secs());
                    return Err(Error::new(Kind::Refused, message)
                        .hint(format!("look at it: kubectl describe pod {pod}"))
                        .into());
                }
                Some(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Makes a backup of what the databases hold now, and notes it.
    pub(super) async fn back_up(&self, progress: &mut Progress) -> Result<(), Halt> {
        self.held.confirm().await?;
        let number = progress.release.as_ref().map_or(0, |release| release.number);
        let reason = format!("before release {number}");
        let made = self.backups(&self.tools()?).take(&reason).await;
        let made = self.known(made).await?;
        if let Some(release) = &mut progress.release {
            *release = release::note_backup(self.cluster, release, &made.id).await?;
        }
        progress.backup = Some(made);
        Ok(())
    }

    /// Migrates what is behind.
    pub(super) async fn migrate(&self, progress: &mut Progress) -> Result<(), Halt> {
        if let Migration::Migrate(needed) = self.migration {
            progress.before = Some(needed.found.clone());
        }
        self.bring(true).await.map(drop)
    }

    /// Makes what is empty. What turns out to be behind is migrated only where that was agreed to.
    pub(super) async fn make(&self, progress: &mut Progress) -> Result<(), Halt> {
        let left: Vec<Found> = self
            .bring(false)
            .await?
            .into_iter()
            .filter(|brought| brought.did == Did::Left)
            .map(|left| left.found)
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let schema = self.wanted.schema.as_ref();
        let schema = schema.ok_or_else(|| Error::new(Kind::Internal, "a schema that nobody has read"))?;
        let migration = migration::decide(left.clone(), schema, false)?;
        self.run.ui.show(|out| migration.human(out, self.options.backup));
        if !self.options.yes {
            let message = "the databases are of an older MLflow, and have to be migrated first";
            return Err(Error::new(Kind::Check, message).hint("add --yes to have them backed up and migrated").into());
        }
        if self.options.backup {
            self.back_up(progress).await?;
        }
        progress.before = Some(left);
        self.bring(true).await.map(drop)
    }

    /// Brings the databases back to the backup that the user has named.
    pub(super) async fn go_back(&self, progress: &mut Progress) -> Result<(), Halt> {
        let Migration::Restore { backup, found } = self.migration else { return Ok(()) };
        progress.before = Some(found.clone());
        self.bring_back(backup).await?;
        progress.brought_back = true;
        Ok(())
    }

    /// Brings the databases back to a backup.
    pub(super) async fn bring_back(&self, backup: &str) -> Result<(), Halt> {
        self.held.confirm().await?;
        let restored = self.backups(&self.tools()?).restore(backup).await;
        self.known(restored).await.map(drop)
    }

    async fn bring(&self, migrate: bool) -> Result<Vec<Brought>, Halt> {
        self.held.confirm().await?;
        let deployment = self.wanted.deployment()?;
        let brought = bring(self.run, self.cluster, &deployment, self.settings.rollout.migration, migrate).await;
        self.known(brought).await
    }

    fn backups<'a>(&'a self, deployment: &'a Deployment) -> backup::Server<'a> {
        backup::Server { run: self.run, cluster: self.cluster, settings: self.settings, deployment }
    }

    /// What a Job or Google's answer means for the deploy. As long as the cluster answers, a failure of
    /// database, store or login is one to go back from: the servers are stopped.
    async fn known<T>(&self, answer: Result<T>) -> Result<T, Halt> {
        match answer {
            Err(error) if !matches!(error.kind(), Kind::Interrupted | Kind::Internal) => {
                self.held.confirm().await?;
                Err(Halt::Setback(Setback::from(&error)))
            }
            answer => Ok(answer?),
        }
    }

    /// What has become of the databases that were to be migrated.
    ///
    /// # Errors
    /// What keeps them from being asked: then nobody can tell.
    pub(super) async fn aftermath(&self, progress: &Progress) -> Result<Aftermath> {
        let Some(before) = &progress.before else { return Ok(Aftermath::Unchanged) };
        let now = look::ask(self.run, self.cluster, &self.wanted.deployment()?).await?;
        let revisions =
            |found: &[Found]| found.iter().map(|found| (found.store, found.revisions.clone())).collect::<Vec<_>>();
        let is_changed = |(store, found): &(_, Vec<String>)| {
            revisions(before).iter().any(|(known, before)| known == store && before != found)
        };
        if !progress.brought_back && !revisions(&now).iter().any(is_changed) {
            return Ok(Aftermath::Unchanged);
        }
        Ok(match &progress.backup {
            // Nobody has written since.
            Some(backup) if !progress.served => Aftermath::Restorable(backup.id.clone()),
            backup => Aftermath::Moved(backup.as_ref().map(|backup| backup.id.clone())),
        })
    }

    /// The pod model with the tools that back up and restore: those of the newest image.
    fn tools(&self) -> Result<Deployment> {
        let mut deployment = self.wanted.deployment()?;
        let pod = deployment.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
        let server = pod.and_then(|pod| pod.containers.iter_mut().find(|container| container.name == CONTAINER));
        if let (Some(server), Some(image)) = (server, &self.wanted.tools) {
            server.image = Some(image.clone());
        }
        Ok(deployment)
    }
}

/// Makes the schema of what is empty and, if `migrate` says so, migrates what is behind, by a Job of the
/// Deployment's pod model.
///
/// # Errors
/// As [`job::run`].
pub async fn bring(
    run: &Run,
    cluster: &Cluster,
    deployment: &Deployment,
    deadline: Duration,
    migrate: bool,
) -> Result<Vec<Brought>> {
    let name = if migrate { "migrate" } else { "schema" };
    let what = if migrate { "migrate the databases" } else { "make the schema of what is empty" };
    let task = job::Task { name, command: migrate::command(migrate), deadline };
    migrate::read(&job::run(run, cluster, &job::build(deployment, &task)?, what).await?)
}

/// A pod in which a server runs, or may run; `None` where all wait for their schema, and where there is
/// none.
///
/// # Errors
/// What the API server answers.
pub async fn serving(cluster: &Cluster) -> Result<Option<String>> {
    let selector = render::selector();
    let selector = selector.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let (api, params) = (cluster.api::<Pod>(), ListParams::default().labels(&selector));
    let pods = call::repeat(QUESTION, || api.list(&params)).await;
    let pods = pods.map_err(|error| failure::explain(cluster, "list the server's pods", error))?.items;
    Ok(migration::serving(&pods).map(str::to_owned))
}

/// What has become of databases whose migration, or whose new server, failed.
#[derive(Debug)]
pub(super) enum Aftermath {
    /// They are as they were: the old server can run.
    Unchanged,
    /// They have changed, nobody has written since this backup, and it can be restored.
    Restorable(String),
    /// They have changed, and going back loses what was written since; the backup, if there is one.
    Moved(Option<String>),
}
