//! What the server's containers print: the last lines of all of them in the order in which they were
//! printed, and then, if wanted, whatever comes, also from pods that start later.
//!
//! Lines are read with the container runtime's own timestamps, which put them in order and say where
//! to go on after a broken connection.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use futures::io::AsyncBufReadExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::report::Report;

use super::target::SELECTOR;
use super::{Cluster, call, failure};

/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(20);
/// Between two looks for new pods and restarted containers.
const PAUSE: Duration = Duration::from_secs(2);
/// Lines that wait to be printed.
const QUEUE: usize = 1_000;

/// Which lines.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Of this container only.
    pub container: Option<String>,
    /// Of the containers before their last restart.
    pub previous: bool,
    /// So many of the last of each container.
    pub lines: usize,
    /// Not older than this.
    pub since: Option<Duration>,
}

impl Wanted {
    fn since_seconds(&self) -> Option<i64> {
        i64::try_from(self.since?.as_secs().max(1)).ok()
    }
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// When it was printed, as the container runtime says.
    #[serde(serialize_with = "as_text")]
    pub time: Option<Timestamp>,
    /// The pod.
    pub pod: String,
    /// The container in it.
    pub container: String,
    /// The text.
    pub text: String,
}

fn as_text<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}

impl Report for Line {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        // The rest of a pod's name is that of the Deployment and its ReplicaSet.
        let short = self.pod.rsplit('-').next().unwrap_or(&self.pod);
        writeln!(out, "{short}/{} | {}", self.container, self.text)
    }
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    pod: String,
    container: String,
    /// What the runtime calls this run of it; empty before the first.
    id: String,
    is_running: bool,
    restarts: i32,
}

/// The last lines of all containers, in order.
///
/// # Errors
/// `Check` when there are no pods, or no earlier runs to look at; `Usage` for an unknown container.
pub async fn last(cluster: &Cluster, wanted: &Wanted) -> Result<Vec<Line>> {
    let sources = sources(cluster, wanted).await?;
    let readable = |source: &&Source| match wanted.previous {
        true => source.restarts > 0,
        false => !source.id.is_empty(),
    };
    if wanted.previous && !sources.iter().any(|source| readable(&source)) {
        return Err(Error::new(Kind::Check, "no container has been restarted").hint("leave --previous out"));
    }
    let pods = cluster.api::<Pod>();
    let asked = sources.iter().filter(readable).map(|source| {
        let params = LogParams {
            container: Some(source.container.clone()),
            previous: wanted.previous,
            tail_lines: i64::try_from(wanted.lines).ok(),
            since_seconds: wanted.since_seconds(),
            timestamps: true,
            ..LogParams::default()
        };
        let pods = &pods;
        async move {
            match call::repeat(QUESTION, || pods.logs(&source.pod, &params)).await {
                Ok(text) => Ok(text.lines().map(|text| line(source, text)).collect()),
                // Gone since it was listed, or its log with it: no reason to hide the others.
                Err(kube::Error::Api(status)) if matches!(status.code, 400 | 404) => Ok(Vec::new()),
                Err(error) => {
                    let doing = format!("read the log of {} in pod {}", source.container, source.pod);
                    Err(failure::explain(cluster, &doing, error))
                }
            }
        }
    });
    let read: Vec<Vec<Line>> = futures::future::try_join_all(asked).await?;
    let mut lines: Vec<Line> = read.into_iter().flatten().collect();
    // Stable: lines of one container that share a timestamp stay in order.
    lines.sort_by_key(|line| line.time);
    Ok(lines)
}

/// Hands over each line as it comes, also from pods that start later, until `print` says that it has
/// seen enough or the run is cancelled. `seen` are the lines that are not to be repeated.
///
/// # Errors
/// `Auth` or `Forbidden`. What else may go wrong with the API server is waited for.
pub async fn follow(
    run: &Run,
    cluster: &Cluster,
    wanted: &Wanted,
    seen: &[Line],
    mut print: impl FnMut(&Line) -> bool,
) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(cluster.streams.clone(), &cluster.namespace);
    let (sender, mut lines) = mpsc::channel::<(Source, Line)>(QUEUE);
    let mut streams: JoinSet<Source> = JoinSet::new();
    let mut followed = Followed::new(seen);
    let mut first = true;
    let mut look = tokio::time::interval(PAUSE);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut trouble = false;
    loop {
        tokio::select! {
            () = run.cancel.cancelled() => return Ok(()),
            Some((source, line)) = lines.recv() => {
                if followed.is_new(&source, &line) && !print(&line) {
                    return Ok(());
                }
            }
            Some(ended) = streams.join_next() => if let Ok(source) = ended { followed.ended(&source) },
            _ = look.tick() => {
                let sources = match sources(cluster, wanted).await {
                    Ok(sources) => sources,
                    Err(error) if matches!(error.kind(), Kind::Auth | Kind::Forbidden | Kind::Usage) => return Err(error),
                    Err(error) => {
                        if !trouble {
                            run.ui.step("Waiting", error.lines().join(": "));
                        }
                        trouble = true;
                        continue;
                    }
                };
                trouble = false;
                for source in followed.unread(sources) {
                    let since_time = followed.since(&source);
                    // Of a container that has shown nothing yet, what was not wanted before is not now.
                    let fresh = first && since_time.is_none();
                    let params = LogParams {
                        container: Some(source.container.clone()),
                        follow: true,
                        timestamps: true,
                        since_time,
                        since_seconds: wanted.since_seconds().filter(|_| fresh),
                        tail_lines: (fresh && wanted.lines == 0).then_some(0),
                        ..LogParams::default()
                    };
                    streams.spawn(stream(pods.clone(), source, params, sender.clone()));
                }
                first = false;
            }
        }
    }
}

