//! The fault table: each call of a clean run, answered badly once, in each of the ways.
//!
//! A run of its own for each row would take hours. Faults that pass go together, one for each call, in
//! rounds that are turned like a Latin square: as many runs as there are faults, and each call has met
//! each of them. Refusals are set for all calls at once, and the same command is run until it is through.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::Value;
use testbed::google::{Entry, Fault, Rule};

use super::site::{Environment, Ran, Site, Via};

/// The row to run by itself, as the table names it.
const ROW: &str = "XTASK_FAULT_ROW";

/// The exit code of a run that was refused something.
const REFUSED: i32 = 15;

/// Faults that pass: `infra apply` is through in one run.
const PASSING: [(&str, Fault); 5] = [
    ("429", Fault::RateLimited),
    ("500", Fault::Status(500)),
    ("hang", Fault::Hang),
    ("closed", Fault::Closed),
    ("answer lost", Fault::AnswerLost),
];

/// The fault that does not: the run ends with [`REFUSED`].
const REFUSAL: (&str, Fault) = ("403", Fault::PermissionDenied);

/// A call of the plan: there may be several that are told apart by their bodies only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    service: String,
    method: String,
    /// The path, with `*` for what differs between runs that do the same.
    path: String,
}

impl From<&Entry> for Call {
    fn from(entry: &Entry) -> Self {
        let path = match (entry.path.rsplit_once("/operations/"), entry.path.split_once("/services")) {
            (Some((before, _)), _) => format!("{before}/operations/*"),
            // terraform enables those APIs together that come at the same moment.
            (None, Some((before, rest))) if rest.ends_with("nable") => format!("{before}/services*nable"),
            _ => entry.path.clone(),
        };
        Self { service: entry.service.clone(), method: entry.method.clone(), path }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.service, self.path)
    }
}

/// One call and what goes wrong with it.
#[derive(Clone, Debug)]
struct Row {
    via: Via,
    name: &'static str,
    fault: Fault,
    call: Call,
}

impl Row {
    fn rule(&self) -> Rule {
        let Call { service, method, path } = &self.call;
        Rule::once(service, method, &format!("^{path}$"), self.fault.clone())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}|{}", self.via.name(), self.name, self.call)
    }
}

/// What came of a row.
enum End {
    /// The run that met it was through.
    Retried,
    /// It was refused in this run, with these words, and a later run was through.
    Refused(usize, String),
    /// Something is wrong.
    Wrong(String),
}

/// What came of rows that were set together.
#[derive(Default)]
struct Outcome {
    ends: Vec<(Row, End)>,
    /// Rows whose call did not come: an answer that is lost, or a run that fails, changes what follows.
    unmet: Vec<Row>,
    /// What is wrong with all of it.
    wrong: Vec<String>,
}

/// Whether rows of this way are to be run: all of them, unless one is named. By gcloud each call is a process,
/// and all of them take eight minutes of two CPUs.
pub fn is_wanted(via: Via) -> bool {
    let Ok(row) = std::env::var(ROW) else {
        return via == Via::Terraform || testbed::nightly("gcloud's fault table");
    };
    let way = row.split('|').next().unwrap_or_default();
    let is_known = [Via::Terraform, Via::Gcloud].iter().any(|via| via.name() == way);
    assert!(is_known, "{ROW}={row} does not begin with terraform| or gcloud|");
    way == via.name()
}

/// A clean run, and what it called.
pub struct Table {
    via: Via,
    environment: Environment,
    calls: Vec<Call>,
    state: Value,
}

impl Table {
    /// Runs twice without any fault, because the second asks what there is; `None` where a program is
    /// missing.
    pub fn open(via: Via, environment: Environment) -> Option<Self> {
        let site = Site::of(via, environment)?;
        let (ran, again) = (site.apply(), site.apply());
        assert_eq!((ran.code, again.code, again.changed()), (Some(0), Some(0), Some(false)), "{}", ran.err);
        let calls: BTreeSet<Call> = site.google.log().iter().map(Call::from).collect();
        let table = Self { via, environment, calls: calls.into_iter().collect(), state: site.state() };
        let count = table.calls.len();
        println!("{table}: {count} calls; a clean run takes {:.1} s, the second {:.1} s", ran.seconds, again.seconds);
        Some(table)
    }

