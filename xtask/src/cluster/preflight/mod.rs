//! What must be true before anything is changed, asked without changing anything.

mod owner;
mod quota;
mod rights;

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::Api;
use kube::api::{ListParams, ObjectMeta, PostParams};
use serde::Serialize;

use crate::error::{Error, Kind, Result};

use super::connect::Cluster;
use super::object::{Object, ObjectKind};
use super::{CONTAINER, MANAGED_BY, MANAGER, NAME, PREFIX, call, failure, image};

pub use quota::{Quota, warnings as quota_warnings};

/// The first minor version of Kubernetes 1 with native sidecars by default
/// (<https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>).
const SIDECARS: u32 = 29;

/// How long the API server may take to show that it is there.
const REACHED: Duration = Duration::from_secs(5);

/// How long one further question may take, with its repetitions.
const DEADLINE: Duration = Duration::from_secs(15);

/// What a deploy is going to need.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The kinds that it applies.
    pub kinds: &'a [ObjectKind],
    /// Whether a Deployment that is not ours is taken over.
    pub adopt: bool,
}

/// What a cluster is like before a deploy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The context's name.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// The API server's version: `v1.36.2`.
    pub version: String,
    /// Who we are to it, where it says so.
    pub user: Option<String>,
    /// The namespace.
    pub namespace: NamespaceState,
    /// The Deployment, where there is one.
    pub deployment: Option<Live>,
    /// The platforms of the nodes, `linux/amd64`; empty where nodes may not be listed.
    pub platforms: BTreeSet<String>,
    /// The namespace's quotas, where they may be listed.
    pub quotas: Vec<Quota>,
}

/// A namespace, as far as it concerns us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NamespaceState {
    /// It does not exist: we make it.
    Missing,
    /// We made it, and keep it as it should be.
    Ours,
    /// It exists, and is left as it is: someone else made it, or we may not look at or change it.
    Foreign,
}

/// The Deployment as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Live {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: i64,
    /// The generation that its controller has seen.
    pub observed_generation: Option<i64>,
    /// The revision of its template, as its controller counts.
    pub revision: Option<u64>,
    /// `spec.replicas`.
    pub replicas: u32,
    /// Pods that are available.
    pub available: u32,
    /// The image of the server's container.
    pub image: Option<String>,
    /// The number of our release, as the annotation says.
    pub release: Option<u64>,
}

impl Observed {
    /// The objects that are to be applied: without the Namespace where it is not ours.
    pub fn applied(&self, objects: Vec<Object>) -> Vec<Object> {
        let leave_out = self.namespace == NamespaceState::Foreign;
        objects.into_iter().filter(|object| !(leave_out && object.kind == ObjectKind::Namespace)).collect()
    }
}

/// Looks at the cluster, and refuses what could not end well. Changes nothing.
///
/// # Errors
/// `Remote`: no API server there. `Auth`: it does not know us. `Refused`: it is too old, or the
/// namespace is being deleted. `Forbidden` lists every right that is missing. `Conflict`: the
/// Deployment is paused, or someone else's.
pub async fn check(cluster: &Cluster, wanted: &Wanted<'_>) -> Result<Observed> {
    let version = version(cluster).await?;
    let user = user(cluster).await?;
    let namespace = namespace(cluster).await?;
    let needed = rights::needed(wanted.kinds, namespace == NamespaceState::Missing);
    let (lacking, may_patch, deployment, platforms, quotas) = tokio::join!(
        rights::lacking(cluster, &needed),
        rights::is_allowed(cluster, &rights::PATCH_NAMESPACE),
        deployment(cluster),
        image::node_platforms(cluster),
        quotas(cluster),
    );
    let (lacking, may_patch) = (lacking?, may_patch?);
    let namespace = match namespace {
        // One that we once made, but may not change any more, is good as it is.
        NamespaceState::Ours if !may_patch => NamespaceState::Foreign,
        state => state,
    };
    if let Some(error) = rights::forbidden(cluster, user.as_deref(), &needed, &lacking) {
        return Err(error);
    }
    let deployment = match deployment? {
        Some(deployment) => {
            owner::check(cluster, &deployment, wanted.adopt)?;
            Some(live(&deployment))
        }
        None => None,
    };
    let (context, server) = (cluster.context.clone(), cluster.server.clone());
    Ok(Observed { context, server, version, user, namespace, deployment, platforms: platforms?, quotas })
}

