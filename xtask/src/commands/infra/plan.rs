//! `infra plan`: what `apply` would do.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::answer::Answer;
use super::{Site, Target};
use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::infra::way::Wish;
use crate::report;

/// Show what apply would do, and do nothing
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Keep the plan in this file, for apply --plan.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exit with 12 where something is not as deploy.toml wants it.
    #[arg(long)]
    exit_code: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let site = Site::open(run, &args.target).await?;
    let secrets = site.secrets(run).await?;
    let proposal = site.way.plan(run, &site.given(&secrets), Wish::Have).await?;
    if let Some(out) = &args.out {
        proposal.keep(out)?;
    }
    let differs = !proposal.plan.is_empty();
    let answer = Answer {
        env: site.config.env.clone(),
        via: site.infra.via,
        dry_run: true,
        changed: proposal.plan.acts(),
        plan: proposal.plan,
        outputs: None,
        remarks: Vec::new(),
        seconds: report::seconds(begun.elapsed()),
    };
    let code = run.answer(&answer)?;
    match differs && args.exit_code {
        true => Err(Error::new(Kind::Check, "the infrastructure is not as deploy.toml wants it")
            .hint(format!("run `cargo xtask infra apply --env {}`", site.config.env))),
        false => Ok(code),
    }
}
