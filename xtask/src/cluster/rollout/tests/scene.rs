//! Small constructors for what a cluster says.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::snapshot::Snapshot;
use super::super::snapshot::{LogKey, LogLine};
use super::super::verdict::{Memory, Verdict, verdict};
use super::super::{Expected, Limits};

pub const IMAGE: &str = "registry.test/mlflow@sha256:2222";
const OLD_IMAGE: &str = "registry.test/mlflow@sha256:1111";

/// So many seconds after the apply.
pub fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    start + SignedDuration::from_secs(seconds)
}

fn time(seconds: i64) -> Value {
    json!(at(seconds).to_string())
}

/// A container as the kubelet reports it.
#[derive(Clone)]
pub struct Container {
    name: &'static str,
    kind: &'static str,
    status: Value,
}

fn container(ready: bool, started: bool, state: Value) -> Container {
    let status = json!({
        "image": "x", "imageID": IMAGE, "containerID": "containerd://1", "restartCount": 0, "lastState": {},
        "ready": ready, "started": started, "state": state,
    });
    Container { name: "mlflow", kind: "app", status }
}

/// It runs and is ready.
pub fn up() -> Container {
    container(true, true, json!({ "running": { "startedAt": time(2) } }))
}

/// It runs and is not ready.
pub fn running() -> Container {
    container(false, true, json!({ "running": { "startedAt": time(2) } }))
}

/// It does not run, for this reason.
pub fn waiting(reason: &str, message: &str) -> Container {
    container(false, false, json!({ "waiting": { "reason": reason, "message": message } }))
}

/// Its process ended.
pub fn ended(code: i32, reason: &str) -> Container {
    let end = json!({ "exitCode": code, "reason": reason, "startedAt": time(2), "finishedAt": time(3) });
    container(false, false, json!({ "terminated": end }))
}

impl Container {
    pub fn restarts(mut self, count: i32) -> Self {
        self.status["restartCount"] = json!(count);
        self.status["containerID"] = json!(format!("containerd://{count}"));
        self
    }

    /// How the instance before ended.
    pub fn after(mut self, code: i32, reason: &str) -> Self {
        let end = json!({ "exitCode": code, "reason": reason, "startedAt": time(2), "finishedAt": time(3) });
        self.status["lastState"] = json!({ "terminated": end });
        self
    }

    pub fn named(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub fn init(mut self) -> Self {
        self.kind = "init";
        self
    }

    pub fn sidecar(mut self) -> Self {
        self.kind = "sidecar";
        self.name = "proxy";
        self
    }
}

/// A pod of the new ReplicaSet, on a node, ready if all of its containers are.
#[derive(Clone)]
pub struct Pod(pub Value);

pub fn pod(name: &str, containers: &[Container]) -> Pod {
    let of = |kinds: &[&str], key: fn(&Container) -> Value| -> Vec<Value> {
        containers.iter().filter(|container| kinds.contains(&container.kind)).map(key).collect()
    };
    let spec = |container: &Container| {
        let mut spec = json!({ "name": container.name, "image": IMAGE });
        if container.kind == "sidecar" {
            spec["restartPolicy"] = json!("Always");
        }
        spec
    };
    let status = |container: &Container| {
        let mut status = container.status.clone();
        status["name"] = json!(container.name);
        status
    };
    let is_up = |container: &Container| match container.kind {
        "init" => container.status["state"]["terminated"]["exitCode"] == 0,
        _ => container.status["ready"] == true,
    };
    let ready = if containers.iter().all(is_up) { "True" } else { "False" };
    Pod(json!({
        "metadata": {
            "name": name, "uid": format!("uid-{name}"), "creationTimestamp": time(1),
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "new", "uid": "set-2", "controller": true }],
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": of(&["init", "sidecar"], spec), "containers": of(&["app"], spec),
        },
        "status": {
            "phase": "Running",
            "conditions": [
                { "type": "PodScheduled", "status": "True" },
                { "type": "Ready", "status": ready, "lastTransitionTime": time(4) },
            ],
            "initContainerStatuses": of(&["init", "sidecar"], status), "containerStatuses": of(&["app"], status),
        },
    }))
}

