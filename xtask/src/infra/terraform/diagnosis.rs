//! What terraform's errors mean: a kind, the fix, and which resources were found to exist.

use crate::error::{Error, Kind};

use super::events::Diagnostic;

/// A run of terraform that failed.
#[derive(Debug)]
pub struct Failed {
    error: Error,
    /// Addresses of resources that exist and are not in the state, where that is all that went wrong.
    pub existing: Vec<String>,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, existing: Vec::new() }
    }
}

/// A text that tells errors apart, what kind of error it is, and the fix.
type Known = (&'static [&'static str], Kind, &'static str);

/// The most telling first. Texts are terraform's own and the google provider's.
const KNOWN: &[Known] = &[
    (
        &["Error acquiring the state lock", "state lock"],
        Kind::Locked,
        "wait for the other run to end, or use --lock-wait; if it died, `terraform force-unlock ID` frees the lock",
    ),
    (
        &["could not find default credentials", "Attempted to load application default credentials"],
        Kind::Auth,
        "run `gcloud auth application-default login`",
    ),
    (
        &["invalid_grant", "Reauthentication", "Error 401", "invalid authentication credentials"],
        Kind::Auth,
        "run `gcloud auth application-default login`",
    ),
    (
        &["SERVICE_DISABLED", "has not been used in project", "accessNotConfigured"],
        Kind::Refused,
        "run `gcloud services enable API` for the project; where it was switched on a moment ago, run the same command \
         again in a minute",
    ),
    (
        &["CONSUMER_INVALID", "USER_PROJECT_DENIED", "Permission denied on resource project", "projectNotFound"],
        Kind::Config,
        "is `project` in [environment.NAME.infra] the project's id? `gcloud projects list` shows yours",
    ),
    (
        &[
            "UREQ_PROJECT_BILLING_NOT_FOUND",
            "billing account",
            "BILLING_DISABLED",
            "Billing must be enabled",
            "billing to be enabled",
        ],
        Kind::Refused,
        "link a billing account to the project: https://console.cloud.google.com/billing/linkedaccount",
    ),
    (
        &["constraints/", "orgpolicy", "organization policy", "Organization Policy"],
        Kind::Refused,
        "an organisation policy forbids it: ask its administrator, or choose other settings in [environment.NAME.infra]",
    ),
    (
        &["quotaExceeded", "QUOTA_EXCEEDED", "Quota '", "quota metric", "RESOURCE_EXHAUSTED", "rateLimitExceeded"],
        Kind::Refused,
        "ask for more quota, or choose another region: https://console.cloud.google.com/iam-admin/quotas",
    ),
    (
        &["you can't reuse the name of the deleted instance", "instanceAlreadyExists"],
        Kind::Conflict,
        "the name of a deleted instance is free again after a week: set `instance` in [environment.NAME.infra]",
    ),
    (
        &["requested bucket name is not available"],
        Kind::Conflict,
        "buckets' names are everyone's: set `bucket` in [environment.NAME.infra]",
    ),
    (
        &["Error 403", "PERMISSION_DENIED", "Permission denied", "does not have permission"],
        Kind::Forbidden,
        "`cargo xtask doctor` names the permissions that are missing",
    ),
    (&["Saved plan is stale"], Kind::Input, "the infrastructure has changed since the plan was made: plan again"),
    (
        &["deletion_protection", "deletion protection", "prevent_destroy"],
        Kind::Refused,
        "it is protected: set deletion-protection = false in [environment.NAME.infra] and apply, then try again",
    ),
    (
        &[
            "Failed to query available provider packages",
            "Failed to install provider",
            "Could not retrieve the list of available versions",
        ],
        Kind::Tool,
        "terraform could not get the google provider: check this machine's network, or configure a mirror in \
         ~/.terraformrc (https://developer.hashicorp.com/terraform/cli/config/config-file)",
    ),
    (
        &["checksums", "dependency lock file"],
        Kind::Input,
        "the provider is not the one of terraform/.terraform.lock.hcl: run `terraform -chdir=terraform init -upgrade` \
         and look at what changes",
    ),
    (
        &["no such host", "connection refused", "i/o timeout", "connection reset", "EOF", "Client.Timeout", "Error 50"],
        Kind::Remote,
        "run the same command again: it carries on",
    ),
    (&["Error 429"], Kind::Remote, "Google asks for a pause: run the same command again in a minute"),
    (&["Error 409"], Kind::Conflict, "run the same command again: what exists is compared with what is wanted"),
];

/// What a failed run means. `complaint` is what terraform wrote to stderr.
pub fn explain(command: &str, status: &str, diagnostics: &[Diagnostic], complaint: &str) -> Failed {
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|found| found.severity == "error").collect();
    let said: Vec<String> = match errors.is_empty() {
        true => vec![complaint.trim().to_owned()],
        false => errors.iter().map(|error| words(error)).collect(),
    };
    let all = said.join("\n");
    let found = KNOWN.iter().find(|(texts, _, _)| texts.iter().any(|text| all.contains(text)));
    let (kind, hint) = found.map_or((Kind::Tool, None), |(_, kind, hint)| (*kind, Some(*hint)));
    let message = match errors.first().and_then(|error| error.address.as_deref()) {
        Some(address) => format!("terraform {command} failed at {address}"),
        None => format!("terraform {command} failed ({status})"),
    };
    let mut error = Error::new(kind, message).source(all.clone());
    if let Some(hint) = hint {
        error = error.hint(hint.replace(" API`", &format!(" {}`", api(&all))));
    }
    let existing: Vec<String> = errors.iter().filter(|error| exists(error)).filter_map(|e| e.address.clone()).collect();
    let only = existing.len() == errors.len();
    Failed { error, existing: if only { existing } else { Vec::new() } }
}

