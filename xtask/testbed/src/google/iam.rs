//! IAM: service accounts. Their keys and workload identity pools are beside it.

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::keys::{self, Fresh};
use super::operations::merge;
use super::state::State;
use super::usage::page;
use super::workload;

pub(crate) const ACCOUNTS: &str = "iam.serviceAccounts";

/// Answers a call.
pub(crate) async fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let parts = call.parts();
    let wants_key = call.method == http::Method::POST && parts.last() == Some(&"keys");
    let mut fresh =
        if wants_key { tokio::task::spawn_blocking(Fresh::make).await.ok().and_then(Result::ok) } else { None };
    if let Some(fresh) = &mut fresh {
        fresh.base.clone_from(&core.options.keys_base);
    }
    let mut state = core.state();
    match (call.method.as_str(), parts.as_slice(), call.verb.as_str()) {
        (_, ["v1" | "v1beta", "projects", project, "locations", rest @ ..], _) => {
            workload::serve(core, &mut state, call, project, rest)
        }
        ("POST", ["v1", "projects", project, "serviceAccounts"], "") => create(&mut state, call, project),
        ("GET", ["v1", "projects", project, "serviceAccounts"], "") => {
            let project = state.project(project)?.id.clone();
            let (accounts, next) = page(call, state.list(ACCOUNTS, &format!("projects/{project}/")), 100);
            let mut answer = json!({ "accounts": accounts });
            if let Some(next) = next {
                answer["nextPageToken"] = next.into();
            }
            Ok(answer.into())
        }
        (_, ["v1", "projects", _, "serviceAccounts", email, "keys", rest @ ..], _) => {
            let name = find(&state, email)?;
            keys::serve(&mut state, call, &name, rest, fresh)
        }
        ("GET", ["v1", "projects", _, "serviceAccounts", email], "") => {
            let name = find(&state, email)?;
            Ok(state.get(ACCOUNTS, &name).cloned().unwrap_or_default().into())
        }
        ("PATCH", ["v1", "projects", _, "serviceAccounts", email], "") => {
            let name = find(&state, email)?;
            let change = call.json()?["serviceAccount"].clone();
            let account = state.get_mut(ACCOUNTS, &name).expect("it was found");
            for field in ["displayName", "description"] {
                if change[field].is_string() {
                    account[field] = change[field].clone();
                }
            }
            Ok(account.clone().into())
        }
        ("DELETE", ["v1", "projects", _, "serviceAccounts", email], "") => {
            let name = find(&state, email)?;
            let account = state.remove(ACCOUNTS, &name).expect("it was found");
            for key in state.list("iam.keys", &format!("{name}/")) {
                state.remove("iam.keys", key["name"].as_str().unwrap_or_default());
            }
            let (email, id) = (account["email"].as_str(), account["uniqueId"].as_str());
            state.forget_member(email.unwrap_or_default(), id.unwrap_or_default());
            Ok(json!({}).into())
        }
        ("POST", ["v1", "projects", _, "serviceAccounts", email], verb @ ("enable" | "disable")) => {
            let name = find(&state, email)?;
            let change = json!({ "disabled": if verb == "disable" { Value::Bool(true) } else { Value::Null } });
            merge(state.get_mut(ACCOUNTS, &name).expect("it was found"), &change);
            Ok(json!({}).into())
        }
        ("POST" | "GET", ["v1", "projects", _, "serviceAccounts", email], _) => {
            let name = find(&state, email)?;
            state.policy_call(call, &name).unwrap_or_else(|| Err(call.unknown()))
        }
        _ => Err(call.unknown()),
    }
}

/// The name of an account, by e-mail or number.
pub(crate) fn find(state: &State, email: &str) -> Outcome<String> {
    let all = state.resources.get(ACCOUNTS).into_iter().flatten();
    let found = all
        .filter(|(_, account)| account["email"] == email || account["uniqueId"] == email)
        .map(|(name, _)| name.clone())
        .next();
    found.ok_or_else(|| Failure::not_found(format!("Unknown service account: {email}")))
}

fn create(state: &mut State, call: &Call, project: &str) -> Outcome<Reply> {
    let project = state.project(project)?.id.clone();
    let body = call.json()?;
    let id = body["accountId"].as_str().unwrap_or_default();
    let is_name = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-')
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    if !(6..=30).contains(&id.len()) || !is_name(id) {
        return Err(Failure::invalid(
            "Invalid service account ID: it must be 6 to 30 lower-case letters, digits and hyphens, beginning with a \
             letter.",
        ));
    }
    let email = format!("{id}@{project}.iam.gserviceaccount.com");
    let name = format!("projects/{project}/serviceAccounts/{email}");
    if state.get(ACCOUNTS, &name).is_some() {
        let message = format!("Service account {id} already exists within project projects/{project}.");
        return Err(Failure::exists(message));
    }
    let number = state.number();
    let mut account = json!({
        "name": name,
        "projectId": project,
        "uniqueId": number,
        "email": email,
        "oauth2ClientId": number,
        "etag": "MDEwMjE5MjA=",
    });
    for field in ["displayName", "description"] {
        if body["serviceAccount"][field].as_str().is_some_and(|text| !text.is_empty()) {
            account[field] = body["serviceAccount"][field].clone();
        }
    }
    state.put(ACCOUNTS, name, account.clone());
    Ok(account.into())
}
