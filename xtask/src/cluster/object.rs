//! Kubernetes objects as they are applied: their kind, and their JSON.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The kinds that this program applies, in the order in which they are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `v1`.
    Namespace,
    /// `v1`.
    ServiceAccount,
    /// `v1`.
    ConfigMap,
    /// `v1`.
    Secret,
    /// `networking.k8s.io/v1`.
    NetworkPolicy,
    /// `policy/v1`.
    PodDisruptionBudget,
    /// `v1`.
    Service,
    /// `apps/v1`.
    Deployment,
    /// `autoscaling/v2`.
    HorizontalPodAutoscaler,
    /// `batch/v1`.
    CronJob,
    /// `networking.gke.io/v1`.
    GcpBackendPolicy,
    /// `networking.gke.io/v1`.
    HealthCheckPolicy,
    /// `gateway.networking.k8s.io/v1`.
    HttpRoute,
    /// `monitoring.coreos.com/v1`.
    PodMonitor,
    /// `monitoring.googleapis.com/v1`.
    PodMonitoring,
}

impl ObjectKind {
    /// All, in the order in which they are applied.
    pub const ALL: [ObjectKind; 15] = [
        Self::Namespace,
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::Service,
        Self::Deployment,
        Self::HorizontalPodAutoscaler,
        Self::CronJob,
        Self::GcpBackendPolicy,
        Self::HealthCheckPolicy,
        Self::HttpRoute,
        Self::PodMonitor,
        Self::PodMonitoring,
    ];

    /// API group, version, kind and plural.
    const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Namespace => ("", "v1", "Namespace", "namespaces"),
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Secret => ("", "v1", "Secret", "secrets"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::HorizontalPodAutoscaler => {
                ("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
            }
            Self::CronJob => ("batch", "v1", "CronJob", "cronjobs"),
            Self::GcpBackendPolicy => ("networking.gke.io", "v1", "GCPBackendPolicy", "gcpbackendpolicies"),
            Self::HealthCheckPolicy => ("networking.gke.io", "v1", "HealthCheckPolicy", "healthcheckpolicies"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::PodMonitor => ("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
            Self::PodMonitoring => ("monitoring.googleapis.com", "v1", "PodMonitoring", "podmonitorings"),
        }
    }

    /// The kind as in a manifest.
    pub const fn kind(self) -> &'static str {
        self.names().2
    }

    /// The API group; empty for the core.
    pub const fn group(self) -> &'static str {
        self.names().0
    }

    /// The plural, as in URLs and RBAC rules.
    pub const fn plural(self) -> &'static str {
        self.names().3
    }

    /// Whether objects of this kind live in a namespace.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace)
    }

    /// What to do where a cluster does not have this kind; `None`: every cluster has it.
    pub const fn lacking(self) -> Option<&'static str> {
        match self {
            Self::GcpBackendPolicy | Self::HealthCheckPolicy => Some(
                "use a cluster of GKE with its Gateway controller (gcloud container clusters update NAME \
                 --gateway-api=standard); or set login in deploy.toml to oidc or basic",
            ),
            Self::HttpRoute => Some("install the Gateway API in the cluster, or leave gateway out of deploy.toml"),
            Self::PodMonitor => Some(
                "install the Prometheus Operator in the cluster; or set metrics in deploy.toml to pod-monitoring \
                 (Google's managed Prometheus) or annotations (any Prometheus that looks for them)",
            ),
            Self::PodMonitoring => Some(
                "turn on managed collection in the cluster (gcloud container clusters update NAME \
                 --enable-managed-prometheus); or set metrics in deploy.toml to pod-monitor or annotations",
            ),
            _ => None,
        }
    }

    /// The kind of a manifest's `kind`.
    pub fn of(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.kind() == kind)
    }

    /// How kube's dynamic API addresses it.
    pub fn resource(self) -> kube::core::ApiResource {
        let (group, version, kind, plural) = self.names();
        kube::core::ApiResource::from_gvk_with_plural(&kube::core::GroupVersionKind::gvk(group, version, kind), plural)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

impl Serialize for ObjectKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.kind())
    }
}

impl<'de> Deserialize<'de> for ObjectKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kind = String::deserialize(deserializer)?;
        Self::of(&kind)
            .ok_or_else(|| serde::de::Error::custom(format!("a kind that this program does not apply: {kind}")))
    }
}

/// An object by kind and name, in the environment's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: ObjectKind,
    /// `metadata.name`.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name)
    }
}

/// An object as it is applied: complete, with `apiVersion`, `kind` and `metadata`.
#[derive(Clone, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: ObjectKind,
    /// Its JSON.
    pub value: Value,
}

impl Object {
    /// A typed object as JSON. `None` for a kind that this program does not apply.
    pub fn new(typed: &impl Serialize) -> Option<Self> {
        let value = serde_json::to_value(typed).ok()?;
        let kind = ObjectKind::of(value.get("kind")?.as_str()?)?;
        Some(Self { kind, value })
    }

    /// Kind and name.
    pub fn reference(&self) -> ObjectRef {
        ObjectRef { kind: self.kind, name: self.name().to_owned() }
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }
}

/// A Secret's content is never shown.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.name())
    }
}
