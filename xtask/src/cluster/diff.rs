//! What an apply would change, as data and as a short diff. A Secret's content is never part of it.

use std::io;

use serde::Serialize;
use serde_json::{Map, Value};
use similar::{ChangeTag, DiffTag, TextDiff};

use super::object::{Object, ObjectKind};
use super::{MANAGER, PREFIX};

/// Unchanged lines that are shown around a changed one.
const CONTEXT: usize = 2;

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It does not exist.
    Create,
    /// It differs.
    Update,
    /// It is as it should be.
    Unchanged,
    /// It is ours and no longer wanted.
    Delete,
}

/// What happens to one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its kind.
    pub kind: ObjectKind,
    /// `metadata.name`.
    pub name: String,
    /// What happens.
    pub action: Action,
    /// What an update changes; empty for the other actions.
    pub lines: Vec<DiffLine>,
    /// Whether the API server could not be asked, because the namespace is still to be made.
    pub unverified: bool,
}

/// A line of a diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffLine {
    /// Which side it is on.
    pub sign: Sign,
    /// The line of YAML, or the path of what follows.
    pub text: String,
}

/// Which side a line of a diff is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// Where in the object the following lines are: `spec.template.spec`.
    Place,
    /// On both sides.
    Context,
    /// In the cluster only.
    Removed,
    /// In what is applied only.
    Added,
    /// A remark, no line of the object.
    Note,
}

impl Change {
    /// A change without lines.
    pub fn new(kind: ObjectKind, name: impl Into<String>, action: Action) -> Self {
        Self { kind, name: name.into(), action, lines: Vec::new(), unverified: false }
    }

    /// Whether anything is written.
    pub fn is_change(&self) -> bool {
        self.action != Action::Unchanged
    }

    /// Writes it for a person: nothing for an object that stays as it is.
    pub fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let (kind, name) = (self.kind, &self.name);
        match self.action {
            Action::Unchanged => return Ok(()),
            Action::Create if self.unverified => writeln!(out, "+ {kind}/{name} (not yet checked by the API server)")?,
            Action::Create => writeln!(out, "+ {kind}/{name}")?,
            Action::Update => writeln!(out, "~ {kind}/{name}")?,
            Action::Delete => writeln!(out, "- {kind}/{name}")?,
        }
        for DiffLine { sign, text } in &self.lines {
            match sign {
                Sign::Place => writeln!(out, "    @ {text}")?,
                Sign::Context => writeln!(out, "      {text}")?,
                Sign::Removed => writeln!(out, "    - {text}")?,
                Sign::Added => writeln!(out, "    + {text}")?,
                Sign::Note => writeln!(out, "    ({text})")?,
            }
        }
        Ok(())
    }
}

/// Compares the object in the cluster with what the API server says that it would become.
pub fn compare(object: &Object, live: Option<&Value>, merged: &Value) -> Change {
    let Some(live) = live else { return Change::new(object.kind, object.name(), Action::Create) };
    let (before, after) = (shown(live), shown(merged));
    let mut change = Change::new(object.kind, object.name(), Action::Unchanged);
    if before != after {
        change.action = Action::Update;
        let (before, after) = match object.kind {
            ObjectKind::Secret => mask(before, after),
            _ => (before, after),
        };
        change.lines = lines(&yaml(&before), &yaml(&after));
    } else if ownership(live) != ownership(merged) {
        change.action = Action::Update;
        let note = format!("same content, other fields managed by {MANAGER}");
        change.lines = vec![DiffLine { sign: Sign::Note, text: note }];
    }
    change
}

/// What of an object is compared: not what the server keeps about it, nor our own bookkeeping.
fn shown(value: &Value) -> Value {
    let mut value = value.clone();
    let Some(object) = value.as_object_mut() else { return value };
    object.remove("status");
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return value };
    for kept_by_server in
        ["managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink", "ownerReferences"]
    {
        metadata.remove(kept_by_server);
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        // `kubectl apply` repeats the whole object in it, also a Secret.
        annotations.retain(|key, _| !is_bookkeeping(key) && key != "kubectl.kubernetes.io/last-applied-configuration");
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    value
}

/// Whether an annotation says who deployed, which every deploy changes.
pub fn is_bookkeeping(key: &str) -> bool {
    key.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('/'))
}

