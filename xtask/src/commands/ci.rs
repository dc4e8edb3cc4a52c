//! `ci`: exactly what CI runs.

#[cfg(target_os = "linux")]
mod install;
#[cfg(target_os = "linux")]
mod programs;

use std::process::ExitCode;

use crate::commands::{Run, e2e, test};
use crate::error::{Error, Kind, Result};
use crate::process::Program;
use crate::repo;

/// Run exactly what CI runs: formatting, clippy, the tests, the end-to-end tests
#[derive(clap::Args)]
pub struct Args {
    /// Do not install missing tools with apt-get.
    #[arg(long)]
    no_install: bool,
}

pub fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let root = repo::root()?;
    if !args.no_install {
        install(run)?;
    }
    #[cfg(target_os = "linux")]
    let programs = programs::Programs::begin()?;
    let cargo = || Program::new(test::cargo()).dir(&root);
    run.ui.step("Checking", "formatting");
    cargo().args(["fmt", "--all", "--check"]).run().map_err(|error| explain(error, "run `cargo fmt --all`"))?;
    run.ui.step("Checking", "clippy");
    cargo()
        .args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
        .run()
        .map_err(|error| explain(error, "mend what clippy names"))?;
    // All at once, the end-to-end tests too: each program of tests is one crate, and compiled by one CPU.
    run.ui.step("Building", "tests");
    cargo()
        .args(["test", "--workspace", "--no-run", "--quiet", "--lib", "--bins", "--test", "it", "--test", "e2e"])
        .run()
        .map_err(|error| explain(error, "mend what the compiler names"))?;
    run.ui.step("Running", "tests");
    let mut outcome = test::execute(None, false)?;
    #[cfg(target_os = "linux")]
    programs.end(run);
    run.ui.step("Running", "end-to-end tests");
    outcome.merge(e2e::execute(&e2e::Args::default())?);
    run.answer(&outcome)?;
    if outcome.failed > 0 {
        return Err(Error::new(Kind::Check, format!("{} tests failed", outcome.failed)));
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs the tools that the tests use, where they are missing and packages are Debian's.
///
/// # Errors
/// `Tool` where a package cannot be installed.
pub fn install(run: &Run) -> Result<()> {
    #[cfg(target_os = "linux")]
    install::tools(run)?;
    #[cfg(not(target_os = "linux"))]
    run.ui.warn("no apt-get here: tests whose tools are missing are skipped");
    Ok(())
}

fn explain(error: Error, hint: &str) -> Error {
    Error::new(Kind::Check, error.to_string()).hint(hint)
}
