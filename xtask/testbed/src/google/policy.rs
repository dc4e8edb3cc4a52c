//! IAM policies: etags, versions, conditions.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::failure::{Failure, Outcome};
use super::state::State;

/// The policy of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    pub(crate) bindings: Vec<Value>,
    /// Grows with every change.
    pub(crate) generation: u64,
}

impl Policy {
    fn etag(&self) -> String {
        STANDARD.encode(format!("BwX{:05}", self.generation))
    }

    fn to_json(&self, version: u64) -> Value {
        let mut bindings = self.bindings.clone();
        let conditional = bindings.iter().any(|binding| !binding["condition"].is_null());
        if version < 3 {
            // Who does not know conditions sees roles that no one can grant.
            for (index, binding) in bindings.iter_mut().enumerate() {
                if binding["condition"].is_null() {
                    continue;
                }
                let role = binding["role"].as_str().unwrap_or_default();
                *binding = json!({ "role": format!("{role}_withcond_{index:020x}"), "members": binding["members"] });
            }
        }
        let shown = if conditional && version >= 3 { 3 } else { 1 };
        let mut policy = json!({ "version": shown, "etag": self.etag() });
        if !bindings.is_empty() {
            policy["bindings"] = json!(bindings);
        }
        policy
    }
}

impl State {
    /// The policy of a resource; the version is what the caller understands.
    pub(crate) fn policy(&self, resource: &str, version: u64) -> Value {
        self.policies.get(resource).cloned().unwrap_or_default().to_json(version)
    }

    /// Replaces a policy.
    pub(crate) fn set_policy(&mut self, resource: &str, new: &Value) -> Outcome<Value> {
        let old = self.policies.get(resource).cloned().unwrap_or_default();
        if let Some(etag) = new["etag"].as_str().filter(|etag| !etag.is_empty())
            && etag != old.etag()
        {
            let message = "There were concurrent policy changes. Please retry the whole read-modify-write with \
                exponential backoff.";
            return Err(Failure::exists(message).status("ABORTED").reason("aborted"));
        }
        let version = new["version"].as_u64().unwrap_or(0);
        let mut bindings: BTreeMap<String, Value> = BTreeMap::new();
        for binding in new["bindings"].as_array().into_iter().flatten() {
            let role = binding["role"].as_str().unwrap_or_default();
            if !role.starts_with("roles/") && !role.contains("/roles/") {
                return Err(Failure::invalid(format!("Role {role} is not supported for this resource.")));
            }
            if !binding["condition"].is_null() && version < 3 {
                return Err(Failure::invalid("Conditional policy bindings need version 3."));
            }
            let entry = bindings.entry(format!("{role} {}", binding["condition"]));
            let entry = entry.or_insert_with(|| {
                let mut entry = binding.clone();
                entry["members"] = json!([]);
                entry
            });
            for member in binding["members"].as_array().into_iter().flatten() {
                self.check_member(member.as_str().unwrap_or_default())?;
                let members = entry["members"].as_array_mut().expect("a list was put there");
                if !members.contains(member) {
                    members.push(member.clone());
                }
            }
        }
        bindings.retain(|_, binding| binding["members"].as_array().is_some_and(|members| !members.is_empty()));
        let policy = Policy { bindings: bindings.into_values().collect(), generation: old.generation + 1 };
        let shown = policy.to_json(version);
        self.policies.insert(resource.to_owned(), policy);
        Ok(shown)
    }

    /// Google knows its own service accounts and identity pools, and refuses others.
    fn check_member(&self, member: &str) -> Outcome<()> {
        let Some((kind, name)) = member.split_once(':') else {
            let message = format!("Invalid value for member: {member}.");
            return match member {
                "allUsers" | "allAuthenticatedUsers" => Ok(()),
                _ if member.starts_with("principal") => Ok(()),
                _ => Err(Failure::invalid(message)),
            };
        };
        if kind != "serviceAccount" {
            return Ok(());
        }
        if let Some((pool, _)) = name.split_once("[") {
            let project = pool.strip_suffix(".svc.id.goog").unwrap_or_default();
            if !self.identity_pools.contains(project) {
                return Err(Failure::invalid(format!(
                    "Identity Pool does not exist ({pool}). Please check that you specified a valid resource name \
                     as returned in the `name` attribute in the configuration API."
                )));
            }
            return Ok(());
        }
        let Some((_, domain)) = name.split_once('@') else {
            return Err(Failure::invalid(format!("Invalid service account ({name}).")));
        };
        let project = domain.strip_suffix(".iam.gserviceaccount.com");
        let Some(project) = project.filter(|project| self.projects.contains_key(*project)) else {
            // Google's own agents, and accounts of other projects.
            return Ok(());
        };
        if self.get("iam.serviceAccounts", &format!("projects/{project}/serviceAccounts/{name}")).is_none() {
            return Err(Failure::invalid(format!("Service account {name} does not exist.")));
        }
        Ok(())
    }

    /// A deleted account stays in policies, as deleted.
    pub(crate) fn forget_member(&mut self, email: &str, id: &str) {
        let (member, deleted) = (format!("serviceAccount:{email}"), format!("deleted:serviceAccount:{email}?uid={id}"));
        for policy in self.policies.values_mut() {
            for binding in &mut policy.bindings {
                for found in binding["members"].as_array_mut().into_iter().flatten() {
                    if *found == member {
                        *found = deleted.clone().into();
                        policy.generation += 1;
                    }
                }
            }
        }
    }

    /// Answers `getIamPolicy`, `setIamPolicy` and `testIamPermissions`; `None` for other verbs.
    pub(crate) fn policy_call(&mut self, call: &Call, resource: &str) -> Option<Outcome<Reply>> {
        let answer = match call.verb.as_str() {
            "getIamPolicy" => call.json().map(|body| self.policy(resource, wanted_version(call, &body)).into()),
            "setIamPolicy" => call.json().and_then(|body| self.set_policy(resource, &body["policy"])).map(Reply::from),
            "testIamPermissions" => call.json().map(|body| {
                let asked = body["permissions"].as_array().cloned().unwrap_or_default();
                let held: Vec<Value> = asked
                    .into_iter()
                    .filter(|permission| self.holds(&call.principal, permission.as_str().unwrap_or_default(), resource))
                    .collect();
                json!({ "permissions": held }).into()
            }),
            _ => return None,
        };
        Some(answer)
    }
}

/// The version of policies that a caller understands.
pub(crate) fn wanted_version(call: &Call, body: &Value) -> u64 {
    let named = ["options.requestedPolicyVersion", "optionsRequestedPolicyVersion"];
    let query = named.iter().find_map(|name| call.query(name)).and_then(|text| text.parse().ok());
    query.or_else(|| body["options"]["requestedPolicyVersion"].as_u64()).unwrap_or(1)
}
