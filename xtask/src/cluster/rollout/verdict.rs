//! The verdict on a rollout: a pure function of one snapshot and of what was seen before it.
//!
//! There is one way to [`Verdict::Complete`], at the end of [`verdict`], and it asks for everything
//! at once. All that is doubtful is [`Verdict::Wait`], which the deadline ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::super::target;
use super::causes::{self, Budget, Cause, Class, Code};
use super::pods::{self, containers};
use super::snapshot::Snapshot;
use super::{Expected, Limits};

/// Seconds that a fatal cause of one pod may stand beside another new pod that is ready: then it is
/// that pod's node, not what was deployed.
const CONTRADICTED: i64 = 60;
/// Seconds for what could pass a moment ago: a ReplicaSet whose pods a quota refused is tried again
/// at growing intervals, not when an old pod has gone.
const RELIEVED: i64 = 60;

/// The same cause, looked at again: pod, container, code.
type Key = (String, String, Code);

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Look again.
    Wait(Progress),
    /// It works.
    Complete(Complete),
    /// Someone else changed or deleted the Deployment; a sentence.
    Superseded(String),
    /// It does not work.
    Failed {
        /// The most telling cause.
        cause: Cause,
        /// Whether it took the deadline to say so.
        late: bool,
    },
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// New pods that are ready.
    pub ready: usize,
    /// Pods that the Deployment wants.
    pub wanted: usize,
    /// The state as a person reads it. It changes when the state does, not with time.
    pub text: String,
    /// All pods are up, and now have to stay so.
    pub soaks: bool,
}

/// For how many seconds a pod that answers no probe is said to start.
const STARTING: i64 = 30;

/// A rollout that works.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Complete {
    /// The Deployment.
    pub name: String,
    /// Its generation.
    pub generation: i64,
    /// Its revision, which `kubectl rollout history` counts.
    pub revision: String,
    /// How many pods serve.
    pub replicas: usize,
    /// Their names.
    pub pods: Vec<String>,
    /// What tells them from the pods of another template; empty where no pod is wanted.
    pub template_hash: String,
    /// The image that was asked for.
    pub image: String,
    /// What the nodes run, by their runtime's word: the digest by which it first pulled the image.
    pub image_ids: Vec<String>,
    /// Seconds from the apply until all pods were up.
    pub seconds: f64,
    /// Seconds for which they were then seen to stay up.
    pub soaked_seconds: f64,
    /// Restarts of their containers before that.
    pub restarts: i32,
}

/// What earlier snapshots showed.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The earliest sign of each cause.
    first_signs: BTreeMap<Key, Timestamp>,
    /// Since when, without a break, each cause has been there in its class, on our clock.
    since: BTreeMap<(Key, Class), Timestamp>,
    /// Causes that could once pass by themselves.
    waited: BTreeSet<Key>,
    steady: Option<Steady>,
    /// Whether a new pod has been ready.
    served: bool,
    /// When it was last looked.
    looked: Option<Timestamp>,
}

/// All pods are up, and are the same as when they came up.
#[derive(Clone, Debug)]
struct Steady {
    since: Timestamp,
    /// The look before: they came up somewhere between, which is long where the API server was away.
    after: Timestamp,
    /// Pods, the moments they became ready, container instances and restarts. A pod that was away
    /// between two looks has another one.
    fingerprint: Vec<String>,
}

impl Memory {
    /// Takes in a snapshot; then ask for its [`verdict`].
    pub fn learn(&mut self, expected: &Expected, snapshot: &Snapshot) {
        let causes = all_causes(expected, snapshot);
        let mut since = BTreeMap::new();
        for cause in causes {
            let key = cause.key();
            let first = self.first_signs.entry(key.clone()).or_insert(cause.first_sign);
            *first = (*first).min(cause.first_sign);
            if cause.class == Class::Wait {
                self.waited.insert(key.clone());
            }
            since.insert((key, cause.class), self.since(&cause, snapshot.at));
        }
        self.since = since;
        let new = pods::new_replica_set(expected, snapshot).map(|set| pods::pods_of(set, snapshot));
        self.served |= new.is_some_and(|pods| pods.into_iter().any(pods::is_ready));
        self.steady = new_pods_if_complete(expected, snapshot).map(|pods| {
            let fingerprint = fingerprint(&pods);
            match self.steady.take() {
                Some(steady) if steady.fingerprint == fingerprint => steady,
                _ => Steady { since: snapshot.at, after: self.looked.unwrap_or(expected.started), fingerprint },
            }
        });
        self.looked = Some(snapshot.at);
    }