/// What was followed, and how far.
#[derive(Default)]
struct Followed {
    /// By pod and container: the run of it, and whether its stream is open.
    runs: BTreeMap<(String, String), (String, bool)>,
    last: BTreeMap<(String, String), Timestamp>,
}

impl Followed {
    fn new(seen: &[Line]) -> Self {
        let mut followed = Self::default();
        for line in seen {
            followed.note((line.pod.clone(), line.container.clone()), line.time);
        }
        followed
    }

    fn note(&mut self, key: (String, String), time: Option<Timestamp>) {
        let Some(time) = time else { return };
        let last = self.last.entry(key).or_insert(time);
        *last = time.max(*last);
    }

    /// Whether a line was not read before. Where a stream goes on, the API server begins with the
    /// second of the last line.
    fn is_new(&mut self, source: &Source, line: &Line) -> bool {
        let key = (source.pod.clone(), source.container.clone());
        let known = self.last.get(&key).copied();
        self.note(key, line.time);
        match (line.time, known) {
            (Some(time), Some(known)) => time > known,
            _ => true,
        }
    }

    /// Those whose log is not open and has more: a run that was not read yet, or one whose stream
    /// broke while it goes on.
    fn unread(&mut self, sources: Vec<Source>) -> Vec<Source> {
        let mut open = Vec::new();
        for source in sources.into_iter().filter(|source| !source.id.is_empty()) {
            let key = (source.pod.clone(), source.container.clone());
            let more = match self.runs.get(&key) {
                None => true,
                Some((_, true)) => false,
                Some((id, false)) => *id != source.id || source.is_running,
            };
            if more {
                self.runs.insert(key, (source.id.clone(), true));
                open.push(source);
            }
        }
        open
    }

    fn ended(&mut self, source: &Source) {
        if let Some((_, open)) = self.runs.get_mut(&(source.pod.clone(), source.container.clone())) {
            *open = false;
        }
    }

    fn since(&self, source: &Source) -> Option<Timestamp> {
        self.last.get(&(source.pod.clone(), source.container.clone())).copied()
    }
}

/// Reads a log to its end, which may be that of the connection.
async fn stream(pods: Api<Pod>, source: Source, params: LogParams, lines: mpsc::Sender<(Source, Line)>) -> Source {
    let Ok(Ok(mut reader)) = tokio::time::timeout(QUESTION, pods.log_stream(&source.pod, &params)).await else {
        return source;
    };
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match reader.read_until(b'\n', &mut bytes).await {
            Ok(1..) => {}
            _ => return source,
        }
        let text = String::from_utf8_lossy(&bytes);
        let line = line(&source, text.trim_end_matches(['\r', '\n']));
        if lines.send((source.clone(), line)).await.is_err() {
            return source;
        }
    }
}

/// A line with the timestamp that the API server puts before it.
fn line(source: &Source, text: &str) -> Line {
    let (time, text) = match text.split_once(' ') {
        Some((time, rest)) => match time.parse() {
            Ok(time) => (Some(time), rest),
            Err(_) => (None, text),
        },
        // An empty line.
        None => match text.parse() {
            Ok(time) => (Some(time), ""),
            Err(_) => (None, text),
        },
    };
    Line { time, pod: source.pod.clone(), container: source.container.clone(), text: text.to_owned() }
}

