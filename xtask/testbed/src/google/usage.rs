//! Service Usage: which APIs are enabled.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::{Core, poll};
use super::failure::{Failure, Outcome};
use super::operations::{Effect, Operation, Style};
use super::options::Project;
use super::state::State;

/// APIs that cost money and want a billing account.
const PAID: &[&str] = &[
    "artifactregistry.googleapis.com",
    "cloudbuild.googleapis.com",
    "compute.googleapis.com",
    "container.googleapis.com",
    "servicenetworking.googleapis.com",
    "sqladmin.googleapis.com",
];

/// APIs that come with another one.
const WITH: &[(&str, &[&str])] = &[
    ("artifactregistry.googleapis.com", &["storage.googleapis.com"]),
    ("compute.googleapis.com", &["oslogin.googleapis.com"]),
    (
        "container.googleapis.com",
        &["artifactregistry.googleapis.com", "compute.googleapis.com", "iam.googleapis.com", "storage.googleapis.com"],
    ),
    ("iam.googleapis.com", &["iamcredentials.googleapis.com"]),
];

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    match (call.method.as_str(), call.parts().as_slice(), call.verb.as_str()) {
        ("GET", ["v1" | "v1beta1", "operations", name], "") => poll(&mut state, &format!("operations/{name}")),
        ("GET", ["v1" | "v1beta1", "projects", project, "services"], "") => list(&state, call, project),
        ("GET", [_, "projects", project, "services"], "batchGet") => {
            let project = state.project(project)?.clone();
            let names = call.query.iter().filter(|(name, _)| name == "names");
            let names = names.filter_map(|(_, name)| name.rsplit('/').next());
            let services: Vec<Value> = names.map(|name| service(&state, &project, name)).collect();
            Ok(json!({ "services": services }).into())
        }
        ("GET", [_, "projects", project, "services", name], "") => {
            let project = state.project(project)?.clone();
            Ok(service(&state, &project, name).into())
        }
        ("POST", [_, "projects", project, "services", name], "enable") => {
            let names = vec![(*name).to_owned()];
            enable(core, &mut state, call, project, &names, false)
        }
        ("POST", [_, "projects", project, "services"], "batchEnable") => {
            let body = call.json()?;
            let names = body["serviceIds"].as_array().into_iter().flatten();
            let names: Vec<String> = names.filter_map(Value::as_str).map(str::to_owned).collect();
            enable(core, &mut state, call, project, &names, true)
        }
        ("POST", [_, "projects", project, "services", name], "disable") => {
            let project = state.project(project)?.clone();
            state.enabled.entry(project.id.clone()).or_default().remove(*name);
            let service = service(&state, &project, name);
            let operation = Operation::new(Style::Long, "", json!({}))
                .response("google.api.serviceusage.v1.DisableServiceResponse", &json!({ "service": service }));
            let name = format!("operations/acat.p2-{}-{}", project.number, state.next());
            Ok(core.long(&mut state, call, &name, operation).into())
        }
        _ => Err(call.unknown()),
    }
}

fn service(state: &State, project: &Project, name: &str) -> Value {
    let enabled = state.enabled.get(&project.id).is_some_and(|enabled| enabled.contains(name));
    json!({
        "name": format!("projects/{}/services/{name}", project.number),
        "config": { "name": name, "title": title(name) },
        "state": if enabled { "ENABLED" } else { "DISABLED" },
        "parent": format!("projects/{}", project.number),
    })
}

fn title(name: &str) -> String {
    format!("{} API", name.trim_end_matches(".googleapis.com"))
}

fn list(state: &State, call: &Call, project: &str) -> Outcome<Reply> {
    let project = state.project(project)?;
    let enabled = state.enabled.get(&project.id).cloned().unwrap_or_default();
    let known: BTreeSet<&str> = PAID.iter().copied().chain(enabled.iter().map(String::as_str)).collect();
    let wanted = call.query("filter").unwrap_or_default();
    let shown = known.into_iter().filter(|name| match wanted {
        "state:ENABLED" => enabled.contains(*name),
        "state:DISABLED" => !enabled.contains(*name),
        _ => true,
    });
    let all: Vec<Value> = shown.map(|name| service(state, project, name)).collect();
    let (services, next) = page(call, all, 50);
    let mut answer = json!({ "services": services });
    if let Some(next) = next {
        answer["nextPageToken"] = next.into();
    }
    Ok(answer.into())
}

