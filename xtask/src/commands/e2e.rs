//! `e2e`: the end-to-end tests on the testbed.

use std::process::ExitCode;

use crate::commands::{Run, ci, test};
use crate::error::{Error, Kind, Result};
use crate::process::Program;
use crate::repo;

/// Run the end-to-end tests: the real image on a real Kubernetes, and everything that can break
///
/// The testbed is started if none is up, and taken down at the end. What was seen is kept in
/// target/e2e: report.txt, report.json, and a file for each scenario that failed.
#[derive(clap::Args, Default)]
pub struct Args {
    /// Only the scenarios with these names, or whose names begin so [default: those for each commit].
    scenarios: Vec<String>,
    /// Name the scenarios, and run none.
    #[arg(long)]
    list: bool,
    /// Leave the testbed up, and on it what the scenarios have made.
    #[arg(long)]
    keep: bool,
    /// Run those that are left to the night, for they take long.
    #[arg(long, conflicts_with = "full")]
    nightly: bool,
    /// Run all, and all parts of each; `kubectl rollout status`, beside each fault, waits as long as it likes.
    #[arg(long)]
    full: bool,
    /// Install missing tools with apt-get first.
    #[arg(long)]
    install: bool,
    /// Where terraform's google provider comes from: a stand-in that is built here, or terraform's registry.
    #[arg(long, value_name = "stand-in|registry", value_parser = ["stand-in", "registry"])]
    provider: Option<String>,
    /// How many scenarios run side by side [default: 3].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    jobs: Option<u8>,
}

pub fn run(args: Args, run: &Run) -> Result<ExitCode> {
    if args.install {
        ci::install(run)?;
    }
    // The tests themselves tell what they have seen, on stdout.
    let passed = match run.ui.is_json() {
        true => program(&args).args(["--json"]).dir(repo::root()?).stream(|line| println!("{line}"))?.success(),
        false => execute(&args)?.failed == 0,
    };
    match passed {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Error::new(Kind::Check, "end-to-end tests failed")
            .hint("target/e2e holds what each of them left: output, pods, logs, events")),
    }
}

/// Runs them and adds up what they say.
pub fn execute(args: &Args) -> Result<test::Outcome> {
    test::count(program(args))
}

fn program(args: &Args) -> Program {
    let flags = [("--list", args.list), ("--keep", args.keep), ("--full", args.full), ("--nightly", args.nightly)];
    let provider = args.provider.as_ref().map(|provider| ["--provider".to_owned(), provider.clone()]);
    let jobs = args.jobs.map(|jobs| ["--jobs".to_owned(), jobs.to_string()]);
    Program::new(test::cargo())
        .args(["test", "--quiet", "--package", "xtask", "--test", "e2e", "--"])
        .args(flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag))
        .args(jobs.into_iter().flatten())
        .args(provider.into_iter().flatten())
        .args(&args.scenarios)
}
