//! What an answer of Google's that is not what was asked for means (AIP-193, and the older form with
//! `errors`), and what the user can do about it.

use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Kind};
use crate::registry::Fault;
use crate::report::shorten;

use super::token::LOG_IN;

/// The most of an answer's text that is shown.
const SHOWN: usize = 400;

/// An error as Google writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status.
    pub(super) status: u16,
    /// The canonical name: `PERMISSION_DENIED`.
    name: String,
    message: String,
    /// Reasons for programs, of the details and of the older form.
    reasons: Vec<String>,
    /// What ErrorInfo says beside: `service`, `permission`, `consumer`.
    metadata: Vec<(String, String)>,
    /// What PreconditionFailure and QuotaFailure blame.
    violations: Vec<String>,
}

/// What an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    NoLogin,
    QuotaProject,
    ApiOff,
    BillingOff,
    Policy,
    Quota,
    Busy,
    Forbidden,
    Conflict,
    Refused,
    Broken,
}

impl Answer {
    /// Reads a body. What is sent back of a request's own body is nobody's to show: only the fields
    /// that errors have are read.
    pub(super) fn parse(status: u16, body: &[u8]) -> Self {
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &value["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let message = match error {
            // OAuth's form: a code and its description.
            Value::String(code) => format!("{code}: {}", text(&value["error_description"])),
            _ => text(&error["message"]),
        };
        let mut answer =
            Self { status, name: text(&error["status"]), message: shorten(SHOWN, &message), ..Self::default() };
        for item in error["errors"].as_array().into_iter().flatten() {
            answer.reasons.push(text(&item["reason"]));
        }
        for detail in error["details"].as_array().into_iter().flatten() {
            answer.reasons.extend(detail["reason"].as_str().map(str::to_owned));
            let metadata = detail["metadata"].as_object().into_iter().flatten();
            answer.metadata.extend(metadata.map(|(key, value)| (key.clone(), text(value))));
            for violation in detail["violations"].as_array().into_iter().flatten() {
                let parts = [&violation["type"], &violation["subject"], &violation["description"]];
                answer.violations.push(shorten(SHOWN, &parts.map(text).join(" ")));
            }
        }
        answer
    }

    fn because(&self, reasons: &[&str]) -> bool {
        self.reasons.iter().any(|found| reasons.contains(&found.as_str()))
    }

    fn says(&self, words: &[&str]) -> bool {
        let texts = self.violations.iter().chain([&self.message]);
        texts.map(|text| text.to_lowercase()).any(|text| words.iter().any(|word| text.contains(word)))
    }

    fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    fn sort(&self) -> Sort {
        let conditional = matches!(self.status, 400 | 403 | 412);
        match self.status {
            401 => Sort::NoLogin,
            403 if self.says(&["requires a quota project", "set-quota-project"]) => Sort::QuotaProject,
            403 if self.because(&["SERVICE_DISABLED", "accessNotConfigured"]) => Sort::ApiOff,
            _ if conditional && self.is_about_billing() => Sort::BillingOff,
            _ if conditional && self.is_about_policy() => Sort::Policy,
            403 | 429 if self.because(&["rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"]) => {
                Sort::Busy
            }
            // Of the two kinds of 429, this one does not pass by waiting.
            400 | 403 | 429 if self.is_about_quota() => Sort::Quota,
            // Cloud SQL does one thing at a time: it may be what this very call began, its answer lost.
            409 if self.says(&["another operation was already in progress"]) => Sort::Busy,
            408 | 429 | 500 | 502 | 503 | 504 => Sort::Busy,
            403 => Sort::Forbidden,
            409 => Sort::Conflict,
            400..=499 => Sort::Refused,
            _ => Sort::Broken,
        }
    }

    fn is_about_billing(&self) -> bool {
        self.because(&["BILLING_DISABLED", "UREQ_PROJECT_BILLING_NOT_FOUND", "accountDisabled", "billingDisabled"])
            || self.says(&["billing-enabled", "billing must be enabled", "billing account for project"])
    }

    fn is_about_policy(&self) -> bool {
        self.because(&["CUSTOM_ORG_POLICY_VIOLATION", "orgPolicyViolated"])
            || self.says(&["constraints/", "organization policy", "org policy"])
    }

    fn is_about_quota(&self) -> bool {
        self.because(&["quotaExceeded", "QUOTA_EXCEEDED", "limitExceeded", "RESOURCE_QUOTA_EXCEEDED"])
            || self.says(&["quota exceeded", "quota limit", "exceeded quota", "insufficient regional quota"])
    }

    /// The permission that is missing, where the answer names it.
    fn permission(&self) -> Option<String> {
        if let Some(permission) = self.metadata("permission") {
            return Some(permission.to_owned());
        }
        // A permission is `service.resource.verb`, wherever in the sentence it stands.
        let words = self.message.split(|c: char| c.is_whitespace() || "'\"`,()".contains(c));
        words.map(|word| word.trim_end_matches('.')).find(|word| is_permission(word)).map(str::to_owned)
    }

