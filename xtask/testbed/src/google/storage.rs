//! Cloud Storage: buckets and their policies. Objects are beside it.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::objects;
use super::operations::merge;
use super::policy::{Policy, wanted_version};
use super::state::{State, now};

pub(crate) const BUCKETS: &str = "storage.buckets";
/// The project's id, which Google does not show.
const HOME: &str = "testbedProject";

/// Answers a call.
pub(crate) async fn serve(core: &Arc<Core>, call: &Call) -> Outcome<Reply> {
    let parts = call.parts();
    match (&call.method, parts.as_slice()) {
        (_, ["storage", "v1", "b", bucket, "o", ..])
        | (_, ["upload" | "download", "storage", "v1", "b", bucket, "o", ..]) => {
            bucket_of(&core.state(), bucket)?;
            objects::serve(core, call).await
        }
        (_, ["upload", "resumable", ..]) => objects::serve(core, call).await,
        (&Method::GET, ["storage", "v1", "b"]) => {
            let project = core.state().project(call.query("project").unwrap_or_default())?.id.clone();
            let prefix = call.query("prefix").unwrap_or_default();
            let mut items = core.state().list(BUCKETS, prefix);
            items.retain(|bucket| bucket[HOME] == *project);
            let items: Vec<Value> = items.into_iter().map(shown).collect();
            Ok(json!({ "kind": "storage#buckets", "items": items }).into())
        }
        (&Method::POST, ["storage", "v1", "b"]) => {
            let name = create(core, call)?;
            objects::create_bucket(core, &name).await?;
            Ok(shown(bucket_of(&core.state(), &name)?).into())
        }
        (&Method::GET, ["storage", "v1", "b", bucket]) => Ok(shown(bucket_of(&core.state(), bucket)?).into()),
        (&Method::GET, ["storage", "v1", "b", bucket, "storageLayout"]) => {
            let found = bucket_of(&core.state(), bucket)?;
            Ok(json!({ "kind": "storage#storageLayout", "bucket": bucket, "location": found["location"],
                "locationType": found["locationType"], "hierarchicalNamespace": { "enabled": false } })
            .into())
        }
        (&Method::GET, ["storage", "v1", "b", bucket, "managedFolders" | "folders"]) => {
            bucket_of(&core.state(), bucket)?;
            Ok(json!({ "items": [] }).into())
        }
        (&Method::PATCH | &Method::PUT, ["storage", "v1", "b", bucket]) => {
            let change = call.json()?;
            let mut state = core.state();
            bucket_of(&state, bucket)?;
            check(&change)?;
            let found = state.get_mut(BUCKETS, bucket).expect("it was found");
            merge(found, &change);
            let next = found["metageneration"].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) + 1;
            found["metageneration"] = next.to_string().into();
            found["updated"] = now().into();
            Ok(shown(found.clone()).into())
        }
        (&Method::DELETE, ["storage", "v1", "b", bucket]) => {
            bucket_of(&core.state(), bucket)?;
            if !objects::is_empty(core, bucket).await? {
                return Err(Failure::exists("The bucket you tried to delete is not empty.").reason("conflict"));
            }
            objects::delete_bucket(core, bucket).await?;
            let mut state = core.state();
            state.remove(BUCKETS, bucket);
            state.policies.remove(&format!("buckets/{bucket}"));
            Ok(Reply::empty(204))
        }
        (method, ["storage", "v1", "b", bucket, "iam", rest @ ..]) => policy(core, call, method, bucket, rest),
        _ => Err(call.unknown()),
    }
}

fn policy(core: &Core, call: &Call, method: &Method, bucket: &str, rest: &[&str]) -> Outcome<Reply> {
    let mut state = core.state();
    bucket_of(&state, bucket)?;
    let resource = format!("buckets/{bucket}");
    let mut answer = match (method, rest) {
        (&Method::GET, []) => state.policy(&resource, wanted_version(call, &Value::Null)),
        (&Method::PUT, []) => state.set_policy(&resource, &call.json()?)?,
        (&Method::GET, ["testPermissions"]) => {
            let asked = call.query.iter().filter(|(name, _)| name == "permissions").map(|(_, value)| value);
            let held: Vec<&String> =
                asked.filter(|permission| state.holds(&call.principal, permission, &resource)).collect();
            return Ok(json!({ "kind": "storage#testIamPermissionsResponse", "permissions": held }).into());
        }
        _ => return Err(call.unknown()),
    };
    answer["kind"] = "storage#policy".into();
    answer["resourceId"] = format!("projects/_/buckets/{bucket}").into();
    Ok(answer.into())
}

