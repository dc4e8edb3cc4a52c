//! Who deployed what: a ConfigMap for each deploy, with the objects that were applied.
//!
//! Secrets are part of it by name alone: their names carry a hash of their content, and they are
//! kept in the cluster as long as a release refers to them.

mod packed;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Context as _, Error, Kind, Result};
use crate::provenance::Provenance;
use crate::report;
use crate::schema::Heads;

use super::connect::Cluster;
use super::object::{Object, ObjectKind, ObjectRef};
use super::{MANAGED_BY, MANAGER, NAME, PREFIX, call, failure};

/// The label of release objects.
pub const LABEL: &str = "mlflow-on-kubernetes/release";

/// The key of the record in a release object.
const RECORD: &str = "release.json";

/// The key of the applied objects.
const OBJECTS: &str = "objects.json.gz";

/// The version of the record. Raised when an older program would misread it.
const VERSION: u32 = 1;

/// Releases that did not work out and are remembered all the same.
const REMEMBERED: usize = 10;

/// How long one request may take, with its repetitions.
const DEADLINE: Duration = Duration::from_secs(20);

/// What became of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// At work, or its deploy died.
    Pending,
    /// Proven to work.
    Deployed,
    /// It did not work, and nothing was put in its place.
    Failed,
    /// It did not work, and the one before runs again.
    RolledBack,
    /// Someone else changed the Deployment meanwhile.
    Superseded,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Deployed => "deployed",
            Self::Failed => "failed",
            Self::RolledBack => "rolled back",
            Self::Superseded => "superseded",
        })
    }
}

/// What is to be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Who deploys.
    pub provenance: Provenance,
    /// The image of the server, by digest.
    pub image: String,
    /// Its MLflow version, where that is known.
    pub version: Option<String>,
    /// The release that is live now.
    pub replaces: Option<u64>,
    /// The earlier release whose objects these are.
    pub restores: Option<u64>,
    /// The revisions of the databases that its server works with, where they are known.
    pub heads: Option<Heads>,
}

/// A deploy, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Counts up in the namespace.
    pub number: u64,
    /// What became of it.
    pub state: State,
    /// When it began, RFC 3339.
    pub at: String,
    /// When its state was decided, RFC 3339.
    pub finished: Option<String>,
    /// Who deployed.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// The image of the server, by digest.
    pub image: String,
    /// Its MLflow version, where that is known.
    pub version: Option<String>,
    /// The release that was live before.
    pub replaces: Option<u64>,
    /// The earlier release whose objects were applied again.
    pub restores: Option<u64>,
    /// The revisions of the databases that its server works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<Heads>,
    /// The backup of the databases that was made before it changed them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Why it failed, in a sentence.
    pub cause: Option<String>,
    /// What was applied.
    pub objects: Vec<ObjectRef>,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version_of_record: u32,
    #[serde(flatten)]
    value: T,
}

/// All releases of the namespace, the oldest first.
///
/// # Errors
/// What the API server answers; `Input` for a release object that this program cannot read.
pub async fn list(cluster: &Cluster) -> Result<Vec<Release>> {
    let maps = maps(cluster).await?;
    let mut releases = maps.iter().map(read).collect::<Result<Vec<_>>>()?;
    releases.sort_by_key(|release| release.number);
    Ok(releases)
}

/// The release that is live: the last that was proven to work.
pub fn current(releases: &[Release]) -> Option<&Release> {
    releases.iter().filter(|release| release.state == State::Deployed).max_by_key(|release| release.number)
}

/// Those that are kept: the live one, `keep` proven ones before it, and the latest others.
pub fn kept(releases: &[Release], keep: usize) -> Vec<&Release> {
    let mut sorted: Vec<&Release> = releases.iter().collect();
    sorted.sort_by_key(|release| std::cmp::Reverse(release.number));
    let (mut proven, mut others) = (0, 0);
    sorted.retain(|release| match release.state {
        State::Deployed => {
            proven += 1;
            proven <= keep.saturating_add(1)
        }
        State::Pending => true,
        _ => {
            others += 1;
            others <= REMEMBERED
        }
    });
    sorted.reverse();
    sorted
}

