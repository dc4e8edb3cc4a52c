//! `infra outputs`: asks for the outputs again, and notes them for `deploy`.

use std::io;
use std::process::ExitCode;

use serde::Serialize;

use super::{Site, Target, answer};
use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::outputs::{self, Outputs};
use crate::report::Report;

/// Ask what there is, and note it for deploy
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let site = Site::open(run, &args.target).await?;
    let found = site.way.outputs(run).await?.ok_or_else(|| {
        let message = format!("the infrastructure of environment {} has not been made", site.config.env);
        Error::new(Kind::Check, message).hint(format!("run `cargo xtask infra apply --env {}`", site.config.env))
    })?;
    outputs::write(&site.config.root, &site.config.env, &found)?;
    run.answer(&Answer { env: site.config.env.clone(), outputs: found })
}

/// What is noted.
#[derive(Serialize)]
pub struct Answer {
    /// The environment.
    pub env: String,
    /// What there is.
    pub outputs: Outputs,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        answer::show(&self.outputs, out)
    }
}
