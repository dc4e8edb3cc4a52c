//! The last lines of containers that are not ready, read beside the verdict: a node that does not
//! answer must not hold it up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use tokio::task::JoinSet;

use super::super::Cluster;
use super::snapshot::{LogKey, LogLine, Snapshot};
use super::{Expected, pods, text};

/// Between two reads of a container's log.
const INTERVAL: Duration = Duration::from_secs(3);
/// How long a read may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How many lines are read: MLflow's retries of a database say five each.
const LINES: i64 = 60;
/// How many bytes of them.
const BYTES: i64 = 64 * 1024;
/// The most pods whose logs are read: one template makes them all.
const PODS: usize = 4;
/// The most characters of a line that are kept.
const WIDTH: usize = 2000;

/// The logs that were read so far.
#[derive(Default)]
pub struct Logs {
    kept: BTreeMap<LogKey, Kept>,
    reads: JoinSet<(LogKey, Option<Vec<LogLine>>)>,
}

struct Kept {
    asked: Instant,
    /// The container's restarts when it was asked for.
    restarts: i32,
    lines: Vec<LogLine>,
}

impl Logs {
    /// Begins to read what is due: logs of new pods' containers that have run and are not up.
    pub fn ask(&mut self, cluster: &Cluster, expected: &Expected, snapshot: &Snapshot) {
        let Some(set) = pods::new_replica_set(expected, snapshot) else { return };
        let new = pods::pods_of(set, snapshot).into_iter();
        for pod in new.filter(|pod| !pods::has_ended(pod) && !pods::is_ready(pod)).take(PODS) {
            for view in pods::containers(pod) {
                if view.is_up() {
                    continue;
                }
                if view.is_running() || view.last_end().is_some() {
                    self.ask_one(cluster, pod, &view.spec.name, view.restarts(), false);
                }
                if view.restarts() > 0 {
                    self.ask_one(cluster, pod, &view.spec.name, view.restarts(), true);
                }
            }
        }
    }

    fn ask_one(&mut self, cluster: &Cluster, pod: &Pod, container: &str, restarts: i32, previous: bool) {
        let key = LogKey { pod: pods::uid(pod).to_owned(), container: container.to_owned(), previous };
        if let Some(kept) = self.kept.get(&key) {
            let is_new = kept.restarts != restarts;
            // What the previous instance said does not change.
            if !is_new && (previous && !kept.lines.is_empty() || kept.asked.elapsed() < INTERVAL) {
                return;
            }
        }
        let lines = self.kept.remove(&key).map(|kept| kept.lines).unwrap_or_default();
        self.kept.insert(key.clone(), Kept { asked: Instant::now(), restarts, lines });
        let (cluster, pod, container) = (cluster.clone(), pods::name(pod).to_owned(), container.to_owned());
        self.reads.spawn(async move {
            let lines = read(&cluster, &pod, &container, previous, LINES).await;
            (key, lines)
        });
    }

    /// Waits until a log has been read; for ever where none is being read.
    pub async fn arrived(&mut self) {
        loop {
            match self.reads.join_next().await {
                None => std::future::pending().await,
                Some(Ok((key, Some(lines)))) => {
                    if let Some(kept) = self.kept.get_mut(&key) {
                        kept.lines = lines;
                    }
                    return;
                }
                // The kubelet has nothing (yet), or does not answer: asked again when it is due.
                Some(_) => {}
            }
        }
    }

    /// All lines, by container.
    pub fn lines(&self) -> BTreeMap<LogKey, Vec<LogLine>> {
        self.kept.iter().map(|(key, kept)| (key.clone(), kept.lines.clone())).collect()
    }
}

/// The last lines of a container; `None` where the node has none, or does not answer.
pub async fn read(cluster: &Cluster, pod: &str, container: &str, previous: bool, lines: i64) -> Option<Vec<LogLine>> {
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(lines),
        limit_bytes: Some(BYTES),
        timestamps: true,
        ..LogParams::default()
    };
    let api = cluster.api::<Pod>();
    let answer = tokio::time::timeout(ANSWER, api.logs(pod, &params)).await;
    // Without a time it is a word of the kubelet's, about a log that it no longer has.
    let lines = answer.ok()?.ok()?.lines().map(line).filter(|line| line.at.is_some()).collect();
    Some(lines)
}

fn line(line: &str) -> LogLine {
    let (at, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (at, rest) = match at.parse() {
        Ok(at) => (Some(at), rest),
        Err(_) => (None, line),
    };
    LogLine { at, text: text::short(&text::clean(rest), WIDTH) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_nodes_time_before_it() {
        let check = |given: &str, at: Option<&str>, text: &str| {
            let expected = LogLine { at: at.map(|at| at.parse().expect("a time")), text: text.to_owned() };
            assert_eq!(line(given), expected);
        };
        check("2026-11-24T00:12:09.094790055Z (psycopg2) no", Some("2026-11-24T00:12:09.094790055Z"), "(psycopg2) no");
        check("2026-11-24T00:12:09.094790055Z", Some("2026-11-24T00:12:09.094790055Z"), "");
        check("2026-11-24T00:12:09Z \u{1b}[1mx", Some("2026-11-24T00:12:09Z"), "x");
        check("unable to retrieve container logs", None, "unable to retrieve container logs");
    }
}
