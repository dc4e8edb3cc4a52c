//! `sandbox` (hidden): this program as the supervisor of a local server.

use std::process::ExitCode;

use crate::error::Result;
use crate::local::sandbox;

/// Become the supervisor of a server in a sandbox (told on stdin; for internal use)
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<ExitCode> {
    sandbox::supervise()
}
