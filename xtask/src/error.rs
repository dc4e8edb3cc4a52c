//! The one error type: a kind (which decides the exit code), a message that names the object, a
//! source, and a hint that names the fix. The message never repeats its source.

use std::error::Error as StdError;
use std::fmt;

/// What went wrong, as far as a script needs to know it. The numbers are the exit codes and part
/// of the command line's contract (README, "Exit codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A defect of this program.
    Internal = 1,
    /// The command line is wrong. The same number that clap uses.
    Usage = 2,
    /// `deploy.toml` or an environment variable is wrong.
    Config = 3,
    /// An input is refused: a lock that disagrees, a hash that does not match, a hostile archive.
    Input = 4,
    /// Credentials are missing, expired or not sufficient.
    Auth = 5,
    /// A remote did not answer, or not as its protocol says, after all retries.
    Remote = 6,
    /// A program that this command needs is not installed.
    Tool = 7,
    /// This machine refuses: disk full, port taken, namespaces forbidden.
    Machine = 8,
    /// Another run holds the lock.
    Locked = 9,
    /// The new server failed; the old one runs again.
    RolledBack = 10,
    /// The new server failed, and nothing serves now.
    Failed = 11,
    /// A check answered no: smoke failed, a lock is stale, nothing is deployed.
    Check = 12,
    /// Someone else changed the Deployment while it rolled out: their version stands.
    Superseded = 13,
    /// The new server failed, and going back would break it: the database's schema has moved.
    RollbackRefused = 14,
    /// The credentials are good, but not allowed to do this.
    Forbidden = 15,
    /// Another tool or person manages the object, or has paused it.
    Conflict = 16,
    /// The image is not in the registry, not for the nodes' platform, or without what must be attached to it.
    Image = 17,
    /// The API server refuses an object: invalid, over quota, against a policy.
    Refused = 18,
    /// The new server failed, and going back to the old one failed too.
    RollbackFailed = 19,
    /// Ctrl-C or SIGTERM.
    Interrupted = 130,
}

impl Kind {
    /// The process exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }
}

/// An error as the user reads it. Build one with [`Error::new`] and the [`Context`] methods.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything in this program.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a source.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), hint: None, source: None }))
    }

    /// Adds what the user can do about it, as an imperative sentence.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind, which decides the exit code.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The hint, if there is one.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Message and causes, one a line, none twice.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.0.message.clone()];
        let mut source = StdError::source(self);
        while let Some(cause) = source {
            let text = cause.to_string();
            if !lines.iter().any(|line| line.contains(&text)) {
                lines.push(text);
            }
            source = cause.source();
        }
        lines
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<mlflow_image::Error> for Error {
    fn from(error: mlflow_image::Error) -> Self {
        match error.io_cause() {
            Some(cause) if is_disk_full(cause) => disk_full(error.to_string()),
            Some(_) => Error::new(Kind::Machine, error.to_string()),
            None => Error::new(Kind::Input, error.to_string()),
        }
    }
}

/// Turns foreign errors into ours, naming the object.
pub trait Context<T> {
    /// Wraps the error under `kind` with a message made by `message`.
    fn context<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T>;
    /// Wraps an I/O error on this machine: full disks and missing permissions get their own hint.
    fn on_machine<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context<M: Into<String>>(self, kind: Kind, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| Error::new(kind, message()).source(source))
    }

    fn on_machine<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| {
            let source = source.into();
            let io = source.downcast_ref::<std::io::Error>();
            let error = match io {
                Some(io) if is_disk_full(io) => disk_full(message()),
                _ => Error::new(Kind::Machine, message()),
            };
            error.source(source)
        })
    }
}

fn is_disk_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

fn disk_full(message: impl Into<String>) -> Error {
    Error::new(Kind::Machine, message).hint(
        "free some space, or point XDG_CACHE_HOME / XDG_DATA_HOME at a larger disk, then run the same command again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_printed_without_repeating_itself() {
        let inner = Error::new(Kind::Machine, "no space left");
        let outer = Error::new(Kind::Machine, "cannot write blob: no space left").source(inner);
        assert_eq!(outer.lines(), ["cannot write blob: no space left"]);
    }

    #[test]
    fn exit_codes_are_a_contract() {
        let codes = [Kind::Internal, Kind::Usage, Kind::Config, Kind::Input, Kind::Auth, Kind::Remote, Kind::Tool];
        assert_eq!(codes.map(Kind::exit_code), [1, 2, 3, 4, 5, 6, 7]);
        let codes = [Kind::Machine, Kind::Locked, Kind::RolledBack, Kind::Failed, Kind::Check, Kind::Interrupted];
        assert_eq!(codes.map(Kind::exit_code), [8, 9, 10, 11, 12, 130]);
        let codes = [Kind::Superseded, Kind::RollbackRefused, Kind::Forbidden, Kind::Conflict, Kind::Image];
        assert_eq!(codes.map(Kind::exit_code), [13, 14, 15, 16, 17]);
        assert_eq!([Kind::Refused, Kind::RollbackFailed].map(Kind::exit_code), [18, 19]);
    }
}
