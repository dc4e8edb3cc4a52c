//! The Deployment: the environment's fields in the manifest's.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, KeyToPath, ObjectFieldSelector, PodSpec, SecretKeySelector, SecretVolumeSource,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::manifests::FOLDER;
use super::settings::{self, POD_IP};
use super::{CONFIG, DATABASE_KEY, Inputs, KEY_KEY, PASSWORD_KEY, SECRET};
use super::{gate, login};
use crate::cluster::{CONTAINER, PORT};
use crate::config::cluster::{CloudSql, Database, Identity, Secret};
use crate::error::{Error, Kind, Result};

/// The sidecar's container.
const PROXY: &str = "cloud-sql-proxy";

/// The volume with a Google service account's key, and where it is mounted.
const KEY_VOLUME: &str = "google-key";
const KEY_FOLDER: &str = "/var/run/secrets/google";

/// What our ConfigMap and Secret are called in this release.
#[derive(Clone, Debug)]
pub struct Names {
    /// The ConfigMap.
    pub config: String,
    /// The Secret; `None`: there is nothing to keep in it.
    pub secret: Option<String>,
}

/// The Deployment as it is applied, but for its metadata.
///
/// # Errors
/// `Input` where the manifest lacks what the environment's fields go into.
pub fn deployment(manifest: &Deployment, inputs: &Inputs<'_>, names: &Names) -> Result<Deployment> {
    let mut deployment = manifest.clone();
    let config = inputs.config;
    let spec = deployment.spec.as_mut().ok_or_else(|| wrong("it has no spec"))?;
    // Where an autoscaler decides, a number here would undo its decision at every deploy.
    spec.replicas = match config.server.max_replicas {
        Some(_) => None,
        None => Some(i32::try_from(config.server.replicas).unwrap_or(i32::MAX)),
    };
    spec.progress_deadline_seconds = i32::try_from(config.rollout.deadline.as_secs()).ok();
    check_labels(&spec.selector.match_labels, spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref()))?;
    super::metrics::annotate(spec.template.metadata.get_or_insert_default(), config.metrics);
    let pod = spec.template.spec.as_mut().ok_or_else(|| wrong("its pods have no spec"))?;
    rename(pod, names);
    sidecar(pod, config.database.cloud_sql())?;
    server(pod, inputs, names)?;
    login::set(pod, &config.access.login, names)?;
    if let Identity::Key(secret) = &config.artifacts.identity {
        key(pod, secret, names);
    }
    for volume in pod.volumes.iter_mut().flatten().filter(|volume| volume.name == "tmp") {
        if let Some(folder) = &mut volume.empty_dir {
            folder.size_limit = Some(Quantity(config.server.scratch.clone()));
        }
    }
    // The last: it is what the server's container has become.
    gate::set(pod)?;
    Ok(deployment)
}

