//! A new pod that is not ready.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;

use super::super::pods::{self, containers};
use super::super::snapshot::{Snapshot, first_time, last_time};
use super::container::of_container;
use super::{Budget, Cause, Class, Code, first_event};

/// Seconds for a volume that names a ConfigMap or Secret which does not exist.
const ABSENT: i64 = 120;

/// Why a pod is not ready: the most telling cause, or `None` while nothing speaks against it.
pub fn of_pod(pod: &Pod, snapshot: &Snapshot) -> Option<Cause> {
    if pods::has_ended(pod) {
        return Some(evicted(pod, snapshot));
    }
    if pods::is_ready(pod) {
        return None;
    }
    let of_containers = containers(pod).into_iter().filter_map(|view| of_container(pod, view, snapshot));
    // The first of the most certain: those that start earlier come first.
    let best = of_containers.reduce(|best, next| if next.class > best.class { next } else { best });
    match best {
        Some(cause) if cause.class > Class::Wait => Some(cause),
        other => lost_node(pod, snapshot).or(other).or_else(|| of_whole(pod, snapshot)),
    }
}

/// What concerns the pod as a whole.
fn of_whole(pod: &Pod, snapshot: &Snapshot) -> Option<Cause> {
    unschedulable(pod, snapshot).or_else(|| setup(pod, snapshot))
}

fn about(pod: &Pod, cause: Cause) -> Cause {
    Cause { pod: Some(pods::name(pod).to_owned()), uid: pods::uid(pod).to_owned(), ..cause }
}

fn created(pod: &Pod, snapshot: &Snapshot) -> Timestamp {
    pod.metadata.creation_timestamp.as_ref().map_or(snapshot.at, |time| time.0)
}

fn evicted(pod: &Pod, snapshot: &Snapshot) -> Cause {
    let status = pod.status.as_ref();
    let reason = status.and_then(|status| status.reason.as_deref()).unwrap_or("Failed");
    let message = status.and_then(|status| status.message.as_deref()).unwrap_or("the pod ended");
    let first = first_event(snapshot.events_of(pods::uid(pod)), |event, _| event == reason);
    let first = first.unwrap_or_else(|| created(pod, snapshot));
    about(pod, Cause::new(Code::Evicted, Budget::Deadline, reason, message, first))
}

fn lost_node(pod: &Pod, snapshot: &Snapshot) -> Option<Cause> {
    let name = pod.spec.as_ref()?.node_name.as_deref()?;
    let node = snapshot.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(name))?;
    let ready = node.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == "Ready")?;
    if ready.status == "True" {
        return None;
    }
    let message = format!("{name}: {}", ready.message.as_deref().unwrap_or("not ready"));
    let first = ready.last_transition_time.as_ref().map_or(snapshot.at, |time| time.0);
    let reason = ready.reason.as_deref().unwrap_or("NodeNotReady");
    Some(about(pod, Cause::new(Code::NodeLost, Budget::Deadline, reason, &message, first)))
}

fn unschedulable(pod: &Pod, snapshot: &Snapshot) -> Option<Cause> {
    let scheduled = pods::condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let message = scheduled.message.as_deref().unwrap_or_default();
    let mut message = message.split(" preemption:").next().unwrap_or_default().trim().to_owned();
    let mut scaling: Vec<_> = snapshot
        .events_of(pods::uid(pod))
        .filter(|event| matches!(event.reason.as_deref(), Some("TriggeredScaleUp" | "NotTriggerScaleUp")))
        .collect();
    scaling.sort_by_key(|event| last_time(event));
    if let Some(told) = scaling.last().and_then(|event| event.message.as_deref()) {
        message = format!("{message} ({told})");
    }
    let first = scheduled.last_transition_time.as_ref().map_or_else(|| created(pod, snapshot), |time| time.0);
    let reason = scheduled.reason.as_deref().unwrap_or("Unschedulable");
    Some(about(pod, Cause::new(Code::Unschedulable, Budget::Deadline, reason, &message, first)))
}

/// Volumes and network, of which only events tell.
fn setup(pod: &Pod, snapshot: &Snapshot) -> Option<Cause> {
    // Once containers run, what was in their way is history.
    if containers(pod).into_iter().any(|view| view.is_running() || view.last_end().is_some()) {
        return None;
    }
    let is_setup = |reason: &str| matches!(reason, "FailedMount" | "FailedAttachVolume" | "FailedCreatePodSandBox");
    let events = || snapshot.events_of(pods::uid(pod)).filter(|event| event.reason.as_deref().is_some_and(is_setup));
    let last = events().max_by_key(|event| last_time(event))?;
    let reason = last.reason.as_deref()?;
    let message = last.message.as_deref().unwrap_or_default();
    let first = events().filter(|event| event.reason.as_deref() == Some(reason)).filter_map(first_time).min();
    let (code, budget) = match reason {
        "FailedCreatePodSandBox" => (Code::Sandbox, Budget::Deadline),
        _ if message.contains("not found") || message.contains("references non-existent") => {
            (Code::VolumeMount, Budget::Seconds(ABSENT))
        }
        _ => (Code::VolumeMount, Budget::Deadline),
    };
    Some(about(pod, Cause::new(code, budget, reason, message, first.unwrap_or(snapshot.at))))
}
