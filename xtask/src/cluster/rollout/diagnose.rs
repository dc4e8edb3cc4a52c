//! Why a rollout failed, on one screen: the cause, where, the last log lines, the events, the fix.

use std::fmt;
use std::io;

use k8s_openapi::api::core::v1::Event;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::report::Report;

use super::super::Cluster;
use super::causes::{self, Cause};
use super::snapshot::{LogLine, Snapshot, last_time};
use super::{Expected, logs, pods, text};

/// How many log lines of an instance are kept.
const LINES: i64 = 20;
/// How many log lines are shown: with the rest they fit on a screen.
const SHOWN_LINES: usize = 12;
/// How many events are kept.
const EVENTS: usize = 20;
/// How many events are shown.
const SHOWN_EVENTS: usize = 6;
/// The longest line that is shown.
const WIDTH: usize = 240;

/// Why a rollout failed.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The Deployment.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The generation that failed.
    pub generation: i64,
    /// What is wrong, in one sentence.
    pub sentence: String,
    /// The most telling cause.
    pub cause: Cause,
    /// Whether a new pod was ready meanwhile, and so may have been written to.
    pub served: bool,
    /// Whether only the deadline ended it: the cause is then what stood in the way at that time.
    pub deadline_passed: bool,
    /// Seconds from the cluster's first sign of the cause to the verdict, by two clocks: the
    /// cluster's and ours.
    pub seconds_after_first_sign: f64,
    /// Seconds from the apply to the verdict.
    pub seconds: f64,
    /// The Deployment's conditions.
    pub conditions: Vec<Condition>,
    /// The last log lines of the container.
    pub logs: Vec<Tail>,
    /// The events about the Deployment, its new ReplicaSet and that one's pods, the newest last.
    pub events: Vec<Told>,
    /// What to do about it.
    pub hint: String,
}

/// A condition of the Deployment.
#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    /// `Available`, `Progressing`, `ReplicaFailure`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// The controller's word for why.
    pub reason: String,
    /// The controller's sentence.
    pub message: String,
}

/// The last log lines of a container.
#[derive(Clone, Debug, Serialize)]
pub struct Tail {
    /// The pod.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Whether they are from the instance before the last restart.
    pub previous: bool,
    /// The lines.
    pub lines: Vec<String>,
}

/// An event.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// When it was last recorded, RFC 3339.
    pub at: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The component's word.
    pub reason: String,
    /// `Pod/mlflow-...`.
    pub object: String,
    /// The component's sentence.
    pub message: String,
    /// How often it was recorded.
    pub count: i32,
}

/// Gathers what a person needs to understand the failure.
pub async fn gather(
    cluster: &Cluster,
    expected: &Expected,
    cause: Cause,
    late: bool,
    served: bool,
    snapshot: &Snapshot,
) -> Diagnosis {
    let logs = match (&cause.pod, &cause.container) {
        (Some(pod), Some(container)) => tails(cluster, pod, container, &cause, snapshot).await,
        _ => Vec::new(),
    };
    let elapsed = |since: Timestamp| {
        let seconds = snapshot.at.duration_since(since).as_secs_f64();
        (seconds.max(0.0) * 10.0).round() / 10.0
    };
    let seconds = elapsed(expected.started);
    let deployment = snapshot.deployment.as_ref();
    let conditions = deployment.and_then(|found| found.status.as_ref()).and_then(|status| status.conditions.as_ref());
    Diagnosis {
        name: expected.name.clone(),
        namespace: cluster.namespace.clone(),
        generation: expected.generation,
        sentence: sentence(&cause, late, elapsed(cause.first_sign), seconds),
        served,
        deadline_passed: late,
        seconds_after_first_sign: elapsed(cause.first_sign),
        seconds,
        conditions: conditions.into_iter().flatten().map(condition).collect(),
        logs,
        events: events(expected, snapshot),
        hint: cause.code.hint().to_owned(),
        cause,
    }
}

/// The cause, and how long after the cluster's first sign of it.
pub fn sentence(cause: &Cause, late: bool, after: f64, seconds: f64) -> String {
    let subject = match (&cause.container, &cause.pod) {
        (Some(container), _) => format!("container {container}: "),
        (None, Some(pod)) => format!("pod {pod}: "),
        (None, None) => String::new(),
    };
    let exits = match (cause.restarts, cause.exit_code) {
        (0, _) | (_, None) => String::new(),
        (restarts, Some(code)) => format!(" (exit code {code}, {restarts} restarts)"),
    };
    let when = match late {
        true => format!("the deadline passed after {}", text::seconds(seconds)),
        false => format!("{} after the cluster's first sign", text::seconds(after)),
    };
    format!("{subject}{}{exits}; {when}", cause.code.phrase())
}

fn condition(condition: &k8s_openapi::api::apps::v1::DeploymentCondition) -> Condition {
    Condition {
        kind: condition.type_.clone(),
        status: condition.status.clone(),
        reason: condition.reason.clone().unwrap_or_default(),
        message: text::clean(condition.message.as_deref().unwrap_or_default()),
    }
}