/// Records that a deploy of `objects` begins. To be called under the lock.
///
/// # Errors
/// `Refused` for objects that are too large to be stored; what the API server answers.
pub async fn begin(cluster: &Cluster, draft: Draft, objects: &[Object]) -> Result<Release> {
    let last = list(cluster).await?.last().map_or(0, |release| release.number);
    let mut release = Release {
        number: last + 1,
        state: State::Pending,
        at: report::now(),
        finished: None,
        provenance: draft.provenance,
        image: draft.image,
        version: draft.version,
        replaces: draft.replaces,
        restores: draft.restores,
        heads: draft.heads,
        backup: None,
        cause: None,
        objects: objects.iter().map(Object::reference).collect(),
    };
    let packed = packed::pack(objects)?;
    loop {
        let map = write(cluster, &release, packed.clone())?;
        let created = cluster.api::<ConfigMap>();
        match call::once(DEADLINE, created.create(&PostParams::default(), &map)).await {
            Ok(_) => return Ok(release),
            Err(error) if failure::kind(&error) == Kind::Conflict => release.number += 1,
            Err(error) => return Err(failure::explain(cluster, &format!("record {}", name(release.number)), error)),
        }
    }
}

/// Records what became of a release; `cause` is a sentence for those that failed.
///
/// # Errors
/// What the API server answers.
pub async fn finish(cluster: &Cluster, release: &Release, state: State, cause: Option<String>) -> Result<Release> {
    change(cluster, Release { state, cause, finished: Some(report::now()), ..release.clone() }).await
}

/// Records the backup that was made before a release changes the databases.
///
/// # Errors
/// What the API server answers.
pub async fn note_backup(cluster: &Cluster, release: &Release, backup: &str) -> Result<Release> {
    change(cluster, Release { backup: Some(backup.to_owned()), ..release.clone() }).await
}

async fn change(cluster: &Cluster, release: Release) -> Result<Release> {
    let name = name(release.number);
    let explain = |error| failure::explain(cluster, &format!("record what became of {name}"), error);
    let api = cluster.api::<ConfigMap>();
    let patch = Patch::Merge(serde_json::json!({"data": {RECORD: record(&release)?}}));
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    call::repeat(DEADLINE, || api.patch(&name, &params, &patch)).await.map_err(explain)?;
    Ok(release)
}

/// The objects of a release, to be applied again. Its Secrets are not among them, but are there.
///
/// # Errors
/// `Check` when a Secret or the record is gone; `Input` when the record cannot be read.
pub async fn objects(cluster: &Cluster, release: &Release) -> Result<Vec<Object>> {
    let name = name(release.number);
    let api = cluster.api::<ConfigMap>();
    let map = call::repeat(DEADLINE, || api.get_opt(&name))
        .await
        .map_err(|error| failure::explain(cluster, &format!("read ConfigMap/{name}"), error))?;
    let packed = map.and_then(|map| map.binary_data?.remove(OBJECTS));
    let Some(ByteString(packed)) = packed else {
        let message = format!("release {} is not stored in namespace {} any more", release.number, cluster.namespace);
        return Err(Error::new(Kind::Check, message).hint("choose another release: `cargo xtask status` lists them"));
    };
    let objects = packed::unpack(&packed).map_err(|error| unreadable(&name, error))?;
    let (secrets, objects): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|object| object.kind == ObjectKind::Secret);
    let asked = secrets.iter().map(|secret| exists(cluster, secret));
    let found: Vec<Result<bool>> = stream::iter(asked).buffered(8).collect().await;
    for (secret, found) in secrets.iter().zip(found) {
        if !found? {
            let message = format!("release {} needs {secret}, which is gone from the cluster", release.number);
            return Err(Error::new(Kind::Check, message)
                .hint("deploy from a checkout of its commit instead: the Secret is then made again"));
        }
    }
    Ok(objects)
}

