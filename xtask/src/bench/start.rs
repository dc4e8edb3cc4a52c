//! How long a server takes from its start to the first healthy answer: the locked set with one
//! worker, with and without bytecode, beside the plain recipe (`FROM python:3.10`,
//! `pip install mlflow psycopg2 google-cloud-storage`, `mlflow server` with its defaults).
//!
//! Both run as plain processes in virtual environments: a container runtime would add the same to
//! each. The cases take turns, so that a busy moment of the machine falls on all of them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use reqwest::StatusCode;

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::Program;
use crate::repo;
use crate::report::{self, Report};
use crate::sources::uv;

/// What the recipe installs.
const RECIPE: [&str; 3] = ["mlflow", "psycopg2-binary", "google-cloud-storage"];

/// The longest that a start may take.
const DEADLINE: Duration = Duration::from_secs(180);

/// Measure start-up to the first healthy answer beside the plain recipe
#[derive(clap::Args)]
pub struct Args {
    /// How often each case is started.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    repetitions: u32,
    /// A Python 3.13, the image's; a version lets uv look for it.
    #[arg(long, value_name = "PYTHON", default_value = "3.13")]
    python: String,
    /// A Python 3.10, the recipe's.
    #[arg(long, value_name = "PYTHON", default_value = "3.10")]
    recipe_python: String,
}

/// One way to start a server.
struct Case {
    name: &'static str,
    python: PathBuf,
    defaults: bool,
    bytecode: bool,
}

/// What was measured.
#[derive(serde::Serialize)]
pub struct Answer {
    cases: Vec<Measured>,
    /// Our median wall time as a part of the recipe's.
    ratio: f64,
}

/// One case's runs.
#[derive(serde::Serialize)]
struct Measured {
    name: &'static str,
    /// Wall time from the start to the first 200 of /health, each run.
    seconds: Vec<f64>,
    median_seconds: f64,
    /// CPU time of all its processes up to then, each run.
    cpu_seconds: Vec<f64>,
    median_cpu_seconds: f64,
}

/// Makes the environments and measures.
pub async fn run(args: Args, run: &Run) -> Result<Answer> {
    let cache = Cache::open()?;
    let dir = cache.dir("bench/start")?;
    let _lock = cache::Lock::take(&dir.join("lock"), "bench start")?;
    let lock = repo::root()?.join("mlflow_server/requirements.lock").display().to_string();
    let ours =
        venv(run, &cache, &dir.join("ours"), &args.python, &["--require-hashes", "--no-deps", "-r", &lock]).await?;
    let recipe = venv(run, &cache, &dir.join("recipe"), &args.recipe_python, &RECIPE).await?;
    let cases = [
        Case { name: "recipe", python: recipe, defaults: true, bytecode: true },
        Case { name: "ours", python: ours.clone(), defaults: false, bytecode: true },
        Case { name: "ours, no bytecode", python: ours, defaults: false, bytecode: false },
    ];
    let mut runs: Vec<Vec<(f64, f64)>> = vec![Vec::new(); cases.len()];
    let bar = run.ui.count("Starting servers", u64::from(args.repetitions + 1) * cases.len() as u64);
    // The first round makes the databases and warms the page cache; it does not count.
    for round in 0..=args.repetitions {
        for (case, runs) in cases.iter().zip(&mut runs) {
            let took = tokio::select! {
                took = start(case, &dir) => took?,
                () = run.cancel.cancelled() => return Err(Run::interrupted()),
            };
            bar.inc(1);
            if round > 0 {
                runs.push(took);
            }
        }
    }
    let cases: Vec<Measured> = cases.iter().zip(runs).map(|(case, runs)| Measured::new(case.name, &runs)).collect();
    let ratio = cases[1].median_seconds / cases[0].median_seconds;
    Ok(Answer { cases, ratio: (ratio * 1000.0).round() / 1000.0 })
}

/// An environment with these packages, its bytecode compiled; made anew each time from uv's cache.
async fn venv(run: &Run, cache: &Cache, dir: &Path, python: &str, packages: &[&str]) -> Result<PathBuf> {
    run.ui.step("Installing", packages.join(" "));
    let text = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let target = dir.display().to_string();
    uv::read(run, cache, text(&["venv", "--clear", "--no-project", "--python", python, &target]), String::new())
        .await?;
    let interpreter = dir.join("bin/python");
    let python = interpreter.display().to_string();
    let args = [&["pip", "install", "--compile-bytecode", "--python", &python], packages].concat();
    uv::read(run, cache, text(&args), String::new()).await?;
    Ok(interpreter)
}