/// Whether we have the rights that a deploy of these kinds needs.
///
/// # Errors
/// `Forbidden` lists those that are missing.
pub async fn rights(
    cluster: &Cluster,
    user: Option<&str>,
    kinds: &[ObjectKind],
    namespace: NamespaceState,
) -> Result<()> {
    let needed = rights::needed(kinds, namespace == NamespaceState::Missing);
    let lacking = rights::lacking(cluster, &needed).await?;
    rights::forbidden(cluster, user, &needed, &lacking).map_or(Ok(()), Err)
}

/// The API server's version.
///
/// # Errors
/// `Remote`: no API server there. `Auth`: it does not know us. `Refused`: it is too old.
pub async fn version(cluster: &Cluster) -> Result<String> {
    let info = call::repeat(REACHED, || cluster.client.apiserver_version())
        .await
        .map_err(|error| failure::explain(cluster, "reach the cluster", error))?;
    if is_too_old(&info.major, &info.minor) {
        let message = format!("the cluster of context {} runs Kubernetes {}", cluster.context, info.git_version);
        return Err(Error::new(Kind::Refused, message)
            .hint(format!("upgrade it to 1.{SIDECARS} or newer: the pods need native sidecars")));
    }
    Ok(info.git_version)
}

fn is_too_old(major: &str, minor: &str) -> bool {
    // Some providers append a plus sign.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    match (number(major), number(minor)) {
        (Some(1), Some(minor)) => minor < SIDECARS,
        (Some(major), _) => major < 1,
        // A server that does not say is judged by what it answers later.
        (None, _) => false,
    }
}

/// Who we are to the API server, where it says so.
pub async fn user(cluster: &Cluster) -> Result<Option<String>> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let (params, review) = (PostParams::default(), SelfSubjectReview::default());
    match call::repeat(DEADLINE, || reviews.create(&params, &review)).await {
        Ok(review) => Ok(review.status.and_then(|status| status.user_info).and_then(|user| user.username)),
        // Only its answer to the question who we are is missing.
        Err(error) if failure::is_missing(&error) || failure::kind(&error) == Kind::Forbidden => Ok(None),
        Err(error) => Err(failure::explain(cluster, "ask the cluster who we are", error)),
    }
}

/// The state of the namespace.
///
/// # Errors
/// `Refused` while it is being deleted.
pub async fn namespace(cluster: &Cluster) -> Result<NamespaceState> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let name = &cluster.namespace;
    let namespace = match call::repeat(DEADLINE, || api.get_opt(name)).await {
        Ok(Some(namespace)) => namespace,
        Ok(None) => return Ok(NamespaceState::Missing),
        // Many may work in a namespace, but not look at it.
        Err(kube::Error::Api(status)) if status.is_forbidden() => return Ok(NamespaceState::Foreign),
        Err(error) => return Err(failure::explain(cluster, &format!("read Namespace/{name}"), error)),
    };
    if namespace.metadata.deletion_timestamp.is_some() {
        return Err(Error::new(Kind::Refused, format!("the namespace {name} is being deleted"))
            .hint("wait until it is gone, or name another one in deploy.toml"));
    }
    match is_ours(&namespace.metadata) {
        true => Ok(NamespaceState::Ours),
        false => Ok(NamespaceState::Foreign),
    }
}

fn is_ours(metadata: &ObjectMeta) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)).is_some_and(|manager| manager == MANAGER)
}

async fn deployment(cluster: &Cluster) -> Result<Option<Deployment>> {
    let api = cluster.api::<Deployment>();
    match call::repeat(DEADLINE, || api.get_opt(NAME)).await {
        Ok(found) => Ok(found),
        // That the right is missing is said with the others.
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        Err(error) => Err(failure::explain(cluster, &format!("read Deployment/{NAME}"), error)),
    }
}

