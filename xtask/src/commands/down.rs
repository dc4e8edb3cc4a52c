//! `down`.

use std::process::ExitCode;

use crate::commands::Run;
use crate::error::Result;

/// Stop the server, keep its data
#[derive(clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, _run: &Run) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
