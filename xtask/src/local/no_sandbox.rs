//! Where there are no Linux namespaces there is no sandbox.

use std::path::Path;

use crate::error::{Error, Kind, Result};

use super::spec::{Exit, Spec};

/// A sandbox whose program runs: never made here.
pub struct Sandbox;

/// Ends a task.
pub struct Interrupt;

/// Says that it cannot be done.
pub fn start(_spec: &Spec, _log: &Path) -> Result<Sandbox> {
    Err(Error::new(Kind::Machine, "the local server needs Linux namespaces, which this system does not have")
        .hint("run it on Linux, for example in a virtual machine"))
}

impl Sandbox {
    /// Nothing to wait for.
    pub fn wait(self) -> Result<Exit> {
        Ok(Exit::default())
    }

    /// Nothing to interrupt.
    pub fn interrupt(&self) -> Result<Interrupt> {
        Ok(Interrupt)
    }
}

impl Interrupt {
    /// Nothing to end.
    pub fn end(self) {}
}
