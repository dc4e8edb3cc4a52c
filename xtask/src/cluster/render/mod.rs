//! `kubernetes/` + the environment -> the objects that are applied. Pure, but for reading files and
//! variables in [`Manifests::read`] and [`Secrets::read`].
//!
//! There is no template: the manifests are objects, and the environment's fields are set in them.

mod gate;
mod gc;
mod iap;
mod login;
mod manifests;
mod metrics;
mod network_policy;
mod oidc;
mod pod;
mod secrets;
mod settings;
#[cfg(test)]
pub mod tests;
mod yaml;

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, LocalObjectReference, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mlflow_image::Digest;
use serde::Serialize;
use serde_json::{Value, json};

use super::login::PASSWORD_KEY as ADMIN_KEY;
use super::{MANAGED_BY, MANAGER, NAME, Object, ObjectKind, PREFIX};
use crate::config::cluster::{ClusterConfig, Database, IAP_CLIENT_KEY, Identity, Login, Metrics, PullSecret};
use crate::error::{Error, Kind, Result};
use crate::registry::Reference;

pub use manifests::Manifests;
pub use secrets::Secrets;

/// The ConfigMap's name in the manifest, and how it begins in a cluster.
pub const CONFIG: &str = "mlflow-config";

/// The Secret's name in the manifest, and how it begins in a cluster.
pub const SECRET: &str = "mlflow-secret";

/// The Secret with the credentials of the registry.
pub const PULL_SECRET: &str = "mlflow-pull";

/// Keys of our Secret.
const DATABASE_KEY: &str = "database-uri";
const PASSWORD_KEY: &str = "database-password";
const KEY_KEY: &str = "key.json";

/// What goes into the manifests.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The environment's name.
    pub env: &'a str,
    /// The environment.
    pub config: &'a ClusterConfig,
    /// The server's image: `REPOSITORY@sha256:...`.
    pub image: &'a str,
    /// MLflow's version in it, as far as it is known.
    pub version: Option<&'a str>,
    /// The values of the secrets.
    pub secrets: &'a Secrets,
}

/// The labels by which Services, budgets and policies find the pods.
pub fn selector() -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", NAME), ("app.kubernetes.io/component", "server")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The kinds of the objects that [`render`] gives.
pub fn kinds(config: &ClusterConfig) -> Vec<ObjectKind> {
    let is_rendered = |kind: &ObjectKind| match kind {
        ObjectKind::HorizontalPodAutoscaler => config.server.max_replicas.is_some(),
        ObjectKind::CronJob => config.gc.schedule.is_some(),
        ObjectKind::HttpRoute => config.access.gateway.is_some(),
        ObjectKind::GcpBackendPolicy | ObjectKind::HealthCheckPolicy => matches!(config.access.login, Login::Iap(_)),
        ObjectKind::PodMonitor => config.metrics == Metrics::PodMonitor,
        ObjectKind::PodMonitoring => config.metrics == Metrics::PodMonitoring,
        _ => true,
    };
    ObjectKind::ALL.into_iter().filter(is_rendered).collect()
}

