//! What is ours in the namespace and no longer wanted.

use std::time::Duration;

use kube::api::{DeleteParams, ListParams, Preconditions, PropagationPolicy};

use crate::error::{Kind, Result};

use super::connect::Cluster;
use super::diff::{Action, Change};
use super::object::{Object, ObjectKind, ObjectRef};
use super::release::{self, Release};
use super::{MANAGED_BY, MANAGER, call, failure};

/// How long one request may take, with its repetitions.
const DEADLINE: Duration = Duration::from_secs(20);

/// The kinds that are pruned; what a person would lose data with is never among them.
const KINDS: [ObjectKind; 14] = [
    ObjectKind::PodMonitoring,
    ObjectKind::PodMonitor,
    ObjectKind::HttpRoute,
    ObjectKind::HealthCheckPolicy,
    ObjectKind::GcpBackendPolicy,
    ObjectKind::CronJob,
    ObjectKind::HorizontalPodAutoscaler,
    ObjectKind::Deployment,
    ObjectKind::Service,
    ObjectKind::PodDisruptionBudget,
    ObjectKind::NetworkPolicy,
    ObjectKind::Secret,
    ObjectKind::ConfigMap,
    ObjectKind::ServiceAccount,
];

/// An object with our label, as it is in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which.
    pub object: ObjectRef,
    /// `metadata.uid`: what is deleted is this very object.
    pub uid: String,
}

/// All objects of the namespace with our label, other than releases.
///
/// # Errors
/// What the API server answers. A kind that it does not have, or that we may not list, is left out.
pub async fn find(cluster: &Cluster) -> Result<Vec<Found>> {
    let params = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER},!{}", release::LABEL));
    let listed = futures::future::join_all(KINDS.map(async |kind| {
        let api = cluster.objects(kind);
        (kind, call::repeat(DEADLINE, || api.list_metadata(&params)).await)
    }));
    let mut found = Vec::new();
    for (kind, listed) in listed.await {
        let items = match listed {
            Ok(list) => list.items,
            Err(error) if failure::is_missing(&error) || failure::kind(&error) == Kind::Forbidden => continue,
            Err(error) => return Err(failure::explain(cluster, &format!("list {}", kind.plural()), error)),
        };
        found.extend(items.into_iter().filter(|item| item.metadata.deletion_timestamp.is_none()).filter_map(|item| {
            let object = ObjectRef { kind, name: item.metadata.name? };
            Some(Found { object, uid: item.metadata.uid? })
        }));
    }
    Ok(found)
}

/// Which of what was found is no longer wanted: neither rendered, nor needed to go back to one of
/// the releases that are kept. What only a release needs is kept if it is configuration; everything
/// else is made again from the release itself.
pub fn plan(found: &[Found], rendered: &[Object], releases: &[Release], keep: usize) -> Vec<Found> {
    let kept = release::kept(releases, keep);
    let wanted = |object: &ObjectRef| rendered.iter().any(|rendered| rendered.reference() == *object);
    let needed = |object: &ObjectRef| {
        matches!(object.kind, ObjectKind::ConfigMap | ObjectKind::Secret)
            && kept.iter().any(|release| release.objects.contains(object))
    };
    let mut unwanted: Vec<Found> =
        found.iter().filter(|found| !wanted(&found.object) && !needed(&found.object)).cloned().collect();
    let place = |found: &Found| KINDS.iter().position(|kind| *kind == found.object.kind);
    unwanted.retain(|found| place(found).is_some());
    unwanted.sort_by(|a, b| (place(a), &a.object).cmp(&(place(b), &b.object)));
    unwanted
}

/// The plan as changes, to be shown with the others.
pub fn changes(plan: &[Found]) -> Vec<Change> {
    plan.iter().map(|found| Change::new(found.object.kind, found.object.name.clone(), Action::Delete)).collect()
}

/// Deletes what the plan says, and says what it deleted. An object that is gone, or has been made
/// anew by someone since, is left alone.
///
/// # Errors
/// What the API server answers; the objects before are deleted.
pub async fn delete(cluster: &Cluster, plan: &[Found]) -> Result<Vec<ObjectRef>> {
    let mut deleted = Vec::new();
    for Found { object, uid } in plan {
        let api = cluster.objects(object.kind);
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match call::repeat(DEADLINE, || api.delete(&object.name, &params)).await {
            Ok(_) => deleted.push(object.clone()),
            Err(error) if failure::is_missing(&error) || failure::kind(&error) == Kind::Conflict => {}
            Err(error) => return Err(failure::explain(cluster, &format!("delete {object}"), error)),
        }
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::release::State;
    use super::*;
    use crate::provenance::Provenance;

    fn reference(text: &str) -> ObjectRef {
        let (kind, name) = text.split_once('/').unwrap();
        ObjectRef { kind: ObjectKind::of(kind).unwrap(), name: name.to_owned() }
    }

    fn release(number: u64, objects: &[&str]) -> Release {
        Release {
            number,
            state: State::Deployed,
            at: String::new(),
            finished: None,
            provenance: Provenance::default(),
            image: String::new(),
            version: None,
            replaces: None,
            restores: None,
            heads: None,
            backup: None,
            cause: None,
            objects: objects.iter().copied().map(reference).collect(),
        }
    }

    #[test]
    fn what_is_neither_rendered_nor_needed_to_go_back_is_deleted() {
        let releases = [
            release(1, &["ConfigMap/c-1", "Secret/s-1", "Deployment/mlflow"]),
            release(2, &["ConfigMap/c-2", "Secret/s-1", "HorizontalPodAutoscaler/mlflow", "Deployment/mlflow"]),
            release(3, &["ConfigMap/c-3", "Secret/s-3", "Deployment/mlflow"]),
        ];
        let rendered = ["ConfigMap/c-3", "Secret/s-3", "Deployment/mlflow"];
        let rendered = rendered
            .map(reference)
            .map(|object| Object { kind: object.kind, value: json!({"metadata": {"name": object.name}}) });
        let check = |found: &[&str], keep: usize, expected: &[&str]| {
            let found: Vec<_> =
                found.iter().map(|text| Found { object: reference(text), uid: (*text).to_owned() }).collect();
            let planned: Vec<_> =
                plan(&found, &rendered, &releases, keep).iter().map(|found| found.object.to_string()).collect();
            assert_eq!(planned, expected, "{found:?} {keep}");
        };
        check(&[], 1, &[]);
        check(&["Deployment/mlflow", "ConfigMap/c-3", "Secret/s-3"], 0, &[]);
        let configuration = ["ConfigMap/c-1", "ConfigMap/c-2", "ConfigMap/c-3", "Secret/s-1", "Secret/s-3"];
        check(&configuration, 2, &[]);
        check(&configuration, 1, &["ConfigMap/c-1"]);
        check(&configuration, 0, &["Secret/s-1", "ConfigMap/c-1", "ConfigMap/c-2"]);
        // An autoscaler of an earlier release would go on scaling.
        check(&["HorizontalPodAutoscaler/mlflow"], 2, &["HorizontalPodAutoscaler/mlflow"]);
        check(&["Deployment/mlflow", "CronJob/mlflow-gc"], 2, &["CronJob/mlflow-gc"]);
        check(&["Service/old", "HTTPRoute/old"], 2, &["HTTPRoute/old", "Service/old"]);
        check(&["Namespace/ml"], 0, &[]);
    }
}
