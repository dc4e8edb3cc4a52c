//! A plan -> the server that was wanted, or the one that ran before.

use std::time::Duration;

use mlflow_image::Platform;
use serde::Serialize;
use url::Url;

use crate::cache::Cache;
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::mlflow::smoke::{self, CheckReport};
use crate::{mlflow, report};

use super::backend::Backend;
use super::image::Image;
use super::plan::{self, Observed, Step};
use super::source::Source;
use super::spec::Running;
use super::state::{Backup, Home, Pending, Phase, Release, State};
use super::{backup, runner, server};

/// How many lines of the server's log an error shows.
const LOG_LINES: usize = 20;

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the image comes from.
    pub source: Source,
    /// Refuse to change image.lock.
    pub locked: bool,
    /// Whether to run the smoke test.
    pub smoke: bool,
    /// How long a server may take until it serves.
    pub wait: Duration,
}

/// What a deploy did.
#[derive(Debug, Serialize)]
pub struct Done {
    /// What was done, in order.
    pub steps: Vec<Step>,
    /// The release that runs.
    pub release: Release,
    /// What the smoke test found.
    pub checks: Vec<CheckReport>,
}

/// A deploy at work.
pub struct Deploy<'a> {
    /// What every command gets.
    pub run: &'a Run,
    /// The configuration.
    pub config: &'a Config,
    /// The cache.
    pub cache: &'a Cache,
    /// The environment; its lock is held by the caller.
    pub home: &'a Home,
    /// What the user asked for.
    pub options: &'a Options,
    /// How images are run here.
    pub backend: &'a Backend,
    /// What was seen.
    pub observed: Observed,
    /// What is to run.
    pub wanted: Release,
}

/// What changes while the steps are taken.
struct Progress {
    state: State,
    image: Option<Image>,
    /// Where in the log this deploy begins.
    log_from: u64,
    checks: Vec<CheckReport>,
    /// Whether there is something to undo.
    touched: bool,
}

