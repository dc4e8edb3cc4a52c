//! What tests ask of the fake itself: `/_testbed/...`.

use serde_json::{Value, json};

use super::call::{Call, Principal, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::faults::Rule;
use super::handle::OWNER_TOKEN;
use super::options::Project;
use super::state::State;

/// Answers a call of the control API.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    let done = || Reply::from(json!({}));
    Ok(match (call.method.as_str(), call.parts().as_slice()) {
        ("GET", ["authority"]) => json!({ "pem": core.authority.pem() }).into(),
        ("GET", ["log"]) => json!(state.log).into(),
        ("DELETE", ["log"]) => {
            state.log.clear();
            done()
        }
        ("GET", ["state"]) => {
            state.settle();
            state.to_json().into()
        }
        ("POST", ["faults"]) => {
            let rules: Vec<Rule> = match call.json()? {
                Value::Array(rules) => rules.into_iter().map(parse).collect::<Outcome<_>>()?,
                rule => vec![parse(rule)?],
            };
            state.rules.extend(rules);
            done()
        }
        ("DELETE", ["faults"]) => {
            state.rules.clear();
            done()
        }
        ("PUT", ["projects"]) => {
            let project: Project = parse(call.json()?)?;
            state.enabled.entry(project.id.clone()).or_default().extend(project.enabled.iter().cloned());
            state.projects.insert(project.id.clone(), project);
            done()
        }
        ("POST", ["tokens", account]) => {
            let token = state.token(account, std::time::Duration::from_secs(3600));
            json!({ "token": token }).into()
        }
        ("POST", ["tokenreview"]) => review(core, &state, call)?.into(),
        _ => return Err(call.unknown()),
    })
}

/// Whose a token is, for a Kubernetes API server (authentication.k8s.io/v1, `TokenReview`). A text that
/// was never handed out is nobody's here, but for the owner's: it may be another authority's.
fn review(core: &Core, state: &State, call: &Call) -> Outcome<Value> {
    let review = call.json()?;
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let known = token == OWNER_TOKEN || state.tokens.contains_key(token);
    let principal = state.principal(token, &core.options.owner).filter(|_| known);
    let status = match principal {
        None => json!({ "authenticated": false }),
        Some(principal) => {
            // GKE asks IAM beside RBAC: whoever may deploy there may do here what the owner may.
            let may = matches!(principal, Principal::Owner(_))
                || state.projects.keys().any(|project| {
                    state.holds(&principal, "container.deployments.update", &format!("projects/{project}"))
                });
            let groups: &[&str] = if may { &["system:masters"] } else { &[] };
            json!({ "authenticated": true, "user": { "username": principal.email(), "groups": groups } })
        }
    };
    Ok(json!({ "apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status }))
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> Outcome<T> {
    serde_json::from_value(value).map_err(|error| Failure::invalid(error.to_string()))
}
