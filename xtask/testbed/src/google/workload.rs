//! Workload identity pools and their providers. A deleted one is kept for a month and blocks its name.

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::{Core, poll};
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style, merge};
use super::state::State;

pub(crate) const POOLS: &str = "iam.workloadIdentityPools";
pub(crate) const PROVIDERS: &str = "iam.workloadIdentityPoolProviders";

/// Answers a call below `projects/P/locations`.
pub(crate) fn serve(core: &Core, state: &mut State, call: &Call, project: &str, rest: &[&str]) -> Outcome<Reply> {
    let project = state.project(project)?.id.clone();
    if let [.., "operations", name] = rest {
        let parent = format!("projects/{project}/locations/{}", rest[..rest.len() - 2].join("/"));
        return poll(state, &format!("{parent}/operations/{name}"));
    }
    let [location, rest @ ..] = rest else { return Err(call.unknown()) };
    let parent = format!("projects/{project}/locations/{location}");
    match (call.method.as_str(), rest) {
        (method, ["workloadIdentityPools"]) => collection(core, state, call, method, POOLS, &parent),
        (method, ["workloadIdentityPools", pool, "providers"]) => {
            let parent = format!("{parent}/workloadIdentityPools/{pool}");
            live(state, POOLS, &parent)?;
            collection(core, state, call, method, PROVIDERS, &parent)
        }
        (method, ["workloadIdentityPools", pool]) => {
            item(core, state, call, method, POOLS, &format!("{parent}/workloadIdentityPools/{pool}"))
        }
        (method, ["workloadIdentityPools", pool, "providers", provider]) => {
            let name = format!("{parent}/workloadIdentityPools/{pool}/providers/{provider}");
            item(core, state, call, method, PROVIDERS, &name)
        }
        _ => Err(call.unknown()),
    }
}

/// With the project's number, as Google answers.
fn shown(state: &State, value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(name) = value["name"].as_str() {
        let mut parts: Vec<String> = name.split('/').map(str::to_owned).collect();
        if let Some(number) = parts.get(1).and_then(|id| state.project(id).ok()).map(|project| project.number) {
            parts[1] = number.to_string();
        }
        value["name"] = parts.join("/").into();
    }
    value
}

fn live<'a>(state: &'a State, kind: &str, name: &str) -> Outcome<&'a Value> {
    state
        .get(kind, name)
        .filter(|found| found["state"] == "ACTIVE")
        .ok_or_else(|| Failure::not_found("Requested entity was not found."))
}

fn collection(
    core: &Core,
    state: &mut State,
    call: &Call,
    method: &str,
    kind: &'static str,
    parent: &str,
) -> Outcome<Reply> {
    let (word, id) = if kind == POOLS {
        ("workloadIdentityPools", "workloadIdentityPoolId")
    } else {
        ("providers", "workloadIdentityPoolProviderId")
    };
    if method == "GET" {
        let deleted = call.query("showDeleted").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let all: Vec<Value> = state
            .list(kind, &format!("{parent}/{word}/"))
            .iter()
            .filter(|found| deleted || found["state"] == "ACTIVE")
            .map(|found| shown(state, found))
            .collect();
        let field = if kind == POOLS { word } else { "workloadIdentityPoolProviders" };
        return Ok(json!({ field: all }).into());
    }
    let id = call.query(id).unwrap_or_default();
    if !(4..=32).contains(&id.len()) {
        return Err(Failure::invalid(format!("The id {id:?} must have 4 to 32 characters.")));
    }
    let name = format!("{parent}/{word}/{id}");
    if state.get(kind, &name).is_some() {
        return Err(Failure::exists("Requested entity already exists"));
    }
    let mut value = call.json()?;
    if kind == PROVIDERS && value["attributeCondition"].is_null() {
        let issuer = value["oidc"]["issuerUri"].as_str().unwrap_or_default();
        if issuer == "https://token.actions.githubusercontent.com" {
            let message = "The attribute condition must reference one of the provider's claims.";
            return Err(Failure::invalid(message));
        }
    }
    value["name"] = name.clone().into();
    value["state"] = "ACTIVE".into();
    state.put(kind, name.clone(), value);
    operation(core, state, call, kind, &name)
}

fn item(core: &Core, state: &mut State, call: &Call, method: &str, kind: &'static str, name: &str) -> Outcome<Reply> {
    let Some(found) = state.get(kind, name).cloned() else {
        return Err(Failure::not_found("Requested entity was not found."));
    };
    match (method, call.verb.as_str()) {
        ("GET", "") => Ok(shown(state, &found).into()),
        ("PATCH", "") => {
            live(state, kind, name)?;
            let mut change = call.json()?;
            for field in ["name", "state"] {
                change.as_object_mut().map(|fields| fields.remove(field));
            }
            merge(state.get_mut(kind, name).expect("it was found"), &change);
            operation(core, state, call, kind, name)
        }
        ("DELETE", "") => {
            live(state, kind, name)?;
            let change = json!({ "state": "DELETED", "expireTime": "2099-01-01T00:00:00Z" });
            merge(state.get_mut(kind, name).expect("it was found"), &change);
            operation(core, state, call, kind, name)
        }
        ("POST", "undelete") => {
            if found["state"] == "ACTIVE" {
                return Err(Failure::precondition("The resource is not deleted."));
            }
            merge(state.get_mut(kind, name).expect("it was found"), &json!({ "state": "ACTIVE", "expireTime": null }));
            operation(core, state, call, kind, name)
        }
        _ => Err(call.unknown()),
    }
}

fn operation(core: &Core, state: &mut State, call: &Call, kind: &'static str, name: &str) -> Outcome<Reply> {
    let value = state.get(kind, name).map(|found| shown(state, found)).unwrap_or_default();
    let what = if kind == POOLS { "WorkloadIdentityPool" } else { "WorkloadIdentityPoolProvider" };
    let undo = if call.method == http::Method::POST && call.verb.is_empty() {
        Effect::Remove(kind, name.to_owned())
    } else {
        Effect::None
    };
    let operation = Operation::new(Style::Long, name, json!({}))
        .response(&format!("google.iam.v1.{what}"), &value)
        .on_failure(undo);
    let operation_name = format!("{name}/operations/{}", state.number());
    Ok(core.long(state, call, &operation_name, operation).into())
}
