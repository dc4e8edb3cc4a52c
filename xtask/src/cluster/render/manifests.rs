//! The files in `kubernetes/`, typed.

use std::fs;
use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::yaml::{Document, documents};
use super::{CONFIG, SECRET};
use crate::cluster::{NAME, Object, ObjectKind};
use crate::error::{Context as _, Error, Kind, Result};

/// The folder at the repository's root.
pub const FOLDER: &str = "kubernetes";

const AUTOSCALER: &str = "options/horizontal-pod-autoscaler.yaml";
const BALANCER: &str = "options/load-balancer.yaml";
const ROUTE: &str = "options/http-route.yaml";
const MONITOR: &str = "options/pod-monitor.yaml";
const MONITORING: &str = "options/pod-monitoring.yaml";

const BACKEND: &str = "options/gcp-backend-policy.yaml";
const HEALTH: &str = "options/health-check-policy.yaml";

/// The file with the proxy before the server.
pub const OAUTH2_PROXY: &str = "options/oauth2-proxy.yaml";

/// What `kubernetes/` holds.
#[derive(Clone, Debug)]
pub struct Manifests {
    /// `None`: someone else makes it.
    pub namespace: Option<Namespace>,
    /// Whom the pods act as.
    pub account: ServiceAccount,
    /// The server's settings.
    pub config: ConfigMap,
    /// The shape of its secrets.
    pub secret: Secret,
    /// Its pods.
    pub deployment: Deployment,
    /// Its address in the cluster.
    pub service: Service,
    /// What is applied as it stands: policies, budgets, and what users add.
    pub others: Vec<Object>,
    /// An option: its address outside the cluster, instead of `service`.
    pub balancer: Option<Service>,
    /// An option.
    pub autoscaler: Option<HorizontalPodAutoscaler>,
    /// An option: the way from a Gateway, an HTTPRoute.
    pub route: Option<Value>,
    /// An option: who fetches metrics, a PodMonitor.
    pub monitor: Option<Value>,
    /// An option: the same at Google, a PodMonitoring.
    pub monitoring: Option<Value>,
    /// An option: what a login by OpenID Connect adds to the server's pods.
    pub sign_in: Option<Pod>,
    /// An option: Google's Identity-Aware Proxy, a GCPBackendPolicy.
    pub backend: Option<Value>,
    /// An option: what its load balancer asks the pods, a HealthCheckPolicy.
    pub health: Option<Value>,
}

impl Manifests {
    /// Reads `kubernetes/` below `root`.
    ///
    /// # Errors
    /// `Input`, naming the file, for what is no YAML, no object of a known kind, or not what the
    /// rest of this program relies on.
    pub fn read(root: &Path) -> Result<Self> {
        let folder = root.join(FOLDER);
        let mut all = Vec::new();
        for name in names(&folder)? {
            all.extend(file(&folder, &name)?.unwrap_or_default());
        }
        Self::sort(all, |name| file(&folder, name))
    }

    fn sort(mut all: Vec<Document>, option: impl Fn(&str) -> Result<Option<Vec<Document>>>) -> Result<Self> {
        let manifests = Self {
            namespace: take(&mut all, "Namespace", NAME)?,
            account: required(&mut all, "ServiceAccount", NAME)?,
            config: required(&mut all, "ConfigMap", CONFIG)?,
            secret: required(&mut all, "Secret", SECRET)?,
            deployment: required(&mut all, "Deployment", NAME)?,
            service: required(&mut all, "Service", NAME)?,
            others: all.iter().map(other).collect::<Result<_>>()?,
            balancer: single(option(BALANCER)?, "Service")?,
            autoscaler: single(option(AUTOSCALER)?, "HorizontalPodAutoscaler")?,
            route: untyped(option(ROUTE)?, ObjectKind::HttpRoute)?,
            monitor: untyped(option(MONITOR)?, ObjectKind::PodMonitor)?,
            monitoring: untyped(option(MONITORING)?, ObjectKind::PodMonitoring)?,
            sign_in: single(option(OAUTH2_PROXY)?, "Pod")?,
            backend: untyped(option(BACKEND)?, ObjectKind::GcpBackendPolicy)?,
            health: untyped(option(HEALTH)?, ObjectKind::HealthCheckPolicy)?,
        };
        no_values(&manifests.secret)?;
        Ok(manifests)
    }