fn live(deployment: &Deployment) -> Live {
    let annotations = deployment.metadata.annotations.iter().flatten();
    let number = |wanted: &str| {
        annotations.clone().find(|(key, _)| *key == wanted).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let containers = deployment.spec.iter().flat_map(|spec| &spec.template.spec).flat_map(|pod| &pod.containers);
    let server = containers.clone().find(|container| container.name == CONTAINER);
    let status = deployment.status.as_ref();
    let count = |pods: Option<i32>| pods.and_then(|pods| u32::try_from(pods).ok());
    Live {
        uid: deployment.metadata.uid.clone().unwrap_or_default(),
        generation: deployment.metadata.generation.unwrap_or_default(),
        observed_generation: status.and_then(|status| status.observed_generation),
        revision: number("deployment.kubernetes.io/revision"),
        replicas: count(deployment.spec.as_ref().and_then(|spec| spec.replicas)).unwrap_or(1),
        available: count(status.and_then(|status| status.available_replicas)).unwrap_or(0),
        image: server.and_then(|container| container.image.clone()),
        release: number(&format!("{PREFIX}/release")),
    }
}

async fn quotas(cluster: &Cluster) -> Vec<Quota> {
    let api = cluster.api::<ResourceQuota>();
    let params = ListParams::default();
    let listed = call::repeat(DEADLINE, || api.list(&params)).await;
    // Only a warning depends on them.
    listed.map(|list| list.items.iter().filter_map(Quota::read).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pods_need_native_sidecars() {
        let check = |major: &str, minor: &str, expected: bool| {
            assert_eq!(is_too_old(major, minor), expected, "{major}.{minor}");
        };
        check("1", "28", true);
        check("1", "28+", true);
        check("1", "29", false);
        check("1", "36", false);
        check("1", "30+", false);
        check("2", "0", false);
        check("", "", false);
    }

    #[test]
    fn a_deployment_is_summed_up() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {
                "uid": "u", "generation": 4,
                "annotations": {"deployment.kubernetes.io/revision": "3", "mlflow-on-kubernetes/release": "7"},
            },
            "spec": {
                "replicas": 2, "selector": {},
                "template": {"spec": {"containers": [
                    {"name": "other", "image": "a"}, {"name": "mlflow", "image": "r/mlflow@sha256:b"},
                ]}},
            },
            "status": {"observedGeneration": 4, "availableReplicas": 1},
        }))
        .unwrap();
        let expected = Live {
            uid: "u".to_owned(),
            generation: 4,
            observed_generation: Some(4),
            revision: Some(3),
            replicas: 2,
            available: 1,
            image: Some("r/mlflow@sha256:b".to_owned()),
            release: Some(7),
        };
        assert_eq!(live(&deployment), expected);
        assert_eq!(live(&Deployment::default()), Live { replicas: 1, ..Live::default() });
    }

    #[test]
    fn a_namespace_of_others_is_not_applied() {
        let object = |kind: ObjectKind| Object { kind, value: json!({"metadata": {"name": "a"}}) };
        let check = |namespace: NamespaceState, expected: &[ObjectKind]| {
            let observed = Observed {
                context: String::new(),
                server: String::new(),
                version: String::new(),
                user: None,
                namespace,
                deployment: None,
                platforms: BTreeSet::new(),
                quotas: vec![],
            };
            let applied = observed.applied(vec![object(ObjectKind::Namespace), object(ObjectKind::Service)]);
            let kinds: Vec<_> = applied.iter().map(|object| object.kind).collect();
            assert_eq!(kinds, expected, "{namespace:?}");
        };
        check(NamespaceState::Missing, &[ObjectKind::Namespace, ObjectKind::Service]);
        check(NamespaceState::Ours, &[ObjectKind::Namespace, ObjectKind::Service]);
        check(NamespaceState::Foreign, &[ObjectKind::Service]);
    }
}