/// A Secret's values by whether they change, on both sides.
fn mask(mut before: Value, mut after: Value) -> (Value, Value) {
    for field in ["data", "stringData"] {
        let (old, new) = (take(&mut before, field), take(&mut after, field));
        let masked = |own: &Map<String, Value>, other: &Map<String, Value>, differs: &str| -> Map<String, Value> {
            let mask = |(key, value)| {
                let same = other.get(key).is_none_or(|other| other == value);
                (String::clone(key), if same { "(hidden)" } else { differs }.into())
            };
            own.iter().map(mask).collect()
        };
        put(&mut before, field, masked(&old, &new, "(hidden)"));
        put(&mut after, field, masked(&new, &old, "(changed)"));
    }
    (before, after)
}

fn take(value: &mut Value, field: &str) -> Map<String, Value> {
    match value.as_object_mut().and_then(|object| object.remove(field)) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn put(value: &mut Value, field: &str, map: Map<String, Value>) {
    if let Some(object) = value.as_object_mut().filter(|_| !map.is_empty()) {
        object.insert(field.to_owned(), Value::Object(map));
    }
}

/// The fields that our manager answers for, without those of our bookkeeping.
fn ownership(value: &Value) -> Option<Value> {
    let managers = value.pointer("/metadata/managedFields")?.as_array()?;
    let ours = managers.iter().find(|entry| entry["manager"] == MANAGER && entry["operation"] == "Apply")?;
    let mut fields = ours.get("fieldsV1")?.clone();
    if let Some(metadata) = fields.get_mut("f:metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = metadata.get_mut("f:annotations").and_then(Value::as_object_mut)
    {
        annotations.retain(|key, _| key != "." && !is_bookkeeping(key.trim_start_matches("f:")));
        if annotations.is_empty() {
            metadata.remove("f:annotations");
        }
    }
    Some(fields)
}

fn yaml(value: &Value) -> String {
    // JSON is always YAML as well.
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}"))
}

/// A unified diff of two documents, with the place of each hunk in them.
fn lines(before: &str, after: &str) -> Vec<DiffLine> {
    let diff = TextDiff::from_lines(before, after);
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let mut lines = Vec::new();
    for group in diff.grouped_ops(CONTEXT) {
        let changed = group.iter().find(|op| op.tag() != DiffTag::Equal);
        let place = changed.map(|op| match op.tag() {
            DiffTag::Insert => place(&new, op.new_range().start),
            _ => place(&old, op.old_range().start),
        });
        if let Some(text) = place.filter(|place| !place.is_empty()) {
            lines.push(DiffLine { sign: Sign::Place, text });
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let sign = match change.tag() {
                ChangeTag::Equal => Sign::Context,
                ChangeTag::Delete => Sign::Removed,
                ChangeTag::Insert => Sign::Added,
            };
            lines.push(DiffLine { sign, text: change.value().trim_end_matches('\n').to_owned() });
        }
    }
    lines
}

/// The keys above a line of a YAML document: `spec.template.spec`.
fn place(lines: &[&str], at: usize) -> String {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let mut path = Vec::new();
    let mut depth = lines.get(at).map_or(0, |line| indent(line));
    for line in lines[..at.min(lines.len())].iter().rev() {
        if indent(line) < depth
            && let Some(key) = line.trim_start_matches([' ', '-']).strip_suffix(':')
        {
            depth = indent(line);
            path.push(key);
        }
    }
    path.reverse();
    path.join(".")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Object {
        Object::new(value).unwrap()
    }

    fn human(change: &Change) -> String {
        let mut out = Vec::new();
        change.human(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn deployment(image: &str, replicas: u32) -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "mlflow", "labels": {"app.kubernetes.io/name": "mlflow"}},
            "spec": {
                "replicas": replicas,
                "template": {"spec": {"containers": [
                    {"name": "mlflow", "image": image, "ports": [{"name": "http", "containerPort": 5000}]},
                ]}},
            },
        })
    }

    #[test]
    fn an_update_is_a_short_diff_with_its_place() {
        let (live, merged) = (deployment("r/mlflow@sha256:a", 1), deployment("r/mlflow@sha256:b", 2));
        let change = compare(&object(&merged), Some(&live), &merged);
        assert_eq!(change.action, Action::Update);
        insta::assert_snapshot!(human(&change), @r"
        ~ Deployment/mlflow
            @ spec
                name: mlflow
              spec:
            -   replicas: 1
            +   replicas: 2
                template:
                  spec:
                    containers:
            -       - image: r/mlflow@sha256:a
            +       - image: r/mlflow@sha256:b
                      name: mlflow
                      ports:
        ");
    }

    #[test]
    fn a_place_is_the_path_above_a_line() {
        let yaml = yaml(&json!({"spec": {"containers": [{"env": [{"name": "A", "value": "1"}], "image": "a"}]}}));
        let lines: Vec<&str> = yaml.lines().collect();
        let check = |key: &str, expected: &str| {
            let at = lines.iter().position(|line| line.contains(key)).unwrap();
            assert_eq!(place(&lines, at), expected, "{yaml}");
        };
        check("spec", "");
        check("containers", "spec");
        check("value", "spec.containers.env");
        check("image", "spec.containers");
    }

    #[test]
    fn what_does_not_exist_is_created() {
        let merged = deployment("r/mlflow@sha256:b", 2);
        let change = compare(&object(&merged), None, &merged);
        assert_eq!(human(&change), "+ Deployment/mlflow\n");
    }

    #[test]
    fn what_the_server_keeps_and_who_deployed_is_no_change() {
        let merged = deployment("a", 1);
        let check = |pointer: &str, value: Value| {
            let mut live = merged.clone();
            match pointer {
                "" => live["status"] = value,
                field => live["metadata"][field] = value,
            }
            let change = compare(&object(&merged), Some(&live), &merged);
            assert_eq!((change.action, change.lines), (Action::Unchanged, vec![]), "{pointer}");
        };
        check("", json!({"replicas": 1}));
        check("resourceVersion", json!("7"));
        check("generation", json!(3));
        check("uid", json!("u"));
        check("creationTimestamp", json!("2026-11-24T00:00:00Z"));
        check("annotations", json!({"mlflow-on-kubernetes/release": "3"}));
        check("managedFields", json!([{"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:spec": {}}}]));
    }

    #[test]
    fn other_annotations_are_compared() {
        let merged = deployment("a", 1);
        let mut live = merged.clone();
        live["metadata"]["annotations"] = json!({"mlflow-on-kubernetes.example/a": "b"});
        assert_eq!(compare(&object(&merged), Some(&live), &merged).action, Action::Update);
    }

    #[test]
    fn fields_that_become_ours_are_a_change_and_bookkeeping_is_none() {
        let managed = |fields: Value| {
            let mut value = deployment("a", 1);
            value["metadata"]["managedFields"] = json!([
                {"manager": "other", "operation": "Apply", "fieldsV1": {"f:spec": {"f:paused": {}}}},
                {"manager": MANAGER, "operation": "Apply", "fieldsV1": fields},
            ]);
            value
        };
        let check = |live: Value, merged: Value, expected: Action| {
            let change = compare(&object(&deployment("a", 1)), Some(&managed(live)), &managed(merged));
            assert_eq!(change.action, expected, "{}", human(&change));
        };
        let replicas = json!({"f:spec": {"f:replicas": {}}});
        check(replicas.clone(), replicas.clone(), Action::Unchanged);
        check(json!({"f:spec": {}}), replicas.clone(), Action::Update);
        let noted = json!({
            "f:spec": {"f:replicas": {}},
            "f:metadata": {"f:annotations": {".": {}, "f:mlflow-on-kubernetes/by": {}}},
        });
        let plain = json!({"f:spec": {"f:replicas": {}}, "f:metadata": {}});
        check(noted, plain, Action::Unchanged);
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret =
            |data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": data});
        let live = secret(json!({"uri": "b2xk", "key": "c2FtZQ==", "gone": "Z29uZQ=="}));
        let merged = secret(json!({"uri": "bmV3", "key": "c2FtZQ==", "fresh": "ZnJlc2g="}));
        let change = compare(&object(&merged), Some(&live), &merged);
        let text = human(&change);
        for value in ["b2xk", "bmV3", "c2FtZQ==", "Z29uZQ==", "ZnJlc2g="] {
            assert!(!text.contains(value), "{text}");
        }
        insta::assert_snapshot!(text, @r"
        ~ Secret/s
            @ data
              apiVersion: v1
              data:
            -   gone: (hidden)
            +   fresh: (hidden)
                key: (hidden)
            -   uri: (hidden)
            +   uri: (changed)
              kind: Secret
              metadata:
        ");
        assert_eq!(compare(&object(&live), Some(&live), &live).action, Action::Unchanged);
    }

    #[test]
    fn what_kubectl_repeats_in_an_annotation_is_not_shown() {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"uri": "b2xk"}});
        let mut live = secret.clone();
        live["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "b2xk"});
        assert_eq!(compare(&object(&secret), Some(&live), &secret).lines, vec![]);
    }
}