    /// The constraint that forbids it, where the answer names it.
    fn constraint(&self) -> Option<&str> {
        let at = |text: &'_ str| text.find("constraints/").map(|at| at + "constraints/".len());
        let texts = self.violations.iter().map(String::as_str).chain([self.message.as_str()]);
        texts.filter_map(|text| at(text).map(|at| &text[at..])).find_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(rest.len());
            Some(rest[..end].trim_end_matches('.')).filter(|name| !name.is_empty())
        })
    }

    fn words(&self) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!(" {}", self.name) };
        match self.message.as_str() {
            "" => format!("HTTP {}{name}", self.status),
            message => format!("HTTP {}{name}: {message}", self.status),
        }
    }
}

/// What was tried, by whom, in which project.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scene<'a> {
    /// Completes "cannot ...".
    pub(super) doing: &'a str,
    pub(super) whose: &'a str,
    /// From the call's path, where it names one.
    pub(super) project: Option<&'a str>,
}

/// Turns an answer into a fault: whether to try again, and the error if that does not help.
pub(super) fn explain(scene: Scene<'_>, answer: &Answer, retry_after: Option<Duration>) -> Fault {
    let Scene { doing, whose, .. } = scene;
    let project = scene.project.unwrap_or("PROJECT");
    let error = |kind, message: String| Error::new(kind, message).source(answer.words());
    Fault::Fatal(match answer.sort() {
        Sort::Busy => {
            let error = error(Kind::Remote, format!("Google does not manage to {doing}"));
            let hint = "run the same command again in some minutes: it carries on where this one stopped";
            return Fault::Transient(error.hint(hint), retry_after);
        }
        Sort::NoLogin => error(Kind::Auth, format!("Google does not accept {whose}: cannot {doing}")).hint(LOG_IN),
        Sort::QuotaProject => {
            error(Kind::Auth, format!("{whose} names no project that pays for calls: cannot {doing}"))
                .hint(format!("run `gcloud auth application-default set-quota-project {project}`"))
        }
        Sort::ApiOff => {
            let service = answer.metadata("service").unwrap_or("the API that is named above");
            error(Kind::Refused, format!("{service} is not enabled in the project: cannot {doing}")).hint(format!(
                "run `cargo xtask infra apply`, which enables what it needs, or `gcloud services enable {service} \
                 --project {project}`; it takes some minutes"
            ))
        }
        Sort::BillingOff => error(Kind::Refused, format!("nobody pays for project {project}: cannot {doing}"))
            .hint(link_billing(project)),
        Sort::Policy => {
            let policy = answer.constraint().map_or_else(|| "a policy".to_owned(), |name| format!("the policy {name}"));
            error(Kind::Refused, format!("{policy} of the organisation forbids it: cannot {doing}")).hint(match answer
                .constraint()
            {
                Some(name) if name.starts_with("iam.disableServiceAccountKey") => {
                    "do without keys: Workload Identity in clusters of Google's; or ask the organisation's \
                         administrator for an exception for this project"
                }
                _ => "ask the organisation's administrator for an exception for this project",
            })
        }
        Sort::Quota => {
            error(Kind::Refused, format!("a quota of project {project} is used up: cannot {doing}")).hint(format!(
                "ask for more at https://console.cloud.google.com/iam-admin/quotas?project={project}, or free some"
            ))
        }
        Sort::Forbidden => {
            let permission = answer.permission();
            let lacks = permission.as_ref().map(|name| format!(" (it lacks {name})")).unwrap_or_default();
            let hint = match &permission {
                Some(name) => format!("let an owner of the project grant a role with {name}"),
                None => "check the project's id, and let its owner grant the role that this needs".to_owned(),
            };
            error(Kind::Forbidden, format!("{whose} may not {doing}{lacks}")).hint(hint)
        }
        Sort::Conflict => {
            error(Kind::Conflict, format!("it is there already, or someone changes it now: cannot {doing}"))
                .hint("see what there is, then run the same command again")
        }
        Sort::Refused => error(Kind::Refused, format!("Google refuses to {doing}")),
        Sort::Broken => error(Kind::Remote, format!("Google does not answer as documented: cannot {doing}"))
            .hint("check whether this network asks for a login of its own"),
    })
}

/// How somebody comes to pay for a project.
pub fn link_billing(project: &str) -> String {
    format!("link a billing account: gcloud billing projects link {project} --billing-account=ACCOUNT")
}

