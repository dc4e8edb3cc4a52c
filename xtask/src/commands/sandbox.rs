//! `sandbox` (hidden): what the local server's process does before it becomes the server.

use std::process::ExitCode;

use crate::error::Result;

/// Become a server in a sandbox
#[derive(clap::Args)]
pub struct Args {}

pub fn run(_args: Args) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
