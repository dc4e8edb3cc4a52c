//! How a running node is told to stop and start its components: one line of JSON each way over a
//! socket in the testbed's folder.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::error::{Context as _, Error, Kind, Result};

/// The socket's name below the testbed's folder.
pub(crate) const SOCKET: &str = "control.sock";
/// Longer than the slowest stop takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a component is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// In order, as an administrator would; killed when that takes more than 15 s.
    Order,
    /// At once, as a power cut would.
    Kill,
}

/// What the node is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    Start(String),
    Stop(String, How),
    Status,
}

/// What it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    Done,
    Refused(String),
    Status(Vec<ComponentStatus>),
}

/// A component as the node's process 1 sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentStatus {
    /// Its name.
    pub name: String,
    /// Its process id in the node, while it runs.
    pub pid: Option<i32>,
    /// Whether it is meant to run.
    pub wanted: bool,
    /// How often it ended without having been told to. It is started again each time.
    pub crashes: u32,
    /// How it ended the last time.
    pub ended: Option<String>,
}

/// Asks the node of the testbed in `root`.
pub(crate) async fn ask(root: &Path, request: &Request) -> Result<Reply> {
    let path = root.join(SOCKET);
    let talk = async {
        let mut socket = UnixStream::connect(&path).await?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        socket.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer).await?;
        Ok::<_, std::io::Error>(serde_json::from_str(&answer)?)
    };
    match tokio::time::timeout(DEADLINE, talk).await {
        Ok(answer) => answer.on_machine(|| "the testbed's node does not answer"),
        Err(_) => {
            Err(Error::new(Kind::Machine, format!("the testbed's node did not answer in {} s", DEADLINE.as_secs())))
        }
    }
}

/// Asks for something to be done.
pub(crate) async fn tell(root: &Path, request: &Request) -> Result<()> {
    match ask(root, request).await? {
        Reply::Refused(why) => Err(Error::new(Kind::Usage, why)),
        Reply::Done | Reply::Status(_) => Ok(()),
    }
}

/// The state of all components.
pub(crate) async fn status(root: &Path) -> Result<Vec<ComponentStatus>> {
    match ask(root, &Request::Status).await? {
        Reply::Status(status) => Ok(status),
        Reply::Done | Reply::Refused(_) => Err(Error::new(Kind::Machine, "the testbed's node gave another answer")),
    }
}
