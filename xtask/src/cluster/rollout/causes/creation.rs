//! Pods that the cluster does not let the ReplicaSet controller make.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;

use super::super::pods::{self, is_leaving, is_ready, old_pods, pods_of};
use super::super::snapshot::{Snapshot, first_time};
use super::{Budget, Cause, Code, first_event};

/// Seconds for a quota whose used part the API server has not yet counted down.
const QUOTA: i64 = 5;
/// Seconds for a ServiceAccount that was made a moment ago.
const ACCOUNT: i64 = 20;
/// Seconds for a webhook that does not answer.
const WEBHOOK: i64 = 60;

/// Why new pods, or their ReplicaSet, cannot be made.
pub fn refused(deployment: &Deployment, new: Option<&ReplicaSet>, snapshot: &Snapshot) -> Option<Cause> {
    match new {
        Some(set) => refused_pods(deployment, set, snapshot),
        None => refused_set(deployment, snapshot),
    }
}

fn refused_pods(deployment: &Deployment, set: &ReplicaSet, snapshot: &Snapshot) -> Option<Cause> {
    let conditions = set.status.as_ref()?.conditions.as_ref()?;
    let failure =
        conditions.iter().find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    let message = failure.message.as_deref().unwrap_or_default();
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let event = first_event(snapshot.events_of(uid), |reason, _| reason == "FailedCreate");
    let first = event.or_else(|| failure.last_transition_time.as_ref().map(|time| time.0));
    let reason = failure.reason.as_deref().unwrap_or("FailedCreate");
    Some(told(message, reason, first.unwrap_or(snapshot.at), || quota_can_pass(deployment, set, snapshot)))
}

/// The Deployment controller could not make the ReplicaSet itself.
fn refused_set(deployment: &Deployment, snapshot: &Snapshot) -> Option<Cause> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|condition| {
        condition.type_ == "Progressing"
            && matches!(condition.reason.as_deref(), Some("ReplicaSetCreateError" | "FailedCreate"))
    })?;
    let message = failure.message.as_deref().unwrap_or_default();
    let first = failure.last_transition_time.as_ref().map_or(snapshot.at, |time| time.0);
    Some(told(message, failure.reason.as_deref().unwrap_or("FailedCreate"), first, || false))
}

/// Why a controller could not make its pod, by its event.
pub fn refusal(event: &Event) -> Cause {
    let (message, reason) = (event.message.as_deref().unwrap_or_default(), event.reason.as_deref());
    let first = first_time(event).unwrap_or(Timestamp::UNIX_EPOCH);
    told(message, reason.unwrap_or("FailedCreate"), first, || false)
}

fn told(message: &str, reason: &str, first: Timestamp, quota_can_pass: impl Fn() -> bool) -> Cause {
    let has = |sign: &str| message.contains(sign);
    let (code, budget) = if has("exceeded quota") {
        (Code::Quota, if quota_can_pass() { Budget::Deadline } else { Budget::Seconds(QUOTA) })
    } else if has("failed calling webhook") || has("failed to call webhook") {
        (Code::WebhookUnreachable, Budget::Seconds(WEBHOOK))
    } else if has("error looking up service account") {
        (Code::CreateFailed, Budget::Seconds(ACCOUNT))
    } else if has(" is forbidden: ") || has("denied the request") || has("denied request") {
        (Code::Admission, Budget::Now)
    } else if has(" is invalid: ") {
        (Code::CreateFailed, Budget::Now)
    } else {
        (Code::CreateFailed, Budget::Seconds(WEBHOOK))
    };
    Cause::new(code, budget, reason, message, first)
}

/// Whether the quota can become free by the rollout's own progress: pods leave already, a new pod
/// may yet become ready, or the strategy lets old pods go before new ones are there.
fn quota_can_pass(deployment: &Deployment, set: &ReplicaSet, snapshot: &Snapshot) -> bool {
    let leaves = snapshot.pods.iter().any(is_leaving);
    let comes = pods_of(set, snapshot).into_iter().any(|pod| {
        !pods::has_ended(pod) && super::of_pod(pod, snapshot).is_none_or(|cause| cause.class == super::Class::Wait)
    });
    let old = old_pods(deployment, set, snapshot);
    let available = old.iter().filter(|pod| is_ready(pod)).count();
    let kept = wanted(deployment).saturating_sub(max_unavailable(deployment));
    leaves || comes || available > kept || old.len() > available
}

fn wanted(deployment: &Deployment) -> usize {
    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or(0)
}

/// How many pods the strategy may take away before new ones serve.
fn max_unavailable(deployment: &Deployment) -> usize {
    let wanted = wanted(deployment);
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        return wanted;
    }
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    match rolling.and_then(|rolling| rolling.max_unavailable.as_ref()) {
        Some(IntOrString::Int(pods)) => usize::try_from(*pods).unwrap_or(0),
        Some(IntOrString::String(percent)) => {
            percent.trim_end_matches('%').parse().map_or(0, |n: usize| wanted * n / 100)
        }
        None => wanted / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_pod_is_told_by_the_words_of_the_api_server() {
        let check = |message: &str, code: Code, budget: Budget| {
            let cause = told(message, "FailedCreate", Timestamp::UNIX_EPOCH, || false);
            assert_eq!((cause.code, cause.budget), (code, budget), "{message}");
        };
        let quota = "pods \"a-1\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
        check(quota, Code::Quota, Budget::Seconds(QUOTA));
        let passing = told(quota, "FailedCreate", Timestamp::UNIX_EPOCH, || true);
        assert_eq!(passing.budget, Budget::Deadline);
        check(
            "pods \"a-1\" is forbidden: failed quota: q: must specify limits.memory for: mlflow",
            Code::Admission,
            Budget::Now,
        );
        check(
            "pods \"a-1\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false",
            Code::Admission,
            Budget::Now,
        );
        check("admission webhook \"x.test\" denied the request: no", Code::Admission, Budget::Now);
        check(
            "pods \"a-1\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
            Code::Admission,
            Budget::Now,
        );
        check(
            "Internal error occurred: failed calling webhook \"x.test\": failed to call webhook: Post \"https://x\": connection refused",
            Code::WebhookUnreachable,
            Budget::Seconds(WEBHOOK),
        );
        check(
            "pods \"a-1\" is forbidden: error looking up service account n/s: serviceaccount \"s\" not found",
            Code::CreateFailed,
            Budget::Seconds(ACCOUNT),
        );
        check(
            "pods \"a-1\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi",
            Code::Admission,
            Budget::Now,
        );
        check("Pod \"a-1\" is invalid: spec.containers[0].name: Required value", Code::CreateFailed, Budget::Now);
        check("etcdserver: request timed out", Code::CreateFailed, Budget::Seconds(WEBHOOK));
    }
}
