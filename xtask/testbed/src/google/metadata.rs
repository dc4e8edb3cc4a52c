//! The metadata server of a machine or a pod.

use std::time::Duration;

use serde_json::json;

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::options::Metadata;

const SCOPES: &str = "https://www.googleapis.com/auth/cloud-platform\n";

/// Answers below `/computeMetadata/v1/`, and the question whether this is one.
pub(crate) fn serve(core: &Core, call: &Call, place: Option<&Metadata>) -> Outcome<Reply> {
    let mut reply = match asked(call) {
        Some([]) => Reply::bytes("text/plain", "computeMetadata/\n"),
        Some(path) => {
            if call.header("metadata-flavor") != Some("Google") {
                return Err(Failure::new(403, "Missing Metadata-Flavor:Google header."));
            }
            value(core, call, &path.iter().map(String::as_str).collect::<Vec<_>>(), place)?
        }
        None => return Err(call.unknown()),
    };
    reply.headers.push(("Metadata-Flavor", "Google".to_owned()));
    reply.headers.push(("Server", "Metadata Server for VM".to_owned()));
    Ok(reply)
}

/// The path below the version.
fn asked(call: &Call) -> Option<&[String]> {
    let segments = call.segments.as_slice();
    let segments = segments.strip_suffix(&[String::new()]).unwrap_or(segments);
    match segments {
        [] => Some(&[]),
        [root, version, rest @ ..] if root == "computeMetadata" && version == "v1" => Some(rest),
        _ => None,
    }
}

fn value(core: &Core, call: &Call, path: &[&str], place: Option<&Metadata>) -> Outcome<Reply> {
    let mut state = core.state();
    let account = place.map(|place| place.account.clone()).or_else(|| core.options.metadata_account.clone());
    let project = core.options.projects.first().cloned().unwrap_or_default();
    let text = |text: String| Ok(Reply::bytes("application/text", text));
    let named = match path {
        ["project", "project-id"] => return text(project.id),
        ["project", "numeric-project-id"] => return text(project.number.to_string()),
        ["universe", "universe-domain" | "universe_domain"] => return text("googleapis.com".to_owned()),
        ["instance", "zone"] => return text(format!("projects/{}/zones/us-central1-a", project.number)),
        ["instance", "service-accounts"] => {
            return text(account.map(|email| format!("default/\n{email}/\n")).unwrap_or_default());
        }
        ["instance", "service-accounts", named, ..] => *named,
        _ => return Err(Failure::not_found("Not found")),
    };
    let Some(account) = account.filter(|account| named == "default" || named == account) else {
        return Err(Failure::not_found("The service account was not found."));
    };
    let recursive = call.query("recursive").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    match &path[3..] {
        [] if recursive => {
            Ok(json!({ "aliases": ["default"], "email": account, "scopes": [SCOPES.trim_end()] }).into())
        }
        [] => text("aliases\nemail\nidentity\nscopes\ntoken\n".to_owned()),
        ["aliases"] => text("default\n".to_owned()),
        ["email"] => text(account),
        ["scopes"] => text(SCOPES.to_owned()),
        ["token"] => {
            let name = super::iam::find(&state, &account)?;
            if let Some(workload) = place.and_then(|place| place.workload.as_deref()) {
                let member = workload_member(&project.id, workload);
                if !state.is_bound(&name, "roles/iam.workloadIdentityUser", &member) {
                    let message = "Unable to generate access token; IAM returned 403 Forbidden: Permission \
                        'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).";
                    return Err(Failure::new(403, message));
                }
            }
            let token = state.token(&account, Duration::from_secs(3600));
            Ok(json!({ "access_token": token, "expires_in": 3599, "token_type": "Bearer" }).into())
        }
        _ => Err(Failure::not_found("Not found")),
    }
}

/// A service account of Kubernetes, as policies name it.
fn workload_member(project: &str, workload: &str) -> String {
    format!("serviceAccount:{project}.svc.id.goog[{workload}]")
}

impl super::state::State {
    fn is_bound(&self, resource: &str, role: &str, member: &str) -> bool {
        self.policies.get(resource).is_some_and(|policy| {
            policy.bindings.iter().any(|binding| {
                binding["role"] == role
                    && binding["members"].as_array().is_some_and(|members| members.iter().any(|found| *found == member))
            })
        })
    }
}
