//! Where there are no Linux namespaces there is no sandbox: docker or podman runs the image.

use std::path::Path;

use crate::cache::Cache;
use crate::error::{Error, Kind, Result};

use super::spec::{Exit, Spec};

/// A sandbox whose program runs: never made here.
pub enum Sandbox {}

/// Ends a task: never made here.
pub enum Interrupt {}

/// Says that there is none.
pub fn probe(_cache: &Cache) -> Result<()> {
    Err(Error::new(Kind::Machine, "this system has no Linux namespaces"))
}

/// Says that it cannot be done.
pub fn start(_spec: &Spec, _log: &Path) -> Result<Sandbox> {
    Err(Error::new(Kind::Machine, "this system has no Linux namespaces")
        .hint("set sandbox = \"docker\" or \"podman\" in deploy.toml"))
}

impl Sandbox {
    /// Cannot be reached.
    pub fn wait(self) -> Result<Exit> {
        match self {}
    }

    /// Cannot be reached.
    pub fn interrupt(&self) -> Result<Interrupt> {
        match *self {}
    }
}

impl Interrupt {
    /// Cannot be reached.
    pub fn end(self) {
        match self {}
    }
}
