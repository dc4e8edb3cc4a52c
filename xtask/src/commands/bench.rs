//! `bench`.

use std::process::ExitCode;

use crate::commands::Run;
use crate::error::Result;

/// Measure the image builder beside its peers
#[derive(clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, _run: &Run) -> Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