    /// Whether a new pod has been ready, be it for a moment.
    pub fn served(&self) -> bool {
        self.served
    }

    /// Since when a cause has been there.
    fn since(&self, cause: &Cause, at: Timestamp) -> Timestamp {
        self.since.get(&(cause.key(), cause.class)).copied().unwrap_or(at)
    }

    /// The cause with its earliest sign, and whether its budget is spent.
    fn weigh(&self, cause: Cause, at: Timestamp) -> (Cause, bool) {
        let key = cause.key();
        let lasts = at.duration_since(self.since(&cause, at)).as_secs();
        let is_relieved = cause.code == Code::Quota && self.waited.contains(&key);
        let is_spent = cause.is_spent(lasts) && (!is_relieved || lasts >= RELIEVED);
        let first_sign = self.first_signs.get(&key).copied().unwrap_or(cause.first_sign).min(cause.first_sign);
        (Cause { first_sign, ..cause }, is_spent)
    }
}

/// The verdict on a snapshot that `memory` has learnt.
pub fn verdict(expected: &Expected, limits: &Limits, memory: &Memory, snapshot: &Snapshot) -> Verdict {
    let deployment = match still_ours(expected, snapshot) {
        Ok(deployment) => deployment,
        Err(message) => return Verdict::Superseded(message),
    };
    let at = snapshot.at;
    let own = |code: Code, reason: &str, message: &str| Verdict::Failed {
        cause: Cause::new(code, Budget::Now, reason, message, at),
        late: false,
    };
    let wanted = wanted(deployment);
    if deployment.spec.as_ref().and_then(|spec| spec.paused) == Some(true) {
        return own(Code::Paused, "Paused", "no new pods are made while it is paused");
    }
    if wanted == 0 {
        return own(Code::NoReplicas, "Scaled", "spec.replicas is 0");
    }
    if let Some(steady) = &memory.steady
        && let Some(pods) = new_pods_if_complete(expected, snapshot)
    {
        let soaked = seconds(at, steady.since);
        let in_time = seconds(steady.after, expected.started) < limits.deadline.as_secs_f64();
        if in_time && soaked >= limits.soak.as_secs_f64() {
            return Verdict::Complete(finished(expected, deployment, &pods, steady, soaked));
        }
        if in_time {
            let text =
                format!("{wanted} of {wanted} pods ready; they must stay so for {:.0} s", limits.soak.as_secs_f64());
            return Verdict::Wait(Progress { ready: wanted, wanted, text, soaks: true });
        }
    }
    let weighed: Vec<(Cause, bool)> =
        all_causes(expected, snapshot).into_iter().map(|cause| memory.weigh(cause, at)).collect();
    if let Some(cause) = failure(expected, memory, snapshot, &weighed) {
        return Verdict::Failed { cause, late: false };
    }
    let progress = progress(expected, deployment, snapshot, &weighed);
    if is_late(expected, limits, deployment, at) {
        let cause = last_resort(expected, snapshot, weighed, &progress);
        return Verdict::Failed { cause, late: true };
    }
    Verdict::Wait(progress)
}

/// The Deployment, if it is still what was applied: a changed number of replicas is an autoscaler's.
fn still_ours<'a>(expected: &Expected, snapshot: &'a Snapshot) -> Result<&'a Deployment, String> {
    let name = &expected.name;
    let Some(deployment) = &snapshot.deployment else {
        return Err(format!("Deployment/{name} was deleted while it rolled out"));
    };
    if deployment.metadata.uid.as_deref() != Some(&expected.uid) {
        return Err(format!("Deployment/{name} was deleted and made again while it rolled out"));
    }
    if deployment.metadata.deletion_timestamp.is_some() {
        return Err(format!("Deployment/{name} is being deleted"));
    }
    let generation = deployment.metadata.generation.unwrap_or_default();
    if generation > expected.generation && template(deployment) != expected.template {
        let by = last_manager(deployment).map_or_else(String::new, |manager| format!(" by {manager}"));
        return Err(format!(
            "Deployment/{name} was changed{by} to generation {generation} while generation {} rolled out",
            expected.generation
        ));
    }
    Ok(deployment)
}