    /// The error for an option whose file is gone.
    pub fn missing_option(file: &str, key: &str) -> Error {
        Error::new(Kind::Input, format!("{FOLDER}/{file} is missing, and deploy.toml has {key}"))
            .hint("get the file back from the repository, or take the key out")
    }

    /// The Service with an address of its own.
    pub fn load_balancer(&self) -> Result<&Service> {
        self.balancer.as_ref().ok_or_else(|| Self::missing_option(BALANCER, "load-balancer"))
    }

    /// The HorizontalPodAutoscaler.
    pub fn autoscaler(&self) -> Result<&HorizontalPodAutoscaler> {
        self.autoscaler.as_ref().ok_or_else(|| Self::missing_option(AUTOSCALER, "max-replicas"))
    }

    /// The HTTPRoute.
    pub fn route(&self) -> Result<&Value> {
        self.route.as_ref().ok_or_else(|| Self::missing_option(ROUTE, "gateway"))
    }

    /// The PodMonitor.
    pub fn monitor(&self) -> Result<&Value> {
        self.monitor.as_ref().ok_or_else(|| Self::missing_option(MONITOR, "metrics = \"pod-monitor\""))
    }

    /// What a login by OpenID Connect adds to the server's pods.
    pub fn sign_in(&self) -> Result<&Pod> {
        self.sign_in.as_ref().ok_or_else(|| Self::missing_option(OAUTH2_PROXY, "login = \"oidc\""))
    }

    /// The GCPBackendPolicy.
    pub fn backend(&self) -> Result<&Value> {
        self.backend.as_ref().ok_or_else(|| Self::missing_option(BACKEND, "login = \"iap\""))
    }

    /// The HealthCheckPolicy.
    pub fn health(&self) -> Result<&Value> {
        self.health.as_ref().ok_or_else(|| Self::missing_option(HEALTH, "login = \"iap\""))
    }

    /// The PodMonitoring.
    pub fn monitoring(&self) -> Result<&Value> {
        self.monitoring.as_ref().ok_or_else(|| Self::missing_option(MONITORING, "metrics = \"pod-monitoring\""))
    }
}

