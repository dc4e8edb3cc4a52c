//! The server's Deployment -> a Job whose pod differs from the server's in what it runs only.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mlflow_image::Digest;

use crate::cluster::login::SIGN_IN_PROXY;
use crate::cluster::{CONTAINER, MANAGED_BY, MANAGER, NAME};
use crate::error::{Error, Kind, Result};
use crate::schema::gate;

/// The label that tells the pods of a task from the server's.
const COMPONENT: &str = "app.kubernetes.io/component";

/// How long a Job that ended is kept by the cluster where nobody removes it.
const KEPT: Duration = Duration::from_secs(600);

/// What is to run.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its name, as a part of the Job's: letters, digits and dashes.
    pub name: &'static str,
    /// Program and arguments. No secrets: everyone who may read pods reads them.
    pub command: Vec<String>,
    /// How long it may take, with the start of its pod.
    pub deadline: Duration,
}

/// The Job. Its name tells what it does and in which pod: the same task of the same server has the
/// same name, so that whoever comes second joins it.
///
/// # Errors
/// `Refused` for a Deployment without the server's container.
pub fn build(deployment: &Deployment, task: &Task) -> Result<Job> {
    let spec = spec(deployment, task)?;
    let text = serde_json::to_vec(&spec).unwrap_or_default();
    let digest: String = Digest::of(text).hex().chars().take(10).collect();
    let own = [("app.kubernetes.io/name", NAME), (COMPONENT, task.name), (MANAGED_BY, MANAGER)];
    let own: BTreeMap<String, String> = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let metadata =
        ObjectMeta { name: Some(format!("{NAME}-{}-{digest}", task.name)), labels: Some(own), ..ObjectMeta::default() };
    Ok(Job { metadata, spec: Some(spec), status: None })
}

/// What the Job is to do, and in which pod.
///
/// # Errors
/// As [`build`].
pub fn spec(deployment: &Deployment, task: &Task) -> Result<JobSpec> {
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let pod = template.and_then(|template| template.spec.clone());
    let pod = pod.and_then(|pod| of_pod(pod, task)).ok_or_else(|| {
        Error::new(Kind::Refused, format!("Deployment/{NAME} has no container {CONTAINER}"))
            .hint("deploy again: cargo xtask deploy")
    })?;
    let metadata = template.and_then(|template| template.metadata.as_ref());
    // Labels and annotations of the pods may decide how they log in; only the server's Service and
    // its budget must not count them.
    let mut labels = metadata.and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    labels.insert(COMPONENT.to_owned(), task.name.to_owned());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let annotations = metadata.and_then(|metadata| metadata.annotations.clone());
    let of_pod = ObjectMeta { labels: Some(labels), annotations, ..ObjectMeta::default() };
    Ok(JobSpec {
        backoff_limit: Some(0),
        active_deadline_seconds: i64::try_from(task.deadline.as_secs()).ok(),
        ttl_seconds_after_finished: i32::try_from(KEPT.as_secs()).ok(),
        // A node that is drained is no failure of the task's.
        pod_failure_policy: Some(PodFailurePolicy {
            rules: vec![PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    status: "True".to_owned(),
                    type_: "DisruptionTarget".to_owned(),
                }]),
                ..PodFailurePolicyRule::default()
            }],
        }),
        template: PodTemplateSpec { metadata: Some(of_pod), spec: Some(pod) },
        ..JobSpec::default()
    })
}

fn of_pod(mut pod: PodSpec, task: &Task) -> Option<PodSpec> {
    let at = pod.containers.iter().position(|container| container.name == CONTAINER)?;
    let server = pod.containers.remove(at);
    // What runs beside the server may be its way to the database. As a sidecar it does not keep the
    // pod from ending. Nobody asks for a login here.
    let beside = std::mem::take(&mut pod.containers)
        .into_iter()
        .filter(|container| container.name != SIGN_IN_PROXY)
        .map(|container| Container { restart_policy: Some("Always".to_owned()), ..container });
    let before = pod.init_containers.get_or_insert_default();
    // A task is what others wait for.
    before.retain(|container| container.name != gate::CONTAINER);
    before.splice(0..0, beside);
    pod.containers = vec![of_container(server, task)];
    pod.restart_policy = Some("Never".to_owned());
    pod.termination_grace_period_seconds = Some(10);
    // They spread the server's pods.
    pod.topology_spread_constraints = None;
    pod.affinity = pod.affinity.map(|affinity| k8s_openapi::api::core::v1::Affinity {
        pod_affinity: None,
        pod_anti_affinity: None,
        ..affinity
    });
    Some(pod)
}

