//! A plan's steps, taken; and what a step that fails leaves behind: undone, or named.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;

use super::database::Aftermath;
use super::{Done, Ending, Migration, Options, Setback, Wanted};
use crate::backup::Backup;
use crate::cluster::lease::Held;
use crate::cluster::object::{Object, ObjectKind, ObjectRef};
use crate::cluster::plan::Step;
use crate::cluster::prune::{self, Found};
use crate::cluster::release::{self, Release, State};
use crate::cluster::rollout::{self, Expected, Limits, Outcome};
use crate::cluster::target::Target;
use crate::cluster::{Cluster, NAME, apply, call, failure, login, smoke};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::error::{Error, Kind, Result};
use crate::mlflow::smoke::{SmokeReport, Target as Server};
use crate::schema::status;

/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(20);

/// A deploy at work.
pub struct Deploy<'a> {
    /// What every command gets.
    pub run: &'a Run,
    /// Where to.
    pub cluster: &'a Cluster,
    /// Its environment.
    pub settings: &'a ClusterConfig,
    /// The right to change it.
    pub held: &'a Held,
    /// How.
    pub options: Options,
    /// What.
    pub wanted: &'a Wanted,
    /// What becomes of the databases' schema.
    pub migration: &'a Migration,
    /// What served before, proven.
    pub fallback: Option<Release>,
    /// What does not exist yet, and goes again where there is nothing to go back to.
    pub created: Vec<ObjectRef>,
    /// What is ours and no longer wanted.
    pub stale: Vec<Found>,
}

/// Why a step came to no good end.
pub(super) enum Halt {
    /// The server failed: there is something to undo.
    Setback(Setback),
    /// Someone else's version stands.
    Superseded(String),
    /// Nobody can tell now: interrupted, the lock lost, the API server gone. The next run finds out.
    Unknown(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error.kind() {
            Kind::Interrupted | Kind::Locked | Kind::Remote | Kind::Auth | Kind::Internal => Self::Unknown(error),
            _ => Self::Setback(Setback::from(&error)),
        }
    }
}

/// What changes while the steps are taken.
#[derive(Default)]
pub(super) struct Progress {
    pub release: Option<Release>,
    /// What the databases held, once they were about to be changed.
    pub before: Option<Vec<status::Found>>,
    /// The backup of that.
    pub backup: Option<Backup>,
    /// Whether they are already those of an earlier backup.
    pub brought_back: bool,
    /// Whether a new server has served since: it may have written.
    pub served: bool,
    /// What the pods have to become, once something was applied.
    expected: Option<Expected>,
    /// The template hash of the pods that were followed.
    pods: Option<String>,
    smoke: Option<SmokeReport>,
    pruned: Vec<String>,
}

