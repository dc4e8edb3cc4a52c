//! Whether the pods of a rollout fit the namespace's quotas. Only a warning: old pods may go first,
//! and quotas may change meanwhile.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use super::super::object::{Object, ObjectKind};
use super::Live;

/// A quota of the namespace: what may be used, and what is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// The ResourceQuota's name.
    pub name: String,
    /// The limit of each resource (`requests.cpu`, `pods`), as a Kubernetes quantity.
    pub hard: BTreeMap<String, String>,
    /// What is used of each.
    pub used: BTreeMap<String, String>,
}

impl Quota {
    /// `None` for one that counts only some pods.
    pub(super) fn read(quota: &ResourceQuota) -> Option<Self> {
        let spec = quota.spec.as_ref()?;
        if spec.scope_selector.is_some() || spec.scopes.as_ref().is_some_and(|scopes| !scopes.is_empty()) {
            return None;
        }
        let texts = |quantities: Option<&BTreeMap<String, Quantity>>| {
            quantities.into_iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect()
        };
        let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
        let name = quota.metadata.name.clone().unwrap_or_default();
        Some(Self { name, hard: texts(spec.hard.as_ref()), used: texts(used) })
    }
}

/// A sentence for each quota that the additional pods of a rollout would exceed.
pub fn warnings(quotas: &[Quota], objects: &[Object], live: Option<&Live>) -> Vec<String> {
    let deployment = objects.iter().find(|object| object.kind == ObjectKind::Deployment);
    let deployment = deployment.and_then(|object| serde_json::from_value::<Deployment>(object.value.clone()).ok());
    let Some(spec) = deployment.and_then(|deployment| deployment.spec) else { return Vec::new() };
    let Some(pod) = &spec.template.spec else { return Vec::new() };
    let replicas = spec.replicas.and_then(|replicas| u32::try_from(replicas).ok());
    let replicas = replicas.or(live.map(|live| live.replicas)).unwrap_or(1);
    let rolling = spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = surge(rolling.and_then(|rolling| rolling.max_surge.as_ref()), replicas);
    let recreated = spec.strategy.as_ref().is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    let more = match live {
        None => replicas,
        Some(live) if recreated => replicas.saturating_sub(live.replicas),
        Some(live) => replicas.saturating_sub(live.replicas) + surge,
    };
    let mut warnings = Vec::new();
    for quota in quotas {
        for (resource, hard) in &quota.hard {
            let used = quota.used.get(resource).map_or("0", String::as_str);
            let (Some(limit), Some(in_use)) = (amount(hard), amount(used)) else { continue };
            let Some(each) = of_pod(pod, resource) else { continue };
            // Quantities are written in decimal: compare beyond what binary fractions lose.
            if in_use + each * f64::from(more) > limit * (1.0 + 1e-9) {
                warnings.push(format!(
                    "ResourceQuota/{}: {more} more {} may not fit: {resource} {used} of {hard} is used",
                    quota.name,
                    if more == 1 { "pod" } else { "pods" },
                ));
            }
        }
    }
    warnings
}

/// Pods beyond `replicas` during a rollout: a quarter of them, rounded up, unless something else is set.
fn surge(max_surge: Option<&IntOrString>, replicas: u32) -> u32 {
    let percent = |percent: u32| replicas.saturating_mul(percent).div_ceil(100);
    match max_surge {
        None => percent(25),
        Some(IntOrString::Int(pods)) => u32::try_from(*pods).unwrap_or(0),
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().map_or(0, percent),
    }
}

/// What a pod takes of a resource that a quota limits.
fn of_pod(pod: &PodSpec, resource: &str) -> Option<f64> {
    if matches!(resource, "pods" | "count/pods") {
        return Some(1.0);
    }
    let (limits, name) = match resource.split_once('.') {
        Some(("requests", name)) => (false, name),
        Some(("limits", name)) => (true, name),
        None => (false, resource),
        Some(_) => return None,
    };
    if !matches!(name, "cpu" | "memory" | "ephemeral-storage") {
        return None;
    }
    let of = |container: &Container| {
        let resources = container.resources.as_ref()?;
        let quantities = if limits { &resources.limits } else { &resources.requests };
        // A container without a request asks for its limit.
        let quantity = quantities.as_ref().and_then(|map| map.get(name));
        amount(&quantity.or_else(|| resources.limits.as_ref()?.get(name))?.0)
    };
    let sidecars = pod.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    Some(pod.containers.iter().chain(sidecars).filter_map(of).sum())
}