    /// Leaves out the calls that are in another table.
    pub fn beyond(mut self, other: &Self) -> Self {
        self.calls.retain(|call| !other.calls.contains(call));
        self
    }

    /// Each call with each fault, as they are set together.
    fn rounds(&self) -> Vec<Vec<Row>> {
        let row = |call: &Call, (name, fault): &(&'static str, Fault)| Row {
            via: self.via,
            name,
            fault: fault.clone(),
            call: call.clone(),
        };
        let refusals = self.calls.iter().map(|call| row(call, &REFUSAL)).collect();
        let turned = |turn: usize| {
            let each = self.calls.iter().enumerate();
            each.map(|(n, call)| row(call, &PASSING[(n + turn) % PASSING.len()])).collect()
        };
        std::iter::once(refusals).chain((0..PASSING.len()).map(turned)).collect()
    }

    /// Runs the rows, some rounds side by side, and prints what came of them. Gives their number.
    pub fn run(&self, beside: usize) -> usize {
        let (begun, mut rounds) = (Instant::now(), self.rounds());
        if let Ok(wanted) = std::env::var(ROW) {
            rounds.iter_mut().for_each(|rows| rows.retain(|row| row.to_string() == wanted));
        }
        let total: usize = rounds.iter().map(Vec::len).sum();
        let (queue, done) = (Mutex::new(rounds.into_iter()), Mutex::new(Vec::new()));
        let work = || {
            loop {
                let Some(rows) = queue.lock().expect("a queue").next() else { return };
                let outcomes = self.until_met(rows);
                done.lock().expect("a list").extend(outcomes);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..beside {
                scope.spawn(work);
            }
        });
        let done = done.into_inner().expect("a list");
        self.tell(&done, total, begun.elapsed().as_secs_f64());
        total
    }

    /// Runs rows together; those whose call did not come, again without the others.
    fn until_met(&self, rows: Vec<Row>) -> Vec<Outcome> {
        let (mut outcomes, mut rows) = (Vec::new(), rows);
        while !rows.is_empty() {
            let begun = Instant::now();
            let site = Site::of(self.via, self.environment).expect("what the clean run had");
            rows.iter().for_each(|row| site.google.fail(&row.rule()));
            let mut outcome = match rows[0].name == REFUSAL.0 {
                true => self.refused(&site, &rows),
                false => self.passed(&site, &rows),
            };
            let (met, seconds) = (outcome.ends.len(), begun.elapsed().as_secs_f64());
            println!("{self}: {met} of {} rows in {seconds:.1} s, from {} on", rows.len(), rows[0]);
            rows = std::mem::take(&mut outcome.unmet);
            if met == 0 {
                let never = rows.drain(..).map(|row| (row, End::Wrong("the call was not made".to_owned())));
                outcome.ends.extend(never);
            }
            outcomes.push(outcome);
        }
        outcomes
    }

    /// Faults that pass: the run is through, and a second one, which meets what is left.
    fn passed(&self, site: &Site, rows: &[Row]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut ran = site.apply();
        if ran.code == Some(0) {
            ran = site.apply();
        }
        let met = met(site);
        for row in rows {
            let end = match ran.code {
                _ if !met.contains(&row.call) => {
                    outcome.unmet.push(row.clone());
                    continue;
                }
                Some(0) => End::Retried,
                code if met.last() == Some(&row.call) => {
                    End::Wrong(format!("it is the last one before exit {code:?}: {}", ran.cause()))
                }
                // Whether it is the one to blame is not known.
                _ => End::Retried,
            };
            outcome.ends.push((row.clone(), end));
        }
        match ran.code {
            Some(0) => outcome.wrong.extend(self.unsettled(site, &ran)),
            code => {
                let all: Vec<String> = outcome.ends.iter().map(|(row, _)| row.to_string()).collect();
                outcome.wrong.push(format!("exit {code:?} of a run that met\n  {}", all.join("\n  ")));
                println!("{self}: a run took {:.1} s and failed: {}", ran.seconds, ran.cause());
            }
        }
        outcome
    }

