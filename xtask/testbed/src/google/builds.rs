//! Cloud Build: builds, carried out by a hook.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::faults::OperationFault;
use super::objects;
use super::operations::merge;
use super::state::{State, now};

const BUILDS: &str = "cloudbuild.builds";
/// How often a build that is carried out is looked at: somebody may have cancelled it.
const LOOK: Duration = Duration::from_millis(100);

/// A build to carry out.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Its id.
    pub id: String,
    /// The unpacked source.
    pub source: PathBuf,
    /// The build as it was asked for: steps, images, substitutions.
    pub build: Value,
    /// Set when somebody cancels the build, or nobody waits for it any more.
    pub cancelled: CancellationToken,
}

/// What carries out builds.
pub trait BuildHook: std::fmt::Debug + Send + Sync {
    /// The images that were pushed, each with its digest, or why there are none. Runs on a thread of its own.
    fn build(&self, request: &BuildRequest) -> Result<Vec<(String, String)>, String>;
}

/// Answers a call.
pub(crate) async fn serve(core: &Arc<Core>, call: &Call) -> Outcome<Reply> {
    let parts = call.parts();
    if let ["v1", "operations", "build", project, id]
    | ["v1", "projects", _, "locations", _, "operations", "build", project, id] = parts.as_slice()
    {
        let id = STANDARD.decode(id).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let state = core.state();
        let build = find(&state, &format!("projects/{project}/locations/global/builds/{id}"))?;
        return Ok(operation(project, &build).into());
    }
    let (project, location, rest) = match parts.as_slice() {
        ["v1", "projects", project, "locations", location, rest @ ..] => (*project, *location, rest),
        ["v1", "projects", project, rest @ ..] => (*project, "global", rest),
        _ => return Err(call.unknown()),
    };
    let project = core.state().project(project)?.id.clone();
    let named = |id: &str| format!("projects/{project}/locations/{location}/builds/{id}");
    match (call.method.as_str(), rest, call.verb.as_str()) {
        ("POST", ["builds"], "") => create(core, call, &project, location),
        ("GET", ["builds"], "") => {
            let mut builds = core.state().list(BUILDS, &named(""));
            if let Some(filter) = call.query("filter") {
                let tag = filter.strip_prefix("tags=").map(|tag| tag.trim_matches('"'));
                let tag = tag.filter(|tag| !tag.contains(['"', ' ']));
                let tag = tag.ok_or_else(|| Failure::invalid(format!("the filter {filter:?} is not known here")))?;
                builds.retain(|build| build["tags"].as_array().is_some_and(|tags| tags.iter().any(|had| had == tag)));
            }
            builds.sort_by_key(|build| std::cmp::Reverse(build["createTime"].to_string()));
            Ok(json!({ "builds": builds }).into())
        }
        ("GET", ["builds", id], "") => find(&core.state(), &named(id)).map(Reply::from),
        ("POST", ["builds", id], "cancel") => {
            let mut state = core.state();
            let build = find(&state, &named(id))?;
            if !["QUEUED", "WORKING"].contains(&build["status"].as_str().unwrap_or_default()) {
                return Err(Failure::precondition("cannot cancel a finished build"));
            }
            let change = json!({ "status": "CANCELLED", "finishTime": now() });
            let build = state.get_mut(BUILDS, &named(id)).expect("it was found");
            merge(build, &change);
            Ok(build.clone().into())
        }
        ("GET", ["defaultServiceAccount"], "") => {
            let number = core.state().project(&project)?.number;
            let account = format!("{number}-compute@developer.gserviceaccount.com");
            Ok(json!({ "name": format!("projects/{number}/locations/{location}/defaultServiceAccount"),
                "serviceAccountEmail": format!("projects/{project}/serviceAccounts/{account}") })
            .into())
        }
        _ => Err(call.unknown()),
    }
}

fn find(state: &State, name: &str) -> Outcome<Value> {
    state.get(BUILDS, name).cloned().ok_or_else(|| Failure::not_found("Requested entity was not found."))
}