fn of_container(server: Container, task: &Task) -> Container {
    let mut server = with_program(server, task.command.clone());
    let resources = server.resources.get_or_insert_default();
    // It takes a part of what the server takes, and must find room beside it.
    let requests = resources.requests.get_or_insert_default();
    for (name, quantity) in [("cpu", "100m"), ("memory", "256Mi")] {
        requests.insert(name.to_owned(), Quantity(quantity.to_owned()));
    }
    // A quota may ask for it.
    if let Some(storage) = requests.get_mut("ephemeral-storage") {
        *storage = Quantity("64Mi".to_owned());
    }
    server
}

/// The server's container with another program: nobody probes it or connects to it.
pub fn with_program(server: Container, command: Vec<String>) -> Container {
    Container {
        command: Some(command),
        args: None,
        ports: None,
        startup_probe: None,
        readiness_probe: None,
        liveness_probe: None,
        lifecycle: None,
        ..server
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(pod: Value) -> Deployment {
        let labels = json!({"app.kubernetes.io/name": "mlflow", COMPONENT: "server", "team": "research"});
        let template = json!({"metadata": {"labels": labels, "annotations": {"note": "x"}}, "spec": pod});
        serde_json::from_value(json!({
            "metadata": {"name": "mlflow"},
            "spec": {"selector": {}, "template": template},
        }))
        .unwrap()
    }

    fn pod() -> Value {
        json!({
            "serviceAccountName": "mlflow", "securityContext": {"runAsUser": 65532},
            "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway"}],
            "affinity": {"podAntiAffinity": {}, "nodeAffinity": {}},
            "initContainers": [{"name": "cloud-sql-proxy", "restartPolicy": "Always"}, {"name": "schema-gate"}],
            "containers": [
                {"name": "helper", "image": "h"},
                {
                    "name": "mlflow", "image": "r/m@sha256:a", "env": [{"name": "A", "value": "b"}],
                    "args": ["server"], "ports": [{"containerPort": 5000}],
                    "startupProbe": {}, "readinessProbe": {}, "livenessProbe": {}, "lifecycle": {},
                    "resources": {"requests": {"cpu": "2", "ephemeral-storage": "9Gi"}, "limits": {"memory": "1Gi"}},
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                },
            ],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        })
    }

    fn task(word: &str) -> Task {
        Task { name: "schema", command: vec!["python".into(), word.into()], deadline: Duration::from_secs(60) }
    }

    #[test]
    fn the_pod_is_the_servers_but_for_what_it_runs() {
        let job = serde_json::to_value(build(&deployment(pod()), &task("a")).unwrap()).unwrap();
        let template = &job["spec"]["template"];
        let expected = json!({
            "serviceAccountName": "mlflow", "securityContext": {"runAsUser": 65532},
            "affinity": {"nodeAffinity": {}},
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 10,
            "initContainers": [
                {"name": "helper", "image": "h", "restartPolicy": "Always"},
                {"name": "cloud-sql-proxy", "restartPolicy": "Always"},
            ],
            "containers": [{
                "name": "mlflow", "image": "r/m@sha256:a", "env": [{"name": "A", "value": "b"}],
                "command": ["python", "a"],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi", "ephemeral-storage": "64Mi"}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
            }],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        });
        assert_eq!(template["spec"], expected);
        assert_eq!(template["metadata"]["annotations"], json!({"note": "x"}));
        let labels = &template["metadata"]["labels"];
        assert_eq!((&labels[COMPONENT], &labels["team"]), (&json!("schema"), &json!("research")));
        let spec = &job["spec"];
        assert_eq!((&spec["backoffLimit"], &spec["activeDeadlineSeconds"]), (&json!(0), &json!(60)));
    }

    #[test]
    fn the_name_tells_what_it_does() {
        let name = |deployment: &Deployment, task: &Task| build(deployment, task).unwrap().metadata.name.unwrap();
        let first = name(&deployment(pod()), &task("a"));
        assert!(first.starts_with("mlflow-schema-") && first.len() == "mlflow-schema-".len() + 10, "{first}");
        assert_eq!(first, name(&deployment(pod()), &task("a")));
        assert_ne!(first, name(&deployment(pod()), &task("b")));
        let mut other = pod();
        other["containers"][1]["image"] = json!("r/m@sha256:b");
        assert_ne!(first, name(&deployment(other), &task("a")));
    }

    #[test]
    fn a_deployment_without_the_server_is_refused() {
        let error = build(&deployment(json!({"containers": [{"name": "x"}]})), &task("a")).unwrap_err();
        assert_eq!(error.to_string(), "Deployment/mlflow has no container mlflow");
    }
}
