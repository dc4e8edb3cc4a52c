//! `test`: all tests, with what was skipped and why, and one closing line.

use std::process::ExitCode;

use crate::commands::{Run, ci};
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::Program;
use crate::repo;
use crate::report::Report;

/// Run the tests; what cannot run on this machine is named and counted as skipped
#[derive(clap::Args)]
pub struct Args {
    /// Only the tests whose name contains this.
    filter: Option<String>,
    /// Leave nothing out that takes too long for each commit.
    #[arg(long)]
    nightly: bool,
    /// Install missing tools with apt-get first.
    #[arg(long)]
    install: bool,
}

pub fn run(args: Args, run: &Run) -> Result<ExitCode> {
    if args.install {
        ci::install(run)?;
    }
    let outcome = execute(args.filter.as_deref(), args.nightly)?;
    run.answer(&outcome)?;
    if outcome.failed > 0 {
        return Err(Error::new(Kind::Check, format!("{} tests failed", outcome.failed)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The test runner's variable for how many tests run side by side, and how many we run for each CPU: most
/// of their time they wait for programs that they have started.
const THREADS: (&str, usize) = ("RUST_TEST_THREADS", 2);

/// The variable by which tests are asked for what takes too long for each commit.
const NIGHTLY: &str = "XTASK_NIGHTLY";

/// Runs cargo's test runner over the workspace and adds up what it says.
pub fn execute(filter: Option<&str>, nightly: bool) -> Result<Outcome> {
    // Doc tests are left out: the crates are not libraries for others. The end-to-end tests have a
    // command of their own.
    let program = Program::new(cargo())
        .args(["test", "--workspace", "--no-fail-fast", "--lib", "--bins", "--test", "it"])
        .args(filter);
    let (name, each) = THREADS;
    let threads = std::env::var(name).unwrap_or_else(|_| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        (cpus * each).to_string()
    });
    let program = if nightly { program.env(NIGHTLY, "1") } else { program };
    count(program.env(name, threads))
}

/// Runs a program of tests and adds up what it says.
pub fn count(program: Program) -> Result<Outcome> {
    let file = || tempfile::NamedTempFile::new().on_machine(|| "cannot make a temporary file");
    let (skips, left_out) = (file()?, file()?);
    let mut outcome = Outcome::default();
    let program = program.env("XTASK_SKIPPED", skips.path()).env("XTASK_LEFT_OUT", left_out.path());
    let status = program.dir(repo::root()?).stream(|line| {
        println!("{line}");
        outcome.add(line);
    })?;
    let told = |file: &tempfile::NamedTempFile| read_lines(&std::fs::read_to_string(file.path()).unwrap_or_default());
    (outcome.skips, outcome.left_out) = (told(&skips), told(&left_out));
    outcome.skipped += outcome.skips.len() as u64;
    outcome.passed = outcome.passed.saturating_sub(outcome.skips.len() as u64);
    if !status.success() && outcome.failed == 0 {
        return Err(Error::new(Kind::Check, "the tests could not be built or did not run to their end")
            .hint("the first error above names the cause"));
    }
    Ok(outcome)
}

/// The cargo that runs this program, so that a toolchain override is kept.
pub fn cargo() -> std::path::PathBuf {
    std::env::var_os("CARGO").map_or_else(|| "cargo".into(), Into::into)
}

/// What the test runner counted. A skipped test is none that passed.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    passed: u64,
    /// Tests that failed.
    pub failed: u64,
    skipped: u64,
    skips: Vec<Told>,
    /// Parts that tests have left out, though they ran.
    left_out: Vec<Told>,
}

/// What a test tells of itself: why this machine cannot run it, or what it has left out.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
struct Told {
    test: String,
    why: String,
}

impl Outcome {
    /// Adds what another program of tests counted.
    pub fn merge(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.skips.extend(other.skips);
        self.left_out.extend(other.left_out);
    }

    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(counts) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) else { return };
        for part in counts.1.split("; ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Tests append `name<TAB>why` to the files named by `XTASK_SKIPPED` and `XTASK_LEFT_OUT`.
fn read_lines(text: &str) -> Vec<Told> {
    let split =
        |line: &str| line.split_once('\t').map(|(test, why)| Told { test: test.to_owned(), why: why.to_owned() });
    text.lines().filter_map(split).collect()
}

impl Report for Outcome {
    fn human(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        for skip in &self.skips {
            writeln!(out, "skipped {}: {}", skip.test, skip.why)?;
        }
        for part in &self.left_out {
            writeln!(out, "left out by {}: {}", part.test, part.why)?;
        }
        writeln!(out, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_added_up() {
        let mut outcome = Outcome::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        ] {
            outcome.add(line);
        }
        assert_eq!((outcome.passed, outcome.failed, outcome.skipped), (5, 1, 1));
    }

    #[test]
    fn a_skip_names_the_test_and_the_reason() {
        assert_eq!(
            read_lines("a::b\tskopeo is not installed\n"),
            [Told { test: "a::b".into(), why: "skopeo is not installed".into() }]
        );
    }
}