/// Deletes all but the [`kept`] releases, and says which.
///
/// # Errors
/// What the API server answers.
pub async fn prune(cluster: &Cluster, keep: usize) -> Result<Vec<u64>> {
    let maps = maps(cluster).await?;
    let releases = maps.iter().map(read).collect::<Result<Vec<_>>>()?;
    let kept: Vec<u64> = kept(&releases, keep).iter().map(|release| release.number).collect();
    let api = cluster.api::<ConfigMap>();
    let mut pruned = Vec::new();
    for (map, release) in maps.iter().zip(&releases).filter(|(_, release)| !kept.contains(&release.number)) {
        let same = Preconditions { uid: map.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
        let name = name(release.number);
        match call::repeat(DEADLINE, || api.delete(&name, &params)).await {
            Ok(_) => pruned.push(release.number),
            Err(error) if failure::is_missing(&error) => {}
            Err(error) => return Err(failure::explain(cluster, &format!("delete ConfigMap/{name}"), error)),
        }
    }
    pruned.sort_unstable();
    Ok(pruned)
}

/// Notes on the Deployment who deployed it; never on its pods, which would restart for it.
pub fn annotate(object: &mut Object, release: &Release) {
    let Provenance { by, commit, run } = &release.provenance;
    let number = release.number.to_string();
    let notes = [
        ("release", Some(&number)),
        ("at", Some(&release.at)),
        ("by", Some(by)),
        ("commit", commit.as_ref()),
        ("run", run.as_ref()),
    ];
    let Some(metadata) = object.value.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
    let Some(annotations) = annotations.as_object_mut() else { return };
    for (key, value) in notes {
        if let Some(value) = value {
            annotations.insert(format!("{PREFIX}/{key}"), value.as_str().into());
        }
    }
}

fn name(number: u64) -> String {
    format!("{NAME}-release-{number}")
}

async fn maps(cluster: &Cluster) -> Result<Vec<ConfigMap>> {
    let api = cluster.api::<ConfigMap>();
    let params = ListParams::default().labels(&format!("{LABEL}=true,{MANAGED_BY}={MANAGER}"));
    let listed = call::repeat(DEADLINE, || api.list(&params)).await;
    Ok(listed.map_err(|error| failure::explain(cluster, "list the releases", error))?.items)
}

async fn exists(cluster: &Cluster, object: &Object) -> Result<bool> {
    let api = cluster.objects(object.kind);
    let found = call::repeat(DEADLINE, || api.get_metadata_opt(object.name())).await;
    Ok(found.map_err(|error| failure::explain(cluster, &format!("read {object}"), error))?.is_some())
}

fn write(cluster: &Cluster, release: &Release, packed: Vec<u8>) -> Result<ConfigMap> {
    let labels = [
        (LABEL, "true"),
        (MANAGED_BY, MANAGER),
        ("app.kubernetes.io/name", NAME),
        ("app.kubernetes.io/component", "release"),
    ];
    Ok(ConfigMap {
        metadata: ObjectMeta {
            name: Some(name(release.number)),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(RECORD.to_owned(), record(release)?)])),
        binary_data: Some(BTreeMap::from([(OBJECTS.to_owned(), ByteString(packed))])),
        immutable: None,
    })
}

fn record(release: &Release) -> Result<String> {
    let versioned = Versioned { version_of_record: VERSION, value: release };
    serde_json::to_string_pretty(&versioned).context(Kind::Internal, || "cannot write the record of a release")
}

fn read(map: &ConfigMap) -> Result<Release> {
    let name = map.metadata.name.as_deref().unwrap_or_default();
    let text = map.data.as_ref().and_then(|data| data.get(RECORD)).map_or("", String::as_str);
    let versioned: Versioned<Value> = serde_json::from_str(text).map_err(|error| unreadable(name, error))?;
    if versioned.version_of_record != VERSION {
        let message = format!("ConfigMap/{name} was written by another version of this program");
        return Err(Error::new(Kind::Input, message).hint("use the checkout that deployed last, or a newer one"));
    }
    serde_json::from_value(versioned.value).map_err(|error| unreadable(name, error))
}

