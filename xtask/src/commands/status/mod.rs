//! `status`: what runs.

mod local;

use std::process::ExitCode;

use crate::commands::Run;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};

/// Show what runs, since when, by whom
///
/// Exit code 12 when nothing serves.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    match &config.environment {
        Environment::Local(local) => local::run(&args.env, run, local).await,
        Environment::Cluster(_) => Err(Error::new(Kind::Usage, "later")),
    }
}
