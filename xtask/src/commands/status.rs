//! `status`.

use std::process::ExitCode;

use crate::commands::Run;
use crate::error::Result;

/// Show what runs in an environment
#[derive(clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, _run: &Run) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