fn is_permission(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    let is_name = |part: &&str| {
        part.starts_with(|c: char| c.is_ascii_lowercase()) && part.chars().all(|c| c.is_ascii_alphanumeric())
    };
    parts.len() == 3 && parts.iter().all(is_name) && parts[2] != "com"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: u16, body: Value, expected: &str) {
        let answer = Answer::parse(status, body.to_string().as_bytes());
        let scene = Scene { doing: "read the bucket b", whose: "ada (gcloud)", project: Some("my-project") };
        let (sort, error) = match explain(scene, &answer, None) {
            Fault::Transient(error, _) => ("retry", error),
            Fault::Fatal(error) => ("fail", error),
            Fault::Unauthorized(_) => unreachable!("said as fatal"),
        };
        let text = format!(
            "{sort} {:?} {} | {}",
            error.kind(),
            error.lines().join(" | "),
            error.hint_text().unwrap_or_default()
        );
        for part in expected.split(" & ") {
            assert!(text.contains(part), "{status} {body}: {text:?} should contain {part:?}");
        }
    }

    fn error(message: &str, details: Value) -> Value {
        json!({ "error": { "message": message, "status": "X", "details": details } })
    }

    #[test]
    fn an_answer_says_what_to_do() {
        let info = |reason: &str, metadata: Value| json!([{ "reason": reason, "metadata": metadata }]);
        check(401, error("Request had invalid authentication", json!([])), "fail Auth & ada (gcloud) & gcloud auth");
        check(
            403,
            error(
                "Cloud SQL has not been used",
                info("SERVICE_DISABLED", json!({ "service": "sqladmin.googleapis.com" })),
            ),
            "fail Refused & sqladmin.googleapis.com is not enabled & services enable sqladmin.googleapis.com --project my-project",
        );
        check(
            403,
            json!({ "error": { "message": "Access Not Configured", "errors": [{ "reason": "accessNotConfigured" }] } }),
            "fail Refused & is not enabled",
        );
        check(
            403,
            error("Permission denied", info("IAM_PERMISSION_DENIED", json!({ "permission": "storage.buckets.get" }))),
            "fail Forbidden & lacks storage.buckets.get & grant a role with storage.buckets.get",
        );
        check(
            403,
            error("a@b.com does not have storage.buckets.create access to the Google Cloud project.", json!([])),
            "fail Forbidden & lacks storage.buckets.create",
        );
        check(403, error("The caller does not have permission", json!([])), "fail Forbidden & check the project's id");
        check(
            400,
            error("Billing account for project '1' is not found.", info("UREQ_PROJECT_BILLING_NOT_FOUND", json!({}))),
            "fail Refused & nobody pays for project my-project & billing projects link my-project",
        );
        check(
            400,
            error(
                "Key creation is not allowed on this service account.",
                json!([{ "violations": [{ "type": "constraints/iam.disableServiceAccountKeyCreation" }] }]),
            ),
            "fail Refused & policy iam.disableServiceAccountKeyCreation & do without keys",
        );
        check(
            412,
            error("Constraint constraints/sql.restrictPublicIp violated for project 1.", json!([])),
            "fail Refused & policy sql.restrictPublicIp of & exception",
        );
        check(429, error("Quota exceeded for quota metric", json!([])), "fail Refused & quota & iam-admin/quotas");
        check(
            429,
            error("Quota exceeded for quota metric 'Queries'", info("RATE_LIMIT_EXCEEDED", json!({}))),
            "retry Remote",
        );
        check(403, json!({ "error": { "errors": [{ "reason": "userRateLimitExceeded" }] } }), "retry Remote");
        check(403, json!({ "error": { "errors": [{ "reason": "quotaExceeded" }] } }), "fail Refused & quota");
        check(
            403,
            error("The x API requires a quota project, which is not set by default.", json!([])),
            "fail Auth & set-quota-project my-project",
        );
        check(409, error("already exists", json!([])), "fail Conflict & already exists");
        check(
            409,
            error("Operation failed because another operation was already in progress.", json!([])),
            "retry Remote",
        );
        check(500, json!({}), "retry Remote & HTTP 500");
        check(503, json!({}), "retry Remote");
        check(
            400,
            json!({ "error": "invalid_grant", "error_description": "Bad Request" }),
            "fail Refused & invalid_grant",
        );
        check(302, json!("<html>"), "fail Remote & as documented");
    }

    #[test]
    fn permissions_are_told_from_other_words() {
        for (text, expected) in [
            ("Required 'compute.regions.get' permission for", Some("compute.regions.get")),
            ("missing permission cloudsql.instances.get.", Some("cloudsql.instances.get")),
            ("visit console.cloud.com/x or a.b", None),
            ("sqladmin.googleapis.com is off", None),
        ] {
            let answer = Answer { message: text.to_owned(), ..Answer::default() };
            assert_eq!(answer.permission().as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_was_sent_is_never_shown() {
        let body = json!({ "error": { "message": "bad" }, "password": "hunter2" }).to_string();
        assert!(!format!("{:?}", Answer::parse(400, body.as_bytes())).contains("hunter2"));
        assert!(!format!("{:?}", Answer::parse(400, b"hunter2, you sent")).contains("hunter2"));
    }
}
