//! A plan as terraform shows it in JSON -> [`Plan`]. Pure.
//!
//! <https://developer.hashicorp.com/terraform/internals/json-format>, format version 1.

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Context as _, Error, Kind, Result};
use crate::infra::plan::{Action, Change, Plan};

/// What a change's first detail says of a resource that was made before.
pub const TAKEN_OVER: &str = "it exists already, and is taken over";

/// What the change of a resource says whose making was interrupted.
const INTERRUPTED: &str = "a run was stopped while making it: it is kept, and given the settings of deploy.toml";

/// A plan, and what else is to be known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Planned {
    /// What is to be done.
    pub plan: Plan,
    /// Resources that are to be kept, and that terraform would make anew because their making was
    /// interrupted ("tainted").
    pub unfinished: Vec<String>,
    /// The version of the database user's password that it was made with.
    pub password: Option<u64>,
}

#[derive(Deserialize)]
struct Document {
    format_version: String,
    #[serde(default)]
    resource_changes: Vec<ResourceChange>,
    #[serde(default)]
    variables: Value,
}

#[derive(Deserialize)]
struct ResourceChange {
    address: String,
    mode: String,
    #[serde(default)]
    action_reason: Option<String>,
    change: Delta,
}

#[derive(Deserialize)]
struct Delta {
    actions: Vec<String>,
    #[serde(default)]
    before: Value,
    #[serde(default)]
    after: Value,
    #[serde(default)]
    after_unknown: Value,
    #[serde(default)]
    before_sensitive: Value,
    #[serde(default)]
    after_sensitive: Value,
    #[serde(default)]
    importing: Option<Value>,
}

impl Planned {
    /// Reads what `terraform show -json` prints of a plan.
    ///
    /// # Errors
    /// `Tool` where it is something else.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let document: Document = serde_json::from_slice(text)
            .context(Kind::Tool, || "terraform shows its plan in a form that is not known")?;
        if !document.format_version.starts_with("1.") {
            let message =
                format!("terraform shows its plan in form {}, and this program knows 1", document.format_version);
            return Err(Error::new(Kind::Tool, message).hint("use terraform 1.x"));
        }
        let mut planned = Self::default();
        for resource in document.resource_changes.iter().filter(|resource| resource.mode == "managed") {
            let is_tainted = resource.action_reason.as_deref() == Some("replace_because_tainted");
            if is_tainted && is_kept(&resource.address) {
                planned.unfinished.push(resource.address.clone());
                let details = vec![INTERRUPTED.to_owned()];
                planned.plan.changes.push(Change {
                    action: Action::Update,
                    resource: resource.address.clone(),
                    details,
                });
                continue;
            }
            planned.plan.changes.extend(change(resource));
        }
        let version = document.variables.pointer("/database_password_version/value");
        planned.password = version.and_then(Value::as_u64);
        Ok(planned)
    }
}

/// Whether a resource whose making was interrupted is kept: it holds data, or nothing can have its name for
/// a month after it was deleted.
fn is_kept(address: &str) -> bool {
    let pools = ["google_iam_workload_identity_pool.", "google_iam_workload_identity_pool_provider."];
    keeps_data(address) || pools.iter().any(|kind| address.contains(kind))
}

/// Whether a resource holds data, or is slow to make and as it should be.
pub fn keeps_data(address: &str) -> bool {
    ["google_sql_database_instance.", "google_storage_bucket.", "google_container_cluster."]
        .iter()
        .any(|kind| address.contains(kind))
}

fn change(resource: &ResourceChange) -> Option<Change> {
    let delta = &resource.change;
    let actions: Vec<&str> = delta.actions.iter().map(String::as_str).collect();
    let action = match actions.as_slice() {
        ["create"] => Action::Create,
        ["update"] => Action::Update,
        ["delete"] => Action::Delete,
        ["delete", "create"] | ["create", "delete"] => Action::Replace,
        ["no-op"] if delta.importing.is_some() => Action::Keep,
        _ => return None,
    };
    let mut details = Vec::new();
    if matches!(action, Action::Update | Action::Replace) {
        differences("", delta, [&delta.before, &delta.after], &mut details);
    }
    if delta.importing.is_some() {
        details.insert(0, TAKEN_OVER.to_owned());
    }
    Some(Change { action, resource: resource.address.clone(), details })
}

/// A line for each value that differs. What terraform calls sensitive is named, not shown.
fn differences(path: &str, delta: &Delta, [before, after]: [&Value; 2], lines: &mut Vec<String>) {
    if before == after || (is_nothing(before) && is_nothing(after)) && !is_marked(&delta.after_unknown, path) {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let inside = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let [old, new] = [old, new].map(|map| map.get(key).unwrap_or(&Value::Null));
                differences(&inside, delta, [old, new], lines);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (n, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&format!("{path}.{n}"), delta, [old, new], lines);
            }
        }
        _ if is_marked(&delta.before_sensitive, path) || is_marked(&delta.after_sensitive, path) => {
            lines.push(format!("{path}: another one (sensitive)"));
        }
        (_, Value::Null) if is_marked(&delta.after_unknown, path) => {
            // What Google decides is known afterwards; it is no difference that anybody asked for.
        }
        _ => lines.push(format!("{path}: {before} -> {after}")),
    }
}

