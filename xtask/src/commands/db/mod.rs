//! `db`: the database's schema.

mod head;

use std::process::ExitCode;

use crate::commands::Run;
use crate::error::Result;

/// The database's schema, and the one that an image's MLflow works with
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Head(head::Args),
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    match args.command {
        Command::Head(args) => head::run(args, run).await,
    }
}
