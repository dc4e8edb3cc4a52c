//! `logs`.

use std::process::ExitCode;

use crate::commands::Run;
use crate::error::Result;

/// Print the server's log
#[derive(clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, _run: &Run) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
