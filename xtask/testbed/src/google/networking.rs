//! Service Networking: the peering through which Cloud SQL has private addresses.

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::{Core, poll};
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style};
use super::state::State;

/// By network.
pub(crate) const CONNECTIONS: &str = "servicenetworking.connections";
const API: &str = "servicenetworking.googleapis.com";

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    let parts = call.parts();
    match (call.method.as_str(), parts.as_slice(), call.verb.as_str()) {
        ("GET", [_, "operations", name], "") => poll(&mut state, &format!("operations/{name}")),
        ("GET", [_, "services", _, "connections"], "") => {
            let network = network(&state, call.query("network").unwrap_or_default())?;
            let all: Vec<Value> = state.get(CONNECTIONS, &network).cloned().into_iter().collect();
            Ok(json!({ "connections": all }).into())
        }
        ("POST", [_, "services", _, "connections"], "") | ("PATCH", [_, "services", _, "connections", _], "") => {
            connect(core, &mut state, call)
        }
        ("DELETE" | "POST", [_, "services", _, "connections", _], "") => {
            let body = call.json()?;
            let named = body["consumerNetwork"].as_str().or(call.query("network")).unwrap_or_default();
            let network = network(&state, named)?;
            let Some(found) = state.get(CONNECTIONS, &network) else {
                return Err(Failure::not_found("Connection not found."));
            };
            let project = network.split('/').nth(1).unwrap_or_default().to_owned();
            let peering = found["peering"].clone();
            let users = state.list(super::sql::INSTANCES, &format!("projects/{project}/"));
            let uses = |user: &Value| {
                let link = user["settings"]["ipConfiguration"]["privateNetwork"].as_str();
                link.is_some_and(|link| link.ends_with(network.split_once("/global").map_or("", |(_, rest)| rest)))
            };
            if users.iter().any(uses) {
                let message = "Failed to delete connection; Producer services (e.g. CloudSQL, Cloud Memstore, etc.) \
                    are still using this connection.";
                return Err(Failure::precondition(message).detail(json!({
                    "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
                    "violations": [{ "type": "?error_code=1000", "subject": peering, "description": message }] })));
            }
            let operation = Operation::new(Style::Long, network.clone(), json!({}))
                .effect(Effect::Remove(CONNECTIONS, network.clone()))
                .response("google.protobuf.Empty", &json!({}));
            Ok(begin(core, &mut state, call, &network, operation))
        }
        _ => Err(call.unknown()),
    }
}

/// `projects/P/global/networks/N`, with the project's id, of a network that there is.
fn network(state: &State, text: &str) -> Outcome<String> {
    let path = text.split("projects/").last().unwrap_or_default();
    let (project, rest) = path.split_once('/').ok_or_else(|| Failure::invalid("The network is missing."))?;
    let project = state.project(project)?;
    let name = format!("projects/{}/{rest}", project.id);
    if !state.enabled.get(&project.id).is_some_and(|enabled| enabled.contains(API)) {
        let number = project.number;
        let message = format!("Service Networking API has not been used in project {number} before or it is disabled.");
        let metadata = json!({ "service": API, "consumer": format!("projects/{number}") });
        return Err(Failure::new(403, message).info("SERVICE_DISABLED", "googleapis.com", metadata));
    }
    Ok(name)
}

fn begin(core: &Core, state: &mut State, call: &Call, network: &str, operation: Operation) -> Reply {
    let project = network.split('/').nth(1).unwrap_or_default();
    let number = state.projects.get(project).map(|project| project.number).unwrap_or_default();
    let name = format!("operations/pssn.p24-{number}-{:08}", state.next());
    core.long(state, call, &name, operation).into()
}

fn connect(core: &Core, state: &mut State, call: &Call) -> Outcome<Reply> {
    let body = call.json()?;
    let network = network(state, body["network"].as_str().unwrap_or_default())?;
    let project = network.split('/').nth(1).unwrap_or_default().to_owned();
    if state.get("compute.networks", &network).is_none() {
        return Err(Failure::invalid(format!("Network '{network}' was not found.")));
    }
    let ranges = body["reservedPeeringRanges"].as_array().cloned().unwrap_or_default();
    for range in &ranges {
        let name = format!("projects/{project}/global/addresses/{}", range.as_str().unwrap_or_default());
        if state.get("compute.addresses", &name).is_none() {
            let message = format!("An IP range in the peer network is not known: {range}.");
            return Err(Failure::invalid(message));
        }
    }
    let exists = state.get(CONNECTIONS, &network).is_some();
    if exists && call.method == http::Method::POST {
        let message = "Cannot modify allocated ranges in CreateConnection. Please use UpdateConnection.";
        return Err(Failure::precondition(message));
    }
    let number = state.project(&project)?.number;
    let connection = json!({
        "network": network.replacen(&project, &number.to_string(), 1),
        "peering": "servicenetworking-googleapis-com",
        "reservedPeeringRanges": ranges,
        "service": format!("services/{API}"),
    });
    state.put(CONNECTIONS, network.clone(), connection.clone());
    let undo = if exists { Effect::None } else { Effect::Remove(CONNECTIONS, network.clone()) };
    let operation = Operation::new(Style::Long, network.clone(), json!({}))
        .response("google.cloud.servicenetworking.v1.Connection", &connection)
        .on_failure(undo);
    Ok(begin(core, state, call, &network, operation))
}
