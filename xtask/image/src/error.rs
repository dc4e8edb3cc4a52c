//! What this crate refuses, and what the file system refuses it.

use std::fmt;
use std::io;

/// A refused input or a failed file operation; the message names the package and the file.
#[derive(Debug)]
pub struct Error {
    message: String,
    io: Option<io::Error>,
}

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An input that is refused. `subject` is the package or lock, `problem` names file and reason.
    pub fn refused(subject: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self { message: format!("{subject}: {problem}"), io: None }
    }

    /// A file operation that failed for a reason of this machine's.
    pub fn io(subject: impl fmt::Display, source: io::Error) -> Self {
        Self { message: format!("{subject}: {source}"), io: Some(source) }
    }

    /// The operating system's answer, where that is the cause.
    pub fn io_cause(&self) -> Option<&io::Error> {
        self.io.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.io.as_ref().map(|io| io as _)
    }
}
