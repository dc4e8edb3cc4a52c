//! The smoke test: proves that a running server works by using it as a client does, and removes
//! what that left behind.
//!
//! Each check asks [`Made`] for what it needs of the earlier ones, so that a failing check skips
//! those that build on it and no others. Names are unique per run: two smokes at once do not meet.

mod artifact;
mod checks;
mod cleanup;
mod report;

use std::time::{Duration, Instant};

use url::Url;

pub use report::{CheckReport, SmokeReport};

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::mlflow::client::{Auth, Client, Failure};

/// What one check may take, unless the caller says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The artifact's size in bytes, unless the caller says otherwise.
pub const ARTIFACT_SIZE: u64 = 1 << 20;

/// What the removal of everything may take; less than a command may after Ctrl-C.
const CLEANUP: Duration = Duration::from_secs(15);

/// What to prove, and where.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server's address, a static prefix included.
    pub url: Url,
    /// The Host header to send instead of the URL's host.
    pub host_header: Option<String>,
    /// How to log in.
    pub auth: Option<Auth>,
    /// The version that must run.
    pub expect_version: Option<String>,
    /// What one check may take.
    pub timeout: Duration,
    /// Bytes to send through the server and to read back.
    pub artifact_size: u64,
    /// Checks to leave out.
    pub leave_out: Vec<Check>,
}

impl Target {
    /// All checks, without a login.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            host_header: None,
            auth: None,
            expect_version: None,
            timeout: TIMEOUT,
            artifact_size: ARTIFACT_SIZE,
            leave_out: Vec::new(),
        }
    }
}

/// The checks, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// `/health` answers.
    Health,
    /// `/version` answers, and with the expected version.
    Version,
    /// The page of the UI and one of its scripts.
    Ui,
    /// An experiment is created.
    Experiment,
    /// A run is created.
    Run,
    /// Parameters, metrics and tags are logged.
    LogBatch,
    /// The run is found by them, with the same values.
    Search,
    /// An artifact goes up, is listed and comes down unchanged.
    Artifact,
    /// A registered model, a version, an alias.
    Model,
    /// A trace is stored and read back.
    Trace,
    /// A span sent as OTLP is stored and read back.
    Otlp,
    /// A wrong Host header is refused.
    Host,
}

impl Check {
    /// All, in order.
    pub const ALL: [Check; 12] = [
        Check::Health,
        Check::Version,
        Check::Ui,
        Check::Experiment,
        Check::Run,
        Check::LogBatch,
        Check::Search,
        Check::Artifact,
        Check::Model,
        Check::Trace,
        Check::Otlp,
        Check::Host,
    ];

    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Check::Health => "health",
            Check::Version => "version",
            Check::Ui => "ui",
            Check::Experiment => "experiment",
            Check::Run => "run",
            Check::LogBatch => "log-batch",
            Check::Search => "search",
            Check::Artifact => "artifact",
            Check::Model => "model",
            Check::Trace => "trace",
            Check::Otlp => "otlp",
            Check::Host => "host",
        }
    }
}

/// What exists on the server because of this run. Names that we choose are set before the request
/// that makes the thing: a request that seemed to fail may have succeeded.
#[derive(Debug, Default)]
struct Made {
    /// Unreachable servers are not asked twelve times.
    unreachable: bool,
    experiment_name: Option<String>,
    experiment: Option<String>,
    run: Option<RunMade>,
    logged: bool,
    /// The folder of the artifact below the server's artifact root.
    artifact_folder: Option<String>,
    model: Option<String>,
    traces: Vec<String>,
}

/// A run and where its artifacts go.
#[derive(Clone, Debug)]
struct RunMade {
    id: String,
    artifact_uri: String,
}

impl Made {
    fn experiment(&self) -> Result<String, Failure> {
        self.experiment.clone().ok_or_else(|| Failure::skipped("needs the experiment"))
    }

    fn run(&self) -> Result<RunMade, Failure> {
        self.run.clone().ok_or_else(|| Failure::skipped("needs the run"))
    }
}

/// Runs the checks and removes what they made, also when one fails or the user interrupts.
///
/// # Errors
/// `Usage` for a Host header that is none, `Interrupted`. A failing check is no error but a part
/// of the report.
pub async fn run(run: &Run, target: &Target) -> Result<SmokeReport> {
    let client = Client::new(&target.url, target.host_header.as_deref(), target.auth.clone(), target.timeout)?;
    let begun = Instant::now();
    let mut made = Made::default();
    let mut results = Vec::new();
    let checks: Vec<Check> = Check::ALL.into_iter().filter(|check| !target.leave_out.contains(check)).collect();
    let bar = run.ui.count(format!("Checking {}", target.url), checks.len() as u64);
    for check in checks {
        let started = Instant::now();
        let outcome = tokio::select! {
            biased;
            () = run.cancel.cancelled() => break,
            outcome = checks::perform(check, &client, target, &mut made) => outcome,
        };
        let result = CheckReport::new(check, started.elapsed(), outcome);
        made.unreachable |= check == Check::Health && result.unreachable;
        bar.inc(1);
        results.push(result);
    }
    drop(bar);
    let cleaner = Client::new(&target.url, target.host_header.as_deref(), target.auth.clone(), CLEANUP)?;
    let cleanup = cleanup::remove(&cleaner, &made, CLEANUP).await;
    if run.cancel.is_cancelled() {
        for left in &cleanup.not_removed {
            run.ui.warn(format!("not removed: {left}"));
        }
        let hint = match cleanup.until_gc.as_deref() {
            Some(kept) => format!("what it had made is removed; {kept}"),
            None => "nothing was left behind".to_owned(),
        };
        return Err(Error::new(Kind::Interrupted, "the smoke test was interrupted").hint(hint));
    }
    Ok(SmokeReport::new(target, results, cleanup, begun.elapsed()))
}
