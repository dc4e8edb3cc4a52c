//! The Secrets that `infra` keeps in the namespace: a database password, JSON keys of service
//! accounts. They are made once, stay as they are, and no release has a copy of them.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams};

use crate::error::{Error, Kind, Result};
use crate::outputs::{JSON_KEY, PASSWORD_KEY, PULL_SECRET, SECRET};
use crate::registry::Secret;

use super::connect::Cluster;
use super::{MANAGED_BY, PREFIX, call, failure};

/// The field manager. Another one than that of a deploy, which would remove what it does not apply.
const MANAGER: &str = "mlflow-on-kubernetes-infra";

/// The key in a pull secret (Kubernetes, "Docker config Secrets").
const DOCKER_CONFIG: &str = ".dockerconfigjson";

/// How long one question may take, with its repetitions.
const DEADLINE: Duration = Duration::from_secs(20);

/// What the cluster holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The database user's password, and its version.
    pub password: Option<(Secret, u64)>,
    /// The server's JSON key, and its id.
    pub key: Option<(Secret, String)>,
    /// The content of the pull secret, and the id of the key in it.
    pub pull: Option<(Secret, String)>,
}

/// What the namespace holds; nothing where there is no namespace.
///
/// # Errors
/// `Forbidden` for who may not read Secrets; `Remote` for an API server that does not answer.
pub async fn look(cluster: &Cluster) -> Result<Held> {
    let (own, pull) = tokio::try_join!(get(cluster, SECRET), get(cluster, PULL_SECRET))?;
    let own = own.unwrap_or_default();
    Ok(Held {
        password: text(&own, PASSWORD_KEY).zip(note(&own, "password-version").and_then(|text| text.parse().ok())),
        key: text(&own, JSON_KEY).zip(note(&own, "key-id")),
        pull: pull.and_then(|pull| text(&pull, DOCKER_CONFIG).zip(note(&pull, "key-id"))),
    })
}

/// Makes the namespace hold this, and nothing else of ours. The namespace exists.
///
/// # Errors
/// As [`look`], and `Refused` where a policy is against it.
pub async fn store(cluster: &Cluster, held: &Held) -> Result<()> {
    let (mut data, mut notes) = (BTreeMap::new(), BTreeMap::new());
    if let Some((password, version)) = &held.password {
        data.insert(PASSWORD_KEY, password);
        notes.insert("password-version", version.to_string());
    }
    if let Some((key, id)) = &held.key {
        data.insert(JSON_KEY, key);
        notes.insert("key-id", id.clone());
    }
    if !data.is_empty() {
        put(cluster, object(SECRET, "Opaque", data, notes)).await?;
    }
    if let Some((config, id)) = &held.pull {
        let notes = BTreeMap::from([("key-id", id.clone())]);
        let kind = "kubernetes.io/dockerconfigjson";
        put(cluster, object(PULL_SECRET, kind, BTreeMap::from([(DOCKER_CONFIG, config)]), notes)).await?;
    }
    Ok(())
}

async fn get(cluster: &Cluster, name: &str) -> Result<Option<SecretObject>> {
    let api: Api<SecretObject> = cluster.api();
    call::repeat(DEADLINE, || api.get_opt(name))
        .await
        .map_err(|error| failure::explain(cluster, &format!("read Secret {name}"), error))
}

async fn put(cluster: &Cluster, object: SecretObject) -> Result<()> {
    let api: Api<SecretObject> = cluster.api();
    let name = object.metadata.name.clone().unwrap_or_default();
    // Whoever changed it by hand is overruled: what Google knows is what is stored here.
    let params = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(&object);
    let stored = call::repeat(DEADLINE, || api.patch(&name, &params, &patch)).await;
    stored.map(drop).map_err(|error| failure::explain(cluster, &format!("keep Secret {name}"), error))
}

fn object(name: &str, kind: &str, data: BTreeMap<&str, &Secret>, notes: BTreeMap<&str, String>) -> SecretObject {
    let bytes = |(key, text): (&str, &Secret)| (key.to_owned(), ByteString(text.expose().as_bytes().to_vec()));
    SecretObject {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()),
            annotations: Some(notes.into_iter().map(|(key, value)| (format!("{PREFIX}/{key}"), value)).collect()),
            ..ObjectMeta::default()
        },
        type_: Some(kind.to_owned()),
        data: Some(data.into_iter().map(bytes).collect()),
        ..SecretObject::default()
    }
}

fn text(object: &SecretObject, key: &str) -> Option<Secret> {
    let bytes = object.data.as_ref()?.get(key)?;
    Some(Secret::new(String::from_utf8(bytes.0.clone()).ok()?))
}

fn note(object: &SecretObject, key: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(&format!("{PREFIX}/{key}")).cloned()
}

/// The error of a cluster that should hold something and cannot be asked.
pub fn unseen(error: Error) -> Error {
    let hint = "the password and keys are in the cluster: make it reachable, so that they are not made anew";
    match error.kind() {
        Kind::Interrupted => error,
        kind => Error::new(kind, "what the cluster holds for the database and the bucket is unknown")
            .source(error)
            .hint(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_read_again() {
        let password = Secret::new("hunter2");
        let stored = object(
            SECRET,
            "Opaque",
            BTreeMap::from([(PASSWORD_KEY, &password)]),
            BTreeMap::from([("password-version", "7".to_owned())]),
        );
        assert_eq!(
            (text(&stored, PASSWORD_KEY), note(&stored, "password-version").as_deref()),
            (Some(password), Some("7"))
        );
        assert_eq!((text(&stored, JSON_KEY), note(&stored, "key-id")), (None, None));
        // A deploy prunes what carries its own label.
        assert_ne!(stored.metadata.labels.unwrap()[MANAGED_BY], crate::cluster::MANAGER);
    }
}