/// The pod template as JSON.
pub fn template(deployment: &Deployment) -> String {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    serde_json::to_string(&template).unwrap_or_default()
}

fn last_manager(deployment: &Deployment) -> Option<&str> {
    let fields = deployment.metadata.managed_fields.iter().flatten();
    let of_spec = fields.filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
    of_spec.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager.as_deref())
}

fn wanted(deployment: &Deployment) -> usize {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// Whether the Deployment controller has acted on what the snapshot shows.
fn is_observed(expected: &Expected, deployment: &Deployment) -> bool {
    let generation = deployment.metadata.generation.unwrap_or_default();
    let observed = deployment.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    generation >= expected.generation && observed >= generation
}

/// The new pods, if nothing at all is missing.
fn new_pods_if_complete<'a>(expected: &Expected, snapshot: &'a Snapshot) -> Option<Vec<&'a Pod>> {
    let deployment = still_ours(expected, snapshot).ok()?;
    let status = deployment.status.as_ref()?;
    let wanted = wanted(deployment);
    let set = pods::new_replica_set(expected, snapshot)?;
    let new: Vec<&Pod> = pods::pods_of(set, snapshot).into_iter().filter(|pod| !pods::has_ended(pod)).collect();
    let is_complete = wanted > 0
        && is_observed(expected, deployment)
        && counts(status) == [wanted; 3]
        && has_progressed(deployment, status)
        && new.len() == wanted
        && new.iter().all(|pod| pods::is_ready(pod) && runs_image(expected, pod));
    is_complete.then_some(new)
}

/// Updated, existing and available pods.
fn counts(status: &DeploymentStatus) -> [usize; 3] {
    [status.updated_replicas, status.replicas, status.available_replicas]
        .map(|count| usize::try_from(count.unwrap_or_default()).unwrap_or(0))
}

fn has_progressed(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let seconds = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
    let progressing = status.conditions.iter().flatten().find(|condition| condition.type_ == "Progressing");
    match progressing {
        Some(found) => found.status == "True" && found.reason.as_deref() == Some("NewReplicaSetAvailable"),
        // This value means "no deadline", and then the controller keeps no such condition.
        None => seconds == Some(i32::MAX),
    }
}

/// Whether a pod was made with the image that was applied. A pod's image is held against what was
/// asked for, not against the node's `imageID`: a runtime that knows the same content under several
/// digests (an index and its manifest, two builds of one index) reports any of them, and a name with
/// a digest lets it run nothing else.
fn runs_image(expected: &Expected, pod: &Pod) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let image =
        containers.find(|container| container.name == super::super::CONTAINER).and_then(|found| found.image.as_deref());
    image.is_some_and(|image| pods::digest(image) == pods::digest(&expected.image))
}

fn fingerprint(pods: &[&Pod]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for pod in pods {
        let ready = pods::condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref());
        lines.push(format!("{} {:?}", pods::uid(pod), ready.map(|time| time.0)));
        for view in containers(pod) {
            let id = view.status.and_then(|status| status.container_id.as_deref());
            lines.push(format!("{} {} {} {id:?}", pods::uid(pod), view.spec.name, view.restarts()));
        }
    }
    lines.sort();
    lines
}

/// Everything that speaks against the rollout, in the order in which it is told.
fn all_causes(expected: &Expected, snapshot: &Snapshot) -> Vec<Cause> {
    let Ok(deployment) = still_ours(expected, snapshot) else { return Vec::new() };
    if !is_observed(expected, deployment) {
        return Vec::new();
    }
    let set = pods::new_replica_set(expected, snapshot);
    let mut causes: Vec<Cause> = causes::refused(deployment, set, snapshot).into_iter().collect();
    for pod in set.map(|set| pods::pods_of(set, snapshot)).unwrap_or_default() {
        match runs_image(expected, pod) {
            true => causes.extend(causes::of_pod(pod, snapshot)),
            false => causes.push(changed_image(expected, pod, snapshot.at)),
        }
    }
    causes
}