    /// Refusals: each run meets some and ends with them, until one is through, and one has nothing to do.
    fn refused(&self, site: &Site, rows: &[Row]) -> Outcome {
        let mut outcome = Outcome::default();
        let mut unmet = rows.to_vec();
        for number in 1.. {
            let ran = site.apply();
            let met = met(site);
            let (now, later): (Vec<Row>, Vec<Row>) = unmet.into_iter().partition(|row| met.contains(&row.call));
            unmet = later;
            let wrong = match ran.code {
                Some(0) if now.is_empty() => None,
                Some(REFUSED) if now.is_empty() => Some("though nothing was refused"),
                Some(REFUSED) if !names_a_resource(&ran) => Some("and names no resource"),
                Some(REFUSED) => None,
                _ => Some("and not with 15"),
            };
            let wrong = wrong.map(|why| format!("run {number} ended with {:?} {why}: {}", ran.code, ran.cause()));
            println!("{self}: run {number} took {:.1} s and met {}: {:.200}", ran.seconds, now.len(), ran.cause());
            if now.is_empty() {
                outcome.wrong.extend(wrong.clone());
            }
            let is_over = now.is_empty() && (ran.code, ran.changed()) != (Some(0), Some(true));
            let end = || match &wrong {
                Some(why) => End::Wrong(why.clone()),
                None => End::Refused(number, ran.cause()),
            };
            outcome.ends.extend(now.into_iter().map(|row| (row, end())));
            if is_over {
                outcome.wrong.extend(self.unsettled(site, &ran));
                break;
            }
        }
        outcome.unmet = unmet;
        outcome
    }

    /// What is not as it should be: the last run had nothing to do, and there is what there is after a
    /// clean one.
    fn unsettled(&self, site: &Site, last: &Ran) -> Vec<String> {
        let mut wrong = Vec::new();
        if (last.code, last.changed()) != (Some(0), Some(false)) {
            wrong.push(format!("the last run is not without effect: {:?} {} {}", last.code, last.out, last.cause()));
        }
        let state = site.state();
        if state != self.state {
            wrong.push(format!("what there is differs: {}", difference(&self.state, &state, "")));
        }
        wrong
    }

    /// Prints a line for each row, and the sum.
    fn tell(&self, outcomes: &[Outcome], total: usize, seconds: f64) {
        let mut ends: Vec<&(Row, End)> = outcomes.iter().flat_map(|outcome| &outcome.ends).collect();
        ends.sort_by(|(one, _), (other, _)| (&one.call, one.name).cmp(&(&other.call, other.name)));
        let mut wrong: Vec<String> = outcomes.iter().flat_map(|outcome| outcome.wrong.clone()).collect();
        let (mut retried, mut refused) = (0, 0);
        for (row, end) in &ends {
            match end {
                End::Retried => {
                    retried += 1;
                    println!("ok    {row}: retried");
                }
                End::Refused(run, cause) => {
                    refused += 1;
                    println!("ok    {row}: exit {REFUSED} of run {run}: {cause:.160}");
                }
                End::Wrong(why) => {
                    wrong.push(format!("{row}: {why}"));
                    println!("WRONG {row}: {why:.160}");
                }
            }
        }
        let left = total - ends.len();
        println!(
            "{self}: {} rows: {retried} retried, {refused} completed by a second run, {left} left out; {seconds:.0} s",
            ends.len()
        );
        assert_eq!(left, 0, "rows are left out");
        let again = format!("to run a row by itself, name it in {ROW}");
        assert!(wrong.is_empty(), "{} of {self} are wrong; {again}:\n{}", wrong.len(), wrong.join("\n"));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.via.name(), self.environment.kind)
    }
}

/// The calls that were answered badly, in their order.
fn met(site: &Site) -> Vec<Call> {
    site.google.log().iter().filter(|entry| entry.broken).map(Call::from).collect()
}

/// Whether an error says what it is about.
fn names_a_resource(ran: &Ran) -> bool {
    let cause = ran.cause();
    ["google_", "mlflow", "testbed-project", "googleapis.com"].iter().any(|name| cause.contains(name))
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
        _ => format!("{at}: {:.200} -> {:.200}", wanted.to_string(), found.to_string()),
    }
}
