//! What the smoke test answers.

use std::io;
use std::time::Duration;

use crate::error::{Error, Kind};
use crate::mlflow::client::{Class, Outcome};
use crate::mlflow::smoke::cleanup::Cleanup;
use crate::mlflow::smoke::{Check, Target};
use crate::report::{self, Report};

/// The verdict on a server.
#[derive(Debug, serde::Serialize)]
pub struct SmokeReport {
    /// Whether every check passed.
    pub ok: bool,
    /// The server's address.
    pub url: String,
    /// The MLflow version that answered.
    pub version: Option<String>,
    /// The checks in order.
    pub checks: Vec<CheckReport>,
    /// Checks that the user left out.
    pub left_out: Vec<Check>,
    /// What became of the things that the checks made.
    pub cleanup: Cleanup,
    /// All of it, in seconds.
    pub seconds: f64,
}

/// One check.
#[derive(Debug, serde::Serialize)]
pub struct CheckReport {
    /// Its name.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
    /// Passed, failed or skipped.
    pub status: Status,
    /// What it took, in seconds.
    pub seconds: f64,
    /// What was seen, or why it failed or was skipped.
    pub detail: String,
    /// What the user can do about a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
    /// No HTTP answer came.
    #[serde(skip)]
    pub unreachable: bool,
    /// The login was not let in.
    #[serde(skip)]
    pub refused: bool,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The server did what it must.
    Passed,
    /// It did not.
    Failed,
    /// It was not asked, because what the check builds on is missing.
    Skipped,
}

impl CheckReport {
    /// Reports how `check` ended.
    pub fn new(check: Check, took: Duration, outcome: Outcome<String>) -> Self {
        Self::named(check.name(), took, outcome)
    }

    /// Reports how a check of another place than the server itself ended.
    pub fn named(name: &'static str, took: Duration, outcome: Outcome<String>) -> Self {
        let (status, detail, hint, class) = match outcome {
            Ok(detail) => (Status::Passed, detail, None, None),
            Err(failure) if failure.class == Class::Skipped => {
                (Status::Skipped, failure.detail, failure.hint, Some(failure.class))
            }
            Err(failure) => (Status::Failed, failure.detail, failure.hint, Some(failure.class)),
        };
        Self {
            name,
            ok: status == Status::Passed,
            status,
            seconds: report::seconds(took),
            detail,
            hint,
            unreachable: class == Some(Class::Unreachable),
            refused: class == Some(Class::Status(401)),
        }
    }

    /// Name, time and detail on one line.
    pub fn line(&self) -> String {
        format!("{:10} {:>7.3} s  {}", self.name, self.seconds, self.detail)
    }
}

impl SmokeReport {
    /// Puts the parts together.
    pub fn new(target: &Target, checks: Vec<CheckReport>, cleanup: Cleanup, took: Duration) -> Self {
        let version = checks.iter().find(|check| check.name == Check::Version.name() && check.ok);
        Self {
            ok: checks.iter().all(|check| check.ok),
            url: target.url.to_string(),
            version: version.map(|check| check.detail.clone()),
            checks,
            left_out: target.leave_out.clone(),
            cleanup,
            seconds: report::seconds(took),
        }
    }

    /// Whether the server did not let the login in.
    pub fn is_refused(&self) -> bool {
        self.checks.iter().any(|check| check.refused)
    }

    /// Adds what was found beside the server. What could not be asked there counts for nothing: the
    /// server itself was asked already.
    pub fn add(&mut self, check: CheckReport) {
        self.ok &= check.status != Status::Failed;
        self.checks.push(check);
    }

    /// The checks that did not pass, as an error: `Remote` when nothing answered, else `Check`.
    /// `None` when all passed.
    pub fn error(&self) -> Option<Error> {
        if self.ok {
            return None;
        }
        let missed = |status| self.checks.iter().filter(move |check| check.status == status);
        // Nothing failed, but what a check builds on was left out.
        let status = if missed(Status::Failed).next().is_some() { Status::Failed } else { Status::Skipped };
        let first = missed(status).next()?;
        if first.name == Check::Health.name() && first.unreachable {
            let error = Error::new(Kind::Remote, format!("no server answers at {}", self.url));
            return Some(error.source(first.detail.clone()).hint("check the address, and that the server runs"));
        }
        let names = missed(status).map(|check| check.name).collect::<Vec<_>>().join(", ");
        let message = match status {
            Status::Skipped => format!("the smoke test of {} is incomplete: {names} could not be asked", self.url),
            _ => format!("the server at {} fails its smoke test: {names}", self.url),
        };
        let error = Error::new(Kind::Check, message);
        let error = error.source(first.detail.clone());
        Some(match first.hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

impl Report for SmokeReport {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for check in &self.checks {
            let mark = match check.status {
                Status::Passed => "ok",
                Status::Failed => "FAILED",
                Status::Skipped => "skipped",
            };
            writeln!(out, "{mark:>7}  {}", check.line())?;
            if let Some(hint) = check.hint {
                writeln!(out, "{:33}{hint}", "")?;
            }
        }
        for left in &self.cleanup.not_removed {
            writeln!(out, "not removed: {left}")?;
        }
        if let Some(kept) = &self.cleanup.until_gc {
            writeln!(out, "{kept}")?;
        }
        let passed = self.checks.iter().filter(|check| check.ok).count();
        let version = self.version.as_deref().map(|version| format!("MLflow {version} ")).unwrap_or_default();
        writeln!(
            out,
            "{version}at {}: {passed} of {} checks passed in {:.1} s",
            self.url,
            self.checks.len(),
            self.seconds
        )
    }
}
