//! What the cluster said at one moment: plain data, everything that a verdict needs.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::jiff::Timestamp;

/// What the cluster said at one moment. Deployment, ReplicaSets and pods are from consistent reads
/// (the API server's quorum) that began no earlier than the one before them was answered.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was read, on our clock.
    pub at: Timestamp,
    /// `None`: there is none of this name.
    pub deployment: Option<Deployment>,
    /// All with the Deployment's labels, whoever controls them.
    pub replica_sets: Vec<ReplicaSet>,
    /// All with the Deployment's labels, old and new.
    pub pods: Vec<Pod>,
    /// The nodes of new pods that are not ready, as far as they may be read.
    pub nodes: Vec<Node>,
    /// Events about the Deployment, its ReplicaSets and pods. Some may be missing: they give names
    /// and times to causes, they never decide that a rollout works.
    pub events: Vec<Event>,
    /// The last lines of containers that are not ready.
    pub logs: BTreeMap<LogKey, Vec<LogLine>>,
}

/// Whose log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogKey {
    /// The pod's uid.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Whether it is that of the instance before the last restart.
    pub previous: bool,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the node received it, on the node's clock.
    pub at: Option<Timestamp>,
    /// Its text, ready to be shown: no control characters, no passwords.
    pub text: String,
}

impl Snapshot {
    /// The events about an object, in no order.
    pub fn events_of<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.involved_object.uid.as_deref() == Some(uid))
    }

    /// The last lines of a container; empty where none were read.
    pub fn log(&self, pod: &str, container: &str, previous: bool) -> &[LogLine] {
        let key = LogKey { pod: pod.to_owned(), container: container.to_owned(), previous };
        self.logs.get(&key).map_or(&[], Vec::as_slice)
    }
}

/// When an event was first recorded. Events of the scheduler carry no `firstTimestamp`.
pub fn first_time(event: &Event) -> Option<Timestamp> {
    let first = event.first_timestamp.as_ref().map(|time| time.0);
    first
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// When it was last recorded.
pub fn last_time(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let last = series.map(|time| time.0).or_else(|| event.last_timestamp.as_ref().map(|time| time.0));
    last.or_else(|| first_time(event))
}
