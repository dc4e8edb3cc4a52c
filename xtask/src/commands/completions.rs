//! `completions`: prints a shell's completion script.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::error::Result;

/// Print a completion script for a shell (source it for an alias of `cargo xtask`)
#[derive(clap::Args)]
pub struct Args {
    /// The shell.
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> Result<ExitCode> {
    clap_complete::generate(args.shell, &mut Cli::command().bin_name("xtask"), "xtask", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}
