//! Starting, watching and stopping the server of an environment.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cache::{self, Lock};
use crate::error::{Context as _, Error, Kind, Result};

use super::spec::Running;
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

/// Whether the process that was written down still runs.
pub fn is_alive(running: &Running) -> bool {
    #[cfg(target_os = "linux")]
    let alive = running.process.is_alive();
    #[cfg(not(target_os = "linux"))]
    let alive = {
        let _ = running;
        false
    };
    alive
}

/// Stops a server: SIGTERM, and SIGKILL to one that does not end. Tells whether it ended by itself.
#[cfg(target_os = "linux")]
pub async fn stop(running: &Running) -> Result<bool> {
    let named = || format!("cannot stop process {}", running.process.pid);
    let Some(handle) = running.process.open() else { return Ok(true) };
    handle.terminate().on_machine(named)?;
    let gentle = gone(running, GRACE).await;
    if !gentle {
        handle.kill().on_machine(named)?;
    }
    if !gone(running, END).await {
        return Err(Error::new(Kind::Machine, format!("process {} does not end", running.process.pid)));
    }
    Ok(gentle)
}

/// No sandbox, no server to stop.
#[cfg(not(target_os = "linux"))]
pub async fn stop(_running: &Running) -> Result<bool> {
    Ok(true)
}

/// Waits until the last of the server's processes has gone: they hold the lock together.
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