/// A pod that serves.
pub fn good(name: &str) -> Pod {
    pod(name, &[up()])
}

/// A pod that no node has taken.
pub fn unscheduled(name: &str, message: &str) -> Pod {
    let mut pod = pod(name, &[]);
    pod.0["spec"] = json!({ "containers": [{ "name": "mlflow", "image": IMAGE }] });
    let condition = json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": time(1),
    });
    pod.0["status"] = json!({ "phase": "Pending", "conditions": [condition] });
    pod
}

impl Pod {
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        *self.0.pointer_mut(pointer).expect("a field of a pod") = value;
        self
    }

    /// Of the ReplicaSet before.
    pub fn old(self) -> Self {
        self.set("/metadata/ownerReferences/0/uid", json!("set-1"))
    }

    /// On its way out.
    pub fn leaving(mut self) -> Self {
        self.0["metadata"]["deletionTimestamp"] = time(5);
        self
    }

    pub fn phase(mut self, phase: &str, reason: &str) -> Self {
        self.0["status"]["phase"] = json!(phase);
        self.0["status"]["reason"] = json!(reason);
        self
    }
}

/// What the cluster says at one moment: a Deployment of two pods at generation 2, the ReplicaSets
/// before and after, and the pods.
#[derive(Clone)]
pub struct Scene {
    pub deployment: Value,
    sets: Vec<Value>,
    pods: Vec<Pod>,
    events: Vec<Value>,
    nodes: Vec<Value>,
    logs: BTreeMap<LogKey, Vec<LogLine>>,
}

fn template(image: &str) -> Value {
    json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "mlflow", "image": image }] } })
}

fn set(revision: &str, image: &str) -> Value {
    json!({
        "metadata": {
            "name": format!("mlflow-{revision}"), "uid": format!("set-{revision}"),
            "annotations": { "deployment.kubernetes.io/revision": revision },
            "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "mlflow", "uid": "ours", "controller": true }],
        },
        "spec": { "selector": {}, "template": template(image) },
        "status": { "replicas": 0 },
    })
}

/// A rollout under way, with these new pods.
pub fn rolling(pods: impl IntoIterator<Item = Pod>) -> Scene {
    let deployment = json!({
        "metadata": {
            "name": "mlflow", "uid": "ours", "generation": 2,
            "annotations": { "deployment.kubernetes.io/revision": "2" },
        },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "a": "b" } }, "template": template(IMAGE), "progressDeadlineSeconds": 600,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } } },
        "status": {
            "observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2,
            "conditions": [{ "type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "message": "" }],
        },
    });
    Scene {
        deployment,
        sets: vec![set("1", OLD_IMAGE), set("2", IMAGE)],
        pods: pods.into_iter().collect(),
        events: Vec::new(),
        nodes: Vec::new(),
        logs: BTreeMap::new(),
    }
}

/// A rollout that has come to its end, with these new pods.
pub fn rolled(pods: impl IntoIterator<Item = Pod>) -> Scene {
    let scene = rolling(pods);
    let count = scene.pods.len();
    scene.counts(count, count, count).set("/status/conditions/0/reason", json!("NewReplicaSetAvailable"))
}