/// The YAML files of the folder itself, by name.
fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)
        .context(Kind::Input, || format!("cannot read {}", folder.display()))
        .map_err(|error| error.hint("get the folder back from the repository"))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.on_machine(|| format!("cannot read {}", folder.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if (name.ends_with(".yaml") || name.ends_with(".yml")) && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The objects of a file; `None`: there is none.
fn file(folder: &Path, name: &str) -> Result<Option<Vec<Document>>> {
    match fs::read_to_string(folder.join(name)) {
        Ok(text) => documents(&format!("{FOLDER}/{name}"), &text).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context(Kind::Input, || format!("cannot read {FOLDER}/{name}")),
    }
}

/// Takes the object of this name out. One of these kinds has to be the only one.
fn take<T: DeserializeOwned + Serialize>(all: &mut Vec<Document>, kind: &str, name: &str) -> Result<Option<T>> {
    let of_kind: Vec<&Document> = all.iter().filter(|document| document.kind() == kind).collect();
    let only = matches!(kind, "Namespace" | "Deployment");
    let named: Vec<&&Document> = of_kind.iter().filter(|document| document.name() == name || only).collect();
    let Some(first) = named.first() else { return Ok(None) };
    if let Some(second) = named.get(1) {
        let message = format!("{} and {} both hold {kind} {name}", first.file, second.file);
        let message = match only {
            true => format!("{} and {} both hold a {kind}: there is to be one", first.file, second.file),
            false => message,
        };
        return Err(
            Error::new(Kind::Input, message).hint("keep one; apply what is not the server's with a tool of its own")
        );
    }
    if first.name() != name {
        let message = format!("{}: the {kind} is named {:?}", first.file, first.name());
        return Err(Error::new(Kind::Input, message).hint(format!("name it {name}")));
    }
    let typed = first.typed()?;
    all.retain(|document| !(document.kind() == kind && document.name() == name));
    Ok(Some(typed))
}

fn required<T: DeserializeOwned + Serialize>(all: &mut Vec<Document>, kind: &str, name: &str) -> Result<T> {
    take(all, kind, name)?.ok_or_else(|| {
        Error::new(Kind::Input, format!("{FOLDER}/ holds no {kind} named {name}"))
            .hint("get its file back from the repository")
    })
}

fn other(document: &Document) -> Result<Object> {
    let Some(kind) = ObjectKind::of(document.kind()) else {
        let known: Vec<&str> = ObjectKind::ALL.iter().map(|kind| kind.kind()).collect();
        let message = format!("{}: kind {:?} is not applied by xtask", document.file, document.kind());
        return Err(Error::new(Kind::Input, message)
            .hint(format!("keep it outside {FOLDER}/ and apply it with kubectl; known: {}", known.join(", "))));
    };
    if document.name().is_empty() {
        return Err(Error::new(Kind::Input, format!("{}: the {kind} has no metadata.name", document.file)));
    }
    let value = match kind {
        ObjectKind::ServiceAccount => json::<ServiceAccount>(document)?,
        ObjectKind::ConfigMap => json::<ConfigMap>(document)?,
        ObjectKind::Service => json::<Service>(document)?,
        ObjectKind::NetworkPolicy => json::<NetworkPolicy>(document)?,
        ObjectKind::PodDisruptionBudget => json::<PodDisruptionBudget>(document)?,
        ObjectKind::Secret => {
            no_values(&document.typed()?)?;
            json::<Secret>(document)?
        }
        ObjectKind::Namespace | ObjectKind::Deployment => document.value.clone(),
        ObjectKind::CronJob => {
            let message = format!("{}: the only {kind} that is applied is made from the Deployment", document.file);
            let hint = format!("set gc.schedule in deploy.toml for that; keep others outside {FOLDER}/");
            return Err(Error::new(Kind::Input, message).hint(hint));
        }
        ObjectKind::HorizontalPodAutoscaler
        | ObjectKind::HttpRoute
        | ObjectKind::GcpBackendPolicy
        | ObjectKind::HealthCheckPolicy
        | ObjectKind::PodMonitor
        | ObjectKind::PodMonitoring => {
            let message = format!("{}: a {kind} is an option", document.file);
            return Err(Error::new(Kind::Input, message).hint(format!("its file belongs in {FOLDER}/options/")));
        }
    };
    Ok(Object { kind, value })
}

fn json<T: DeserializeOwned + Serialize>(document: &Document) -> Result<Value> {
    let typed: T = document.typed()?;
    serde_json::to_value(&typed).context(Kind::Internal, || format!("{}: no JSON", document.file))
}

/// The only object of an option's file.
fn only(documents: Option<Vec<Document>>, kind: &str) -> Result<Option<Document>> {
    let Some(mut documents) = documents else { return Ok(None) };
    match (documents.pop(), documents.pop()) {
        (Some(document), None) if document.kind() == kind && document.name() == NAME => Ok(Some(document)),
        (Some(document), _) => {
            let message = format!("{} is to hold one {kind} named {NAME}", document.file);
            Err(Error::new(Kind::Input, message).hint("keep that, and put others in files of their own"))
        }
        (None, _) => Ok(None),
    }
}

fn single<T: DeserializeOwned + Serialize>(documents: Option<Vec<Document>>, kind: &str) -> Result<Option<T>> {
    only(documents, kind)?.map(|document| document.typed()).transpose()
}

/// An object whose type is not Kubernetes' own.
fn untyped(documents: Option<Vec<Document>>, kind: ObjectKind) -> Result<Option<Value>> {
    Ok(only(documents, kind.kind())?.map(|document| document.value))
}

fn no_values(secret: &Secret) -> Result<()> {
    let name = secret.metadata.name.as_deref().unwrap_or_default();
    let data = secret.data.iter().any(|data| !data.is_empty());
    match data || secret.string_data.iter().any(|data| !data.is_empty()) {
        false => Ok(()),
        true => Err(Error::new(Kind::Input, format!("{FOLDER}/: Secret {name} holds values, and files are in git"))
            .hint("take them out; deploy.toml says where the values are")),
    }
}