fn changed_image(expected: &Expected, pod: &Pod, at: Timestamp) -> Cause {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let image =
        containers.find(|container| container.name == super::super::CONTAINER).and_then(|found| found.image.as_deref());
    let message = format!("{} instead of {}", image.unwrap_or("none"), expected.image);
    let first = pod.metadata.creation_timestamp.as_ref().map_or(at, |time| time.0);
    let cause = Cause::new(Code::ImageChanged, Budget::Now, "Admission", &message, first);
    Cause { pod: Some(pods::name(pod).to_owned()), uid: pods::uid(pod).to_owned(), ..cause }
}

/// The cause for which to stop now: a spent budget, or a fatal cause that nothing contradicts.
fn failure(expected: &Expected, memory: &Memory, snapshot: &Snapshot, weighed: &[(Cause, bool)]) -> Option<Cause> {
    let spent = || weighed.iter().filter(|(_, is_spent)| *is_spent).map(|(cause, _)| cause);
    let set = pods::new_replica_set(expected, snapshot);
    let new = set.map(|set| pods::pods_of(set, snapshot)).unwrap_or_default();
    let is_contradicted = new.iter().any(|pod| pods::is_ready(pod) && runs_image(expected, pod));
    let counts = |cause: &&Cause| {
        let seen = memory.since(cause, snapshot.at);
        cause.class == Class::Budgeted
            || cause.uid.is_empty()
            || !is_contradicted
            || snapshot.at.duration_since(seen).as_secs() >= CONTRADICTED
    };
    most_telling(spent().filter(counts)).cloned()
}

fn most_telling<'a>(causes: impl Iterator<Item = &'a Cause>) -> Option<&'a Cause> {
    let is_vague = |cause: &Cause| matches!(cause.code, Code::NotReady | Code::Evicted);
    causes.reduce(|best, next| {
        let rank = |cause: &Cause| (cause.class, !is_vague(cause));
        let is_better = rank(next) > rank(best) || (rank(next) == rank(best) && next.first_sign < best.first_sign);
        if is_better { next } else { best }
    })
}

