//! Pods as the verdict sees them: whose they are, and the state of each of their containers.

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Expected;
use super::snapshot::Snapshot;

/// Where the Deployment controller writes which ReplicaSet is the newest.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// What a container is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the others start.
    Init,
    /// An init container with `restartPolicy: Always`: starts before the others and stays.
    Sidecar,
    /// All others.
    App,
}

/// A container of a pod: what was asked for, and what the kubelet says about it.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What was asked for.
    pub spec: &'a Container,
    /// What it is for.
    pub role: Role,
    /// `None` until the kubelet has seen the pod.
    pub status: Option<&'a ContainerStatus>,
}

impl<'a> View<'a> {
    fn state(self) -> Option<&'a ContainerState> {
        self.status?.state.as_ref()
    }

    /// Why it does not run, unless it is just about to.
    pub fn waiting(self) -> Option<&'a ContainerStateWaiting> {
        let waiting = self.state()?.waiting.as_ref()?;
        let is_cause = !matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"));
        is_cause.then_some(waiting)
    }

    /// How its present instance ended.
    pub fn terminated(self) -> Option<&'a ContainerStateTerminated> {
        self.state()?.terminated.as_ref()
    }

    /// How its present instance ended, or else the one before.
    pub fn last_end(self) -> Option<&'a ContainerStateTerminated> {
        self.terminated().or_else(|| self.status?.last_state.as_ref()?.terminated.as_ref())
    }

    /// Whether a process of it runs.
    pub fn is_running(self) -> bool {
        self.state().is_some_and(|state| state.running.is_some())
    }

    /// How often the kubelet started it again.
    pub fn restarts(self) -> i32 {
        self.status.map_or(0, |status| status.restart_count)
    }

    /// Whether it does what it is for.
    pub fn is_up(self) -> bool {
        let Some(status) = self.status else { return false };
        match self.role {
            Role::Init => self.terminated().is_some_and(|end| end.exit_code == 0),
            Role::Sidecar => status.started == Some(true) && status.ready && self.is_running(),
            Role::App => status.ready && self.is_running(),
        }
    }
}

/// All containers of a pod, in the order in which they start.
pub fn containers(pod: &Pod) -> Vec<View<'_>> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let app = status.and_then(|status| status.container_statuses.as_ref());
    let find = |statuses: Option<&'_ Vec<ContainerStatus>>, name: &str| {
        statuses.and_then(|all| all.iter().position(|status| status.name == name))
    };
    let first = spec.init_containers.iter().flatten().map(|spec| {
        let role = if spec.restart_policy.as_deref() == Some("Always") { Role::Sidecar } else { Role::Init };
        View { spec, role, status: find(init, &spec.name).and_then(|at| init?.get(at)) }
    });
    let then = spec.containers.iter().map(|spec| View {
        spec,
        role: Role::App,
        status: find(app, &spec.name).and_then(|at| app?.get(at)),
    });
    first.chain(then).collect()
}

/// A condition of a pod.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Whether a pod is ready, and each of its sidecars runs.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
        && containers(pod).into_iter().all(|view| view.is_up())
}

/// A pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// A pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether a pod has ended for good: evicted, refused by its node, or finished.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded"))
}

/// Whether a pod is on its way out.
pub fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The image of a container, by its digest where it has one. A registry mirror may stand before it.
pub fn digest(image: &str) -> &str {
    image.rsplit_once('@').map_or(image, |(_, digest)| digest)
}

/// Whether the controller of an object is the one with this uid.
pub fn is_controlled(metadata: &ObjectMeta, uid: &str) -> bool {
    let owners = metadata.owner_references.iter().flatten();
    owners.filter(|owner| owner.controller == Some(true)).any(|owner| owner.uid == uid)
}

/// The ReplicaSet that the Deployment controller made for what was applied. Its revision alone does
/// not say so: until the controller has seen the change, the newest is that of the old template.
pub fn new_replica_set<'a>(expected: &Expected, snapshot: &'a Snapshot) -> Option<&'a ReplicaSet> {
    let deployment = snapshot.deployment.as_ref()?;
    let revision = revision(&deployment.metadata)?;
    snapshot.replica_sets.iter().find(|set| {
        is_controlled(&set.metadata, &expected.uid)
            && self::revision(&set.metadata) == Some(revision)
            && template_image(set).is_some_and(|image| image == expected.image)
    })
}

/// The revision of a Deployment or ReplicaSet.
pub fn revision(metadata: &ObjectMeta) -> Option<&str> {
    metadata.annotations.as_ref()?.get(REVISION).map(String::as_str)
}

fn template_image(set: &ReplicaSet) -> Option<&str> {
    let pod = set.spec.as_ref()?.template.as_ref()?.spec.as_ref()?;
    pod.containers.iter().find(|container| container.name == super::super::CONTAINER)?.image.as_deref()
}

/// The pods of a ReplicaSet that are not on their way out.
pub fn pods_of<'a>(set: &ReplicaSet, snapshot: &'a Snapshot) -> Vec<&'a Pod> {
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    snapshot.pods.iter().filter(|pod| is_controlled(&pod.metadata, uid) && !is_leaving(pod)).collect()
}

/// The pods of a Deployment's other ReplicaSets that have not ended: those that serve still, and
/// those that leave. Both hold their share of a quota.
pub fn old_pods<'a>(deployment: &Deployment, new: &ReplicaSet, snapshot: &'a Snapshot) -> Vec<&'a Pod> {
    let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
    let old = snapshot
        .replica_sets
        .iter()
        .filter(|set| is_controlled(&set.metadata, uid) && set.metadata.uid != new.metadata.uid);
    let old: Vec<&str> = old.filter_map(|set| set.metadata.uid.as_deref()).collect();
    let is_old = |pod: &&Pod| old.iter().any(|uid| is_controlled(&pod.metadata, uid));
    snapshot.pods.iter().filter(is_old).filter(|pod| !has_ended(pod)).collect()
}
