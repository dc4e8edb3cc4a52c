//! What has become of a Job, decided on what the cluster says.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Event, Pod};
use k8s_openapi::jiff::Timestamp;

use crate::cluster::rollout::{self, Cause, Class, Code};

/// What the cluster said at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// When.
    pub at: Timestamp,
    /// The Job of our name; `None`: there is none any more.
    pub job: Option<Job>,
    /// Its pods.
    pub pods: Vec<Pod>,
    /// Events about the Job and its pods, as far as they were asked for.
    pub events: Vec<Event>,
}

/// What has become of it.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It is not ours any more: deleted, or made anew.
    Gone,
    /// It is under way: what it does, in a few words.
    Waits(String),
    /// It ended well, in this pod.
    Done { pod: String },
    /// It ended badly: which container, and how.
    Failed { why: String, pod: Option<String>, container: Option<String> },
    /// It does not come up, and waiting does not help.
    Stuck(Box<Cause>),
}

/// When each cause was first seen.
pub type Memory = BTreeMap<(String, String, Code), Timestamp>;

/// Decides what has become of the Job `uid`.
pub fn judge(uid: &str, look: &Look, memory: &mut Memory) -> State {
    let Some(job) = look.job.as_ref().filter(|job| job.metadata.uid.as_deref() == Some(uid)) else {
        return State::Gone;
    };
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let has = |kind: &str| conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True");
    if has("Complete").is_some() {
        let done = look.pods.iter().find(|pod| phase(pod) == "Succeeded");
        return done.map_or(State::Gone, |pod| State::Done { pod: name(pod) });
    }
    if let Some(failed) = has("Failed").or_else(|| has("FailureTarget")) {
        return failure(failed.reason.as_deref(), failed.message.as_deref(), &look.pods);
    }
    let alive: Vec<&Pod> = look.pods.iter().filter(|pod| !matches!(phase(pod), "Succeeded" | "Failed")).collect();
    // What a task's program has ended with, the Job says in a moment.
    let causes = alive.iter().filter(|pod| !has_ended(pod));
    let causes = causes.filter_map(|pod| rollout::cause_of(pod, &look.events, look.at));
    let causes: Vec<Cause> = causes.chain(refusal(uid, look)).collect();
    for cause in &causes {
        memory.entry(cause.key()).or_insert(cause.first_sign.min(look.at));
    }
    let lasts = |cause: &Cause| memory.get(&cause.key()).map_or(0, |since| look.at.duration_since(*since).as_secs());
    if let Some(cause) = causes.iter().find(|cause| cause.class > Class::Wait && cause.is_spent(lasts(cause))) {
        return State::Stuck(Box::new(cause.clone()));
    }
    State::Waits(match (causes.first(), alive.first()) {
        (Some(cause), _) => cause.code.phrase().to_owned(),
        (None, Some(pod)) if phase(pod) == "Running" => "it runs".to_owned(),
        (None, Some(_)) => "its pod starts".to_owned(),
        (None, None) => "its pod is being made".to_owned(),
    })
}

/// Pods that the Job controller may not make.
fn refusal(uid: &str, look: &Look) -> Option<Cause> {
    if !look.pods.is_empty() {
        return None;
    }
    let about = |event: &&Event| event.involved_object.uid.as_deref() == Some(uid);
    let event = look.events.iter().filter(about).find(|event| event.reason.as_deref() == Some("FailedCreate"))?;
    Some(rollout::refusal(event))
}

fn failure(reason: Option<&str>, message: Option<&str>, pods: &[Pod]) -> State {
    let ended = pods.iter().find_map(|pod| bad_end(pod).map(|(container, end)| (pod, container, end)));
    let late = reason == Some("DeadlineExceeded");
    match ended {
        Some((pod, container, end)) if !late => State::Failed {
            why: match end.reason.as_deref() {
                Some("OOMKilled") => "it needs more memory than its limit".to_owned(),
                _ => format!("exit code {}", end.exit_code),
            },
            pod: Some(name(pod)),
            container: Some(container),
        },
        _ => State::Failed {
            why: match (late, message, reason) {
                (true, ..) => "its time is up".to_owned(),
                (_, Some(message), _) => message.to_owned(),
                (_, None, reason) => reason.unwrap_or("the cluster does not say why").to_owned(),
            },
            pod: pods.first().map(name),
            container: None,
        },
    }
}

/// Whether the task's own container has ended.
fn has_ended(pod: &Pod) -> bool {
    let mut all = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    all.any(|status| status.state.as_ref().is_some_and(|state| state.terminated.is_some()))
}

