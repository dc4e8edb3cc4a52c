//! `doctor`: what is missing before the first deploy.

use std::process::ExitCode;

use crate::commands::Run;
use crate::config::{self, Config};
use crate::doctor;
use crate::error::{Kind, Result};

/// Show what is missing for a deploy to an environment, each with what to do about it
///
/// Asks and changes nothing. Exit code 12 when something that is needed is missing.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let answer = tokio::select! {
        answer = doctor::examine(run, &config) => answer,
        () = run.cancel.cancelled() => return Err(Run::interrupted()),
    };
    run.answer(&answer)?;
    Ok(if answer.ok { ExitCode::SUCCESS } else { ExitCode::from(Kind::Check.exit_code()) })
}
