//! Which pod to talk to: decided from what the API server lists, without asking it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Selects the server's pods and ReplicaSets (kubernetes/deployment.yaml, `selector`).
pub const SELECTOR: &str = "app.kubernetes.io/name=mlflow,app.kubernetes.io/component=server";

/// Tells the pods of one ReplicaSet from those of another (Deployment, "pod-template-hash label").
pub const TEMPLATE_HASH: &str = "pod-template-hash";

/// Counts a Deployment's ReplicaSets; a rollback gives an old one a new number.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Which pods may be talked to. Never one that is not Ready or that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Those of the newest ReplicaSet that has one which is Ready.
    Newest,
    /// Those with this [`TEMPLATE_HASH`]: a release's own, and no others.
    Template(String),
}

/// The pods that may be talked to, the best one first: the one that was talked to `last`, then by
/// revision and age, the newest first. `Err` says why there are none.
pub fn choose<'a>(
    pods: &'a [Pod],
    revisions: &BTreeMap<String, u64>,
    target: &Target,
    last: Option<&str>,
) -> Result<Vec<&'a Pod>, String> {
    let meant: Vec<&Pod> = pods.iter().filter(|pod| is_meant(pod, target)).collect();
    let mut ready: Vec<&Pod> = meant.iter().copied().filter(|pod| is_ready(pod)).collect();
    let revision = |pod: &Pod| template_hash(pod).and_then(|hash| revisions.get(hash)).copied().unwrap_or(0);
    if *target == Target::Newest {
        let newest = ready.iter().map(|pod| revision(pod)).max();
        ready.retain(|pod| Some(revision(pod)) == newest);
    }
    // Names break ties, so that the same list gives the same answer.
    ready.sort_by_key(|pod| (pod.creation_timestamp().map(|time| std::cmp::Reverse(time.0)), pod.name_any()));
    ready.sort_by_key(|pod| last != Some(pod.name_any().as_str()));
    if ready.is_empty() { Err(why_none(&meant, target)) } else { Ok(ready) }
}

/// The revision of each template hash.
pub fn revisions(sets: &[ReplicaSet]) -> BTreeMap<String, u64> {
    let number = |set: &ReplicaSet| set.annotations().get(REVISION)?.parse().ok();
    sets.iter().filter_map(|set| Some((set.labels().get(TEMPLATE_HASH)?.clone(), number(set)?))).collect()
}

/// The hash of the template that a pod was made from.
pub fn template_hash(pod: &Pod) -> Option<&str> {
    pod.labels().get(TEMPLATE_HASH).map(String::as_str)
}

/// Whether a pod takes requests: Ready, and not about to end.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    ready && !is_ending(pod)
}

/// Whether a pod was told to end.
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// What a pod is doing, in a word or two, as `kubectl get pods` says it.
pub fn state(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return "Pending".to_owned() };
    if is_ending(pod) {
        return "Terminating".to_owned();
    }
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let reason = all.filter_map(|container| container.state.as_ref()).find_map(|state| {
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        let waiting = waiting.filter(|reason| !matches!(reason.as_str(), "PodInitializing" | "ContainerCreating"));
        let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
        waiting.or_else(|| ended.map(|ended| ended.reason.clone().unwrap_or_else(|| "Error".to_owned())))
    });
    let phase = status.reason.clone().or_else(|| status.phase.clone());
    reason.or(phase).unwrap_or_else(|| "Unknown".to_owned())
}

fn is_meant(pod: &Pod, target: &Target) -> bool {
    match target {
        Target::Newest => true,
        Target::Template(hash) => template_hash(pod) == Some(hash),
    }
}

fn why_none(meant: &[&Pod], target: &Target) -> String {
    if !meant.is_empty() {
        let states: Vec<String> = meant.iter().map(|pod| format!("{} is {}", pod.name_any(), state(pod))).collect();
        return format!("no pod is ready: {}", states.join(", "));
    }
    match target {
        Target::Newest => "there is no pod".to_owned(),
        Target::Template(hash) => format!("there is no pod of the template {hash}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod as `NAME HASH SECOND STATE`; the second is that of its creation.
    fn pod(text: &str) -> Pod {
        let [name, hash, second, state] = text.split(' ').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let status = match state {
            "ready" | "ending" => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}),
            "starting" => json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}),
            reason => json!({"phase": "Pending", "containerStatuses": [{
                "name": "mlflow", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason}},
            }]}),
        };
        let deleted = (state == "ending").then_some("2026-01-01T00:01:00Z");
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "labels": {TEMPLATE_HASH: hash},
                "creationTimestamp": format!("2026-01-01T00:00:{second}Z"),
                "deletionTimestamp": deleted,
            },
            "status": status,
        }))
        .unwrap()
    }

    fn check(pods: &[&str], target: Target, last: Option<&str>, expected: Result<&str, &str>) {
        let pods: Vec<Pod> = pods.iter().map(|text| pod(text)).collect();
        let revisions = BTreeMap::from([("old".to_owned(), 3), ("new".to_owned(), 4), ("back".to_owned(), 5)]);
        let found = choose(&pods, &revisions, &target, last);
        let names = found.map(|pods| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>().join(" "));
        assert_eq!(names.as_deref().map_err(String::as_str), expected, "{target:?} of {pods:?}");
    }

    #[test]
    fn the_newest_ready_pods_are_talked_to() {
        let old = ["a old 10 ready", "b old 20 ready"];
        check(&old, Target::Newest, None, Ok("b a"));
        check(&["a old 10 ready", "b new 20 ready"], Target::Newest, None, Ok("b"));
        check(&["a old 10 ready", "b new 20 starting"], Target::Newest, None, Ok("a"));
        check(&["a old 10 ready", "b new 20 ending"], Target::Newest, None, Ok("a"));
        // After a rollback the pods that count may be older than those of the failed release.
        check(&["a back 10 ready", "b new 20 ready"], Target::Newest, None, Ok("a"));
        check(&["b old 10 ready", "a old 10 ready"], Target::Newest, None, Ok("a b"));
    }

    #[test]
    fn the_same_pod_is_kept_while_it_is_good() {
        let two = ["a old 10 ready", "b old 20 ready"];
        check(&two, Target::Newest, Some("a"), Ok("a b"));
        check(&["a old 10 ready", "b new 20 ready"], Target::Newest, Some("a"), Ok("b"));
        check(&["a old 10 ending", "b old 20 ready"], Target::Newest, Some("a"), Ok("b"));
    }

    #[test]
    fn a_release_is_asked_through_its_own_pods_alone() {
        let template = || Target::Template("new".to_owned());
        check(&["a old 10 ready", "b new 20 ready"], template(), None, Ok("b"));
        check(&["a old 10 ready"], template(), None, Err("there is no pod of the template new"));
        check(
            &["a old 10 ready", "b new 20 CrashLoopBackOff"],
            template(),
            None,
            Err("no pod is ready: b is CrashLoopBackOff"),
        );
        check(&[], Target::Newest, None, Err("there is no pod"));
    }

    #[test]
    fn a_revision_is_read_from_its_replica_set() {
        let set = |hash: &str, revision: &str| -> ReplicaSet {
            serde_json::from_value(json!({
                "metadata": {"labels": {TEMPLATE_HASH: hash}, "annotations": {REVISION: revision}},
            }))
            .unwrap()
        };
        let found = revisions(&[set("a", "3"), set("b", "x"), ReplicaSet::default()]);
        assert_eq!(found, BTreeMap::from([("a".to_owned(), 3)]));
    }
}