fn server(pod: &mut PodSpec, inputs: &Inputs<'_>, names: &Names) -> Result<()> {
    let config = inputs.config;
    let hint = format!("name the server's container {CONTAINER}");
    let container = pod.containers.iter_mut().find(|container| container.name == CONTAINER);
    let container = container.ok_or_else(|| wrong(format!("no container is named {CONTAINER}")).hint(hint))?;
    let ports = container.ports.iter().flatten();
    if !ports.clone().any(|port| port.container_port == i32::from(PORT)) {
        let message = format!("container {CONTAINER} has no containerPort {PORT}");
        return Err(wrong(message).hint("it is the port at which the server is tried and tested"));
    }
    container.image = Some(inputs.image.to_owned());
    let resources = container.resources.get_or_insert_default();
    let server = &config.server;
    let mut set = |limits: bool, name: &str, value: &str| {
        let map = if limits { &mut resources.limits } else { &mut resources.requests };
        map.get_or_insert_default().insert(name.to_owned(), Quantity(value.to_owned()));
    };
    set(false, "cpu", &server.cpu);
    set(false, "memory", &server.memory);
    set(true, "memory", &server.memory);
    set(false, "ephemeral-storage", &server.scratch);

    let env = container.env.get_or_insert_default();
    let field = ObjectFieldSelector { field_path: "status.podIP".to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    // Before what refers to it.
    env.retain(|variable| variable.name != POD_IP);
    env.insert(0, EnvVar { name: POD_IP.to_owned(), value: None, value_from: Some(source) });
    set_env(env, "MLFLOW_SERVER_ALLOWED_HOSTS", settings::allowed_hosts(config).join(","));
    let uri = "MLFLOW_BACKEND_STORE_URI";
    match &config.database {
        Database::Uri(secret) => set_secret(env, uri, secret, DATABASE_KEY, names),
        Database::CloudSql(cloud) => {
            set_env(env, uri, settings::proxied_uri(cloud));
            if let Some(secret) = &cloud.password {
                set_secret(env, "PGPASSWORD", secret, PASSWORD_KEY, names);
            }
        }
    }
    Ok(())
}

/// Sets the proxy up, or takes it out.
fn sidecar(pod: &mut PodSpec, cloud: Option<&CloudSql>) -> Result<()> {
    let containers = pod.init_containers.get_or_insert_default();
    let Some(cloud) = cloud else {
        containers.retain(|container| container.name != PROXY);
        if containers.is_empty() {
            pod.init_containers = None;
        }
        return Ok(());
    };
    let proxy = containers.iter_mut().find(|container| container.name == PROXY);
    let hint = "get it back from the repository's deployment.yaml: Cloud SQL is reached through it";
    let proxy = proxy.ok_or_else(|| wrong(format!("no init container is named {PROXY}")).hint(hint))?;
    if proxy.restart_policy.as_deref() != Some("Always") {
        let message = format!("init container {PROXY} has no restartPolicy: Always");
        return Err(wrong(message).hint("without it the server waits for the proxy to end"));
    }
    proxy.image = Some(cloud.proxy_image.clone());
    let env = proxy.env.get_or_insert_default();
    set_env(env, "CSQL_PROXY_INSTANCE_CONNECTION_NAME", cloud.instance.clone());
    if cloud.password.is_none() {
        set_env(env, "CSQL_PROXY_AUTO_IAM_AUTHN", "true".to_owned());
    }
    if cloud.private_ip {
        set_env(env, "CSQL_PROXY_PRIVATE_IP", "true".to_owned());
    }
    if let Some(address) = &cloud.admin_api {
        set_env(env, "CSQL_PROXY_SQLADMIN_API_ENDPOINT", address.clone());
    }
    Ok(())
}

/// Mounts a Google service account's key where the server and the proxy look for it.
fn key(pod: &mut PodSpec, secret: &Secret, names: &Names) {
    let (name, key) = place(secret, KEY_KEY, names);
    let volumes = pod.volumes.get_or_insert_default();
    volumes.retain(|volume| volume.name != KEY_VOLUME);
    volumes.push(Volume {
        name: KEY_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(name),
            items: Some(vec![KeyToPath { key, path: KEY_KEY.to_owned(), mode: None }]),
            // For the pod's group, fsGroup.
            default_mode: Some(0o440),
            optional: None,
        }),
        ..Volume::default()
    });
    let path = format!("{KEY_FOLDER}/{KEY_KEY}");
    let users = [(CONTAINER, "GOOGLE_APPLICATION_CREDENTIALS"), (PROXY, "CSQL_PROXY_CREDENTIALS_FILE")];
    for container in pod.containers.iter_mut().chain(pod.init_containers.iter_mut().flatten()) {
        let Some((_, variable)) = users.iter().find(|(name, _)| *name == container.name) else { continue };
        set_env(container.env.get_or_insert_default(), variable, path.clone());
        let mounts = container.volume_mounts.get_or_insert_default();
        mounts.retain(|mount| mount.name != KEY_VOLUME);
        mounts.push(VolumeMount {
            name: KEY_VOLUME.to_owned(),
            mount_path: KEY_FOLDER.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

/// Our ConfigMap and Secret have other names in every release: whatever names them follows.
fn rename(pod: &mut PodSpec, names: &Names) {
    let config = |name: &mut String| {
        if name == CONFIG {
            name.clone_from(&names.config);
        }
    };
    let secret = |name: &mut String| {
        if let (true, Some(new)) = (name == SECRET, &names.secret) {
            name.clone_from(new);
        }
    };
    let containers = |container: &mut Container| {
        for source in container.env_from.iter_mut().flatten() {
            source.config_map_ref.iter_mut().for_each(|source| config(&mut source.name));
            source.secret_ref.iter_mut().for_each(|source| secret(&mut source.name));
        }
        for source in container.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut()) {
            source.config_map_key_ref.iter_mut().for_each(|source| config(&mut source.name));
            source.secret_key_ref.iter_mut().for_each(|source| secret(&mut source.name));
        }
    };
    pod.containers.iter_mut().for_each(containers);
    pod.init_containers.iter_mut().flatten().for_each(containers);
    for volume in pod.volumes.iter_mut().flatten() {
        volume.config_map.iter_mut().for_each(|source| config(&mut source.name));
        volume.secret.iter_mut().filter_map(|source| source.secret_name.as_mut()).for_each(secret);
        for source in volume.projected.iter_mut().flat_map(|projected| projected.sources.iter_mut().flatten()) {
            source.config_map.iter_mut().for_each(|source| config(&mut source.name));
            source.secret.iter_mut().for_each(|source| secret(&mut source.name));
        }
    }
}

/// Service, PodDisruptionBudget and NetworkPolicy find the pods by these.
fn check_labels(selector: &Option<BTreeMap<String, String>>, pods: Option<&BTreeMap<String, String>>) -> Result<()> {
    let wanted = super::selector();
    if selector.as_ref() != Some(&wanted) {
        let list: Vec<String> = wanted.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        return Err(wrong("spec.selector is another one").hint(format!("use matchLabels {}", list.join(", "))));
    }
    match wanted.iter().all(|(key, value)| pods.is_some_and(|labels| labels.get(key) == Some(value))) {
        true => Ok(()),
        false => Err(wrong("its pods lack the labels of spec.selector").hint("add them to spec.template.metadata")),
    }
}

/// Where a secret is: the name of the Secret, and the key in it.
pub fn place(secret: &Secret, key: &str, names: &Names) -> (String, String) {
    match secret {
        Secret::Existing { name, key } => (name.clone(), key.clone()),
        Secret::File(_) | Secret::Variable(_) => {
            (names.secret.clone().unwrap_or_else(|| SECRET.to_owned()), key.to_owned())
        }
    }
}

pub fn set_secret(env: &mut Vec<EnvVar>, variable: &str, secret: &Secret, key: &str, names: &Names) {
    let (name, key) = place(secret, key, names);
    let selector = SecretKeySelector { name, key, optional: None };
    let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
    set(env, EnvVar { name: variable.to_owned(), value: None, value_from: Some(source) });
}

pub fn set_env(env: &mut Vec<EnvVar>, name: &str, value: String) {
    set(env, EnvVar { name: name.to_owned(), value: Some(value), value_from: None });
}

fn set(env: &mut Vec<EnvVar>, variable: EnvVar) {
    match env.iter_mut().find(|known| known.name == variable.name) {
        Some(known) => *known = variable,
        None => env.push(variable),
    }
}

pub fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Input, format!("{FOLDER}/: Deployment {}: {what}", crate::cluster::NAME))
}