impl Deploy<'_> {
    /// Takes the steps. When the new server fails, the one before it serves again.
    ///
    /// # Errors
    /// What kept it from finding out how it ended; a release is `pending` then, and the next run
    /// carries on with it.
    pub async fn execute(&self, steps: &[Step]) -> Result<Done> {
        let mut progress = Progress::default();
        let lost = self.held.lost();
        for step in steps {
            let (_, doing, object) = step.words();
            self.run.ui.step(doing, object);
            let taken = tokio::select! {
                taken = self.take(*step, &mut progress) => taken,
                () = lost.cancelled() => self.held.confirm().await.map_err(Halt::Unknown),
            };
            if let Err(halt) = taken {
                return self.settle(halt, progress).await;
            }
        }
        let ending = match progress.release {
            Some(release) => Ending::Deployed { release: release.number },
            None => Ending::Unchanged,
        };
        Ok(Done { ending, smoke: progress.smoke, pruned: progress.pruned })
    }

    async fn take(&self, step: Step, progress: &mut Progress) -> Result<(), Halt> {
        match step {
            Step::Begin => progress.release = Some(self.begin().await?),
            Step::Resume { release } => progress.release = Some(self.resume(release).await?),
            Step::Apply { .. } => {
                let objects = signed(&self.wanted.objects, progress.release.as_ref());
                progress.expected = Some(self.apply(&objects, self.options.force).await?);
            }
            Step::Make => {
                self.make(progress).await?;
                // Until now the pods had to wait: their time begins here.
                progress.expected.iter_mut().for_each(|expected| expected.started = Timestamp::now());
            }
            Step::Stage => self.stage().await?,
            Step::Stop => self.stop(&signed(&self.wanted.objects, progress.release.as_ref())).await?,
            Step::BackUp => self.back_up(progress).await?,
            Step::Migrate => self.migrate(progress).await?,
            Step::BringBack => self.go_back(progress).await?,
            Step::Start => {
                let objects = signed(&self.wanted.objects, progress.release.as_ref());
                progress.expected = Some(self.apply(&objects, self.options.force).await?);
            }
            Step::Follow => {
                let expected = match progress.expected.take() {
                    Some(expected) => expected,
                    None => self.expect_live().await?,
                };
                progress.pods = Some(self.follow(&expected, self.options.limits, &mut progress.served).await?);
            }
            Step::Verify => {
                let limits = Limits { soak: Duration::ZERO, ..self.options.limits };
                self.follow(&self.expect_live().await?, limits, &mut progress.served).await?;
            }
            Step::Smoke => {
                let version = self.wanted.version.as_deref();
                progress.smoke = Some(self.smoke(progress.pods.take(), version).await?);
            }
            Step::Record => {
                if let Some(begun) = &progress.release {
                    progress.release = Some(self.finish(begun, State::Deployed, None).await?);
                }
            }
            // What is proven stays proven when something old cannot be removed.
            Step::Prune { .. } => match prune::delete(self.cluster, &self.stale).await {
                Ok(deleted) => progress.pruned = deleted.iter().map(ToString::to_string).collect(),
                Err(error) => self.run.ui.warn(error.lines().join(": ")),
            },
        }
        Ok(())
    }

    async fn begin(&self) -> Result<Release> {
        let wanted = self.wanted;
        let keeps_users = login::keeps_users(&wanted.deployment()?);
        let draft = release::Draft {
            provenance: wanted.provenance.clone(),
            image: wanted.image.clone(),
            version: wanted.version.clone(),
            replaces: self.fallback.as_ref().map(|release| release.number),
            restores: wanted.restores,
            heads: wanted.schema.as_ref().map(|schema| schema.heads(keeps_users)),
        };
        self.held.confirm().await?;
        release::begin(self.cluster, draft, &wanted.objects).await
    }

    async fn resume(&self, number: u64) -> Result<Release> {
        let found = release::list(self.cluster).await?.into_iter().find(|release| release.number == number);
        found.ok_or_else(|| Error::new(Kind::Check, format!("the record of release {number} is gone")))
    }

    async fn finish(&self, release: &Release, state: State, cause: Option<&str>) -> Result<Release> {
        release::finish(self.cluster, release, state, cause.map(str::to_owned)).await
    }

    /// Applies the objects, and gives what the pods have to become.
    pub(super) async fn apply(&self, objects: &[Object], force: bool) -> Result<Expected, Halt> {
        self.held.confirm().await?;
        let started = Timestamp::now();
        let applied = apply::apply(self.cluster, objects, force).await.map_err(Error::from)?;
        match applied.deployment {
            Some(deployment) => Ok(Expected::of(&deployment.object, started)?),
            None => Err(Error::new(Kind::Internal, "no Deployment was applied").into()),
        }
    }

    /// What the pods of the live Deployment have to become.
    pub(super) async fn expect_live(&self) -> Result<Expected, Halt> {
        let doing = format!("read Deployment/{NAME}");
        let api = self.cluster.api::<Deployment>();
        let live = call::repeat(QUESTION, || api.get(NAME)).await;
        let live = live.map_err(|error| failure::explain(self.cluster, &doing, error))?;
        Ok(Expected::of(&live, Timestamp::now())?)
    }

    /// Follows the pods, and gives the hash of their template.
    async fn follow(&self, expected: &Expected, limits: Limits, served: &mut bool) -> Result<String, Halt> {
        match rollout::follow(self.run, self.cluster, expected, &limits).await? {
            Outcome::Complete(complete) => {
                *served = true;
                Ok(complete.template_hash)
            }
            Outcome::Superseded { message } => Err(Halt::Superseded(message)),
            Outcome::Failed(diagnosis) => {
                *served |= diagnosis.served;
                Err(Halt::Setback(Setback::Rollout { diagnosis }))
            }
        }
    }

    async fn smoke(&self, pods: Option<String>, version: Option<&str>) -> Result<SmokeReport, Halt> {
        let pods = pods.map_or(Target::Newest, Target::Template);
        let (url, _) = smoke::deployed(self.cluster).await?;
        let server = Server { expect_version: version.map(str::to_owned), ..Server::new(url) };
        let report = smoke::run(self.run, self.cluster, &pods, &server).await?;
        match report.error() {
            None => Ok(report),
            Some(_) => Err(Halt::Setback(Setback::Smoke { report: Box::new(report) })),
        }
    }

    /// What a halted rollout leaves behind: undone, or named.
    async fn settle(&self, halt: Halt, progress: Progress) -> Result<Done> {
        let done = |ending, smoke| Ok(Done { ending, smoke, pruned: progress.pruned.clone() });
        let Some(release) = &progress.release else {
            return match halt {
                Halt::Setback(cause) => done(Ending::Unhealthy { cause }, None),
                Halt::Superseded(by) => Err(Error::new(Kind::Superseded, "the Deployment was changed").source(by)),
                Halt::Unknown(error) => Err(error),
            };
        };
        let number = release.number;
        let cause = match halt {
            Halt::Unknown(error) => return Err(unfinished(error, number)),
            Halt::Superseded(by) => return self.superseded(release, by).await,
            Halt::Setback(cause) => cause,
        };
        let summary = cause.summary();
        self.run.ui.warn(format!("release {number} failed: {summary}"));
        if !self.options.undo {
            self.finish(release, State::Failed, Some(&summary)).await?;
            return done(Ending::Kept { release: number, cause }, None);
        }
        let restored = match self.aftermath(&progress).await {
            Ok(Aftermath::Unchanged) => None,
            Ok(Aftermath::Restorable(backup)) => Some(backup),
            Ok(Aftermath::Moved(backup)) => {
                self.finish(release, State::Failed, Some(&summary)).await?;
                let to = self.fallback.as_ref().map(|fallback| fallback.number);
                return done(Ending::Moved { release: number, to, backup, cause }, None);
            }
            Err(error) => return Err(unfinished(error, number)),
        };
        let Some(fallback) = &self.fallback else {
            self.run.ui.step("Removing", "what this deploy made: nothing served before");
            if let Some(backup) = &restored {
                match self.clear(backup).await {
                    Ok(()) => {}
                    Err(Halt::Unknown(error)) => return Err(unfinished(error, number)),
                    Err(Halt::Superseded(by)) => return self.superseded(release, by).await,
                    Err(Halt::Setback(why)) => {
                        self.finish(release, State::Failed, Some(&summary)).await?;
                        self.run.ui.warn(format!("the databases are not brought back: {}", why.summary()));
                        return done(Ending::Moved { release: number, to: None, backup: restored, cause }, None);
                    }
                }
            }
            self.remove().await.map_err(|error| unfinished(error, number))?;
            self.finish(release, State::Failed, Some(&summary)).await?;
            return done(Ending::Removed { release: number, restored, cause }, None);
        };
        let to = fallback.number;
        self.run.ui.step("Restoring", format!("release {to}"));
        match self.restore(fallback, restored.as_deref()).await {
            Ok(smoke) => {
                self.finish(release, State::RolledBack, Some(&summary)).await?;
                done(Ending::RolledBack { release: number, to, restored, cause }, smoke)
            }
            Err(Halt::Unknown(error)) => Err(unfinished(error, number)),
            Err(Halt::Superseded(by)) => self.superseded(release, by).await,
            Err(Halt::Setback(why)) => {
                self.finish(release, State::Failed, Some(&summary)).await?;
                done(Ending::RollbackFailed { release: number, to, cause, why: Box::new(why) }, None)
            }
        }
    }

    /// Brings the databases back where no server is to run afterwards.
    async fn clear(&self, backup: &str) -> Result<(), Halt> {
        self.stop(&self.wanted.objects).await?;
        self.bring_back(backup).await
    }

    /// Deletes what this deploy made.
    async fn remove(&self) -> Result<()> {
        self.held.confirm().await?;
        let mut found = prune::find(self.cluster).await?;
        found.retain(|found| self.created.contains(&found.object));
        prune::delete(self.cluster, &found).await?;
        Ok(())
    }

    async fn superseded(&self, release: &Release, by: String) -> Result<Done> {
        self.finish(release, State::Superseded, Some(&by)).await?;
        let ending = Ending::Superseded { release: release.number, by };
        Ok(Done { ending, smoke: None, pruned: Vec::new() })
    }

    /// Applies what was proven before, and proves it again; with the databases of a backup, where they
    /// have changed since.
    async fn restore(&self, fallback: &Release, backup: Option<&str>) -> Result<Option<SmokeReport>, Halt> {
        let objects = signed(&release::objects(self.cluster, fallback).await?, Some(fallback));
        if let Some(backup) = backup {
            // Its pods wait, or fail, until the databases are theirs again.
            self.stop(&objects).await?;
            self.bring_back(backup).await?;
        }
        let expected = self.apply(&objects, true).await?;
        let limits = Limits { soak: Duration::ZERO, ..self.options.limits };
        let pods = self.follow(&expected, limits, &mut false).await?;
        if !self.options.smoke {
            return Ok(None);
        }
        self.smoke(Some(pods), fallback.version.as_deref()).await.map(Some)
    }
}

/// The objects, with the release noted on the Deployment.
fn signed(objects: &[Object], release: Option<&Release>) -> Vec<Object> {
    let mut objects = objects.to_vec();
    if let Some(release) = release {
        for object in objects.iter_mut().filter(|object| object.kind == ObjectKind::Deployment) {
            release::annotate(object, release);
        }
    }
    objects
}

/// The error of a run that cannot tell how its release ends.
fn unfinished(error: Error, release: u64) -> Error {
    Error::new(error.kind(), format!("release {release} has begun, and is neither proven nor undone"))
        .hint("run the same command again: it carries on; `cargo xtask rollback` goes back instead")
        .source(error)
}