/// The objects of an environment, in the order in which they are applied. The same inputs give the
/// same objects.
///
/// # Errors
/// `Input`, naming the file, where a manifest lacks what the environment needs; `Usage` for an image
/// without a digest.
pub fn render(manifests: &Manifests, inputs: &Inputs<'_>) -> Result<Vec<Object>> {
    if inputs.image.parse::<Reference>()?.digest().is_none() {
        let message = format!("the image {} has no digest, and what a tag means can change", inputs.image);
        return Err(Error::new(Kind::Usage, message).hint("name it REPOSITORY@sha256:DIGEST"));
    }
    let (config, server) = (inputs.config, &inputs.config.server);
    let mut objects = Vec::new();
    let mut add = |object: Object| objects.push(object);

    namespace(manifests, inputs.env, config)?.into_iter().for_each(&mut add);
    add(object(&account(&manifests.account, inputs))?);

    let settings = config_map(&manifests.config, config);
    let secret = secret(&manifests.secret, inputs);
    let names = pod::Names {
        config: settings.metadata.name.clone().unwrap_or_default(),
        secret: secret.as_ref().and_then(|secret| secret.metadata.name.clone()),
    };
    add(object(&settings)?);
    secret.iter().map(object).try_for_each(|secret| secret.map(&mut add))?;
    pull_secret(inputs).iter().map(object).try_for_each(|secret| secret.map(&mut add))?;

    let mut deployment = pod::deployment(&manifests.deployment, inputs, &names)?;
    if let Login::Oidc(settings) = &config.access.login {
        oidc::set(&mut deployment, manifests.sign_in()?, settings, &names)?;
    }
    if let Some(version) = inputs.version {
        let labels = deployment.metadata.labels.get_or_insert_default();
        labels.insert("app.kubernetes.io/version".to_owned(), label(version));
    }
    add(object(&deployment)?);
    add(object(if config.access.load_balancer { manifests.load_balancer()? } else { &manifests.service })?);
    if let Some(max) = server.max_replicas {
        let mut autoscaler = manifests.autoscaler()?.clone();
        let spec = autoscaler.spec.get_or_insert_default();
        spec.min_replicas = Some(i32::try_from(server.replicas).unwrap_or(i32::MAX));
        spec.max_replicas = i32::try_from(max).unwrap_or(i32::MAX);
        add(object(&autoscaler)?);
    }
    if let Some(job) = gc::cron_job(&deployment, &config.gc)? {
        add(object(&job)?);
    }
    if let Login::Iap(settings) = &config.access.login {
        iap::objects(manifests, settings, &names)?.into_iter().for_each(&mut add);
    }
    if let Some(gateway) = &config.access.gateway {
        add(route(manifests.route()?, gateway, &config.access.hosts));
    }
    metrics::objects(manifests, config)?.into_iter().for_each(&mut add);
    manifests.others.iter().cloned().for_each(add);
    network_policy::set(&mut objects, config, inputs.secrets)?;

    for object in &mut objects {
        own(object, inputs.env, config);
    }
    objects.sort_by(|a, b| (a.kind, a.name()).cmp(&(b.kind, b.name())));
    Ok(objects)
}

fn object(typed: &impl Serialize) -> Result<Object> {
    Object::new(typed).ok_or_else(|| Error::new(Kind::Internal, "an object of a kind that is not applied"))
}

/// The namespace; `None` where it is not ours to make.
pub fn namespace(manifests: &Manifests, env: &str, config: &ClusterConfig) -> Result<Option<Object>> {
    // `default` exists, and belongs to everyone.
    let Some(namespace) = manifests.namespace.as_ref().filter(|_| config.namespace != "default") else {
        return Ok(None);
    };
    let mut namespace = namespace.clone();
    namespace.metadata.name = Some(config.namespace.clone());
    let mut object = object(&namespace)?;
    own(&mut object, env, config);
    Ok(Some(object))
}

/// Namespace and labels, on everything.
fn own(object: &mut Object, env: &str, config: &ClusterConfig) {
    let namespaced = object.kind.is_namespaced();
    let metadata = &mut object.value["metadata"];
    if namespaced {
        metadata["namespace"] = json!(config.namespace);
    }
    metadata["labels"]["app.kubernetes.io/name"] = json!(NAME);
    metadata["labels"][MANAGED_BY] = json!(MANAGER);
    metadata["labels"][format!("{PREFIX}/environment")] = json!(label(env));
}