fn operation(project: &str, build: &Value) -> Value {
    let id = build["id"].as_str().unwrap_or_default();
    let status = build["status"].as_str().unwrap_or_default();
    let done = !["QUEUED", "WORKING"].contains(&status);
    let mut operation = json!({
        "name": format!("operations/build/{project}/{}", STANDARD.encode(id)),
        "metadata": {
            "@type": "type.googleapis.com/google.devtools.cloudbuild.v1.BuildOperationMetadata",
            "build": build,
        },
    });
    if done {
        operation["done"] = true.into();
        if status == "SUCCESS" {
            operation["response"] = build.clone();
            operation["response"]["@type"] = "type.googleapis.com/google.devtools.cloudbuild.v1.Build".into();
        } else {
            operation["error"] = json!({ "code": 2, "message": build["statusDetail"] });
        }
    }
    operation
}

fn create(core: &Arc<Core>, call: &Call, project: &str, location: &str) -> Outcome<Reply> {
    let mut build = call.json()?;
    if build["steps"].as_array().is_none_or(Vec::is_empty) {
        return Err(Failure::invalid("invalid build: no build steps provided"));
    }
    let random = rand::random::<u128>();
    let hex = format!("{random:032x}");
    let id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let name = format!("projects/{project}/locations/{location}/builds/{id}");
    let number = core.state().project(project)?.number;
    merge(
        &mut build,
        &json!({
            "id": id,
            "projectId": project,
            "name": format!("projects/{number}/locations/{location}/builds/{id}"),
            "status": "QUEUED",
            "createTime": now(),
            "queueTtl": "3600s",
            "logUrl": format!("https://console.cloud.google.com/cloud-build/builds/{id}?project={number}"),
        }),
    );
    if build["timeout"].is_null() {
        build["timeout"] = "600s".into();
    }
    core.state().put(BUILDS, name.clone(), build.clone());
    let (task, fault) = (Arc::clone(core), call.operation.clone());
    let request = build.clone();
    tokio::spawn(async move {
        let outcome = match fault {
            Some(OperationFault::Endless) => return,
            Some(OperationFault::Fails { message, .. }) => Err(message),
            _ => {
                set(&task, &name, &json!({ "status": "WORKING", "startTime": now() }));
                carry_out(&task, &name, id, request).await
            }
        };
        let change = match outcome {
            Ok(images) => {
                let images: Vec<Value> =
                    images.into_iter().map(|(name, digest)| json!({ "name": name, "digest": digest })).collect();
                json!({ "status": "SUCCESS", "finishTime": now(), "results": { "images": images } })
            }
            Err(why) => json!({ "status": "FAILURE", "finishTime": now(), "statusDetail": why,
                "failureInfo": { "type": "USER_BUILD_STEP", "detail": why } }),
        };
        set(&task, &name, &change);
    });
    Ok(operation(project, &build).into())
}

/// Changes a build that nobody has cancelled.
fn set(core: &Core, name: &str, change: &Value) {
    let mut state = core.state();
    if let Some(build) = state.get_mut(BUILDS, name)
        && build["status"] != "CANCELLED"
    {
        merge(build, change);
    }
}

async fn carry_out(core: &Core, name: &str, id: String, build: Value) -> Result<Vec<(String, String)>, String> {
    let Some(hook) = core.options.build.clone() else { return Err("nothing here builds images".to_owned()) };
    let source = &build["source"]["storageSource"];
    let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
    let bytes = if source.is_null() {
        None
    } else {
        Some(objects::read(core, &text("bucket"), &text("object")).await.map_err(|failure| failure.message)?)
    };
    let cancelled = CancellationToken::new();
    // For the end of the fake itself, too.
    let _guard = cancelled.clone().drop_guard();
    let told = cancelled.clone();
    let work = move || {
        let dir = tempfile::Builder::new().prefix("build-").tempdir().map_err(|error| error.to_string())?;
        if let Some(bytes) = bytes {
            let archive = flate2::read::GzDecoder::new(&bytes[..]);
            tar::Archive::new(archive).unpack(dir.path()).map_err(|error| format!("the source: {error}"))?;
        }
        hook.build(&BuildRequest { id, source: dir.path().to_owned(), build, cancelled: told })
    };
    let mut work = tokio::task::spawn_blocking(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended.map_err(|error| error.to_string())?,
            () = tokio::time::sleep(LOOK) => {
                if core.state().get(BUILDS, name).is_some_and(|build| build["status"] == "CANCELLED") {
                    cancelled.cancel();
                }
            }
        }
    }
}
