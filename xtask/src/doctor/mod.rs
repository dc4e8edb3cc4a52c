//! What is missing before the first deploy: questions that change nothing, side by side, and for each
//! that is answered no what to do about it.

mod access;
mod cluster;
mod google;
mod machine;
mod registry;
mod signing;
mod tools;

use std::io;
use std::time::Duration;

use serde::Serialize;

use crate::commands::Run;
use crate::config::{Config, Environment};
use crate::error::{Error, Kind, Result};
use crate::report::Report;

/// How long one question may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What: `billing`.
    pub name: String,
    /// Whether it is as needed.
    pub state: State,
    /// What was seen; for [`State::Unknown`] why nothing was.
    pub seen: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// Whether something is as needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is.
    Ok,
    /// It will do, or is seen to by the next step.
    Warning,
    /// It is not.
    Missing,
    /// Nobody could tell.
    Unknown,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

impl Check {
    fn ok(name: impl Into<String>, seen: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Ok, seen: seen.into(), fix: None }
    }

    fn warning(name: impl Into<String>, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Warning, seen: seen.into(), fix: Some(fix.into()) }
    }

    fn missing(name: impl Into<String>, seen: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { name: name.into(), state: State::Missing, seen: seen.into(), fix: Some(fix.into()) }
    }

    /// Nobody was asked, because something else is missing first.
    fn not_asked(name: impl Into<String>, why: &str) -> Self {
        Self { name: name.into(), state: State::Unknown, seen: format!("not asked: {why}"), fix: None }
    }

    fn unknown(name: impl Into<String>, seen: impl Into<String>, fix: Option<&str>) -> Self {
        Self { name: name.into(), state: State::Unknown, seen: seen.into(), fix: fix.map(str::to_owned) }
    }

    /// A question that ended in an error: its answer is no, or there was none.
    fn failed(name: impl Into<String>, error: &Error) -> Self {
        let state = match error.kind() {
            // That somebody does not answer now says nothing about what is there.
            Kind::Remote | Kind::Internal => State::Unknown,
            _ => State::Missing,
        };
        let seen = error.lines().join(": ");
        Self { name: name.into(), state, seen, fix: error.hint_text().map(str::to_owned) }
    }
}

/// All that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// The environment's name.
    pub env: String,
    /// Whether nothing that is needed is missing.
    pub ok: bool,
    /// In the order in which things build on each other.
    pub checks: Vec<Check>,
}

impl Answer {
    fn new(env: &str, checks: Vec<Check>) -> Self {
        let ok = !checks.iter().any(|check| check.state == State::Missing);
        Self { env: env.to_owned(), ok, checks }
    }

    fn summary(&self) -> String {
        let count = |state: State| self.checks.iter().filter(|check| check.state == state).count();
        let mut words = vec![match count(State::Missing) {
            0 => "nothing is missing".to_owned(),
            n => format!("{n} missing"),
        }];
        match count(State::Warning) {
            0 => {}
            1 => words.push("1 warning".to_owned()),
            n => words.push(format!("{n} warnings")),
        }
        match count(State::Unknown) {
            0 => {}
            n => words.push(format!("{n} unknown")),
        }
        words.push(format!("{} ok", count(State::Ok)));
        words.join(", ")
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let width = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        for check in &self.checks {
            let mut lines = check.seen.lines();
            let first = lines.next().unwrap_or_default();
            writeln!(out, "{:7}  {:width$}  {first}", check.state.word(), check.name)?;
            lines.try_for_each(|line| writeln!(out, "{:7}  {:width$}  {line}", "", ""))?;
            for (at, line) in check.fix.iter().flat_map(|fix| fix.lines()).enumerate() {
                let sign = if at == 0 { "->" } else { "  " };
                writeln!(out, "{:7}  {:width$}  {sign} {line}", "", "")?;
            }
        }
        writeln!(out, "{}: {}", self.env, self.summary())
    }
}

/// Looks at everything that a deploy to the environment needs.
pub async fn examine(run: &Run, config: &Config) -> Answer {
    let checks = match config.foretold() {
        None => {
            let Ok(Environment::Local(local)) = config.environment() else { unreachable!("no cluster, so local") };
            let (machine, signing, registry) = tokio::join!(
                machine::local(run, config, local),
                signing::of(run, config),
                registry::of(run, config, None)
            );
            [machine, signing, registry].concat()
        }
        Some(settings) => {
            let (machine, signing, google, registry, cluster) = tokio::join!(
                machine::builds(run),
                signing::of(run, config),
                google::of(run, config, settings),
                registry::of(run, config, Some(settings)),
                cluster::of(config, settings),
            );
            let (google, limit) = google;
            let budget = cluster::budget(settings, limit);
            [machine, signing, google, registry, cluster, vec![budget, access::of(config, settings)]].concat()
        }
    };
    Answer::new(&config.env, checks)
}

/// Asks a question for at most [`DEADLINE`].
async fn within(name: &str, question: impl Future<Output = Check>) -> Check {
    match tokio::time::timeout(DEADLINE, question).await {
        Ok(check) => check,
        Err(_) => Check::unknown(name, format!("no answer within {} s", DEADLINE.as_secs()), None),
    }
}

/// What a question comes to, with errors as answers.
async fn asked(name: &str, question: impl Future<Output = Result<Check>>) -> Check {
    let answered = async { question.await.unwrap_or_else(|error| Check::failed(name, &error)) };
    within(name, answered).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_fails() {
        let check = |states: &[State], ok: bool, summary: &str| {
            let check = |state: &State| Check { state: *state, ..Check::ok("a", "b") };
            let answer = Answer::new("lab", states.iter().map(check).collect());
            assert_eq!((answer.ok, answer.summary().as_str()), (ok, summary), "{states:?}");
        };
        check(&[State::Ok, State::Ok], true, "nothing is missing, 2 ok");
        check(&[State::Warning, State::Unknown], true, "nothing is missing, 1 warning, 1 unknown, 0 ok");
        check(&[State::Missing, State::Warning, State::Warning], false, "1 missing, 2 warnings, 0 ok");
    }

    #[test]
    fn silence_is_no_answer() {
        let check = |kind: Kind, expected: State| {
            let error = Error::new(kind, "no").hint("do").source("because");
            let check = Check::failed("a", &error);
            assert_eq!((check.state, check.seen.as_str(), check.fix.as_deref()), (expected, "no: because", Some("do")));
        };
        check(Kind::Remote, State::Unknown);
        check(Kind::Forbidden, State::Missing);
        check(Kind::Auth, State::Missing);
    }

    #[test]
    fn a_table_is_read_without_colours() {
        let checks = vec![
            Check::ok("login", "ada (gcloud)"),
            Check::missing("billing", "nobody pays", "link it:\ngcloud billing"),
            Check::not_asked("APIs", "no login"),
        ];
        let mut text = Vec::new();
        Answer::new("lab", checks).human(&mut text).unwrap();
        insta::assert_snapshot!(String::from_utf8(text).unwrap(), @r"
        ok       login    ada (gcloud)
        missing  billing  nobody pays
                          -> link it:
                             gcloud billing
        unknown  APIs     not asked: no login
        lab: 1 missing, 1 unknown, 1 ok
        ");
    }
}
