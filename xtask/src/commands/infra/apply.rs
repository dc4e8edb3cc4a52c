//! `infra apply`: plan -> ask -> make -> outputs -> secrets.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::answer::Answer;
use super::{Site, Target};
use crate::commands::Run;
use crate::error::Result;
use crate::infra::plan::Plan;
use crate::infra::proposal::{Proposal, Reached};
use crate::infra::way::{Given, Wish};
use crate::{outputs, report};

/// Make what lacks and change what differs; a second run changes nothing
///
/// Resources that terraform or gcloud would have to delete and make again, and resources that exist
/// with other settings, are shown before anything is done.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Ask no questions.
    #[arg(long, short)]
    yes: bool,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do what this plan says, which `infra plan --out` has kept, or nothing.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Take over resources that exist with other settings, and change them to what is wanted.
    #[arg(long)]
    adopt: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let site = Site::open(run, &args.target).await?;
    let mut secrets = site.secrets(run).await?;
    let proposal = match &args.plan {
        Some(file) => site.way.kept(run, &site.given(&secrets), file).await?,
        None => site.way.plan(run, &site.given(&secrets), Wish::Have).await?,
    };
    let mut answer = Answer {
        env: site.config.env.clone(),
        via: site.infra.via,
        dry_run: args.dry_run,
        changed: proposal.plan.acts(),
        plan: proposal.plan.clone(),
        outputs: None,
        remarks: Vec::new(),
        seconds: 0.0,
    };
    if !args.dry_run {
        if proposal.plan.acts() {
            // A kept plan was agreed to when it was made.
            agree(run, &proposal.plan, args.yes || args.plan.is_some())?;
            secrets.choose(proposal.password);
            make(run, &site.given(&secrets), proposal, args.adopt).await?;
        }
        if let Some(password) = secrets.new_password() {
            site.way.set_password(run, password).await?;
        }
        let found = site.way.outputs(run).await?;
        if let Some(found) = &found {
            outputs::write(&site.config.root, &site.config.env, found)?;
            answer.changed |= secrets.place(run, &site.config.env).await?;
        }
        answer.outputs = found;
    }
    answer.seconds = report::seconds(begun.elapsed());
    run.answer(&answer)
}

fn agree(run: &Run, plan: &Plan, yes: bool) -> Result<()> {
    run.ui.show(|out| plan.human(out));
    match yes {
        true => Ok(()),
        false => run.ui.confirm("Make it so?", "--yes"),
    }
}

/// Makes what the proposal says. Resources that turn out to exist are taken over if they are as they
/// are wanted: an earlier run made them, and died before it could write that down.
async fn make(run: &Run, given: &Given<'_>, proposal: Proposal<'_>, adopt: bool) -> Result<()> {
    let agreed = proposal.plan.clone();
    let mut known: Vec<String> = Vec::new();
    let mut next = proposal;
    while let Reached::Existing(existing) = next.carry_out(run, given).await? {
        next = existing.take_over(run, given, &agreed, &mut known, adopt).await?;
    }
    Ok(())
}
