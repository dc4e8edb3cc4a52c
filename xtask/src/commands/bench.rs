//! `bench`: what to measure.

use std::process::ExitCode;

use crate::bench;
use crate::commands::Run;
use crate::error::Result;

/// Measure this program beside its peers
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Image(Box<bench::image::Args>),
    Start(bench::start::Args),
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    match args.what {
        What::Image(args) => bench::image::run(*args, run).await,
        What::Start(args) => run.answer(&bench::start::run(args, run).await?),
    }
}