fn unreadable(name: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(Kind::Input, format!("ConfigMap/{name} is no record of a release"))
        .source(error)
        .hint("it was changed by hand: delete it, unless you want to go back to that release")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn release(number: u64, state: State) -> Release {
        Release {
            number,
            state,
            at: "2026-11-24T00:00:00Z".to_owned(),
            finished: None,
            provenance: Provenance { by: "ada".to_owned(), commit: Some("c0ffee".to_owned()), run: None },
            image: "r/mlflow@sha256:a".to_owned(),
            version: Some("3.14.0".to_owned()),
            replaces: None,
            restores: None,
            heads: None,
            backup: None,
            cause: None,
            objects: vec![ObjectRef { kind: ObjectKind::Deployment, name: "mlflow".to_owned() }],
        }
    }

    #[test]
    fn the_current_release_is_the_last_that_was_proven() {
        use State::{Deployed, Failed, Pending, RolledBack, Superseded};
        let check = |states: &[State], expected: Option<u64>| {
            let releases: Vec<_> = (1..).zip(states).map(|(number, state)| release(number, *state)).collect();
            assert_eq!(current(&releases).map(|release| release.number), expected, "{states:?}");
        };
        check(&[], None);
        check(&[Pending], None);
        check(&[Deployed, Deployed], Some(2));
        check(&[Deployed, Deployed, Failed, RolledBack, Superseded, Pending], Some(2));
    }

    #[test]
    fn as_many_proven_releases_are_kept_as_can_be_gone_back_to() {
        use State::{Deployed, Pending, RolledBack};
        let check = |states: &[State], keep: usize, expected: &[u64]| {
            let releases: Vec<_> = (1..).zip(states).map(|(number, state)| release(number, *state)).collect();
            let kept: Vec<_> = kept(&releases, keep).iter().map(|release| release.number).collect();
            assert_eq!(kept, expected, "{states:?} {keep}");
        };
        check(&[Deployed, Deployed, Deployed], 0, &[3]);
        check(&[Deployed, Deployed, Deployed], 1, &[2, 3]);
        check(&[Deployed, Deployed, Deployed], 9, &[1, 2, 3]);
        check(&[Pending, Deployed, RolledBack, Deployed], 0, &[1, 3, 4]);
        let failed = [RolledBack; 12];
        check(&failed, 5, &[3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        check(&[&[Deployed], &failed[..]].concat(), 0, &[1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let written = Release { cause: Some("OOMKilled".to_owned()), ..release(7, State::RolledBack) };
        let data = |text: String| ConfigMap { data: Some([(RECORD.to_owned(), text)].into()), ..ConfigMap::default() };
        assert_eq!(read(&data(record(&written).unwrap())).unwrap(), written);
        let newer = record(&written).unwrap().replace("\"version_of_record\": 1", "\"version_of_record\": 2");
        assert_eq!(read(&data(newer)).unwrap_err().kind(), Kind::Input);
        assert_eq!(read(&data("{".to_owned())).unwrap_err().kind(), Kind::Input);
        assert_eq!(read(&ConfigMap::default()).unwrap_err().kind(), Kind::Input);
    }

    #[test]
    fn a_deployment_says_who_deployed_it_and_its_pods_do_not() {
        let spec = json!({"template": {"metadata": {"annotations": {}}}});
        let metadata = json!({"name": "mlflow", "annotations": {"a": "b"}});
        let value = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
        let mut object = Object::new(&value).unwrap();
        annotate(&mut object, &release(7, State::Pending));
        assert_eq!(object.value["spec"], spec);
        let expected = json!({
            "a": "b",
            "mlflow-on-kubernetes/release": "7",
            "mlflow-on-kubernetes/at": "2026-11-24T00:00:00Z",
            "mlflow-on-kubernetes/by": "ada",
            "mlflow-on-kubernetes/commit": "c0ffee",
        });
        assert_eq!(object.value["metadata"]["annotations"], expected);
    }
}
