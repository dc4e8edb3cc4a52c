//! Metrics: that the server has some, and who fetches them.

use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use super::Manifests;
use crate::cluster::{NAME, Object, ObjectKind, PORT};
use crate::config::cluster::{ClusterConfig, Metrics};
use crate::error::Result;

/// The variable by which MLflow has metrics, and the folder in which its workers keep them.
const FOLDER: (&str, &str) = ("MLFLOW_EXPOSE_PROMETHEUS", "/tmp/mlflow-metrics");

/// The path of metrics, of the server and of the sidecar.
const PATH: &str = "/metrics";

/// The sidecar's port for probes and metrics.
const PROXY_PORT: &str = "proxy-health";

/// The server's variables.
pub fn settings(metrics: Metrics) -> Option<(String, String)> {
    let (name, folder) = FOLDER;
    (metrics != Metrics::None).then(|| (name.to_owned(), folder.to_owned()))
}

/// What a Prometheus looks for that is told by annotations. They name one port: the server's.
pub fn annotate(pods: &mut ObjectMeta, metrics: Metrics) {
    if metrics == Metrics::Annotations {
        let port = PORT.to_string();
        let annotations = [("scrape", "true"), ("port", port.as_str()), ("path", PATH)];
        let annotations = annotations.map(|(name, value)| (format!("prometheus.io/{name}"), value.to_owned()));
        pods.annotations.get_or_insert_default().extend(annotations);
    }
}

/// Who fetches them, and the way to the sidecar's.
pub fn objects(manifests: &Manifests, config: &ClusterConfig) -> Result<Vec<Object>> {
    let (kind, list, manifest) = match config.metrics {
        Metrics::None | Metrics::Annotations => return Ok(Vec::new()),
        Metrics::PodMonitor => (ObjectKind::PodMonitor, "podMetricsEndpoints", manifests.monitor()?),
        Metrics::PodMonitoring => (ObjectKind::PodMonitoring, "endpoints", manifests.monitoring()?),
    };
    let mut value = manifest.clone();
    if config.database.cloud_sql().is_some() {
        let policy = super::object(&policy())?;
        return Ok(vec![policy, Object { kind, value }]);
    }
    if let Some(endpoints) = value["spec"][list].as_array_mut() {
        endpoints.retain(|endpoint: &Value| endpoint["port"] != PROXY_PORT);
    }
    Ok(vec![Object { kind, value }])
}

/// Opens the sidecar's port, beside what the manifests' own policy opens.
fn policy() -> NetworkPolicy {
    let port = NetworkPolicyPort {
        port: Some(IntOrString::String(PROXY_PORT.to_owned())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    };
    NetworkPolicy {
        metadata: ObjectMeta { name: Some(format!("{NAME}-metrics")), ..ObjectMeta::default() },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(super::selector()), match_expressions: None }),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule { ports: Some(vec![port]), from: None }]),
            egress: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::render::tests::{cloud_sql, kubernetes};

    fn check(config: ClusterConfig, metrics: Metrics, expected: &str) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        let config = ClusterConfig { metrics, ..config };
        let objects = objects(&Manifests::read(root).unwrap(), &config).unwrap();
        let shown = objects.iter().map(|object| {
            let endpoints = ["podMetricsEndpoints", "endpoints"].map(|list| object.value["spec"][list].as_array());
            let endpoints = endpoints.into_iter().flatten().flatten();
            let ports = endpoints.map(|endpoint| {
                format!("{}{}", endpoint["port"].as_str().unwrap(), endpoint["path"].as_str().unwrap())
            });
            format!("{object}({})", ports.collect::<Vec<_>>().join(" "))
        });
        assert_eq!(shown.collect::<Vec<_>>().join(", "), expected);
        assert_eq!(settings(metrics).is_some(), metrics != Metrics::None);
        let kinds = crate::cluster::render::kinds(&config);
        assert!(objects.iter().all(|object| kinds.contains(&object.kind)), "rights are asked for: {kinds:?}");
    }

    #[test]
    fn whoever_fetches_metrics_is_told_where() {
        check(kubernetes(), Metrics::None, "");
        check(cloud_sql(), Metrics::Annotations, "");
        check(kubernetes(), Metrics::PodMonitor, "PodMonitor/mlflow(http/metrics)");
        check(kubernetes(), Metrics::PodMonitoring, "PodMonitoring/mlflow(http/metrics)");
        let both = "(http/metrics proxy-health/metrics)";
        check(cloud_sql(), Metrics::PodMonitor, &format!("NetworkPolicy/mlflow-metrics(), PodMonitor/mlflow{both}"));
        check(
            cloud_sql(),
            Metrics::PodMonitoring,
            &format!("NetworkPolicy/mlflow-metrics(), PodMonitoring/mlflow{both}"),
        );
    }

    #[test]
    fn annotations_are_added_to_those_that_users_have() {
        let annotations = [("a".to_owned(), "b".to_owned())];
        let mut pods = ObjectMeta { annotations: Some(annotations.into()), ..ObjectMeta::default() };
        annotate(&mut pods, Metrics::PodMonitor);
        assert_eq!(pods.annotations.as_ref().unwrap().len(), 1);
        annotate(&mut pods, Metrics::Annotations);
        let found = pods.annotations.unwrap();
        let shown: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown.join(" "),
            "a=b prometheus.io/path=/metrics prometheus.io/port=5000 prometheus.io/scrape=true"
        );
    }
}
