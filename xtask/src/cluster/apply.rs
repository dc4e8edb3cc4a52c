//! Server-side apply: asking what it would change, and doing it. One request for each object, under
//! one field manager; repeating it is harmless.

use std::borrow::Cow;
use std::time::Duration;

use futures::{StreamExt as _, TryFutureExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde::Serialize;
use serde_json::Value;

use crate::error::{Context as _, Error, Kind, Result};

use super::connect::Cluster;
use super::diff::{self, Action, Change};
use super::object::{Object, ObjectKind, ObjectRef};
use super::{MANAGER, call, failure};

/// How long one object may take, with all repetitions.
const DEADLINE: Duration = Duration::from_secs(30);

/// Objects that are asked about at the same time.
const AT_ONCE: usize = 8;

/// What an apply did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Applied {
    /// The objects, in the order in which they were applied.
    pub objects: Vec<AppliedObject>,
    /// The Deployment, where it was one of them.
    pub deployment: Option<AppliedDeployment>,
}

/// An object that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AppliedObject {
    /// Which.
    pub object: ObjectRef,
    /// Whether that changed anything in the cluster.
    pub changed: bool,
}

/// The Deployment after it was applied: what a rollout is recognised by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppliedDeployment {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation` as the apply left it.
    pub generation: i64,
    /// The generation before; `None`: there was no Deployment. The same as after: nothing rolls out.
    /// A new one alone says little: annotations of a Deployment count as well.
    pub before: Option<i64>,
    /// Whether anything was written, be it only annotations.
    pub changed: bool,
    /// When, by the API server's clock, to the second.
    pub at: Timestamp,
    /// As the API server stored it.
    #[serde(skip)]
    pub object: Box<Deployment>,
}

/// An apply that stopped in the middle: the caller undoes what came before.
#[derive(Debug)]
pub struct Halted {
    /// What was applied.
    pub applied: Applied,
    /// Why the next object was not.
    pub error: Error,
}

impl From<Box<Halted>> for Error {
    fn from(halted: Box<Halted>) -> Self {
        let changed: Vec<_> = halted.applied.objects.iter().filter(|object| object.changed).collect();
        if changed.is_empty() {
            return halted.error;
        }
        let names: Vec<_> = changed.iter().map(|applied| applied.object.to_string()).collect();
        let message = format!("the apply stopped in the middle: changed before were {}", names.join(", "));
        let error = Error::new(halted.error.kind(), message);
        let error = match halted.error.hint_text() {
            Some(hint) => error.hint(hint.to_owned()),
            None => error,
        };
        error.source(halted.error)
    }
}

/// Asks the API server what applying `objects` would change. Nothing is written.
///
/// Where the namespace does not exist yet, the server cannot be asked about what would be in it:
/// those changes are marked as unverified.
///
/// # Errors
/// `Conflict` names the fields that others manage (`force` takes them over); `Refused` names the
/// fields that are wrong. All objects are asked about, and all that is refused is in one error.
pub async fn dry_run(cluster: &Cluster, objects: &[Object], force: bool) -> Result<Vec<Change>> {
    let asked = objects.iter().map(|object| change(cluster, object, force));
    let answers: Vec<Result<Change>> = stream::iter(asked).buffered(AT_ONCE).collect().await;
    let mut changes = Vec::new();
    let mut errors = Vec::new();
    for answer in answers {
        match answer {
            Ok(change) => changes.push(change),
            Err(error) => errors.push(error),
        }
    }
    match together(errors) {
        Some(error) => Err(error),
        None => Ok(changes),
    }
}

/// Applies the objects, the Deployment last: whatever fails before it has not touched a pod.
///
/// # Errors
/// As [`dry_run`], with what was applied before.
pub async fn apply(cluster: &Cluster, objects: &[Object], force: bool) -> Result<Applied, Box<Halted>> {
    let mut ordered: Vec<&Object> = objects.iter().collect();
    ordered.sort_by_key(|object| (object.kind == ObjectKind::Deployment, object.kind));
    let mut applied = Applied::default();
    for object in ordered {
        match apply_one(cluster, object, force).await {
            Ok((changed, deployment)) => {
                applied.objects.push(AppliedObject { object: object.reference(), changed });
                applied.deployment = deployment.or(applied.deployment);
            }
            Err(error) => return Err(Box::new(Halted { applied, error })),
        }
    }
    Ok(applied)
}