fn shown(mut bucket: Value) -> Value {
    bucket.as_object_mut().map(|fields| fields.remove(HOME));
    bucket
}

/// A bucket, or the error that there is none.
fn bucket_of(state: &State, name: &str) -> Outcome<Value> {
    let found = state.get(BUCKETS, name).cloned();
    found.ok_or_else(|| Failure::not_found("The specified bucket does not exist."))
}

fn check(bucket: &Value) -> Outcome<()> {
    let access = bucket["iamConfiguration"]["publicAccessPrevention"].as_str().unwrap_or("inherited");
    if !["enforced", "inherited", "unspecified"].contains(&access) {
        return Err(Failure::invalid(format!("Invalid publicAccessPrevention: {access}")));
    }
    Ok(())
}

fn create(core: &Core, call: &Call) -> Outcome<String> {
    let mut bucket = call.json()?;
    let name = bucket["name"].as_str().unwrap_or_default().to_owned();
    let is_name = (3..=63).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
        && !name.starts_with(['-', '.', '_'])
        && !name.starts_with("goog");
    if !is_name {
        return Err(Failure::invalid(format!("Invalid bucket name: '{name}'")));
    }
    check(&bucket)?;
    let mut state = core.state();
    let project = state.project(call.query("project").unwrap_or_default())?.clone();
    if let Some(found) = state.get(BUCKETS, &name) {
        let message = if found[HOME] == *project.id {
            "Your previous request to create the named bucket succeeded and you already own it."
        } else {
            "The requested bucket name is not available. The bucket namespace is shared by all users of the system. \
             Please select a different name and try again."
        };
        return Err(Failure::exists(message).reason("conflict"));
    }
    let location = bucket["location"].as_str().unwrap_or("US").to_ascii_uppercase();
    let kind = if ["US", "EU", "ASIA"].contains(&location.as_str()) { "multi-region" } else { "region" };
    let soft = json!({ "retentionDurationSeconds": "604800", "effectiveTime": now() });
    if bucket["softDeletePolicy"].is_null() {
        bucket["softDeletePolicy"] = soft;
    }
    if bucket["storageClass"].is_null() {
        bucket["storageClass"] = "STANDARD".into();
    }
    if bucket["iamConfiguration"]["publicAccessPrevention"].is_null() {
        bucket["iamConfiguration"]["publicAccessPrevention"] = "inherited".into();
    }
    if bucket["iamConfiguration"]["uniformBucketLevelAccess"].is_null() {
        bucket["iamConfiguration"]["uniformBucketLevelAccess"] = json!({ "enabled": false });
    }
    merge(
        &mut bucket,
        &json!({
            "kind": "storage#bucket",
            "id": name,
            "selfLink": format!("{}/storage/storage/v1/b/{name}", call.base()),
            "projectNumber": project.number.to_string(),
            "generation": state.next().to_string(),
            "metageneration": "1",
            "location": location,
            "locationType": kind,
            "timeCreated": now(),
            "updated": now(),
            "etag": "CAE=",
            HOME: project.id,
        }),
    );
    state.put(BUCKETS, name.clone(), bucket);
    let id = &project.id;
    let binding = |role: &str, members: &[String]| json!({ "role": role, "members": members });
    let bindings = vec![
        binding("roles/storage.legacyBucketOwner", &[format!("projectEditor:{id}"), format!("projectOwner:{id}")]),
        binding("roles/storage.legacyBucketReader", &[format!("projectViewer:{id}")]),
    ];
    state.policies.insert(format!("buckets/{name}"), Policy { bindings, generation: 1 });
    Ok(name)
}
