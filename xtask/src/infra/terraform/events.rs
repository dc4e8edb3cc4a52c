//! What terraform says while it works, a JSON object a line
//! (<https://developer.hashicorp.com/terraform/internals/machine-readable-ui>).

use serde::Deserialize;
use serde_json::Value;

/// A message of terraform's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A resource is being worked on.
    Began {
        /// Its address.
        address: String,
        /// What is done to it.
        verb: &'static str,
    },
    /// It still is.
    Goes {
        /// Its address.
        address: String,
        /// What is done to it.
        verb: &'static str,
        /// Since when.
        seconds: u64,
    },
    /// It is done.
    Done {
        /// Its address.
        address: String,
        /// What was done to it.
        verb: &'static str,
        /// How long it took.
        seconds: u64,
    },
    /// Something that the user should know.
    Diagnostic(Diagnostic),
    /// Anything else.
    Other,
}

/// An error or a warning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Diagnostic {
    /// `error` or `warning`.
    #[serde(default)]
    pub severity: String,
    /// In a line.
    #[serde(default)]
    pub summary: String,
    /// In full.
    #[serde(default)]
    pub detail: String,
    /// The resource that it is about.
    #[serde(default)]
    pub address: Option<String>,
}

impl Event {
    /// Reads a line; what is no message is [`Event::Other`].
    pub fn parse(line: &str) -> Self {
        let Ok(value) = serde_json::from_str::<Value>(line) else { return Self::Other };
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (address, action) = (text("/hook/resource/addr").to_owned(), text("/hook/action"));
        let seconds = value.pointer("/hook/elapsed_seconds").and_then(Value::as_f64).unwrap_or(0.0) as u64;
        match text("/type") {
            "apply_start" => Self::Began { address, verb: present(action) },
            "apply_progress" => Self::Goes { address, verb: present(action), seconds },
            "apply_complete" => Self::Done { address, verb: past(action), seconds },
            "diagnostic" => match serde_json::from_value(value["diagnostic"].clone()) {
                Ok(diagnostic) => Self::Diagnostic(diagnostic),
                Err(_) => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

fn present(action: &str) -> &'static str {
    match action {
        "create" => "Creating",
        "update" => "Changing",
        "delete" => "Deleting",
        "read" => "Reading",
        _ => "Working on",
    }
}

fn past(action: &str) -> &'static str {
    match action {
        "create" => "Created",
        "update" => "Changed",
        "delete" => "Deleted",
        "read" => "Read",
        _ => "Done with",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message() {
        let hook = |kind: &str, action: &str, seconds: u64| {
            serde_json::json!({
                "@level": "info", "type": kind,
                "hook": { "resource": { "addr": "module.a.b.c" }, "action": action, "elapsed_seconds": seconds },
            })
            .to_string()
        };
        let address = "module.a.b.c".to_owned();
        for (line, expected) in [
            (hook("apply_start", "create", 0), Event::Began { address: address.clone(), verb: "Creating" }),
            (
                hook("apply_progress", "delete", 30),
                Event::Goes { address: address.clone(), verb: "Deleting", seconds: 30 },
            ),
            (hook("apply_complete", "update", 3), Event::Done { address, verb: "Changed", seconds: 3 }),
            (r#"{"type":"version"}"#.to_owned(), Event::Other),
            ("Error: not JSON".to_owned(), Event::Other),
        ] {
            assert_eq!(Event::parse(&line), expected, "{line}");
        }
        let line =
            r#"{"type":"diagnostic","diagnostic":{"severity":"error","summary":"s","detail":"d","address":"a.b"}}"#;
        let Event::Diagnostic(found) = Event::parse(line) else { panic!("{line}") };
        assert_eq!((found.severity.as_str(), found.address.as_deref()), ("error", Some("a.b")));
    }
}
