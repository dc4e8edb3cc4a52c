//! What was called, without what is secret.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What stands in place of a secret.
pub(crate) const SECRET: &str = "<secret>";

/// A call as it passed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The method.
    pub method: String,
    /// The path below the service.
    pub path: String,
    /// The query.
    pub query: String,
    /// The service, like `sql`.
    pub service: String,
    /// Who called.
    pub principal: String,
    /// The status of the answer; 0 for none.
    pub status: u16,
    /// Whether a rule made it fail.
    pub broken: bool,
    /// Milliseconds until the answer.
    pub milliseconds: u64,
    /// What was sent, for methods that write.
    pub body: Option<Value>,
}

/// Names of fields that hold secrets, in lower case and without underscores.
const SECRETS: &[&str] = &[
    "accesstoken",
    "actortoken",
    "assertion",
    "authorization",
    "clientsecret",
    "idtoken",
    "password",
    "privatekey",
    "privatekeydata",
    "refreshtoken",
    "rootpassword",
    "subjecttoken",
    "token",
];

fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name.replace('_', "").to_ascii_lowercase().as_str())
}

/// A body as the log has it.
pub(crate) fn body(kind: &str, bytes: &Bytes) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    let is_form = kind.starts_with("application/x-www-form-urlencoded");
    let value = if is_form {
        let fields = url::form_urlencoded::parse(bytes).into_owned();
        Some(Value::Object(fields.map(|(name, value)| (name, Value::String(value))).collect::<Map<_, _>>()))
    } else {
        serde_json::from_slice(bytes).ok()
    };
    Some(value.map_or_else(|| Value::String(format!("<{} bytes>", bytes.len())), redact))
}

/// A query as the log has it.
pub(crate) fn query(text: &str) -> String {
    let pairs = url::form_urlencoded::parse(text.as_bytes()).into_owned();
    let kept: Vec<String> = pairs
        .map(|(name, value)| {
            let value = if is_secret(&name) { SECRET.to_owned() } else { value };
            format!("{name}={value}")
        })
        .collect();
    kept.join("&")
}

fn redact(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let value = if is_secret(&name) { SECRET.into() } else { redact(value) };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(redact).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_not_logged() {
        for (kind, sent, kept) in [
            ("application/json", r#"{"name":"a","password":"x"}"#, json!({ "name": "a", "password": SECRET })),
            ("application/json", r#"{"a":[{"access_token":"x"}]}"#, json!({ "a": [{ "access_token": SECRET }] })),
            (
                "application/x-www-form-urlencoded",
                "grant_type=g&assertion=x",
                json!({ "grant_type": "g", "assertion": SECRET }),
            ),
            ("application/gzip", "\u{1}\u{2}", json!("<2 bytes>")),
        ] {
            assert_eq!(body(kind, &Bytes::from(sent)), Some(kept), "{sent}");
        }
        assert_eq!(query("alt=json&access_token=x"), format!("alt=json&access_token={SECRET}"));
    }
}