/// A Kubernetes quantity as a number
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).
fn amount(quantity: &str) -> Option<f64> {
    let suffixes = [
        ("Ki", 1024.0),
        ("Mi", 1024.0_f64.powi(2)),
        ("Gi", 1024.0_f64.powi(3)),
        ("Ti", 1024.0_f64.powi(4)),
        ("Pi", 1024.0_f64.powi(5)),
        ("Ei", 1024.0_f64.powi(6)),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let found = suffixes.iter().find_map(|(suffix, factor)| Some((quantity.strip_suffix(suffix)?, *factor)));
    let (number, factor) = found.unwrap_or((quantity, 1.0));
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn quantities_are_numbers() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(amount(text), expected, "{text}");
        check("0", Some(0.0));
        check("500m", Some(0.5));
        check("1.5", Some(1.5));
        check("2Gi", Some(2_147_483_648.0));
        check("2G", Some(2e9));
        check("1e3", Some(1000.0));
        check("1E", Some(1e18));
        check("", None);
        check("much", None);
    }

    #[test]
    fn a_surge_is_rounded_up() {
        let check = |max: Value, replicas: u32, expected: u32| {
            let read: Option<IntOrString> = serde_json::from_value(max.clone()).unwrap();
            assert_eq!(surge(read.as_ref(), replicas), expected, "{max} of {replicas}");
        };
        check(Value::Null, 1, 1);
        check(Value::Null, 4, 1);
        check(Value::Null, 5, 2);
        check(json!("50%"), 3, 2);
        check(json!("0%"), 3, 0);
        check(json!(2), 3, 2);
    }

    #[test]
    fn pods_that_do_not_fit_are_warned_of() {
        let container =
            |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"memory": "1Gi"}}});
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}});
        let init = json!({"name": "i", "resources": {"requests": {"cpu": "9"}}});
        let object = |replicas: u32, strategy: Value| {
            let pod = json!({"containers": [container("400m")], "initContainers": [sidecar, init]});
            let spec = json!({"replicas": replicas, "strategy": strategy, "selector": {}, "template": {"spec": pod}});
            Object { kind: ObjectKind::Deployment, value: json!({"metadata": {"name": "mlflow"}, "spec": spec}) }
        };
        let check = |resource: &str, hard: &str, used: &str, live: Option<u32>, strategy: Value, warned: usize| {
            let of = |value: &str| BTreeMap::from([(resource.to_owned(), value.to_owned())]);
            let quotas = [Quota { name: "q".to_owned(), hard: of(hard), used: of(used) }];
            let live = live.map(|replicas| Live { replicas, ..Live::default() });
            let warnings = warnings(&quotas, &[object(2, strategy)], live.as_ref());
            assert_eq!(warnings.len(), warned, "{resource} {used} of {hard}: {warnings:?}");
        };
        let rolling = || json!({"type": "RollingUpdate"});
        check("requests.cpu", "1", "0", None, rolling(), 0);
        check("requests.cpu", "999m", "0", None, rolling(), 1);
        check("requests.cpu", "1500m", "1", Some(2), rolling(), 0);
        check("requests.cpu", "1400m", "1", Some(2), rolling(), 1);
        check("requests.cpu", "1", "1", Some(2), json!({"type": "Recreate"}), 0);
        check("cpu", "1", "1", Some(2), rolling(), 1);
        check("limits.memory", "3Gi", "2Gi", Some(2), rolling(), 0);
        check("requests.memory", "2Gi", "2Gi", Some(2), rolling(), 1);
        check("pods", "2", "2", Some(2), rolling(), 1);
        check("pods", "4", "2", Some(1), rolling(), 0);
        check("services.loadbalancers", "0", "0", None, rolling(), 0);
        check("persistentvolumeclaims", "0", "0", None, rolling(), 0);
    }

    #[test]
    fn a_quota_for_some_pods_only_is_left_out() {
        let check = |spec: Value, expected: bool| {
            let quota: ResourceQuota =
                serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap();
            assert_eq!(Quota::read(&quota).is_some(), expected, "{spec}");
        };
        check(json!({"hard": {"pods": "1"}}), true);
        check(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), false);
    }
}