impl Deploy<'_> {
    /// Takes the steps. When one fails after the old server was touched, the old one runs again.
    ///
    /// # Errors
    /// `RolledBack`, `Failed`, `Interrupted`, or what stopped it before anything was changed.
    pub async fn execute(self, steps: Vec<Step>) -> Result<Done> {
        let mut progress = Progress {
            state: self.observed.state.clone(),
            image: None,
            log_from: 0,
            checks: Vec::new(),
            touched: false,
        };
        for step in &steps {
            let (_, doing, object) = step.words();
            self.run.ui.step(doing, object);
            if let Err(error) = self.take(step, &mut progress).await {
                if self.run.cancel.is_cancelled() {
                    return Err(self.interrupted(&progress));
                }
                return Err(match progress.touched {
                    true => self.undo(error, &mut progress).await,
                    false => error,
                });
            }
        }
        let release = progress.state.current.unwrap_or(self.wanted);
        Ok(Done { steps, release, checks: progress.checks })
    }

    async fn take(&self, step: &Step, progress: &mut Progress) -> Result<()> {
        let wanted = &self.wanted;
        if !matches!(step, Step::Fetch { .. } | Step::Unpack { .. } | Step::Load { .. }) {
            self.begin_unless_proving(step, progress)?;
            progress.touched = true;
        }
        match step {
            Step::Fetch { .. } => {
                progress.image = Some(self.fetch().await?);
            }
            Step::Unpack { .. } | Step::Load { .. } => {
                let image = match progress.image.take() {
                    Some(image) => image,
                    None => self.fetch().await?,
                };
                if image.digest != wanted.image {
                    let message = format!("the image is {}, not {} as foretold", image.digest, wanted.image);
                    return Err(Error::new(Kind::Input, message).hint("run the same command again"));
                }
                self.backend.install(self.run, self.cache, image).await?;
            }
            Step::Stop { .. } => {
                if let Some(running) = runner::running(self.home).await? {
                    self.stop(&running).await?;
                }
            }
            Step::Restore { backup } => {
                self.restore(backup, progress)?;
            }
            Step::Backup => {
                backup::create(&wanted.data, &self.home.backup_dir(), &wanted.id)?;
                let backup = Backup { name: wanted.id.clone(), schema: progress.state.schema };
                self.pend(progress, |pending| pending.backup = Some(backup))?;
            }
            Step::Migrate { .. } => {
                self.pend(progress, |pending| pending.phase = Phase::Migrating)?;
                self.migrate(progress).await?;
                let moved = backup::differs(&wanted.data, &self.home.backup_dir(), &wanted.id)?;
                self.pend(progress, |pending| pending.migrated = moved)?;
            }
            Step::Start { .. } => {
                let mut state = progress.state.clone();
                state.schema = Some(wanted.image);
                self.write(progress, state)?;
                // The image was not here when the release was planned.
                let image = self.backend.open(self.cache, &wanted.image).await?;
                let version = image.and_then(|image| image.version().map(str::to_owned));
                let release = Release { version, ..wanted.clone() };
                self.pend(progress, |pending| {
                    pending.phase = Phase::Started;
                    pending.release.version.clone_from(&release.version);
                })?;
                progress.log_from = runner::open_log(&self.home.log_path())?;
                self.backend.start(self.cache, self.home, &release).await?;
            }
            Step::Wait => self.wait(&self.running_url()?, progress.log_from).await?,
            Step::Smoke => {
                let pending = progress.state.pending.as_ref();
                let expect_version = pending.map_or(&wanted.version, |pending| &pending.release.version).clone();
                let target = smoke::Target { expect_version, ..smoke::Target::new(self.running_url()?) };
                let report = smoke::run(self.run, &target).await?;
                let failed = report.error();
                progress.checks = report.checks;
                if let (Some(release), Some(version)) = (&mut progress.state.pending, report.version) {
                    release.release.version = Some(version);
                }
                if let Some(error) = failed {
                    return Err(error);
                }
            }
            Step::Record => {
                let mut state = progress.state.clone();
                let Some(pending) = state.pending.take() else { return Ok(()) };
                let image = pending.release.image;
                if let Some(old) = state.current.replace(pending.release).filter(|old| old.image != image) {
                    state.previous = Some(old);
                }
                self.write(progress, state)?;
            }
        }
        Ok(())
    }

    async fn fetch(&self) -> Result<Image> {
        self.options.source.fetch(self.run, self.config, self.cache, Platform::host(), self.options.locked).await
    }

    fn begin_unless_proving(&self, step: &Step, progress: &mut Progress) -> Result<()> {
        match step {
            // The release at work is then the one that an earlier deploy started.
            Step::Wait | Step::Smoke | Step::Record => Ok(()),
            _ => self.begin(progress),
        }
    }

    /// From here on the environment is changed, and the next deploy knows.
    fn begin(&self, progress: &mut Progress) -> Result<()> {
        match &progress.state.pending {
            Some(pending) if pending.release.id == self.wanted.id => return Ok(()),
            // An earlier deploy's migration stays known until its backup is restored.
            Some(pending) if pending.phase == Phase::Migrating => return Ok(()),
            _ => {}
        }
        server::require_space(&self.wanted.data)?;
        let pending = Pending {
            release: self.wanted.clone(),
            phase: Phase::Stopped,
            backup: None,
            migrated: false,
            replaces: plan::fallback(&self.observed, &self.wanted),
        };
        self.write(progress, State { pending: Some(pending), ..progress.state.clone() })
    }

    fn pend(&self, progress: &mut Progress, change: impl FnOnce(&mut Pending)) -> Result<()> {
        let mut state = progress.state.clone();
        if let Some(pending) = &mut state.pending {
            change(pending);
        }
        self.write(progress, state)
    }

    /// What could not be written down has not happened.
    fn write(&self, progress: &mut Progress, state: State) -> Result<()> {
        self.home.write_state(&state)?;
        progress.state = state;
        Ok(())
    }

    fn restore(&self, name: &str, progress: &mut Progress) -> Result<()> {
        let pending = progress.state.pending.as_ref();
        let data = pending.map_or(&self.wanted.data, |pending| &pending.release.data).clone();
        backup::restore(&data, &self.home.backup_dir(), name)?;
        progress.state.schema = pending.and_then(|pending| pending.backup.as_ref()).and_then(|backup| backup.schema);
        self.pend(progress, |pending| {
            pending.phase = Phase::Stopped;
            pending.backup = None;
            pending.migrated = false;
        })
    }

    async fn migrate(&self, progress: &mut Progress) -> Result<()> {
        progress.log_from = runner::open_log(&self.home.log_path())?;
        let exit = self.backend.migrate(self.run, self.cache, self.home, &self.wanted).await?;
        if self.run.cancel.is_cancelled() {
            return Err(Run::interrupted());
        }
        match exit.success() {
            true => Ok(()),
            false => {
                let error = Error::new(Kind::Failed, format!("the database could not be migrated ({exit})"));
                Err(self.with_log(error, progress.log_from).await)
            }
        }
    }

    async fn stop(&self, running: &Running) -> Result<()> {
        if !runner::stop(self.home, running).await? {
            self.run.ui.warn(format!("the server did not end within {} s and was killed", runner::GRACE.as_secs()));
        }
        Ok(())
    }

    async fn wait(&self, url: &Url, log_from: u64) -> Result<()> {
        let watch = runner::Watch::new(self.home)?;
        match mlflow::wait_until_healthy(self.run, url, self.options.wait, || watch.is_alive()).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Err(error) => {
                let ended = if watch.is_alive() { None } else { runner::ended(self.home).await.ok().flatten() };
                let error = match ended {
                    Some(ended) => {
                        let message = format!("the server at {url} ended before it served ({})", ended.exit);
                        Error::new(Kind::Failed, message)
                    }
                    None => error,
                };
                Err(self.with_log(error, log_from).await)
            }
        }
    }

    /// The release at work may be an earlier deploy's.
    fn running_url(&self) -> Result<Url> {
        url(&self.wanted)
    }

    /// The error with the last lines of the log as its cause.
    async fn with_log(&self, error: Error, from: u64) -> Error {
        let lines = runner::tail(self.home, from, LOG_LINES).await.unwrap_or_default();
        let causes = error.lines().into_iter().skip(1);
        let causes: Vec<String> = causes.chain(lines.iter().map(|line| format!("  {line}"))).collect();
        let hint = format!("the whole log: cargo xtask logs --env {}", self.home.env);
        let whole = Error::new(error.kind(), error.to_string()).hint(hint);
        if causes.is_empty() { whole } else { whole.source(causes.join("\n")) }
    }

    fn interrupted(&self, progress: &Progress) -> Error {
        let state = match progress.state.pending.as_ref().map(|pending| pending.phase) {
            None => "nothing was changed",
            Some(Phase::Stopped) => "the old server is stopped",
            Some(Phase::Migrating) => "the server is stopped; the database's migration is undone by the next deploy",
            Some(Phase::Started) => "the new server was started, but not proven",
        };
        Error::new(Kind::Interrupted, format!("interrupted: {state}"))
            .hint("run the same command again: it carries on where this one stopped")
    }

    /// Back to the server that ran before, or at least to its database.
    async fn undo(&self, error: Error, progress: &mut Progress) -> Error {
        let failed = progress.state.pending.clone();
        let cause = error.lines().join("\n");
        match self.go_back(progress).await {
            Ok(Some(old)) => {
                let message =
                    format!("release {} failed; release {} runs again at {}", self.wanted.id, old.id, old.url);
                Error::new(Kind::RolledBack, message).source(cause)
            }
            // What this machine refuses was not the release's fault.
            Ok(None) if error.kind() == Kind::Machine => error,
            Ok(None) => {
                let error_hint = error.hint_text().map(str::to_owned);
                let whole = Error::new(Kind::Failed, "the server failed, and nothing serves now").source(cause);
                match error_hint {
                    Some(hint) => whole.hint(hint),
                    None => whole,
                }
            }
            Err(_) if self.run.cancel.is_cancelled() => self.interrupted(progress),
            Err(second) => {
                let backup = failed.and_then(|pending| pending.backup);
                let message = "the new server failed, and the old one could not be started again";
                let whole =
                    Error::new(Kind::Failed, message).source(format!("{cause}\nthen: {}", second.lines().join("\n")));
                match backup {
                    Some(backup) => whole.hint(format!(
                        "the database of before is in {}",
                        self.home.backup_dir().join(backup.name).display()
                    )),
                    None => whole,
                }
            }
        }
    }

    async fn go_back(&self, progress: &mut Progress) -> Result<Option<Release>> {
        if let Some(running) = runner::running(self.home).await? {
            self.run.ui.step("Stopping", "the server that failed");
            self.stop(&running).await?;
        }
        let Some(pending) = progress.state.pending.clone() else { return Ok(None) };
        if let Some(backup) = pending.backup.as_ref().filter(|_| pending.migrated || pending.phase == Phase::Migrating)
        {
            self.run.ui.step("Restoring", "the database of before");
            self.restore(&backup.name, progress)?;
        }
        let old = pending.replaces.clone();
        if let Some(old) = &old {
            self.run.ui.step("Starting", format!("release {} again", old.id));
            let from = runner::open_log(&self.home.log_path())?;
            let backend = match old.engine == self.backend.tool() {
                true => self.backend.clone(),
                false => Backend::of(old.engine, &self.run.cancel).await?,
            };
            backend.start(self.cache, self.home, old).await?;
            self.wait(&url(old)?, from).await?;
        }
        if pending.phase == Phase::Started && !pending.migrated && self.observed.database {
            progress.state.schema = pending.backup.map_or(self.observed.state.schema, |backup| backup.schema);
        }
        progress.state.pending = None;
        self.home.write_state(&progress.state)?;
        Ok(old)
    }
}

/// The address of a release.
pub fn url(release: &Release) -> Result<Url> {
    release.url.parse().context(Kind::Internal, || format!("{} is no URL", release.url))
}

/// A new release's id: when, and by which process.
pub fn release_id() -> String {
    let digits: String = report::now().chars().filter(char::is_ascii_digit).collect();
    format!("{digits}-{:05}", std::process::id() % 100_000)
}