/// A page of a list, and the token of the next one.
pub(crate) fn page(call: &Call, all: Vec<Value>, most: usize) -> (Vec<Value>, Option<String>) {
    let size = ["pageSize", "maxResults"].iter().find_map(|name| call.query(name)).and_then(|text| text.parse().ok());
    let size = size.filter(|size| *size > 0).unwrap_or(most);
    let begin: usize = call.query("pageToken").and_then(|text| text.parse().ok()).unwrap_or(0);
    let end = begin.saturating_add(size).min(all.len());
    let next = (end < all.len()).then(|| end.to_string());
    (all.get(begin..end).unwrap_or_default().to_vec(), next)
}

fn enable(core: &Core, state: &mut State, call: &Call, project: &str, names: &[String], batch: bool) -> Outcome<Reply> {
    let project = state.project(project)?.clone();
    if let Some(unknown) = names.iter().find(|name| !name.ends_with(".googleapis.com")) {
        let message = format!("Not found or permission denied for service(s): {unknown}.");
        return Err(Failure::new(403, message).info(
            "SERVICE_CONFIG_NOT_FOUND_OR_PERMISSION_DENIED",
            "serviceusage.googleapis.com",
            json!({ "services": unknown }),
        ));
    }
    let paid: Vec<&str> = names.iter().map(String::as_str).filter(|name| PAID.contains(name)).collect();
    if !project.billing && !paid.is_empty() {
        return Err(unpaid(&project, &paid.join(",")));
    }
    let enabled = state.enabled.entry(project.id.clone()).or_default();
    let before = enabled.clone();
    let mut all: Vec<String> = names.to_vec();
    while let Some(name) = all.pop() {
        if enabled.insert(name.clone()) {
            let with = WITH.iter().find(|(first, _)| *first == name).map_or(&[][..], |(_, with)| with);
            all.extend(with.iter().map(|name| (*name).to_owned()));
        }
    }
    let changed = *enabled != before;
    let services: Vec<Value> = names.iter().map(|name| service(state, &project, name)).collect();
    if call.operation.as_ref().is_some_and(|fault| matches!(fault, super::faults::OperationFault::Fails { .. })) {
        state.enabled.insert(project.id.clone(), before);
    }
    let (kind, response) = if batch {
        ("google.api.serviceusage.v1.BatchEnableServicesResponse", json!({ "services": services }))
    } else {
        ("google.api.serviceusage.v1.EnableServiceResponse", json!({ "service": services[0] }))
    };
    let operation = Operation::new(Style::Long, "", json!({})).effect(Effect::None).response(kind, &response);
    if !changed && call.operation.is_none() {
        // Nothing to do is done at once, and has no name to ask for.
        let mut answer = json!({ "name": "operations/noop.DONE_OPERATION", "done": true });
        answer["response"] = operation.response;
        return Ok(answer.into());
    }
    let name = format!("operations/acf.p2-{}-{:08}", project.number, state.next());
    Ok(core.long(state, call, &name, operation).into())
}

/// Nobody pays for the project.
pub(crate) fn unpaid(project: &Project, services: &str) -> Failure {
    let number = project.number;
    let message = format!(
        "Billing account for project '{number}' is not found. Billing must be enabled for activation of service(s) \
         '{services}' to proceed."
    );
    Failure::precondition(message)
        .detail(json!({
            "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
            "violations": [{
                "type": "googleapis.com/billing-enabled",
                "subject": number.to_string(),
                "description": "billing-enabled",
            }],
        }))
        .info(
            "UREQ_PROJECT_BILLING_NOT_FOUND",
            "serviceusage.googleapis.com/billing-enabled",
            json!({ "services": services, "project": number.to_string() }),
        )
}
