//! `status`: what runs.

mod cluster;
mod local;

use std::process::ExitCode;

use crate::commands::Run;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};

/// Show what runs, since when, by whom
///
/// In a cluster also whether anyone has changed what was applied, by a dry run: nothing is changed.
/// Exit code 12 when nothing serves.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// Exit with 12 also when what is live is not what was applied. In a cluster only.
    #[arg(long)]
    exit_code: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    match config.environment()? {
        Environment::Local(_) if args.exit_code => {
            let message = format!("--exit-code is for a cluster, and environment {} is on this machine", args.env);
            Err(Error::new(Kind::Usage, message).hint("leave it out: the exit code is 12 when nothing serves"))
        }
        Environment::Local(local) => local::run(&args.env, run, local).await,
        Environment::Cluster(settings) => cluster::run(&args.env, args.exit_code, run, settings).await,
    }
}
