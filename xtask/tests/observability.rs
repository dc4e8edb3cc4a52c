//! What the dashboard and the alerts ask for.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Metrics of others: Prometheus itself, kube-state-metrics, the kubelet, the Cloud SQL Auth Proxy
/// (cloudsqlconn/internal/trace/metrics.go).
pub const OTHERS: [&str; 12] = [
    "up",
    "kube_cronjob_status_last_schedule_time",
    "kube_cronjob_status_last_successful_time",
    "kube_pod_container_resource_limits",
    "kube_pod_container_status_restarts_total",
    "kube_pod_status_ready",
    "kube_pod_status_reason",
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "cloudsqlconn_dial_failure_count",
    "cloudsqlconn_dial_latency_bucket",
    "cloudsqlconn_open_connections",
];

/// A file of `kubernetes/observability`.
pub fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubernetes/observability");
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The alerts.
pub fn rules() -> Value {
    serde_saphyr::from_str(&file("rules.yaml")).expect("YAML")
}

/// The expressions of both.
pub fn expressions() -> Vec<String> {
    let mut expressions = Vec::new();
    texts(&serde_json::from_str(&file("dashboard.json")).expect("JSON"), "expr", &mut expressions);
    texts(&rules(), "expr", &mut expressions);
    expressions
}

/// All texts at a key, however deep.
pub fn texts(value: &Value, key: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get(key).and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|value| texts(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

/// The metrics in an expression: what stands before `{`.
pub fn metrics(expression: &str) -> Vec<&str> {
    let name = |part: &str| part.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |at| at + 1);
    let parts: Vec<&str> = expression.split('{').collect();
    parts[..parts.len() - 1].iter().map(|part| &part[name(part)..]).collect()
}
