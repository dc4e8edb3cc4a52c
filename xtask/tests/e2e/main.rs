//! The end-to-end tests: the real image, deployed by the built `xtask` to a real Kubernetes with a
//! real PostgreSQL, and broken in every way that the scenarios name.
//!
//! `cargo xtask e2e` is the way to run them. Scenarios look at the cluster with a client of their
//! own, never through the program under test.

mod access;
mod api;
mod backup;
mod bad_input;
mod beside;
mod capacity;
mod cloud;
mod database;
mod dump;
mod faults;
mod first_deploy;
mod http;
mod image_policy;
mod images;
mod kube;
mod load;
#[path = "../observability.rs"]
mod observability;
mod operations;
mod place;
mod report;
mod rolling;
mod run;
mod scenario;
mod site;
mod stamp;
mod steps;
mod upgrade;
mod user;
mod watch;
mod world;

use std::process::ExitCode;
use std::time::Instant;

use place::Found;
use report::Outcome;
use scenario::{Choice, Scenario, When};
use world::World;

/// Of everything here: the message is for the person who reads the test's output.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Fails with a message unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if $condition {
        } else {
            return Err(format!($($message)+).into());
        }
    };
}
use ensure;

/// How the tests are run.
#[derive(Default)]
struct Args {
    wanted: Vec<String>,
    list: bool,
    json: bool,
    keep: bool,
    full: bool,
    nightly: bool,
    registry: bool,
    jobs: usize,
}

fn main() -> ExitCode {
    let args = match arguments(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let when = match (args.nightly, args.full) {
        (true, _) => When::Night,
        (false, true) => When::Full,
        (false, false) => When::Commit,
    };
    let Choice { chosen, left_out, unknown } = scenario::choose(&args.wanted, when);
    if let Some(unknown) = unknown {
        eprintln!("no scenario is called {unknown:?}; --list names them");
        return ExitCode::from(2);
    }
    if args.list {
        for scenario in &chosen {
            println!("{:24} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    if !left_out.is_empty() {
        let names = left_out.join(", ");
        scenario::leave_out(
            "scenarios",
            &format!("{names}; they run each night, with --nightly, or when they are named"),
        );
    }
    match run(&args, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            println!("test result: FAILED. 0 passed; {} failed; 0 ignored", chosen.len());
            ExitCode::FAILURE
        }
    }
}

fn arguments(args: impl Iterator<Item = String>) -> Result<Args> {
    let mut parsed = Args { jobs: 3, ..Args::default() };
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--list" => parsed.list = true,
            "--json" => parsed.json = true,
            "--keep" => parsed.keep = true,
            "--full" => parsed.full = true,
            "--nightly" => parsed.nightly = true,
            // Where terraform's google provider comes from.
            "--provider" => parsed.registry = args.next().ok_or("--provider needs a word")? == "registry",
            "--jobs" => parsed.jobs = args.next().ok_or("--jobs needs a number")?.parse::<usize>()?.max(1),
            // Cargo's own test runner understands it; so do we, to be called alike.
            "--nocapture" => {}
            flag if flag.starts_with('-') => return Err(format!("{flag} is unknown").into()),
            name => parsed.wanted.push(name.to_owned()),
        }
    }
    Ok(parsed)
}

/// Runs the scenarios; whether all have passed.
fn run(args: &Args, chosen: &[&'static Scenario]) -> Result<bool> {
    let begun = Instant::now();
    let (place, started) = match place::find()? {
        Found::Up(place, started) => (*place, started),
        Found::Lacking(why) => {
            ensure!(std::env::var_os("CI").is_none(), "{why}");
            for scenario in chosen {
                scenario::skip(scenario.name, &why);
            }
            // `cargo xtask test` takes the skipped ones from those that passed.
            println!("test result: ok. {} passed; 0 failed; 0 ignored", chosen.len());
            return Ok(true);
        }
    };
    let world = World::new(place, args.full, args.keep, args.registry)?;
    let outcomes = scenario::run(&world, chosen, args.jobs);
    world.clear();
    let result = tell(args, chosen.len(), &outcomes, begun);
    if started && !args.keep {
        place::down()?;
    }
    result
}

fn tell(args: &Args, chosen: usize, outcomes: &[Outcome], begun: Instant) -> Result<bool> {
    let text = serde_json::to_string_pretty(outcomes)?;
    let path = world::folder().join("report.json");
    std::fs::create_dir_all(world::folder())?;
    std::fs::write(&path, &text)?;
    let table = report::table(outcomes);
    std::fs::write(world::folder().join("report.txt"), &table)?;
    if args.json {
        println!("{text}");
    } else {
        println!("\n{table}");
    }
    let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
    let word = if failed == 0 { "ok" } else { "FAILED" };
    // `cargo xtask test` takes the skipped ones from those that passed.
    let passed = chosen - failed;
    let closing = format!(
        "test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s",
        begun.elapsed().as_secs_f64()
    );
    // With --json, stdout holds the report and nothing else.
    if args.json {
        eprintln!("{closing}")
    } else {
        println!("{closing}")
    }
    Ok(failed == 0)
}