/// Whether the time is up: on our own clock, or by the controller's word where that can be trusted.
fn is_late(expected: &Expected, limits: &Limits, deployment: &Deployment, at: Timestamp) -> bool {
    let elapsed = seconds(at, expected.started);
    let cluster = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    let conditions = deployment.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut exceeded = conditions.filter(|condition| {
        condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    // Flapping pods renew the controller's deadline, and an older rollout's may still stand there.
    let by_cluster = is_observed(expected, deployment) && elapsed >= f64::from(cluster) && exceeded.next().is_some();
    by_cluster || elapsed >= limits.deadline.as_secs_f64()
}

/// What to say when time is up: the most telling of what was seen.
fn last_resort(expected: &Expected, snapshot: &Snapshot, weighed: Vec<(Cause, bool)>, progress: &Progress) -> Cause {
    if let Some(cause) = most_telling(weighed.iter().map(|(cause, _)| cause)) {
        return cause.clone();
    }
    let set = pods::new_replica_set(expected, snapshot);
    let new = set.map(|set| pods::pods_of(set, snapshot)).unwrap_or_default();
    let Some(pod) = new.into_iter().find(|pod| !pods::is_ready(pod)) else {
        return Cause::new(Code::DeadlineExceeded, Budget::Deadline, "deadline", &progress.text, expected.started);
    };
    let ready = pods::condition(pod, "Ready");
    let message = ready.and_then(|ready| ready.message.as_deref()).unwrap_or("it has no status yet");
    let reason = ready.and_then(|ready| ready.reason.as_deref()).unwrap_or("Pending");
    let first = ready.and_then(|ready| ready.last_transition_time.as_ref()).map_or(expected.started, |time| time.0);
    let down = containers(pod).into_iter().find(|view| !view.is_up());
    Cause {
        pod: Some(pods::name(pod).to_owned()),
        container: down.map(|view| view.spec.name.clone()),
        uid: pods::uid(pod).to_owned(),
        restarts: down.map_or(0, |view| view.restarts()),
        ..Cause::new(Code::NotReady, Budget::Deadline, reason, message, first)
    }
}

fn progress(expected: &Expected, deployment: &Deployment, snapshot: &Snapshot, weighed: &[(Cause, bool)]) -> Progress {
    let wanted = wanted(deployment);
    let set = pods::new_replica_set(expected, snapshot);
    let new: Vec<&Pod> = match set {
        Some(set) => pods::pods_of(set, snapshot).into_iter().filter(|pod| !pods::has_ended(pod)).collect(),
        None => Vec::new(),
    };
    let ready = new.iter().filter(|pod| pods::is_ready(pod)).count();
    let mut parts = vec![format!("{ready} of {wanted} pods ready")];
    if !is_observed(expected, deployment) {
        parts = vec!["the Deployment controller has not seen the change yet".to_owned()];
    } else if set.is_none() && weighed.is_empty() {
        parts.push("no new ReplicaSet yet".to_owned());
    }
    for (cause, _) in weighed.iter().filter(|(cause, _)| cause.uid.is_empty()) {
        parts.push(format!("{}: {}", cause.code.phrase(), super::text::short(&cause.message, 160)));
    }
    for pod in new.iter().filter(|pod| !pods::is_ready(pod)) {
        let cause = weighed.iter().find(|(cause, _)| cause.uid == pods::uid(pod)).map(|(cause, _)| cause);
        parts.push(format!("{}: {}", pods::name(pod), pod_text(pod, cause, snapshot.at)));
    }
    let old = set.map_or(0, |set| pods::old_pods(deployment, set, snapshot).len());
    match old {
        0 => {}
        1 => parts.push("1 old pod is still there".to_owned()),
        _ => parts.push(format!("{old} old pods are still there")),
    }
    Progress { ready, wanted, text: parts.join("; "), soaks: false }
}

fn pod_text(pod: &Pod, cause: Option<&Cause>, at: Timestamp) -> String {
    // A server that starts answers no probe: for a while that is nothing to worry about.
    let starts = |cause: &&Cause| {
        let seen = at.duration_since(cause.first_sign).as_secs();
        cause.code == Code::ProbeFailing && cause.restarts == 0 && seen < STARTING
    };
    if let Some(cause) = cause.filter(|cause| !starts(cause)) {
        let place = cause.container.as_ref().map_or_else(String::new, |name| format!("{name}: "));
        let retry = if cause.restarts > 0 { format!(", restarted {}x", cause.restarts) } else { String::new() };
        return format!("{place}{} ({}{retry})", cause.code.phrase(), cause.reason);
    }
    let views = containers(pod);
    if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        return "waits for a node".to_owned();
    }
    match views.iter().find(|view| !view.is_up()) {
        Some(view) if view.is_running() => format!("{} starts", view.spec.name),
        Some(view) if view.role != pods::Role::App => format!("{} is created", view.spec.name),
        Some(_) => "its containers are created".to_owned(),
        None => "its containers run".to_owned(),
    }
}

fn finished(expected: &Expected, deployment: &Deployment, pods: &[&Pod], steady: &Steady, soaked: f64) -> Complete {
    let views = || pods.iter().flat_map(|pod| containers(pod));
    let mut image_ids: Vec<String> = views()
        .filter(|view| view.spec.name == super::super::CONTAINER)
        .filter_map(|view| view.status.map(|status| status.image_id.clone()))
        .collect();
    image_ids.sort();
    image_ids.dedup();
    Complete {
        name: expected.name.clone(),
        generation: deployment.metadata.generation.unwrap_or_default(),
        revision: pods::revision(&deployment.metadata).unwrap_or_default().to_owned(),
        replicas: pods.len(),
        pods: pods.iter().map(|pod| pods::name(pod).to_owned()).collect(),
        template_hash: pods.iter().find_map(|pod| target::template_hash(pod)).unwrap_or_default().to_owned(),
        image: expected.image.clone(),
        image_ids,
        seconds: round(seconds(steady.since, expected.started)),
        soaked_seconds: round(soaked),
        restarts: views().map(|view| view.restarts()).sum(),
    }
}

fn seconds(later: Timestamp, earlier: Timestamp) -> f64 {
    later.duration_since(earlier).as_secs_f64()
}

fn round(seconds: f64) -> f64 {
    crate::report::seconds(Duration::from_secs_f64(seconds.max(0.0)))
}
