//! Starting, watching and stopping the server of an environment.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::cache::{self, Lock};
use crate::error::{Context as _, Error, Kind, Result};

use super::container;
use super::spec::{Ended, Process, Running};
use super::state::Home;

/// How long a server may take to end by itself.
pub const GRACE: Duration = Duration::from_secs(20);
/// How long a server that was told to end at once may take.
const END: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// A log larger than this is put aside at the next start.
const LOG_SIZE: u64 = 10 << 20;
/// How many logs are put aside.
const LOGS: u32 = 3;

/// The server that runs now, if one does. Only for the holder of the environment's lock.
pub async fn alive(home: &Home, data: &Path) -> Result<Option<Running>> {
    container::end_task(home).await?;
    if let Some(running) = home.running()?
        && let Process::Container(container) = &running.process
    {
        if container::is_running(&running, container).await? {
            return Ok(Some(running));
        }
        container::collect(home, &running, container, false).await?;
    }
    let begun = Instant::now();
    loop {
        if let Some(running) = home.running()?.filter(is_alive) {
            return Ok(Some(running));
        }
        if !data.is_dir() {
            return Ok(None);
        }
        // Between its start and its first word, or between its end and the last one's of its
        // processes, the data is locked though nothing is written down.
        match Lock::take(&data.join(".lock"), "the data folder") {
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == Kind::Locked && begun.elapsed() < END => tokio::time::sleep(PAUSE).await,
            Err(error) if error.kind() == Kind::Locked => {
                return Err(Error::new(Kind::Locked, format!("another server uses {}", data.display()))
                    .source(error.to_string())
                    .hint("stop it, or name another data folder in deploy.toml"));
            }
            Err(error) => return Err(error),
        }
    }
}

/// The server that runs now, as far as can be seen without the environment's lock.
pub async fn running(home: &Home) -> Result<Option<Running>> {
    let Some(running) = home.running()? else { return Ok(None) };
    let alive = match &running.process {
        Process::Sandbox(_) => is_alive(&running),
        Process::Container(container) => container::is_running(&running, container).await?,
    };
    Ok(alive.then_some(running))
}

/// How the last server ended, if it has.
pub async fn ended(home: &Home) -> Result<Option<Ended>> {
    if let Some(running) = home.running()?
        && let Process::Container(container) = &running.process
    {
        return container::ended(&running, container).await;
    }
    home.ended()
}

/// Whether the sandbox that was written down still runs.
fn is_alive(running: &Running) -> bool {
    match &running.process {
        #[cfg(target_os = "linux")]
        Process::Sandbox(identity) => identity.is_alive(),
        _ => false,
    }
}

/// Tells again and again, at no cost, whether the server of an environment runs.
pub enum Watch<'a> {
    /// Of a sandbox, or of nothing.
    Files(&'a Home),
    /// Of a container.
    Container(container::Watch),
}

impl<'a> Watch<'a> {
    /// Begins to watch what was started last.
    pub fn new(home: &'a Home) -> Result<Self> {
        Ok(match home.running()? {
            Some(running) => match running.process.clone() {
                Process::Container(container) => Self::Container(container::Watch::new(running, container)),
                Process::Sandbox(_) => Self::Files(home),
            },
            None => Self::Files(home),
        })
    }

    /// Whether it runs.
    pub fn is_alive(&self) -> bool {
        match self {
            Self::Files(home) => home.running().ok().flatten().is_some_and(|running| is_alive(&running)),
            Self::Container(watch) => watch.is_alive(),
        }
    }
}

/// Stops a server: SIGTERM, and SIGKILL to one that does not end. Tells whether it ended by itself.
pub async fn stop(home: &Home, running: &Running) -> Result<bool> {
    match &running.process {
        #[cfg(target_os = "linux")]
        Process::Sandbox(identity) => stop_sandbox(running, identity).await,
        #[cfg(not(target_os = "linux"))]
        Process::Sandbox(_) => Ok(true),
        Process::Container(container) => container::stop(home, running, container).await,
    }
}

