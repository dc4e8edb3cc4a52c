//! The fault table: each call of a clean run, answered badly once.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;
use testbed::google::{Fault, Rule};

use super::site::{Ran, Site, Via};
use super::{FAULTS, is_full};

/// A call of the plan: there may be several that are told apart by their bodies only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    service: String,
    method: String,
    /// The path, with `*` for the name of an operation.
    path: String,
}

impl Call {
    /// Whom it asks.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Whether it changes something.
    pub fn writes(&self) -> bool {
        let asks = ["getIamPolicy", "testIamPermissions"];
        self.method != "GET" && !asks.iter().any(|verb| self.path.ends_with(verb))
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.service, self.path)
    }
}

/// One call and what goes wrong with it.
#[derive(Clone, Debug)]
pub struct Row {
    call: Call,
    name: &'static str,
    fault: Fault,
    expected: i32,
}

impl Row {
    /// The call, with one of the faults.
    pub fn new(call: &Call, (name, fault, expected): &(&'static str, Fault, i32)) -> Self {
        Self { call: call.clone(), name, fault: fault.clone(), expected: *expected }
    }
}

/// What came of a row.
struct Outcome {
    first: Ran,
    runs: usize,
    seconds: f64,
    wrong: Vec<String>,
}

/// A clean run, and what it called.
pub struct Table {
    via: Via,
    settings: String,
    /// In the order of their names.
    pub calls: Vec<Call>,
    state: Value,
}

impl Table {
    /// Runs once without any fault; `None` where a program is missing.
    pub fn open(via: Via, settings: &str) -> Option<Self> {
        let site = Site::new(via, settings)?;
        let ran = site.apply();
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let calls: BTreeSet<Call> = site
            .google
            .log()
            .into_iter()
            .map(|entry| {
                let path = match entry.path.rsplit_once("/operations/") {
                    Some((before, _)) => format!("{before}/operations/*"),
                    None => entry.path,
                };
                Call { service: entry.service, method: entry.method, path }
            })
            .collect();
        println!("{}: a clean run takes {:.1} s and makes {} calls", via.name(), ran.seconds, calls.len());
        let state = site.state();
        Some(Self { via, settings: settings.to_owned(), calls: calls.into_iter().collect(), state })
    }

    /// Each call with each fault.
    pub fn all(&self) -> Vec<Row> {
        self.calls.iter().flat_map(|call| FAULTS.iter().map(|fault| Row::new(call, fault))).collect()
    }

    /// Runs the rows, some side by side, and prints what came of them.
    pub fn run(&self, rows: Vec<Row>, beside: usize) {
        let total = self.calls.len() * FAULTS.len();
        let queue = Mutex::new(rows.into_iter());
        let (done, wrong) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let Some(row) = queue.lock().expect("a queue").next() else { return };
                let outcome = self.row(&row);
                let end = match (outcome.first.code, outcome.runs) {
                    (Some(0), _) => "retried".to_owned(),
                    (code, runs) => format!("exit {}, run {runs} completes", code.unwrap_or(-1)),
                };
                let verdict = if outcome.wrong.is_empty() { "ok" } else { "WRONG" };
                let line = format!(
                    "{verdict:5} {:11} {:5.1} s  {:<24} {}  {:.160}",
                    row.name,
                    outcome.seconds,
                    end,
                    row.call,
                    outcome.first.cause()
                );
                println!("{line}");
                let count = outcome.first.code;
                wrong
                    .lock()
                    .expect("a list")
                    .extend(outcome.wrong.iter().map(|what| format!("{} {}: {what}", row.call, row.name)));
                done.lock().expect("a list").push(count);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..beside {
                scope.spawn(work);
            }
        });
        let (done, wrong) = (done.into_inner().expect("a list"), wrong.into_inner().expect("a list"));
        let retried = done.iter().filter(|code| **code == Some(0)).count();
        println!(
            "{}: {} rows: {retried} came through, {} completed by a second run; {} left out{}",
            self.via.name(),
            done.len(),
            done.len() - retried,
            total - done.len(),
            if is_full() { "" } else { " (XTASK_FULL_FAULTS=1 runs them)" }
        );
        assert!(!done.is_empty(), "no row was run");
        assert!(wrong.is_empty(), "{} rows are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    fn row(&self, row: &Row) -> Outcome {
        let begun = Instant::now();
        let mut wrong = Vec::new();
        let site = Site::new(self.via, &self.settings).expect("what the clean run had");
        let Call { service, method, path } = &row.call;
        site.google.fail(&Rule::once(service, method, &format!("{path}$"), row.fault.clone()));
        let first = site.apply();
        if !site.google.log().iter().any(|entry| entry.broken) {
            wrong.push("the call was not made".to_owned());
        }
        if first.code != Some(row.expected) {
            wrong.push(format!("exit {:?} instead of {}: {}", first.code, row.expected, first.cause()));
        }
        let failed = first.code != Some(0);
        if failed && !names_a_resource(&first.err) {
            wrong.push(format!("no resource is named: {}", first.cause()));
        }
        let mut runs = 1;
        if failed {
            runs += 1;
            let second = site.apply();
            if second.code != Some(0) {
                wrong.push(format!("the second run: exit {:?}: {}", second.code, second.cause()));
            }
        }
        let last = site.apply();
        if (last.code, last.changed()) != (Some(0), Some(false)) {
            wrong.push(format!("the last run is not without effect: {:?} {} {}", last.code, last.out, last.cause()));
        }
        let state = site.state();
        if state != self.state {
            wrong.push(format!("what there is differs: {}", difference(&self.state, &state, "")));
        }
        Outcome { first, runs, seconds: begun.elapsed().as_secs_f64(), wrong }
    }
}

/// Whether an error says what it is about.
fn names_a_resource(err: &str) -> bool {
    let line = err.lines().find(|line| line.trim_start().starts_with("error ")).unwrap_or_default();
    ["google_", "mlflow", "testbed-project", "googleapis.com"].iter().any(|name| line.contains(name))
}

/// The first places where two values differ.
fn difference(wanted: &Value, found: &Value, at: &str) -> String {
    match (wanted, found) {
        (Value::Object(left), Value::Object(right)) => {
            let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
            let each = names.into_iter().filter(|name| left.get(*name) != right.get(*name));
            let null = Value::Null;
            each.map(|name| {
                difference(left.get(name).unwrap_or(&null), right.get(name).unwrap_or(&null), &format!("{at}/{name}"))
            })
            .collect::<Vec<_>>()
            .join("; ")
        }
        _ => format!("{at}: {wanted} -> {found}"),
    }
}
