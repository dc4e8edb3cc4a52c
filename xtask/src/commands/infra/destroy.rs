//! `infra destroy`: plan -> ask -> delete.

use std::process::ExitCode;
use std::time::Instant;

use super::answer::Answer;
use super::{Site, Target};
use crate::commands::Run;
use crate::error::Result;
use crate::infra::way::Wish;
use crate::{outputs, report};

/// Delete the resources; bucket and database stay unless --delete-data
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Delete the artifacts' bucket and the database too, with everything in them.
    #[arg(long)]
    delete_data: bool,
    /// Ask no questions.
    #[arg(long, short)]
    yes: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let site = Site::open(run, &args.target).await?;
    let wish = Wish::destruction(args.delete_data);
    // What was a password or a key is of no use afterwards: nothing is asked of the cluster.
    let secrets = site.no_secrets();
    let proposal = site.way.plan(run, &site.given(&secrets), wish).await?;
    let acts = proposal.plan.acts();
    let plan = proposal.plan.clone();
    let mut remarks = Vec::new();
    if acts && !args.dry_run {
        run.ui.show(|out| plan.human(out));
        if !args.yes {
            let question = match args.delete_data {
                true => "Delete all of it, with every run, model and artifact?",
                false => "Delete it?",
            };
            run.ui.confirm(question, "--yes")?;
        }
        proposal.carry_out(run, &site.given(&secrets)).await?;
    }
    if !args.dry_run {
        if args.delete_data {
            outputs::forget(&site.config.root, &site.config.env)?;
        }
        remarks.push("the project's APIs stay switched on: others may use them".to_owned());
    }
    run.answer(&Answer {
        env: site.config.env.clone(),
        via: site.infra.via,
        dry_run: args.dry_run,
        changed: acts,
        plan,
        outputs: None,
        remarks,
        seconds: report::seconds(begun.elapsed()),
    })
}