#[cfg(target_os = "linux")]
async fn stop_sandbox(running: &Running, identity: &super::identity::Identity) -> Result<bool> {
    let named = || format!("cannot stop {}", running.process);
    let Some(handle) = identity.open() else { return Ok(true) };
    handle.terminate().on_machine(named)?;
    let gentle = gone(running, GRACE).await;
    if !gentle {
        handle.kill().on_machine(named)?;
    }
    if !gone(running, END).await {
        return Err(Error::new(Kind::Machine, format!("{} does not end", running.process)));
    }
    Ok(gentle)
}

/// Waits until the last of the server's processes has gone: they hold the lock together.
#[cfg(target_os = "linux")]
async fn gone(running: &Running, limit: Duration) -> bool {
    let begun = Instant::now();
    loop {
        let lock = running.release.data.join(".lock");
        if !is_alive(running) && (!lock.exists() || Lock::take(&lock, "the data folder").is_ok()) {
            return true;
        }
        if begun.elapsed() >= limit {
            return false;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Puts a large log aside; gives the length of the log that the next server goes on with.
pub fn open_log(path: &Path) -> Result<u64> {
    let named = || format!("cannot rotate {}", path.display());
    cache::create_dir(path.parent().unwrap_or(Path::new(".")))?;
    let length = path.metadata().map_or(0, |meta| meta.len());
    if length <= LOG_SIZE {
        return Ok(length);
    }
    let aside = |n: u32| path.with_added_extension(n.to_string());
    for n in (1..LOGS).rev() {
        if aside(n).exists() {
            fs::rename(aside(n), aside(n + 1)).on_machine(named)?;
        }
    }
    fs::rename(path, aside(1)).on_machine(named)?;
    Ok(0)
}

/// The log, to write at its end.
pub fn append(path: &Path) -> Result<fs::File> {
    cache::create_dir(path.parent().unwrap_or(Path::new(".")))?;
    fs::File::options().create(true).append(true).open(path).on_machine(|| format!("cannot open {}", path.display()))
}

/// The last `lines` lines of the environment's log behind the byte `from`, with what a container
/// has printed and still keeps itself.
pub async fn tail(home: &Home, from: u64, lines: usize) -> Result<Vec<String>> {
    let mut all = log_tail(&home.log_path(), from, lines)?;
    if let Some(running) = home.running()?
        && let Process::Container(container) = &running.process
    {
        all.extend(container::log_tail(&running, container, lines).await?);
    }
    Ok(all.split_off(all.len().saturating_sub(lines)))
}

/// Copies what a container prints from now on to stdout until it ends; `false` for a sandbox, whose
/// log is a file.
pub async fn follow(running: &Running, cancel: &CancellationToken) -> Result<bool> {
    use std::os::fd::AsFd as _;
    let Process::Container(container) = &running.process else { return Ok(false) };
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().on_machine(|| "cannot duplicate stdout")?;
    container::follow(container, stdout.into(), cancel).await?;
    Ok(true)
}

/// The last `lines` lines of a log behind the byte `from`.
pub fn log_tail(path: &Path, from: u64, lines: usize) -> Result<Vec<String>> {
    /// Enough for any sensible number of lines.
    const MOST: u64 = 4 << 20;
    let named = || format!("cannot read {}", path.display());
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).on_machine(named),
    };
    let length = file.metadata().on_machine(named)?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST)).min(length))).on_machine(named)?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).on_machine(named)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    Ok(all[all.len().saturating_sub(lines)..].iter().map(|line| (*line).to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_the_last_start() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert!(log_tail(&log, 0, 3).unwrap().is_empty());
        fs::write(&log, "old\na\nb\nc").unwrap();
        for (from, lines, expected) in
            [(0, 9, vec!["old", "a", "b", "c"]), (0, 2, vec!["b", "c"]), (4, 9, vec!["a", "b", "c"]), (99, 9, vec![])]
        {
            assert_eq!(log_tail(&log, from, lines).unwrap(), expected);
        }
    }

    #[test]
    fn a_large_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("l/server.log");
        assert_eq!(open_log(&log).unwrap(), 0);
        for round in 1..=5 {
            fs::write(&log, "x").unwrap();
            assert_eq!(open_log(&log).unwrap(), 1, "{round}");
            fs::File::options().write(true).open(&log).unwrap().set_len(LOG_SIZE + 1).unwrap();
            assert_eq!(open_log(&log).unwrap(), 0, "{round}");
        }
        assert_eq!(fs::read_dir(dir.path().join("l")).unwrap().count(), 3);
    }
}
