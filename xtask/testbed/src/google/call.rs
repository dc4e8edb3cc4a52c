//! A call and its answer.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::failure::{Failure, Outcome};
use super::faults::OperationFault;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Principal {
    /// May do everything.
    Owner(String),
    /// A service account.
    Account(String),
    /// Nobody who has said their name.
    Anonymous,
}

impl Principal {
    pub(crate) fn email(&self) -> &str {
        match self {
            Self::Owner(email) | Self::Account(email) => email,
            Self::Anonymous => "anonymous",
        }
    }
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// The first part of the path.
    pub(crate) service: String,
    /// What follows the service.
    pub(crate) path: String,
    /// Its parts, decoded, the last one without its verb.
    pub(crate) segments: Vec<String>,
    /// What follows a colon at the end; empty if nothing does.
    pub(crate) verb: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) principal: Principal,
    /// What happens to the operation that this call begins.
    pub(crate) operation: Option<OperationFault>,
}

impl Call {
    /// From a request's path, `/SERVICE/...`.
    pub(crate) fn new(method: Method, target: &str, query: &str, headers: HeaderMap, body: Bytes) -> Self {
        let target = target.trim_start_matches('/');
        // Some clients keep of an address only the host, or know only a host.
        let target = target.strip_prefix("resumable/").unwrap_or(target);
        let bare = [
            ("computeMetadata/", "metadata"),
            ("upload/", "storage"),
            ("download/", "storage"),
            ("storage/v1/", "storage"),
        ];
        let (service, path) = match bare.iter().find(|(prefix, _)| target.starts_with(prefix)) {
            Some((_, service)) => (*service, target),
            None => target.split_once('/').unwrap_or((target, "")),
        };
        let path = path.trim_start_matches('/');
        // Only the names of objects may have empty parts.
        let parts = path.split('/').filter(|part| service == "storage" || !part.is_empty());
        let mut segments: Vec<String> = parts.map(decode).collect();
        let mut verb = String::new();
        // The names of objects may have colons; storage has no verbs.
        if service != "storage"
            && let Some(last) = segments.last_mut()
            && let Some((name, found)) = last.rsplit_once(':')
        {
            verb = found.to_owned();
            *last = name.to_owned();
        }
        Self {
            method,
            service: service.to_owned(),
            path: path.to_owned(),
            segments,
            verb,
            query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers,
            body,
            principal: Principal::Anonymous,
            operation: None,
        }
    }

    /// The parts of the path, for patterns.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// A parameter of the query, which clients may write with underscores, too.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let is = |key: &str| key == name || key.replace('_', "").eq_ignore_ascii_case(name);
        self.query.iter().find(|(key, _)| is(key)).map(|(_, value)| value.as_str())
    }

    /// A header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as JSON; an empty one is an empty object.
    pub(crate) fn json(&self) -> Outcome<Value> {
        if self.body.is_empty() {
            return Ok(json!({}));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Failure::invalid(format!("Invalid JSON payload received. {error}")).reason("parseError"))
    }

    /// The server as this caller reaches it.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.header("host").unwrap_or("127.0.0.1"))
    }

    /// Nothing is served here.
    pub(crate) fn unknown(&self) -> Failure {
        Failure::not_found(format!("Unknown method {} /{}/{}.", self.method, self.service, self.path))
            .reason("unknownMethod")
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(value: &Value) -> Self {
        let headers = vec![("Content-Type", "application/json; charset=UTF-8".to_owned())];
        Self { status: 200, headers, body: value.to_string().into() }
    }

    pub(crate) fn bytes(kind: &str, body: impl Into<Bytes>) -> Self {
        Self { status: 200, headers: vec![("Content-Type", kind.to_owned())], body: body.into() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::json(&value)
    }
}
