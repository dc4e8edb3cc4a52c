//! The containers of an environment: whether they run, what is kept of one that has ended.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use crate::cache;
use crate::error::{Context as _, Error, Kind, Result};

use super::engine::{Engine, PAUSE, Seen};
use super::runner;
use super::spec::{Container, Ended, Exit, Running};
use super::state::Home;

/// The server's container.
pub fn server_name(home: &Home) -> String {
    format!("mlflow-{}", home.env)
}

/// The container of a migration.
pub fn task_name(home: &Home) -> String {
    format!("mlflow-{}-task", home.env)
}

/// How a container ended.
pub fn exit(seen: &Seen) -> Exit {
    Exit { code: Some(seen.exit_code), signal: None }
}

fn engine(container: &Container) -> Result<Engine> {
    Engine::of(container.engine)
}

/// The container of `running`, if it is still there and not another release's.
async fn look(running: &Running, container: &Container) -> Result<Option<Seen>> {
    let seen = engine(container)?.inspect(&container.name).await?;
    Ok(seen.filter(|seen| seen.release.as_ref() == Some(&running.release.id)))
}

/// Whether it runs.
pub async fn is_running(running: &Running, container: &Container) -> Result<bool> {
    Ok(look(running, container).await?.is_some_and(|seen| seen.running))
}

/// How it ended, if it is there and has.
pub async fn ended(running: &Running, container: &Container) -> Result<Option<Ended>> {
    Ok(look(running, container).await?.filter(|seen| !seen.running).map(|seen| record(running, &seen, false)))
}

fn record(running: &Running, seen: &Seen, stopped: bool) -> Ended {
    Ended {
        image: running.release.image,
        release: running.release.id.clone(),
        exit: exit(seen),
        at: seen.finished_at.clone(),
        stopped,
    }
}

/// Refuses the name that someone else's container has; removes what is left of our own.
pub async fn make_room(engine: &Engine, home: &Home, name: &str) -> Result<()> {
    match engine.inspect(name).await? {
        None => Ok(()),
        Some(seen) if seen.home.as_deref().is_some_and(|dir| Path::new(dir) == home.dir) => engine.remove(name).await,
        Some(_) => Err(Error::new(Kind::Machine, format!("{} has a container {name} that is not ours", engine.tool))
            .hint(format!("remove it ({} rm -f {name}), or name another environment", engine.tool))),
    }
}

/// Keeps log and exit code of a container that has ended, and removes it. Only for the holder of
/// the environment's lock.
pub async fn collect(home: &Home, running: &Running, container: &Container, stopped: bool) -> Result<()> {
    let engine = engine(container)?;
    if let Some(seen) = look(running, container).await? {
        engine.logs(&container.name, None, runner::append(&home.log_path())?).await?;
        let text = serde_json::to_vec_pretty(&record(running, &seen, stopped));
        cache::write(&home.ended_path(), &text.context(Kind::Internal, || "cannot write JSON")?)?;
        engine.remove(&container.name).await?;
    }
    forget(&home.running_path())
}

/// Stops the container; tells whether it ended by itself.
pub async fn stop(home: &Home, running: &Running, container: &Container) -> Result<bool> {
    let gentle = engine(container)?.stop(&container.name, runner::GRACE).await?;
    collect(home, running, container, true).await?;
    Ok(gentle)
}

/// Ends a migration that outlived the one who started it.
pub async fn end_task(home: &Home) -> Result<()> {
    if let Some(task) = home.task()? {
        engine(&task)?.remove(&task.name).await?;
        forget(&home.task_path())?;
    }
    Ok(())
}

/// The last lines of its log.
pub async fn log_tail(running: &Running, container: &Container, lines: usize) -> Result<Vec<String>> {
    if look(running, container).await?.is_none() {
        return Ok(Vec::new());
    }
    let file = tempfile::NamedTempFile::new().on_machine(|| "cannot write a temporary file")?;
    let copy = file.reopen().on_machine(|| "cannot write a temporary file")?;
    engine(container)?.logs(&container.name, Some(lines), copy).await?;
    runner::log_tail(file.path(), 0, lines)
}

/// Copies what it prints from now on to `out`, until it ends.
pub async fn follow(container: &Container, out: std::fs::File, cancel: &CancellationToken) -> Result<()> {
    engine(container)?.follow(&container.name, out, cancel).await
}

fn forget(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).on_machine(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Looks at a container again and again, so that asking whether it runs costs nothing.
pub struct Watch {
    alive: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Begins to look.
    pub fn new(running: Running, container: Container) -> Self {
        let alive = Arc::new(AtomicBool::new(true));
        let seen = alive.clone();
        let task = tokio::spawn(async move {
            // An engine that does not answer says nothing about the container: the wait has a deadline.
            while is_running(&running, &container).await.unwrap_or(true) {
                tokio::time::sleep(PAUSE).await;
            }
            seen.store(false, Ordering::Relaxed);
        });
        Self { alive, task }
    }

    /// Whether it ran when last looked at.
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