/// The lines are read once more: the last words may have come since. What was read before stands in
/// where the node does not answer any more.
async fn tails(cluster: &Cluster, pod: &str, container: &str, cause: &Cause, snapshot: &Snapshot) -> Vec<Tail> {
    let (current, previous) = tokio::join!(
        logs::read(cluster, pod, container, false, LINES),
        logs::read(cluster, pod, container, true, LINES),
    );
    let tail = |previous: bool, lines: Option<Vec<LogLine>>| {
        let lines = lines.unwrap_or_else(|| snapshot.log(&cause.uid, container, previous).to_vec());
        let skipped = lines.len().saturating_sub(usize::try_from(LINES).unwrap_or(usize::MAX));
        let lines: Vec<String> = lines.into_iter().skip(skipped).map(|line| line.text).collect();
        let has_words = lines.iter().any(|line| !line.trim().is_empty());
        has_words.then(|| Tail { pod: pod.to_owned(), container: container.to_owned(), previous, lines })
    };
    [tail(true, previous), tail(false, current)].into_iter().flatten().collect()
}

fn events(expected: &Expected, snapshot: &Snapshot) -> Vec<Told> {
    let mut uids = vec![expected.uid.as_str()];
    if let Some(set) = pods::new_replica_set(expected, snapshot) {
        uids.extend(set.metadata.uid.as_deref());
        uids.extend(pods::pods_of(set, snapshot).into_iter().map(pods::uid));
    }
    let started = expected.started.as_second() - 5;
    let of = |event: &&Event| {
        let is_recent = last_time(event).is_none_or(|at| at.as_second() >= started);
        is_recent && event.involved_object.uid.as_deref().is_some_and(|uid| uids.contains(&uid))
    };
    let mut found: Vec<&Event> = snapshot.events.iter().filter(of).collect();
    found.sort_by_key(|event| last_time(event));
    let skipped = found.len().saturating_sub(EVENTS);
    found.into_iter().skip(skipped).map(told).collect()
}

fn told(event: &Event) -> Told {
    let object = &event.involved_object;
    let text = |field: &Option<String>| text::clean(field.as_deref().unwrap_or_default());
    Told {
        at: last_time(event).map(|at| at.to_string()).unwrap_or_default(),
        kind: text(&event.type_),
        reason: text(&event.reason),
        object: format!("{}/{}", text(&object.kind), text(&object.name)),
        message: text(&event.message),
        count: event.series.as_ref().and_then(|series| series.count).or(event.count).unwrap_or(1),
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = &self.cause;
        writeln!(f, "Deployment/{} failed: {}", self.name, self.sentence)?;
        let place = cause.pod.as_ref().map_or_else(|| format!("Deployment/{}", self.name), |pod| format!("Pod/{pod}"));
        let message = if cause.message.is_empty() { String::new() } else { format!(": {}", cause.message) };
        writeln!(f, "  {place}: {}", text::short(&format!("{}{message}", cause.reason), WIDTH))?;
        if let Some(tail) = self.telling_tail() {
            let instance = if tail.previous { ", before its last restart" } else { "" };
            writeln!(f, "\nLog of {}{instance}:", tail.container)?;
            let lines: Vec<&String> = tail.lines.iter().filter(|line| !line.trim().is_empty()).collect();
            for line in &lines[lines.len().saturating_sub(SHOWN_LINES)..] {
                writeln!(f, "  {}", text::short(line, WIDTH))?;
            }
        }
        let events = self.telling_events();
        if !events.is_empty() {
            writeln!(f, "\nEvents:")?;
            for event in events {
                let time = event.at.split_once('T').map_or("", |(_, time)| time.get(..8).unwrap_or_default());
                let times = if event.count > 1 { format!(" ({}x)", event.count) } else { String::new() };
                let message = match event.message.starts_with("Failed to pull image") {
                    true => causes::pull_detail(&event.message),
                    false => &event.message,
                };
                let line = format!("{time} {} {}{times}: {message}", event.object, event.reason);
                writeln!(f, "  {}", text::short(&line, WIDTH))?;
            }
        }
        write!(f, "\nTo do: {}", self.hint)
    }
}

impl Diagnosis {
    /// The present instance's log; that of the one before where it has not said anything.
    fn telling_tail(&self) -> Option<&Tail> {
        self.logs.iter().find(|tail| !tail.previous).or_else(|| self.logs.first())
    }

    /// Warnings where there are any, and of each kind about an object only the last two.
    fn telling_events(&self) -> Vec<&Told> {
        let has_warnings = self.events.iter().any(|event| event.kind == "Warning");
        let mut shown: Vec<&Told> = Vec::new();
        for event in self.events.iter().rev().filter(|event| event.kind == "Warning" || !has_warnings) {
            let alike = shown.iter().filter(|other| other.object == event.object && other.reason == event.reason);
            if alike.count() < 2 && shown.len() < SHOWN_EVENTS {
                shown.push(event);
            }
        }
        shown.reverse();
        shown
    }
}

impl Report for Diagnosis {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{self}")
    }
}