fn account(manifest: &ServiceAccount, inputs: &Inputs<'_>) -> ServiceAccount {
    let mut account = manifest.clone();
    if let Identity::Workload(email) = &inputs.config.artifacts.identity {
        let annotations = account.metadata.annotations.get_or_insert_default();
        annotations.insert("iam.gke.io/gcp-service-account".to_owned(), email.clone());
    }
    let pull = match &inputs.config.pull_secret {
        PullSecret::Existing(name) => Some(name.as_str()),
        _ => inputs.secrets.pull.as_ref().map(|_| PULL_SECRET),
    };
    if let Some(name) = pull {
        let secrets = account.image_pull_secrets.get_or_insert_default();
        if !secrets.iter().any(|secret| secret.name == name) {
            secrets.push(LocalObjectReference { name: name.to_owned() });
        }
    }
    account
}

fn config_map(manifest: &ConfigMap, config: &ClusterConfig) -> ConfigMap {
    let mut map = manifest.clone();
    let data = settings::data(&map.data.unwrap_or_default(), config);
    let pairs = data.iter().map(|(key, value)| (key.as_str(), value.as_bytes()));
    map.metadata.name = Some(format!("{CONFIG}-{}", hash(pairs)));
    map.data = Some(data);
    map
}

/// Our Secret; `None` where others keep all that is secret.
fn secret(manifest: &Secret, inputs: &Inputs<'_>) -> Option<Secret> {
    let Secrets { database, key, admin, client, pull: _ } = inputs.secrets;
    let database_key = match inputs.config.database {
        Database::Uri(_) => DATABASE_KEY,
        Database::CloudSql(_) => PASSWORD_KEY,
    };
    let client_key = match inputs.config.access.login {
        Login::Iap(_) => IAP_CLIENT_KEY,
        _ => oidc::CLIENT_KEY,
    };
    let values = [(database_key, database), (KEY_KEY, key), (ADMIN_KEY, admin), (client_key, client)];
    let values: BTreeMap<&str, &str> =
        values.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?.expose()))).collect();
    if values.is_empty() {
        return None;
    }
    let mut secret = manifest.clone();
    secret.metadata.name =
        Some(format!("{SECRET}-{}", hash(values.iter().map(|(key, value)| (*key, value.as_bytes())))));
    secret.string_data = None;
    secret.data =
        Some(values.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).collect());
    Some(secret)
}

/// Without a hash in its name: it is read when a pod starts, and new credentials are no new release.
fn pull_secret(inputs: &Inputs<'_>) -> Option<Secret> {
    let text = inputs.secrets.pull.as_ref()?;
    let data = [(".dockerconfigjson".to_owned(), ByteString(text.expose().as_bytes().to_vec()))];
    Some(Secret {
        metadata: ObjectMeta { name: Some(PULL_SECRET.to_owned()), ..ObjectMeta::default() },
        data: Some(data.into()),
        type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
        ..Secret::default()
    })
}

fn route(manifest: &Value, gateway: &str, hosts: &[String]) -> Object {
    let mut value = manifest.clone();
    let (namespace, name) = gateway.split_once('/').unwrap_or(("", gateway));
    let spec = &mut value["spec"];
    // Whatever else the file says about the parent stays, such as a section's name.
    let mut parent = spec["parentRefs"].get(0).filter(|parent| parent.is_object()).cloned().unwrap_or(json!({}));
    parent["namespace"] = json!(namespace);
    parent["name"] = json!(name);
    spec["parentRefs"] = json!([parent]);
    spec["hostnames"] = json!(settings::hostnames(hosts));
    Object { kind: ObjectKind::HttpRoute, value }
}

/// Ten hexadecimal digits over keys and values.
fn hash<'a>(pairs: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut bytes = Vec::new();
    for (key, value) in pairs {
        for part in [key.as_bytes(), value] {
            // Lengths first: no two lists of pairs give the same bytes.
            bytes.extend((part.len() as u64).to_le_bytes());
            bytes.extend(part);
        }
    }
    Digest::of(bytes).hex().chars().take(10).collect()
}

/// A text as the value of a label: at most 63 of letters, digits, `-`, `_` and `.`.
fn label(text: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let cut: String = text.chars().map(good).take(63).collect();
    cut.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}