async fn change(cluster: &Cluster, object: &Object, force: bool) -> Result<Change> {
    let doing = || format!("apply {object} (dry run)");
    let live = live(cluster, object).await?;
    let wanted = with_replicas(object, live.as_ref());
    match patch(cluster, &wanted, force, true).await {
        Ok(merged) => {
            let merged = serde_json::to_value(merged).unwrap_or_default();
            let live = live.and_then(|live| serde_json::to_value(live).ok());
            Ok(diff::compare(object, live.as_ref(), &merged))
        }
        Err(error) if live.is_none() && is_namespace_missing(&error) => {
            plausible(cluster, object)?;
            Ok(Change { unverified: true, ..Change::new(object.kind, object.name(), Action::Create) })
        }
        Err(error) => Err(refused(cluster, &doing(), object, error)),
    }
}

async fn apply_one(cluster: &Cluster, object: &Object, force: bool) -> Result<(bool, Option<AppliedDeployment>)> {
    let live = live(cluster, object).await?;
    let wanted = with_replicas(object, live.as_ref());
    let merged = patch(cluster, &wanted, force, false)
        .or_else(async |error| match &wanted {
            // The autoscaler has scaled since it was read, and so answers for the number by itself.
            Cow::Owned(_) if failure::kind(&error) == Kind::Conflict => patch(cluster, object, force, false).await,
            _ => Err(error),
        })
        .await
        .map_err(|error| refused(cluster, &format!("apply {object}"), object, error))?;
    let version = |object: &DynamicObject| object.metadata.resource_version.clone();
    let changed = live.as_ref().is_none_or(|live| version(live) != version(&merged));
    if object.kind != ObjectKind::Deployment {
        return Ok((changed, None));
    }
    let at = written_at(&merged).unwrap_or_else(Timestamp::now);
    let deployment = AppliedDeployment {
        name: object.name().to_owned(),
        uid: merged.metadata.uid.clone().unwrap_or_default(),
        generation: merged.metadata.generation.unwrap_or_default(),
        before: live.and_then(|live| live.metadata.generation),
        changed,
        at,
        object: Box::new(typed(merged)?),
    };
    Ok((changed, Some(deployment)))
}

fn typed(object: DynamicObject) -> Result<Deployment> {
    let read = || "the API server's answer to an applied Deployment is none";
    let value = serde_json::to_value(object).context(Kind::Internal, read)?;
    serde_json::from_value(value).context(Kind::Internal, read)
}

/// The object as it is in the cluster, if it is there.
async fn live(cluster: &Cluster, object: &Object) -> Result<Option<DynamicObject>> {
    let api = cluster.objects(object.kind);
    call::repeat(DEADLINE, || api.get_opt(object.name()))
        .await
        .map_err(|error| refused(cluster, &format!("read {object}"), object, error))
}

async fn patch(cluster: &Cluster, object: &Object, force: bool, dry_run: bool) -> kube::Result<DynamicObject> {
    let params = PatchParams { dry_run, force, ..PatchParams::apply(MANAGER).validation_strict() };
    let (api, patch) = (cluster.objects(object.kind), Patch::Apply(&object.value));
    call::repeat(DEADLINE, || api.patch(object.name(), &params, &patch)).await
}

/// The Deployment with the number of replicas that it has, where it is left to an autoscaler that
/// has not yet set it: a field that no one answers for any more would fall back to 1.
fn with_replicas<'a>(object: &'a Object, live: Option<&DynamicObject>) -> Cow<'a, Object> {
    let as_is = Cow::Borrowed(object);
    if object.kind != ObjectKind::Deployment || object.value.pointer("/spec/replicas").is_some() {
        return as_is;
    }
    let Some(live) = live else { return as_is };
    let Some(replicas) = live.data.pointer("/spec/replicas") else { return as_is };
    let managers = live.metadata.managed_fields.iter().flatten();
    let of_replicas = |entry: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    };
    let mut owners = managers.filter(of_replicas);
    if owners.any(|entry| entry.manager.as_deref() != Some(MANAGER)) {
        return as_is;
    }
    let mut object = object.clone();
    if let Some(spec) = object.value.get_mut("spec").and_then(Value::as_object_mut) {
        spec.insert("replicas".to_owned(), replicas.clone());
    }
    Cow::Owned(object)
}

/// When our manager last wrote, by the API server's clock.
fn written_at(object: &DynamicObject) -> Option<Timestamp> {
    let ours = |manager: &Option<String>, operation: &Option<String>| {
        manager.as_deref() == Some(MANAGER) && operation.as_deref() == Some("Apply")
    };
    let mut managers = object.metadata.managed_fields.iter().flatten();
    managers.find(|entry| ours(&entry.manager, &entry.operation))?.time.as_ref().map(|time| time.0)
}

