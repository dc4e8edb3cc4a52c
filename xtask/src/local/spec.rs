//! What a sandbox is told and what it answers: one JSON object a line, over a socket that only the
//! two processes share, so that no setting is seen in a list of processes.

use std::path::PathBuf;

use mlflow_image::Digest;
use serde::{Deserialize, Serialize};

use super::engine::Tool;
use super::identity::Identity;

/// Who a server runs as where the image names nobody or root: the images of this project do too.
pub const USER: u32 = 65532;

/// Where the data folder is inside.
pub const DATA: &str = "/data";

/// A program of an image, and what it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The unpacked image; read-only inside.
    pub root: PathBuf,
    /// The host's folder that is [`DATA`] inside, writable.
    pub data: PathBuf,
    /// Program and arguments; empty: set everything up, then end. Never a secret.
    pub command: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The working folder.
    pub workdir: PathBuf,
    /// User and group.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// What to keep of it.
    pub role: Role,
}

/// What kind of process this is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Lives on after the one who started it; what runs and how it ended is kept in files.
    Server {
        /// Where [`Running`] is written once it runs, and removed from when it has ended.
        running: PathBuf,
        /// Where [`Ended`] is written.
        ended: PathBuf,
        /// What to write there.
        release: Box<super::state::Release>,
    },
    /// Dies with the one who started it.
    Task,
}

/// A server that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Who is told to stop.
    pub process: Process,
    /// What it runs.
    pub release: super::state::Release,
    /// Since when, RFC 3339.
    pub started_at: String,
}

/// What keeps a server running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Process {
    /// The supervisor of a sandbox.
    Sandbox(Identity),
    /// A container.
    Container(Container),
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sandbox(identity) => write!(f, "process {}", identity.pid),
            Self::Container(container) => write!(f, "{} container {}", container.engine, container.name),
        }
    }
}

/// A container, by name: what it runs is in its label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Whose it is.
    pub engine: Tool,
    /// Its name.
    pub name: String,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit code, if it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it ended well.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "signal {signal}"),
            (None, None) => f.write_str("unknown"),
        }
    }
}

/// The end of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What had run.
    pub image: Digest,
    /// The release that had run.
    pub release: String,
    /// How it ended.
    #[serde(flatten)]
    pub exit: Exit,
    /// When, RFC 3339.
    pub at: String,
    /// Whether it was told to.
    pub stopped: bool,
}

/// What the sandbox says to the one who started it.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The program runs.
    Ready(Identity),
    /// It could not be started.
    Refused(Refusal),
    /// It has ended.
    Ended(Exit),
}

/// Why a sandbox could not be made.
#[cfg(target_os = "linux")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What was attempted.
    pub what: String,
    /// The system's answer.
    pub why: String,
    /// Whether the kernel forbids namespaces here, so that another way may work.
    pub forbidden: bool,
    /// Whether another server is at work on the same data.
    pub busy: bool,
}