/// The first container that ended with another exit code than 0.
fn bad_end(pod: &Pod) -> Option<(String, &ContainerStateTerminated)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let end = |status: &'_ k8s_openapi::api::core::v1::ContainerStatus| status.name.clone();
    all.filter_map(|status| Some((end(status), status.state.as_ref()?.terminated.as_ref()?)))
        .find(|(_, terminated)| terminated.exit_code != 0)
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn name(pod: &Pod) -> String {
    pod.metadata.name.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job(conditions: &Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u"}, "status": {"conditions": conditions}}))
            .unwrap()
    }

    fn condition(kind: &str, reason: &str) -> Value {
        json!([{"type": kind, "status": "True", "reason": reason, "message": "words"}])
    }

    /// A pod whose server's container is in this state.
    fn pod(phase: &str, state: &Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "pu"},
            "spec": {"containers": [{"name": "mlflow", "image": "i"}]},
            "status": {"phase": phase, "containerStatuses": [
                {"name": "mlflow", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ]},
        }))
        .unwrap()
    }

    fn look(conditions: &Value, pods: Vec<Pod>) -> Look {
        let at = "2026-11-28T00:10:00Z".parse().unwrap();
        Look { at, job: Some(job(conditions)), pods, events: Vec::new() }
    }

    fn check(look: &Look, expected: &str) {
        let text = match judge("u", look, &mut Memory::new()) {
            State::Gone => "gone".to_owned(),
            State::Waits(what) => what,
            State::Done { pod } => format!("done in {pod}"),
            State::Failed { why, pod, container } => format!("failed {pod:?} {container:?}: {why}"),
            State::Stuck(cause) => format!("stuck: {:?}", cause.code),
        };
        assert_eq!(text, expected, "{look:?}");
    }

    #[test]
    fn a_job_ends_in_one_of_these_ways() {
        let exit = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        let none = json!([]);
        check(&look(&none, vec![]), "its pod is being made");
        check(&look(&none, vec![pod("Pending", &json!({}))]), "its pod starts");
        check(&look(&none, vec![pod("Running", &json!({"running": {}}))]), "it runs");
        let done = condition("Complete", "CompletionsReached");
        check(&look(&done, vec![pod("Succeeded", &exit(0, "Completed"))]), "done in p");
        // Someone removed the pod, and its log with it.
        check(&look(&done, vec![]), "gone");
        let failed = condition("Failed", "BackoffLimitExceeded");
        check(
            &look(&failed, vec![pod("Failed", &exit(1, "Error"))]),
            "failed Some(\"p\") Some(\"mlflow\"): exit code 1",
        );
        let memory = "failed Some(\"p\") Some(\"mlflow\"): it needs more memory than its limit";
        check(&look(&failed, vec![pod("Failed", &exit(137, "OOMKilled"))]), memory);
        check(&look(&failed, vec![]), "failed None None: words");
        let late = condition("Failed", "DeadlineExceeded");
        check(&look(&late, vec![pod("Failed", &exit(143, "Error"))]), "failed Some(\"p\") None: its time is up");
        check(&Look { job: None, ..look(&none, vec![]) }, "gone");
        let mut other = look(&none, vec![]);
        other.job.as_mut().unwrap().metadata.uid = Some("v".to_owned());
        check(&other, "gone");
    }

    #[test]
    fn a_pod_that_cannot_come_up_is_not_waited_for() {
        let waiting = |reason: &str, message: &str| json!({"waiting": {"reason": reason, "message": message}});
        let none = json!([]);
        let config = waiting("CreateContainerConfigError", "secret \"s\" not found");
        check(&look(&none, vec![pod("Pending", &config)]), "stuck: ConfigError");
        let pull = waiting("ErrImagePull", "rpc error: code = Unavailable desc = connection refused");
        check(&look(&none, vec![pod("Pending", &pull)]), "the image cannot be pulled");
    }

    #[test]
    fn a_refused_pod_is_named_by_its_event() {
        let mut refused = look(&json!([]), vec![]);
        let event = |message: &str| {
            serde_json::from_value::<Event>(json!({
                "metadata": {}, "involvedObject": {"uid": "u"}, "reason": "FailedCreate", "message": message,
                "firstTimestamp": "2026-11-28T00:09:58Z",
            }))
            .unwrap()
        };
        refused.events = vec![event("pods \"j-1\" is forbidden: violates PodSecurity \"restricted:latest\": x")];
        check(&refused, "stuck: Admission");
        refused.events = vec![event("pods \"j-1\" is forbidden: exceeded quota: q, requested: pods=1")];
        check(&refused, "the namespace's quota is used up");
        refused.at = "2026-11-28T00:10:09Z".parse().unwrap();
        check(&refused, "stuck: Quota");
    }
}
