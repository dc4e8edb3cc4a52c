//! One look at the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams};
use kube::core::Selector;

use super::super::{Cluster, call};
use super::snapshot::Snapshot;
use super::{Expected, pods};

/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to tell of a node, which is a detail.
const DETAIL: Duration = Duration::from_secs(3);

/// A selector as a query; `None` for one with an operator that the API server does not know either.
pub fn selector(labels: &LabelSelector) -> Option<String> {
    Selector::try_from(labels.clone()).ok().map(|selector| selector.to_string())
}

/// What the cluster says now, without events and logs. Each list is a consistent read, and the
/// Deployment is read first: pods that are seen are never older than the status that counts them.
pub async fn look(cluster: &Cluster, expected: &Expected) -> kube::Result<Snapshot> {
    let labelled = ListParams::default().labels(&expected.selector);
    let deployment = call::once(ANSWER, cluster.api::<Deployment>().get_opt(&expected.name)).await?;
    let replica_sets = call::once(ANSWER, cluster.api::<ReplicaSet>().list(&labelled)).await?.items;
    let pods = call::once(ANSWER, cluster.api::<Pod>().list(&labelled)).await?.items;
    let mut snapshot = Snapshot {
        at: Timestamp::now(),
        deployment,
        replica_sets,
        pods,
        nodes: Vec::new(),
        events: Vec::new(),
        logs: BTreeMap::new(),
    };
    snapshot.nodes = nodes(cluster, expected, &snapshot).await;
    Ok(snapshot)
}

/// The nodes of new pods that are not ready. Many users may not read nodes: then there are none.
async fn nodes(cluster: &Cluster, expected: &Expected, snapshot: &Snapshot) -> Vec<Node> {
    let Some(set) = pods::new_replica_set(expected, snapshot) else { return Vec::new() };
    let waiting = pods::pods_of(set, snapshot).into_iter().filter(|pod| !pods::is_ready(pod));
    let mut names: Vec<&str> = waiting.filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(4);
    let api: Api<Node> = Api::all(cluster.client.clone());
    let reads = names.into_iter().map(|name| call::once(DETAIL, api.get_opt(name)));
    let answers = futures::future::join_all(reads).await;
    answers.into_iter().filter_map(|answer| answer.ok()?).collect()
}