/// Providers read an empty list or map as none, and the other way round.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// Whether terraform's tree of marks has one at `path` or above it.
fn is_marked(marks: &Value, path: &str) -> bool {
    let mut at = marks;
    for part in path.split('.') {
        if at == &Value::Bool(true) {
            return true;
        }
        let next = match at {
            Value::Array(items) => part.parse::<usize>().ok().and_then(|n| items.get(n)),
            other => other.get(part),
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    at == &Value::Bool(true)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(changes: &[Value]) -> Vec<u8> {
        let variables = json!({ "database_password_version": { "value": 7 } });
        json!({ "format_version": "1.2", "resource_changes": changes, "variables": variables }).to_string().into_bytes()
    }

    fn resource(actions: &[&str], delta: Value) -> Value {
        let mut change = json!({ "actions": actions });
        for (key, value) in delta.as_object().unwrap() {
            change[key] = value.clone();
        }
        json!({ "address": "module.a.b.c", "mode": "managed", "change": change })
    }

    fn check(actions: &[&str], delta: Value, expected: &[&str]) {
        let planned = Planned::parse(&shown(&[resource(actions, delta)])).unwrap();
        let lines = planned.plan.changes.iter().flat_map(|change| {
            std::iter::once(change.to_string()).chain(change.details.iter().cloned()).collect::<Vec<_>>()
        });
        assert_eq!(lines.collect::<Vec<_>>(), expected, "{actions:?}");
        assert_eq!(planned.password, Some(7));
    }

    #[test]
    fn a_plan_names_what_differs() {
        check(&["no-op"], json!({}), &[]);
        check(&["read"], json!({}), &[]);
        check(&["create"], json!({ "after": { "name": "x" } }), &["+ module.a.b.c"]);
        check(&["delete"], json!({ "before": { "name": "x" } }), &["- module.a.b.c"]);
        check(
            &["update"],
            json!({
                "before": { "settings": [{ "tier": "a", "disk": 10 }], "same": 1 },
                "after": { "settings": [{ "tier": "b", "disk": 10 }], "same": 1 },
            }),
            &["~ module.a.b.c", "settings.0.tier: \"a\" -> \"b\""],
        );
        check(
            &["delete", "create"],
            json!({ "before": { "name": "x", "id": "1" }, "after": { "name": "y" }, "after_unknown": { "id": true } }),
            &["± module.a.b.c", "name: \"x\" -> \"y\""],
        );
    }

    #[test]
    fn what_is_sensitive_is_not_shown() {
        let delta = json!({
            "before": { "key": "old", "list": ["old"] }, "after": { "key": "new", "list": ["new"] },
            "before_sensitive": { "list": true }, "after_sensitive": { "key": true },
        });
        check(
            &["update"],
            delta,
            &["~ module.a.b.c", "key: another one (sensitive)", "list.0: another one (sensitive)"],
        );
    }

    #[test]
    fn what_is_taken_over_says_so() {
        check(
            &["no-op"],
            json!({ "importing": { "id": "x" } }),
            &["= module.a.b.c", "it exists already, and is taken over"],
        );
        check(
            &["update"],
            json!({ "before": { "a": 1 }, "after": { "a": 2 }, "importing": { "id": "x" } }),
            &["~ module.a.b.c", "it exists already, and is taken over", "a: 1 -> 2"],
        );
    }

    #[test]
    fn nothing_is_nothing_however_it_is_written() {
        let import = json!({ "before": { "labels": null }, "after": { "labels": {} }, "importing": { "id": "x" } });
        check(&["update"], import, &["~ module.a.b.c", "it exists already, and is taken over"]);
    }

    #[test]
    fn an_unfinished_resource_that_holds_data_is_kept() {
        let check = |address: &str, action: Action, unfinished: &[&str]| {
            let mut tainted = resource(&["delete", "create"], json!({ "before": {}, "after": {} }));
            tainted["action_reason"] = json!("replace_because_tainted");
            tainted["address"] = json!(address);
            let planned = Planned::parse(&shown(&[tainted])).unwrap();
            assert_eq!((planned.plan.changes[0].action, planned.plan.changes.len()), (action, 1), "{address}");
            assert_eq!(planned.unfinished, unfinished);
        };
        check("module.a.b.c", Action::Replace, &[]);
        let instance = "module.database.google_sql_database_instance.this";
        check(instance, Action::Update, &[instance]);
        let pool = "module.github[0].google_iam_workload_identity_pool.this";
        check(pool, Action::Update, &[pool]);
    }

    #[test]
    fn another_form_is_refused() {
        for text in ["", "{}", r#"{"format_version":"2.0"}"#] {
            assert_eq!(Planned::parse(text.as_bytes()).unwrap_err().kind(), Kind::Tool, "{text}");
        }
    }
}
