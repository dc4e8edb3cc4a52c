//! What is known about an environment of this machine, in files below its folder. Each file is
//! written whole by one process: `state.json` by the holder of the lock, the others by the
//! server's supervisor.

use std::path::{Path, PathBuf};

use mlflow_image::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cache::{self, Lock};
use crate::error::{Context as _, Error, Kind, Result};

use super::engine::Tool;
use super::spec::{Container, Ended, Running};

/// The version of `state.json`. Raised when an older program would misread it.
const VERSION: u32 = 1;

/// An environment's folder.
#[derive(Clone, Debug)]
pub struct Home {
    /// Its name.
    pub env: String,
    /// The folder.
    pub dir: PathBuf,
}

/// A server as it was, or is to be, deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Unique in the environment, sorted by time.
    pub id: String,
    /// The manifest's digest.
    pub image: Digest,
    /// Where the image came from: `build`, a layout or a registry reference.
    pub source: String,
    /// The MLflow version, as the image's label says.
    pub version: Option<String>,
    /// The loopback port.
    pub port: u16,
    /// Where to find it.
    pub url: String,
    /// Worker processes.
    pub workers: u16,
    /// The folder of database and artifacts.
    pub data: PathBuf,
    /// When it was deployed, RFC 3339.
    pub at: String,
    /// By whom.
    pub by: String,
    /// The checkout's commit, if there is one.
    pub commit: Option<String>,
    /// The engine that runs it; `None`: a sandbox.
    #[serde(default)]
    pub engine: Option<Tool>,
}

impl Release {
    /// Whether a server of this release is the same server as one of `other`.
    pub fn same_server(&self, other: &Self) -> bool {
        (self.image, self.engine, self.port, self.workers, &self.data)
            == (other.image, other.engine, other.port, other.workers, &other.data)
    }
}

/// How far a deploy came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The old server is stopped, the database untouched.
    Stopped,
    /// The database is being changed; no server has used it since the backup.
    Migrating,
    /// The new server may have been used.
    Started,
}

/// A deploy that has begun to change things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// What was to run.
    pub release: Release,
    /// How far it came.
    pub phase: Phase,
    /// The backup of the database.
    pub backup: Option<Backup>,
    /// Whether the migration has changed the database.
    pub migrated: bool,
    /// The proven server that it was to replace, if one ran.
    pub replaces: Option<Release>,
}

/// A copy of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its name below the environment's `backup` folder.
    pub name: String,
    /// The image whose schema it has, where that is known.
    pub schema: Option<Digest>,
}

/// `state.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last release that was proven to work.
    pub current: Option<Release>,
    /// The one before.
    pub previous: Option<Release>,
    /// A deploy at work, or one that died at it.
    pub pending: Option<Pending>,
    /// The image whose schema the database has, where that is known.
    pub schema: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    value: T,
}

impl Home {
    /// The folder of `env` below the user's data folder; it need not exist.
    pub fn of(env: &str) -> Result<Self> {
        let plain = env.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !plain || env.is_empty() || env.starts_with('.') {
            return Err(Error::new(Kind::Config, format!("environment {env:?} cannot name a folder"))
                .hint("use letters, digits, '-', '_' and '.'"));
        }
        Ok(Self { env: env.to_owned(), dir: cache::data_dir()?.join(env) })
    }

    /// All environments that have a folder.
    pub fn all() -> Result<Vec<Self>> {
        let Ok(entries) = std::fs::read_dir(cache::data_dir()?) else { return Ok(Vec::new()) };
        Ok(entries.flatten().filter_map(|entry| Self::of(entry.file_name().to_str()?).ok()).collect())
    }

    /// Excludes every other `deploy` and `down` of this environment.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.dir.join("lock"), &format!("environment {}", self.env))
    }

    /// What was deployed.
    pub fn state(&self) -> Result<State> {
        let path = self.dir.join("state.json");
        let versioned: Versioned<serde_json::Value> = match read(&path)? {
            Some(versioned) => versioned,
            None => return Ok(State::default()),
        };
        if versioned.version > VERSION {
            let message = format!("{} was written by a newer version of this program", path.display());
            return Err(Error::new(Kind::Machine, message).hint("update this checkout"));
        }
        serde_json::from_value(versioned.value).map_err(|error| unreadable(&path, error))
    }

    /// Records it.
    pub fn write_state(&self, state: &State) -> Result<()> {
        let versioned = Versioned { version: VERSION, value: state };
        let text = serde_json::to_vec_pretty(&versioned).context(Kind::Internal, || "cannot write JSON")?;
        cache::write(&self.dir.join("state.json"), &text)
    }

    /// The server that runs, as far as its supervisor wrote down; it may have died since.
    pub fn running(&self) -> Result<Option<Running>> {
        read(&self.running_path())
    }

    /// How the last server ended.
    pub fn ended(&self) -> Result<Option<Ended>> {
        read(&self.ended_path())
    }

    /// The container of a migration that may still be at work.
    pub fn task(&self) -> Result<Option<Container>> {
        read(&self.task_path())
    }

    /// Where that is written.
    pub fn task_path(&self) -> PathBuf {
        self.dir.join("task.json")
    }

    /// Where the supervisor writes what runs.
    pub fn running_path(&self) -> PathBuf {
        self.dir.join("running.json")
    }

    /// Where the supervisor writes how it ended.
    pub fn ended_path(&self) -> PathBuf {
        self.dir.join("ended.json")
    }

    /// The server's log.
    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log/server.log")
    }

    /// Where backups of the database are kept.
    pub fn backup_dir(&self) -> PathBuf {
        self.dir.join("backup")
    }

    /// Where the data is, unless the configuration names a folder.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).on_machine(|| format!("cannot read {}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: serde_json::Error) -> Error {
    Error::new(Kind::Machine, format!("{} is damaged", path.display()))
        .source(error)
        .hint("stop a server that still runs, then remove the file; the data folder is not affected")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_names_one_folder() {
        for env in ["", "..", ".x", "a/b", "a\0b", "ä", "a b"] {
            assert_eq!(Home::of(env).expect_err(env).kind(), Kind::Config, "{env:?}");
        }
    }

    #[test]
    fn garbage_is_named_and_newer_files_are_not_misread() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home { env: "local".to_owned(), dir: dir.path().to_path_buf() };
        assert_eq!(home.state().unwrap(), State::default());
        home.write_state(&State::default()).unwrap();
        assert_eq!(home.state().unwrap(), State::default());
        for (text, expected) in [("{", "is damaged"), ("{\"version\": 2}", "newer version"), ("[]", "is damaged")] {
            std::fs::write(dir.path().join("state.json"), text).unwrap();
            let error = home.state().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