async fn sources(cluster: &Cluster, wanted: &Wanted) -> Result<Vec<Source>> {
    let pods = cluster.api::<Pod>();
    let params = ListParams::default().labels(SELECTOR);
    let listed = call::repeat(QUESTION, || pods.list(&params)).await;
    let pods = listed.map_err(|error| failure::explain(cluster, "list the pods", error))?.items;
    if pods.is_empty() {
        let message =
            format!("namespace {} of context {} has no pods of the server", cluster.namespace, cluster.context);
        return Err(Error::new(Kind::Check, message).hint("`cargo xtask status` shows what was deployed"));
    }
    let all: Vec<Source> = pods.iter().flat_map(containers).collect();
    let Some(name) = &wanted.container else { return Ok(all) };
    let mut names: Vec<&str> = all.iter().map(|source| source.container.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    if !names.contains(&name.as_str()) {
        let error = Error::new(Kind::Usage, format!("no pod has a container {name}"));
        return Err(error.hint(crate::config::did_you_mean(name, &names)));
    }
    Ok(all.into_iter().filter(|source| source.container == *name).collect())
}

/// The containers of a pod, init containers first, with what is known of their runs.
fn containers(pod: &Pod) -> Vec<Source> {
    let spec = pod.spec.as_ref();
    let init = spec.and_then(|spec| spec.init_containers.as_deref()).unwrap_or_default();
    let main = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let status = pod.status.as_ref();
    let statuses = || {
        let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
        lists.into_iter().flatten().flatten().flatten()
    };
    let source = |name: &String| {
        let status: Option<&ContainerStatus> = statuses().find(|status| status.name == *name);
        let is_running = status.and_then(|status| status.state.as_ref()).is_some_and(|state| state.running.is_some());
        Source {
            pod: pod.name_any(),
            container: name.clone(),
            id: status.and_then(|status| status.container_id.clone()).unwrap_or_default(),
            is_running,
            restarts: status.map_or(0, |status| status.restart_count),
        }
    };
    init.iter().chain(main).map(|container| source(&container.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of a container as `POD/CONTAINER ID`; a dot after the id: it has ended.
    fn source(text: &str) -> Source {
        let (place, id) = text.split_once(' ').unwrap();
        let (pod, container) = place.split_once('/').unwrap();
        Source {
            pod: pod.to_owned(),
            container: container.to_owned(),
            id: id.trim_end_matches('.').to_owned(),
            is_running: !id.ends_with('.') && !id.is_empty(),
            restarts: 0,
        }
    }

    #[test]
    fn a_line_is_read_with_its_time() {
        let check = |text: &str, time: Option<&str>, expected: &str| {
            let line = line(&source("p/c 1"), text);
            assert_eq!((line.time, line.text.as_str()), (time.map(|time| time.parse().unwrap()), expected), "{text}");
        };
        let time = "2026-11-24T00:12:06.123456789Z";
        check(&format!("{time} INFO  started"), Some(time), "INFO  started");
        check(&format!("{time} "), Some(time), "");
        check(time, Some(time), "");
        check("unable to retrieve container logs", None, "unable to retrieve container logs");
    }

    #[test]
    fn every_run_of_a_container_is_followed_once() {
        let mut followed = Followed::default();
        let mut check = |sources: &[&str], ended: &[&str], expected: &[&str]| {
            for text in ended {
                followed.ended(&source(text));
            }
            let open = followed.unread(sources.iter().map(|text| source(text)).collect());
            assert_eq!(open, expected.iter().map(|text| source(text)).collect::<Vec<_>>(), "{sources:?} {ended:?}");
        };
        check(&["a/m 1", "a/p 2", "b/m "], &[], &["a/m 1", "a/p 2"]);
        check(&["a/m 1", "a/p 2", "b/m "], &[], &[]);
        // A new pod's container starts; a stream breaks while its container runs on.
        check(&["a/m 1", "a/p 2", "b/m 3"], &["a/p 2"], &["a/p 2", "b/m 3"]);
        // It has ended: all of it was read.
        check(&["a/m 1.", "a/p 2", "b/m 3"], &["a/m 1"], &[]);
        // It was started again.
        check(&["a/m 4", "a/p 2", "b/m 3"], &[], &["a/m 4"]);
    }

    #[test]
    fn a_line_is_printed_once() {
        let at = |text: &str, second: u32| Line {
            time: Some(format!("2026-11-24T00:00:{second:02}Z").parse().unwrap()),
            ..line(&source("a/m 1"), text)
        };
        let mut followed = Followed::new(&[at("one", 1)]);
        let one = source("a/m 1");
        assert_eq!(followed.since(&one), at("one", 1).time);
        assert!(!followed.is_new(&one, &at("one", 1)));
        assert!(followed.is_new(&one, &at("two", 2)));
        assert!(!followed.is_new(&one, &at("two", 2)));
        assert!(followed.is_new(&one, &Line { time: None, ..at("the runtime says", 2) }));
        assert!(followed.is_new(&source("b/m 1"), &at("another pod", 1)));
    }

    #[test]
    fn a_line_names_its_pod_and_container_in_short() {
        let line = line(&source("mlflow-5bb746fcf-rcxf4/mlflow 1"), "INFO: started");
        let mut out = Vec::new();
        line.human(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "rcxf4/mlflow | INFO: started\n");
    }
}