impl Scene {
    /// Sets a field of the Deployment.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        let parent = self.deployment.pointer_mut(parent).expect("a field of the Deployment");
        match key.parse::<usize>() {
            Ok(index) => parent[index] = value,
            Err(_) => parent[key] = value,
        }
        self
    }

    pub fn counts(self, updated: usize, total: usize, available: usize) -> Self {
        self.set("/status/updatedReplicas", json!(updated))
            .set("/status/replicas", json!(total))
            .set("/status/availableReplicas", json!(available))
    }

    pub fn generation(self, generation: i64, observed: i64) -> Self {
        self.set("/metadata/generation", json!(generation)).set("/status/observedGeneration", json!(observed))
    }

    pub fn wanted(self, replicas: i32) -> Self {
        self.set("/spec/replicas", json!(replicas))
    }

    pub fn with(mut self, pod: Pod) -> Self {
        self.pods.push(pod);
        self
    }

    /// The controller cannot make pods of the new ReplicaSet.
    pub fn refused(mut self, message: &str) -> Self {
        let condition = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message, "lastTransitionTime": time(1) });
        self.sets[1]["status"]["conditions"] = json!([condition]);
        self
    }

    /// Without the ReplicaSet of this revision.
    pub fn without_set(mut self, revision: usize) -> Self {
        self.sets.remove(revision - 1);
        self
    }

    /// With another field in the new ReplicaSet.
    pub fn new_set(mut self, pointer: &str, value: Value) -> Self {
        *self.sets[1].pointer_mut(pointer).expect("a field of the ReplicaSet") = value;
        self
    }

    /// An event about a pod (its container `mlflow`), recorded at that second.
    pub fn event(mut self, pod: &str, seconds: i64, reason: &str, message: &str) -> Self {
        self.events.push(json!({
            "metadata": { "name": format!("e{}", self.events.len()) },
            "involvedObject": { "kind": "Pod", "name": pod, "uid": format!("uid-{pod}"), "fieldPath": "spec.containers{mlflow}" },
            "reason": reason, "message": message, "type": "Warning", "count": 1,
            "firstTimestamp": time(seconds), "lastTimestamp": time(seconds),
        }));
        self
    }

    pub fn log(mut self, pod: &str, previous: bool, lines: &[&str]) -> Self {
        let lines = lines.iter().map(|line| LogLine { at: Some(at(3)), text: (*line).to_owned() });
        let key = LogKey { pod: format!("uid-{pod}"), container: "mlflow".into(), previous };
        self.logs.insert(key, lines.collect());
        self
    }

    /// The node of the pods does not answer.
    pub fn lost_node(mut self) -> Self {
        let condition = json!({ "type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status.", "lastTransitionTime": time(2) });
        self.nodes.push(json!({ "metadata": { "name": "node-1" }, "status": { "conditions": [condition] } }));
        self
    }

    pub fn snapshot(&self, seconds: i64) -> Snapshot {
        let read = |value: &Value| value.clone();
        Snapshot {
            at: at(seconds),
            deployment: (!self.deployment.is_null()).then(|| typed(read(&self.deployment))),
            replica_sets: self.sets.iter().map(|value| typed(read(value))).collect(),
            pods: self.pods.iter().map(|pod| typed(read(&pod.0))).collect(),
            nodes: self.nodes.iter().map(|value| typed(read(value))).collect(),
            events: self.events.iter().map(|value| typed(read(value))).collect(),
            logs: self.logs.clone(),
        }
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object of Kubernetes")
}

/// What the apply was answered with: generation 2, not observed yet.
pub fn expected() -> Expected {
    let applied: Deployment = typed(rolling([]).deployment);
    Expected::of(&applied, at(0)).expect("a complete Deployment")
}

/// 600 s to come up; no soak.
pub const LIMITS: Limits = Limits { deadline: Duration::from_secs(600), soak: Duration::ZERO };

/// The verdicts on scenes at these seconds, in short.
pub fn verdicts(limits: &Limits, scenes: &[(i64, Scene)]) -> Vec<String> {
    let mut memory = Memory::default();
    let expected = expected();
    let judged = scenes.iter().map(|(seconds, scene)| {
        let snapshot = scene.snapshot(*seconds);
        memory.learn(&expected, &snapshot);
        in_short(&verdict(&expected, limits, &memory, &snapshot))
    });
    judged.collect()
}

/// `wait`, `complete`, `superseded`, or `failed CODE CONTAINER`, with `late` where it took the deadline.
fn in_short(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Wait(progress) if progress.soaks => "soak".to_owned(),
        Verdict::Wait(_) => "wait".to_owned(),
        Verdict::Complete(_) => "complete".to_owned(),
        Verdict::Superseded(_) => "superseded".to_owned(),
        Verdict::Failed { cause, late } => {
            let code = serde_json::to_value(cause.code).expect("a name");
            let place = cause.container.as_ref().map_or_else(String::new, |name| format!(" {name}"));
            format!("{}{}{place}", if *late { "late " } else { "failed " }, code.as_str().expect("a name"))
        }
    }
}