fn is_namespace_missing(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.is_not_found() && status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

/// What can be said of an object without the API server.
fn plausible(cluster: &Cluster, object: &Object) -> Result<()> {
    let namespace = object.value.pointer("/metadata/namespace").and_then(Value::as_str);
    if object.kind.is_namespaced() && namespace.is_some_and(|namespace| namespace != cluster.namespace) {
        let message = format!("{object} is for the namespace {}, not {}", namespace.unwrap_or(""), cluster.namespace);
        return Err(Error::new(Kind::Refused, message));
    }
    let name = object.name();
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if name.is_empty() || name.len() > 253 || !name.bytes().all(plain) {
        return Err(Error::new(Kind::Refused, format!("{name:?} cannot name a {}", object.kind))
            .hint("use lower-case letters, digits, '-' and '.'"));
    }
    Ok(())
}

fn refused(cluster: &Cluster, doing: &str, object: &Object, error: kube::Error) -> Error {
    let is_unknown = failure::is_missing(&error) && !is_namespace_missing(&error);
    let error = failure::explain(cluster, doing, error);
    match object.kind.lacking().filter(|_| is_unknown) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// One error for all: the first, with the lines of the others.
fn together(mut errors: Vec<Error>) -> Option<Error> {
    if errors.len() < 2 {
        return errors.pop();
    }
    // Whoever must act first is named first: a server that is away says nothing about the objects.
    let rank = |error: &Error| !matches!(error.kind(), Kind::Remote | Kind::Auth | Kind::Forbidden);
    errors.sort_by_key(rank);
    let message = format!("{} objects cannot be applied", errors.len());
    let combined = Error::new(errors[0].kind(), message);
    let combined = match errors[0].hint_text() {
        Some(hint) => combined.hint(hint.to_owned()),
        None => combined,
    };
    let lines = errors.iter().flat_map(Error::lines).collect();
    match failure::Lines::chain(lines) {
        Some(lines) => Some(combined.source(lines)),
        None => Some(combined),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(spec: Value) -> Object {
        let value =
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mlflow"}, "spec": spec});
        Object::new(&value).unwrap()
    }

    #[test]
    fn replicas_stay_as_they_are_until_the_autoscaler_answers_for_them() {
        let check = |wanted: Value, owners: &[&str], expected: Option<u32>| {
            let managed =
                owners.iter().map(|owner| json!({"manager": owner, "fieldsV1": {"f:spec": {"f:replicas": {}}}}));
            let live = json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "mlflow", "managedFields": managed.collect::<Vec<_>>()},
                "spec": {"replicas": 3},
            });
            let live: DynamicObject = serde_json::from_value(live).unwrap();
            let object = deployment(wanted.clone());
            let applied = with_replicas(&object, Some(&live)).value.pointer("/spec/replicas").cloned();
            assert_eq!(applied, expected.map(Value::from), "{wanted} {owners:?}");
        };
        check(json!({}), &[MANAGER], Some(3));
        check(json!({}), &[], Some(3));
        check(json!({}), &["kube-controller-manager"], None);
        check(json!({}), &[MANAGER, "kubectl"], None);
        check(json!({"replicas": 2}), &[MANAGER], Some(2));
        assert_eq!(with_replicas(&deployment(json!({})), None).value.pointer("/spec/replicas"), None);
    }

    #[test]
    fn all_that_is_refused_is_in_one_error() {
        let refused = |object: &str, why: &str| Error::new(Kind::Refused, format!("cannot apply {object}")).source(why);
        assert!(together(vec![]).is_none());
        let error = together(vec![refused("A/a", "a is wrong"), refused("B/b", "b is wrong")]).unwrap();
        let lines = ["2 objects cannot be applied", "cannot apply A/a", "a is wrong", "cannot apply B/b", "b is wrong"];
        assert_eq!(error.lines(), lines);
        let away = Error::new(Kind::Remote, "no answer").hint("check the network");
        let error = together(vec![refused("A/a", "a is wrong"), away]).unwrap();
        assert_eq!((error.kind(), error.hint_text()), (Kind::Remote, Some("check the network")));
    }

    #[test]
    fn what_was_applied_before_is_in_the_error() {
        let object = |name: &str| ObjectRef { kind: ObjectKind::ConfigMap, name: name.to_owned() };
        let halted = |objects: &[(&str, bool)]| {
            let objects = objects.iter().map(|&(name, changed)| AppliedObject { object: object(name), changed });
            let applied = Applied { objects: objects.collect(), deployment: None };
            Error::from(Box::new(Halted { applied, error: Error::new(Kind::Refused, "cannot apply Secret/b") }))
        };
        assert_eq!(halted(&[("a", false)]).lines(), ["cannot apply Secret/b"]);
        let lines = ["the apply stopped in the middle: changed before were ConfigMap/a", "cannot apply Secret/b"];
        assert_eq!(halted(&[("a", true), ("c", false)]).lines(), lines);
    }
}
