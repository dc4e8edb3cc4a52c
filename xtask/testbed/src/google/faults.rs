//! Rules that make chosen calls fail.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Call;
use super::failure::Failure;

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 403 PERMISSION_DENIED.
    PermissionDenied,
    /// 429 RESOURCE_EXHAUSTED, with Retry-After.
    RateLimited,
    /// 403 quotaExceeded, for this quota.
    QuotaExceeded(String),
    /// 400 FAILED_PRECONDITION for an organisation's constraint, like `iam.disableServiceAccountKeyCreation`.
    Policy(String),
    /// Any other error, as Google writes it.
    Status(u16),
    /// No answer.
    Hang,
    /// The connection is closed; nothing has happened.
    Closed,
    /// The connection is closed; the call has had its effect.
    AnswerLost,
    /// The call succeeds; its operation does not.
    Operation(OperationFault),
}

/// What goes wrong with an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OperationFault {
    /// It is told to be running so many times.
    Slow(u32),
    /// It never ends.
    Endless,
    /// It ends with an error of this code.
    Fails {
        /// The code, like 400 or 429.
        code: u16,
        /// What it says.
        message: String,
    },
}

/// Which calls a fault befalls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// The service, like `sql`; empty for all.
    pub service: String,
    /// The method; empty for all.
    pub method: String,
    /// A part of path and query below the service; `*` stands for anything, a `^` at the beginning for
    /// the path's beginning, a `$` at the end for its end.
    pub path: String,
    /// How many such calls pass unharmed first.
    pub skip: u32,
    /// How many then fail.
    pub times: u32,
    /// What goes wrong.
    pub fault: Fault,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            service: String::new(),
            method: String::new(),
            path: String::new(),
            skip: 0,
            times: 1,
            fault: Fault::Status(500),
        }
    }
}

impl Rule {
    /// The first such call fails.
    pub fn once(service: &str, method: &str, path: &str, fault: Fault) -> Self {
        Self { service: service.to_owned(), method: method.to_owned(), path: path.to_owned(), fault, ..Self::default() }
    }

    /// All such calls fail.
    pub fn always(service: &str, method: &str, path: &str, fault: Fault) -> Self {
        Self { times: u32::MAX, ..Self::once(service, method, path, fault) }
    }

    fn matches(&self, call: &Call, target: &str) -> bool {
        self.times > 0
            && (self.service.is_empty() || self.service == call.service)
            && (self.method.is_empty() || self.method == call.method.as_str())
            && contains(target, &self.path)
    }
}

/// Whether the parts of a pattern are in a text, in their order.
fn contains(text: &str, pattern: &str) -> bool {
    if let Some(pattern) = pattern.strip_prefix('^') {
        let first = pattern.split(['*', '$']).next().unwrap_or_default();
        return text.starts_with(first) && contains(text, pattern);
    }
    if let Some(pattern) = pattern.strip_suffix('$') {
        let path = text.split('?').next().unwrap_or_default();
        let (before, last) = pattern.rsplit_once('*').unwrap_or(("", pattern));
        return path.strip_suffix(last).is_some_and(|rest| contains(rest, before));
    }
    let mut rest = text;
    pattern.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// Finds the fault of a call, and counts.
pub(crate) fn take(rules: &mut [Rule], call: &Call, query: &str) -> Option<Fault> {
    let target = if query.is_empty() { format!("/{}", call.path) } else { format!("/{}?{query}", call.path) };
    let rule = rules.iter_mut().find(|rule| rule.matches(call, &target))?;
    if rule.skip > 0 {
        rule.skip -= 1;
        return None;
    }
    rule.times = rule.times.saturating_sub(1);
    Some(rule.fault.clone())
}

impl Fault {
    /// The error that is answered, for faults that are one.
    pub(crate) fn failure(&self, service: &str) -> Option<Failure> {
        let domain = format!("{service}.googleapis.com");
        Some(match self {
            Self::PermissionDenied => Failure::new(403, "The caller does not have permission"),
            Self::RateLimited => {
                Failure::new(429, "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'.")
                    .info("RATE_LIMIT_EXCEEDED", &domain, json!({ "service": domain }))
                    .retry_after(1)
            }
            Self::QuotaExceeded(quota) => Failure::new(403, format!("Quota '{quota}' exceeded."))
                .reason("quotaExceeded")
                .info("QUOTA_EXCEEDED", &domain, json!({ "quota_metric": quota })),
            Self::Policy(constraint) => constrained(constraint),
            Self::Status(code) => Failure::new(*code, message(*code)),
            Self::Hang | Self::Closed | Self::AnswerLost | Self::Operation(_) => return None,
        })
    }
}

/// A call that the organisation's policy forbids.
pub(crate) fn constrained(constraint: &str) -> Failure {
    let what = match constraint {
        "iam.disableServiceAccountKeyCreation" => "Key creation is not allowed on this service account.",
        _ => "The organisation's policy does not allow this.",
    };
    Failure::precondition(what).detail(json!({
        "@type": "type.googleapis.com/google.rpc.PreconditionFailure",
        "violations": [{
            "type": format!("constraints/{constraint}"),
            "subject": "projects",
            "description": what,
        }],
    }))
}

fn message(code: u16) -> &'static str {
    match code {
        400 => "Request contains an invalid argument.",
        401 => "Request had invalid authentication credentials.",
        403 => "The caller does not have permission",
        404 => "Requested entity was not found.",
        409 => "The operation was aborted.",
        429 => "Resource has been exhausted (e.g. check quota).",
        503 => "The service is currently unavailable.",
        _ => "Internal error encountered.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_in_a_text() {
        for (text, pattern, is) in [
            ("/v1/projects/p/serviceAccounts", "", true),
            ("/v1/projects/p/serviceAccounts", "serviceAccounts", true),
            ("/v1/projects/p/serviceAccounts", "projects/*/serviceAccounts", true),
            ("/v1/projects/p/serviceAccounts", "serviceAccounts*projects", false),
            ("/v1/projects/p/serviceAccounts", "buckets", false),
            ("/v1/projects/p/serviceAccounts?a=b", "p/serviceAccounts$", true),
            ("/v1/projects/p/serviceAccounts/x", "p/serviceAccounts$", false),
            ("/v1/operations/7", "/operations/*$", true),
            ("/v1/operations/7", "^/v1/operations/*$", true),
            ("/v2/v1/operations/7", "^/v1/operations/*$", false),
            ("/v1/projects/p/v1/projects/p", "^/v1/projects/p$", true),
            ("/v1/operations/7:x", "/operations/*:x$", true),
        ] {
            assert_eq!(contains(text, pattern), is, "{text} {pattern}");
        }
    }
}
