//! Artifact Registry: repositories.

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::{Core, poll};
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style};
use super::state::{State, now};
use super::usage::page;

pub(crate) const REPOSITORIES: &str = "artifactregistry.repositories";

/// Where a repository named like an old registry may be.
const OLD: &[(&str, &str)] = &[("gcr.io", "us"), ("us.gcr.io", "us"), ("eu.gcr.io", "europe"), ("asia.gcr.io", "asia")];

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    let parts = call.parts();
    let [version, "projects", project, rest @ ..] = parts.as_slice() else { return Err(call.unknown()) };
    if !version.starts_with("v1") {
        return Err(call.unknown());
    }
    let project = state.project(project)?.id.clone();
    match (call.method.as_str(), rest, call.verb.as_str()) {
        ("GET", ["locations"], "") => {
            let all: Vec<Value> =
                ["us", "europe", "asia"].iter().chain(super::compute::REGIONS).map(location).collect();
            Ok(json!({ "locations": all }).into())
        }
        ("GET", ["locations", name, "operations", id], "") => {
            poll(&mut state, &format!("projects/{project}/locations/{name}/operations/{id}"))
        }
        ("GET", ["locations", location, "repositories"], "") => {
            let prefix = match *location {
                "-" => format!("projects/{project}/locations/"),
                location => format!("projects/{project}/locations/{location}/"),
            };
            let (all, next) = page(call, state.list(REPOSITORIES, &prefix), 100);
            let mut answer = json!({ "repositories": all });
            if let Some(next) = next {
                answer["nextPageToken"] = next.into();
            }
            Ok(answer.into())
        }
        ("POST", ["locations", location, "repositories"], "") => create(core, &mut state, call, &project, location),
        (_, ["locations", location, "repositories", id], _) => {
            let name = format!("projects/{project}/locations/{location}/repositories/{id}");
            item(core, &mut state, call, &name)
        }
        ("GET", ["projectSettings"], "") => Ok(json!({ "name": format!("projects/{project}/projectSettings") }).into()),
        _ => Err(call.unknown()),
    }
}

fn location(name: &&str) -> Value {
    json!({ "name": format!("projects/-/locations/{name}"), "locationId": name, "displayName": name })
}

fn item(core: &Core, state: &mut State, call: &Call, name: &str) -> Outcome<Reply> {
    let Some(found) = state.get(REPOSITORIES, name).cloned() else {
        return Err(Failure::not_found("Requested entity was not found."));
    };
    match (call.method.as_str(), call.verb.as_str()) {
        ("GET", "") => Ok(found.into()),
        ("PATCH", "") => {
            let change = call.json()?;
            let mask = call.query("updateMask").unwrap_or_default().to_owned();
            let repository = state.get_mut(REPOSITORIES, name).expect("it was found");
            for field in ["description", "labels", "dockerConfig", "cleanupPolicies", "cleanupPolicyDryRun"] {
                if !change[field].is_null() || mask.split(',').any(|part| part.eq_ignore_ascii_case(field)) {
                    repository[field] = change[field].clone();
                }
            }
            repository["updateTime"] = now().into();
            Ok(repository.clone().into())
        }
        ("DELETE", "") => {
            let operation = Operation::new(Style::Long, name, metadata())
                .effect(Effect::Remove(REPOSITORIES, name.to_owned()))
                .response("google.protobuf.Empty", &json!({}));
            Ok(begin(core, state, call, name, operation))
        }
        _ => state.policy_call(call, name).unwrap_or_else(|| Err(call.unknown())),
    }
}

fn metadata() -> Value {
    json!({ "metadata": { "@type": "type.googleapis.com/google.devtools.artifactregistry.v1.OperationMetadata" } })
}

fn begin(core: &Core, state: &mut State, call: &Call, name: &str, operation: Operation) -> Reply {
    let parent = name.split("/repositories/").next().unwrap_or_default();
    let id = format!("{parent}/operations/{:08x}-{:04x}", state.next(), rand::random::<u16>());
    core.long(state, call, &id, operation).into()
}

fn create(core: &Core, state: &mut State, call: &Call, project: &str, location: &str) -> Outcome<Reply> {
    // Both spellings of a field are good, and the terraform provider writes the other.
    let id = call.query("repositoryId").or_else(|| call.query("repository_id")).unwrap_or_default().to_owned();
    let old = OLD.iter().find(|(name, _)| *name == id);
    let is_name = id.starts_with(|first: char| first.is_ascii_lowercase())
        && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if !is_name && old.is_none() {
        return Err(Failure::invalid(format!("The repository_id {id:?} is invalid.")));
    }
    if let Some((_, home)) = old.filter(|(_, home)| *home != location) {
        return Err(Failure::invalid(format!("Repository {id} can only be created in location {home}.")));
    }
    let name = format!("projects/{project}/locations/{location}/repositories/{id}");
    if state.get(REPOSITORIES, &name).is_some() {
        return Err(Failure::exists("the repository already exists"));
    }
    let mut repository = call.json()?;
    if repository["format"].as_str().is_none_or(|format| format == "FORMAT_UNSPECIFIED") {
        return Err(Failure::invalid("Repository format must be set."));
    }
    let uri = match (&core.options.registry, old) {
        (Some(host), _) => format!("{host}/{project}/{id}"),
        (None, Some(_)) => format!("{id}/{project}"),
        (None, None) => format!("{location}-docker.pkg.dev/{project}/{id}"),
    };
    repository["name"] = name.clone().into();
    repository["createTime"] = now().into();
    repository["updateTime"] = now().into();
    repository["registryUri"] = uri.into();
    if repository["mode"].as_str().is_none_or(|mode| mode == "MODE_UNSPECIFIED") {
        repository["mode"] = "STANDARD_REPOSITORY".into();
    }
    state.put(REPOSITORIES, name.clone(), repository.clone());
    let operation = Operation::new(Style::Long, name.clone(), metadata())
        .response("google.devtools.artifactregistry.v1.Repository", &repository)
        .on_failure(Effect::Remove(REPOSITORIES, name.clone()));
    Ok(begin(core, state, call, &name, operation))
}
