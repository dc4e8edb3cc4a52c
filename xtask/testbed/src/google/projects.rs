//! Resource Manager and Organization Policy: projects, their IAM policies, what is forbidden in them.

use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::options::Project;

/// Answers a call.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    let parts = call.parts();
    let find = |state: &super::state::State, name: &str| {
        let found = state.project(name).cloned();
        found.map_err(|_| Failure::new(403, "The caller does not have permission"))
    };
    match (call.service.as_str(), call.method.as_str(), parts.as_slice(), call.verb.as_str()) {
        ("cloudresourcemanager", "GET", ["v1" | "v1beta1", "projects", name], "") => {
            Ok(first(&find(&state, name)?).into())
        }
        ("cloudresourcemanager", "GET", ["v3", "projects", name], "") => Ok(third(&find(&state, name)?).into()),
        ("cloudresourcemanager", "GET", ["v1" | "v1beta1", "projects"], "") => {
            let all: Vec<Value> = state.projects.values().map(first).collect();
            Ok(json!({ "projects": all }).into())
        }
        ("cloudresourcemanager", "POST", ["v1", "projects", name], "getEffectiveOrgPolicy") => {
            let project = find(&state, name)?;
            let constraint = call.json()?["constraint"].as_str().unwrap_or_default().to_owned();
            Ok(json!({
                "constraint": constraint,
                "booleanPolicy": { "enforced": enforces(&project, &constraint) },
            })
            .into())
        }
        ("cloudresourcemanager", "POST", ["v1" | "v3", "projects", name], _) => {
            let project = find(&state, name)?;
            let resource = format!("projects/{}", project.id);
            state.policy_call(call, &resource).unwrap_or_else(|| Err(call.unknown()))
        }
        ("orgpolicy", "GET", ["v2", "projects", name, "policies", constraint], verb) => {
            let project = find(&state, name)?;
            let enforced = enforces(&project, constraint);
            if verb.is_empty() && !enforced {
                return Err(Failure::not_found(format!("Policy {constraint} not found.")));
            }
            Ok(json!({
                "name": format!("projects/{}/policies/{constraint}", project.number),
                "spec": { "rules": [{ "enforce": enforced }] },
            })
            .into())
        }
        _ => Err(call.unknown()),
    }
}

/// Whether the organisation enforces a constraint.
pub(crate) fn enforces(project: &Project, constraint: &str) -> bool {
    let constraint = constraint.trim_start_matches("constraints/");
    project.constraints.iter().any(|found| found.trim_start_matches("constraints/") == constraint)
}

fn first(project: &Project) -> Value {
    json!({
        "projectNumber": project.number.to_string(),
        "projectId": project.id,
        "lifecycleState": "ACTIVE",
        "name": project.id,
        "createTime": "2024-01-01T00:00:00Z",
    })
}

fn third(project: &Project) -> Value {
    json!({
        "name": format!("projects/{}", project.number),
        "projectId": project.id,
        "state": "ACTIVE",
        "displayName": project.id,
        "createTime": "2024-01-01T00:00:00Z",
        "updateTime": "2024-01-01T00:00:00Z",
        "etag": "W/\"1\"",
    })
}