/// The API that an error names.
fn api(said: &str) -> &str {
    let mut words = said.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'));
    // The types of an error's details are written the same way.
    let is_api = |word: &&str| word.ends_with(".googleapis.com") && *word != "type.googleapis.com";
    words.find(is_api).unwrap_or("API")
}

/// Whether the resource was there before, in this project.
fn exists(error: &Diagnostic) -> bool {
    let text = words(error);
    let elsewhere = ["requested bucket name is not available"];
    // A second connection to Google's network would be an update of the first.
    if text.contains("Error 400") && text.contains("Cannot modify allocated ranges in CreateConnection") {
        return true;
    }
    // Cloud SQL says of a database what PostgreSQL said.
    let is_database = text.contains("Error 400") && text.contains("failed to create database");
    (is_database || text.contains("Error 409") || text.contains("ALREADY_EXISTS") || text.contains("alreadyExists"))
        && ["already exists", "alreadyExists", "ALREADY_EXISTS", "AlreadyExists", "you already own it"]
            .iter()
            .any(|word| text.contains(word))
        && !elsewhere.iter().any(|word| text.contains(word))
}

fn words(diagnostic: &Diagnostic) -> String {
    match diagnostic.detail.trim() {
        "" => diagnostic.summary.clone(),
        detail => format!("{}: {detail}", diagnostic.summary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(summary: &str) -> Diagnostic {
        Diagnostic {
            severity: "error".to_owned(),
            summary: summary.to_owned(),
            address: Some("module.a.b.c".to_owned()),
            ..Diagnostic::default()
        }
    }

    #[test]
    fn an_error_has_a_kind_and_a_fix() {
        for (text, kind, hint) in [
            ("Error acquiring the state lock", Kind::Locked, "--lock-wait"),
            ("google: could not find default credentials", Kind::Auth, "application-default login"),
            (
                "googleapi: Error 403: Cloud SQL Admin API has not been used in project 1, accessNotConfigured",
                Kind::Refused,
                "services enable API`",
            ),
            (
                "googleapi: Error 403: x has not been used in project 1: a/apis/api/sqladmin.googleapis.com/overview",
                Kind::Refused,
                "services enable sqladmin.googleapis.com`",
            ),
            ("Error 403: Permission denied on resource project x., forbidden", Kind::Config, "gcloud projects list"),
            ("Error 403: The caller does not have permission, forbidden", Kind::Forbidden, "doctor"),
            ("Error 403: Quota 'NETWORKS' exceeded.  Limit: 5.0 globally., quotaExceeded", Kind::Refused, "quota"),
            ("Error 409: The Cloud SQL instance already exists., instanceAlreadyExists", Kind::Conflict, "`instance`"),
            ("Error 409: The requested bucket name is not available., conflict", Kind::Conflict, "`bucket`"),
            ("Error 409: Service account mlflow already exists, alreadyExists", Kind::Conflict, "again"),
            ("Key creation is not allowed: constraints/iam.disableServiceAccountKeyCreation", Kind::Refused, "policy"),
            ("Failed to query available provider packages", Kind::Tool, "mirror"),
            ("Error 503: backend error", Kind::Remote, "carries on"),
            ("something else", Kind::Tool, ""),
        ] {
            let found = Error::from(explain("apply", "exit status: 1", &[error(text)], ""));
            assert_eq!(found.kind(), kind, "{text}");
            assert!(found.hint_text().unwrap_or_default().contains(hint), "{text}: {found:?}");
            assert!(found.to_string().contains("module.a.b.c"), "{found}");
        }
        let found = Error::from(explain("init", "exit status: 1", &[], "connection refused"));
        assert_eq!(
            (found.kind(), found.to_string().as_str()),
            (Kind::Remote, "terraform init failed (exit status: 1)")
        );
    }

    #[test]
    fn only_what_exists_here_can_be_taken_over() {
        let exists = error("Error 409: Service account mlflow already exists within project, alreadyExists");
        let check = |errors: &[Diagnostic], expected: usize| {
            assert_eq!(explain("apply", "1", errors, "").existing.len(), expected, "{errors:?}");
        };
        check(std::slice::from_ref(&exists), 1);
        check(&[exists.clone(), exists.clone()], 2);
        check(&[exists, error("Error 403: no")], 0);
        check(&[error("Error 409: The requested bucket name is not available., conflict")], 0);
        check(&[error("Error 409: you already own it., conflict")], 1);
        check(
            &[error("Error 400: failed to create database mlflow. Detail: pq: database \"mlflow\" already exists.")],
            1,
        );
        check(
            &[error("Error 400: Cannot modify allocated ranges in CreateConnection. Please use UpdateConnection.")],
            1,
        );
        check(&[error("Error 400: the request is invalid")], 0);
    }
}
