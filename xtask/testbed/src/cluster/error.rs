//! What can go wrong with a testbed, as far as the caller has to tell it apart.

use std::error::Error as StdError;
use std::fmt;

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program is missing, or one that was run failed.
    Tool,
    /// This machine refuses: not root, a port or subnet taken, a component that does not come up.
    Machine,
    /// Another `up` or `down` is at work.
    Locked,
    /// The caller gave up; what was begun is undone.
    Interrupted,
    /// No such component, or nothing runs that the question could be about.
    Usage,
}

/// A kind, a message that names the object, a hint that names the fix, a cause.
#[derive(Debug)]
pub struct Error {
    /// What sort of failure.
    pub kind: Kind,
    /// What the user can do about it.
    pub hint: Option<String>,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without hint and cause.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, hint: None, message: message.into(), source: None }
    }

    /// Adds what the user can do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Names the object of a failed system call.
pub(crate) trait Context<T> {
    /// Wraps the error as one of this machine's.
    fn on_machine<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn on_machine<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|source| Error::new(Kind::Machine, message()).source(source))
    }
}