/// Starts a server, waits for its first healthy answer and ends it: wall and CPU seconds.
async fn start(case: &Case, dir: &Path) -> Result<(f64, f64)> {
    let state = dir.join(format!("state of {}", case.name));
    cache::create_dir(&state)?;
    let port = free_port()?;
    let mut program =
        Program::new(&case.python).clear_env().env("HOME", &state).env("PATH", "/usr/bin:/bin").dir(&state);
    program = program.args(["-m", "mlflow", "server", "--port", &port.to_string()]);
    program = program.args(["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "artifacts"]);
    if !case.defaults {
        program = program.args(["--workers", "1"]).env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false");
        program = program.env("MLFLOW_DISABLE_TELEMETRY", "true").env("GIT_PYTHON_REFRESH", "quiet");
    }
    if !case.bytecode {
        // An empty cache elsewhere hides the one beside the sources.
        program = program.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPYCACHEPREFIX", state.join("no-bytecode"));
    }
    let mut command = program.into_std()?;
    let log = std::fs::File::create(state.join("log")).on_machine(|| "cannot write the server's log")?;
    let errors = log.try_clone().on_machine(|| "cannot write the server's log")?;
    command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(errors);
    let begun = Instant::now();
    let child = command.spawn().on_machine(|| format!("cannot start {}", case.python.display()))?;
    let mut group = Group(child);
    let client = reqwest::Client::builder().no_proxy().build().context(Kind::Internal, || "cannot make a client")?;
    let url = format!("http://127.0.0.1:{port}/health");
    loop {
        if client.get(&url).send().await.is_ok_and(|answer| answer.status() == StatusCode::OK) {
            return Ok((begun.elapsed().as_secs_f64(), group.cpu_seconds()));
        }
        let ended = group.0.try_wait().on_machine(|| "cannot see the server's state")?;
        if ended.is_some() || begun.elapsed() > DEADLINE {
            let message = format!("the server of {:?} did not become healthy", case.name);
            return Err(Error::new(Kind::Failed, message).hint(format!("read {}", state.join("log").display())));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").on_machine(|| "cannot open a port of 127.0.0.1")?;
    Ok(listener.local_addr().on_machine(|| "cannot read a port")?.port())
}

/// A server with all its processes; ended when dropped.
struct Group(Child);

impl Group {
    /// User and system time of the group's living processes, from `/proc`; 0 where there is none.
    fn cpu_seconds(&self) -> f64 {
        let Ok(entries) = std::fs::read_dir("/proc") else { return 0.0 };
        let stats = entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats.filter_map(|stat| cpu_ticks(&stat, self.0.id())).sum::<u64>() as f64 / 100.0
    }
}

/// User and system ticks in `/proc/PID/stat`, those of ended children included, if the process
/// belongs to the group (proc(5): fields 5 and 14 to 17; a tick is 10 ms).
fn cpu_ticks(stat: &str, group: u32) -> Option<u64> {
    // The name in parentheses may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.get(2)?.parse() == Ok(group)).then_some(())?;
    fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().ok()).sum()
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group is ours: the server was made its leader. A job runner ignores SIGTERM.
        let group = format!("-{}", self.0.id());
        let _ = Program::new("kill").args(["-KILL", "--", &group]).read();
        let _ = self.0.wait();
    }
}

impl Measured {
    fn new(name: &'static str, runs: &[(f64, f64)]) -> Self {
        let round = |value: f64| report::seconds(Duration::from_secs_f64(value));
        let seconds: Vec<f64> = runs.iter().map(|run| round(run.0)).collect();
        let cpu_seconds: Vec<f64> = runs.iter().map(|run| round(run.1)).collect();
        let (median_seconds, median_cpu_seconds) = (median(&seconds), median(&cpu_seconds));
        Self { name, seconds, median_seconds, cpu_seconds, median_cpu_seconds }
    }
}

/// The middle value, or the mean of the two middle ones; 0 for none.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{:20} {:>8} {:>8}   all runs, s", "start to /health", "median s", "CPU s")?;
        for case in &self.cases {
            let all = case.seconds.iter().map(|value| format!("{value:.1}")).collect::<Vec<_>>().join(" ");
            writeln!(out, "{:20} {:>8.2} {:>8.2}   {all}", case.name, case.median_seconds, case.median_cpu_seconds)?;
        }
        writeln!(out, "ours takes {:.0}% of the recipe's time", self.ratio * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in [(&[][..], 0.0), (&[3.0], 3.0), (&[9.0, 1.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert_eq!(median(values), expected, "{values:?}");
        }
    }

    #[test]
    fn cpu_time_is_read_for_the_group_alone() {
        let stat = "7 (a b) c) S 1 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 99 0 0";
        assert_eq!(cpu_ticks(stat, 42), Some(100));
        assert_eq!(cpu_ticks(stat, 41), None);
        assert_eq!(cpu_ticks("garbage", 42), None);
    }
}
