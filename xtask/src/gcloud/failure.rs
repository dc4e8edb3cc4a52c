//! What gcloud and Google's APIs complain about: whether it passes by itself, what kind of error it is
//! for a script, and the fix for a person. Nothing here asks anybody.

use crate::error::{Error, Kind};

/// What a failed call means for whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no such thing.
    Absent,
    /// There is one already.
    Exists,
    /// An account, a pool or a network that was just made is not known everywhere yet.
    TooEarly,
    /// Something else is being done to the same thing.
    Busy,
    /// The server or the way to it has a bad moment.
    Passing,
    /// It did not end within its deadline.
    Hangs,
    /// The API is not enabled.
    Disabled,
    /// Anything else; trying again would not help.
    Fatal,
}

/// The meanings, by what is said, in lower case. The first line that fits counts.
const TROUBLES: &[(Trouble, &[&str])] = &[
    (
        Trouble::Disabled,
        &["has not been used in project", "service_disabled", "accessnotconfigured", "not enabled on project"],
    ),
    (Trouble::Fatal, &["billing", "constraints/", "quota_exceeded", "quotaexceeded", "insufficient regional quota"]),
    (
        Trouble::Busy,
        &[
            "incompatible operation",
            "operationinprogress",
            "another operation was already in progress",
            "concurrent policy changes",
            "is not ready",
            "cluster_already_has_operation",
            "there is an operation pending",
            "peering operation in progress",
        ],
    ),
    (
        Trouble::Passing,
        &[
            "connectionerror",
            "connection reset",
            "connection aborted",
            "connection broken",
            "remotedisconnected",
            "max retries exceeded",
            "timed out",
            "unable to find the server",
            "serverresponse",
            "incompleteread",
            "httperror 429",
            "httperror 500",
            "httperror 502",
            "httperror 503",
            "httperror 504",
            "status code: 429",
            "status code: 500",
            "status code: 503",
            "resource_exhausted",
            "ratelimitexceeded",
            "rate_limit_exceeded",
            "too many requests",
            // All that gcloud says of Compute's limits of its rate.
            "per minute",
            "unavailable",
            "internal error",
            "backenderror",
            "deadline_exceeded",
            "aborted",
        ],
    ),
    (
        Trouble::Exists,
        &[
            "already exists",
            "already_exists",
            "alreadyexists",
            "already own it",
            "not available. the bucket namespace",
            // A second connection to Google's network would be an update of the first.
            "cannot modify allocated ranges in createconnection",
            "conflict",
        ],
    ),
    (
        Trouble::Absent,
        &["not_found", "not found", "notfound", "httperror 404", "does not exist", "there is no peering"],
    ),
];

/// What it means that gcloud said this.
pub fn trouble(said: &str) -> Trouble {
    let said = said.to_lowercase();
    let is_unknown = ["service account", "identity pool"].iter().any(|what| said.contains(what));
    if is_unknown && said.contains("does not exist") {
        return Trouble::TooEarly;
    }
    let fits = |(_, texts): &&(Trouble, &[&str])| texts.iter().any(|text| said.contains(text));
    TROUBLES.iter().find(fits).map_or(Trouble::Fatal, |(trouble, _)| *trouble)
}

/// What a person needs to do.
#[derive(Clone, Copy)]
enum Fix {
    LogIn,
    EnableApi,
    LinkBilling,
    AskForQuota,
    ChangePolicy,
    NameBucket,
    NameInstance,
    CheckProject,
    GrantRole,
    FreeIt,
    CheckNetwork,
    Wait,
}

/// Kinds and fixes, by what is said, in lower case. The first line that fits counts: a 403 may mean five
/// things, so that the plain permission comes after the others.
const KNOWN: &[(&[&str], Kind, Fix)] = &[
    (
        &[
            "have an active account selected",
            "reauthentication",
            "refreshing your current auth tokens",
            "invalid_grant",
            "unauthenticated",
            "invalid authentication credentials",
            "httperror 401",
        ],
        Kind::Auth,
        Fix::LogIn,
    ),
    (
        &["has not been used in project", "service_disabled", "accessnotconfigured", "not enabled on project"],
        Kind::Refused,
        Fix::EnableApi,
    ),
    (&["billing"], Kind::Refused, Fix::LinkBilling),
    (&["constraints/", "organization policy", "violates constraint"], Kind::Refused, Fix::ChangePolicy),
    (
        &["rate_limit_exceeded", "ratelimitexceeded", "httperror 429", "too many requests", "per minute"],
        Kind::Remote,
        Fix::Wait,
    ),
    (
        &["quota_exceeded", "quotaexceeded", "insufficient regional quota", "insufficient project quota", "quota '"],
        Kind::Refused,
        Fix::AskForQuota,
    ),
    (&["bucket name is not available", "bucket namespace is shared"], Kind::Conflict, Fix::NameBucket),
    (&["reuse the name of the deleted instance", "instancealreadyexists"], Kind::Conflict, Fix::NameInstance),
    (
        &[
            "user_project_denied",
            "consumer_invalid",
            "project not found",
            "unknown project",
            "projectnotfound",
            "project_not_found",
        ],
        Kind::Config,
        Fix::CheckProject,
    ),
    (
        &[
            "permission_denied",
            "does not have permission",
            "required permission",
            "permission(s) for",
            "permission for '",
            "denied on resource",
            "notauthorized",
            "not authorized",
            "httperror 403",
            "caller does not have",
        ],
        Kind::Forbidden,
        Fix::GrantRole,
    ),
    (&["already being used by", "resourceinuse", "in use by"], Kind::Conflict, Fix::FreeIt),
    (
        &["unable to find the server", "connectionerror", "max retries exceeded", "timed out", "crashed"],
        Kind::Remote,
        Fix::CheckNetwork,
    ),
    (&["unavailable", "internal error", "backenderror", "httperror 5", "resource_exhausted"], Kind::Remote, Fix::Wait),
];

/// What gcloud said, with the kind of error it is and what to do. `area` is gcloud's first word for
/// what it was about; `source` is what is shown of `said`.
pub fn explain(
    message: impl Into<String>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    said: &str,
    project: &str,
    area: &str,
) -> Error {
    let lower = said.to_lowercase();
    let known = KNOWN.iter().find(|(texts, _, _)| texts.iter().any(|text| lower.contains(text)));
    match known {
        Some((_, kind, fix)) => Error::new(*kind, message).source(source).hint(fix.hint(said, project, area)),
        None => Error::new(Kind::Tool, message).source(source),
    }
}

impl Fix {
    fn hint(self, said: &str, project: &str, area: &str) -> String {
        match self {
            Self::LogIn => "run gcloud auth login".to_owned(),
            Self::EnableApi => {
                let api = api(said).unwrap_or_else(|| default_api(area).to_owned());
                format!("run gcloud services enable {api} --project {project}")
            }
            Self::LinkBilling => format!(
                "give project {project} a billing account: \
                 https://console.cloud.google.com/billing/linkedaccount?project={project}"
            ),
            Self::AskForQuota => format!(
                "ask for more, or use less: https://console.cloud.google.com/iam-admin/quotas?project={project}"
            ),
            Self::ChangePolicy => {
                let constraint = word_with(said, "constraints/").unwrap_or_else(|| "a constraint".to_owned());
                format!("your organisation forbids it by {constraint}: do without it, or ask its administrators")
            }
            Self::NameBucket => "somebody has a bucket of this name: set `bucket` to another one".to_owned(),
            Self::NameInstance => {
                "a deleted instance's name is blocked for a week: set `instance` to another one".to_owned()
            }
            Self::CheckProject => format!("is {project} the project's id? `gcloud projects list` shows yours"),
            Self::GrantRole => {
                let permission = permission(said);
                let role = permission.as_deref().and_then(role).unwrap_or_else(|| default_role(area));
                let what = permission.map_or_else(String::new, |permission| format!(" for {permission}"));
                format!("your account needs {role}{what} in project {project}, if that is the project's id")
            }
            Self::FreeIt => "something else uses it: delete that first, then run the same command again".to_owned(),
            Self::CheckNetwork => "check this machine's network and proxy, then run the same command again".to_owned(),
            Self::Wait => "wait a little, then run the same command again: it carries on".to_owned(),
        }
    }
}

/// The API that a complaint names.
fn api(said: &str) -> Option<String> {
    let words = said.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'));
    // The types of an error's details are written the same way.
    let is_api = |word: &&str| word.ends_with(".googleapis.com") && *word != "type.googleapis.com";
    words.map(|word| word.trim_end_matches('.')).find(is_api).map(str::to_owned)
}

/// The permission that a complaint names: `storage.buckets.create`.
fn permission(said: &str) -> Option<String> {
    let words = said.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
    let is_permission = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        let is_name = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphabetic());
        (3..=4).contains(&parts.len()) && parts.iter().all(is_name) && role(word).is_some()
    };
    words.map(|word| word.trim_matches('.')).find(is_permission).map(str::to_owned)
}

/// The word of `said` that contains `part`.
fn word_with(said: &str, part: &str) -> Option<String> {
    let ends = |c: char| c.is_whitespace() || "'\"()[],;`".contains(c);
    let word = said.split(ends).find(|word| word.contains(part))?;
    Some(word.trim_end_matches(['.', ':']).to_owned())
}

/// The smallest usual role with this permission.
fn role(permission: &str) -> Option<&'static str> {
    let roles = [
        ("storage.", "roles/storage.admin"),
        ("cloudsql.", "roles/cloudsql.admin"),
        ("artifactregistry.", "roles/artifactregistry.admin"),
        ("container.", "roles/container.admin"),
        ("compute.", "roles/compute.networkAdmin"),
        ("servicenetworking.", "roles/servicenetworking.networksAdmin"),
        ("iam.serviceAccounts.actAs", "roles/iam.serviceAccountUser"),
        ("iam.serviceAccountKeys.", "roles/iam.serviceAccountKeyAdmin"),
        ("iam.serviceAccounts.", "roles/iam.serviceAccountAdmin"),
        ("iam.workloadIdentityPool", "roles/iam.workloadIdentityPoolAdmin"),
        ("resourcemanager.projects.", "roles/resourcemanager.projectIamAdmin"),
        ("serviceusage.", "roles/serviceusage.serviceUsageAdmin"),
        ("cloudbuild.", "roles/cloudbuild.builds.editor"),
    ];
    roles.into_iter().find(|(prefix, _)| permission.starts_with(prefix)).map(|(_, role)| role)
}

/// The same where only gcloud's own word for the area is known.
fn default_role(area: &str) -> &'static str {
    match area {
        "storage" => "roles/storage.admin",
        "sql" => "roles/cloudsql.admin",
        "artifacts" => "roles/artifactregistry.admin",
        "container" => "roles/container.admin",
        "compute" => "roles/compute.networkAdmin",
        "iam" => "roles/iam.serviceAccountAdmin and roles/iam.workloadIdentityPoolAdmin",
        "projects" => "roles/resourcemanager.projectIamAdmin",
        "services" => "roles/serviceusage.serviceUsageAdmin",
        "builds" => "roles/cloudbuild.builds.editor and roles/storage.admin",
        _ => "roles/owner",
    }
}

fn default_api(area: &str) -> &'static str {
    match area {
        "storage" => "storage.googleapis.com",
        "sql" => "sqladmin.googleapis.com",
        "artifacts" => "artifactregistry.googleapis.com",
        "container" => "container.googleapis.com",
        "compute" => "compute.googleapis.com",
        "iam" => "iam.googleapis.com",
        "builds" => "cloudbuild.googleapis.com",
        "services" => "serviceusage.googleapis.com",
        _ => "cloudresourcemanager.googleapis.com",
    }
}

/// The lines of gcloud's complaint that say what is wrong, without advice about gcloud itself.
pub(super) fn essence(said: &str) -> String {
    let lines = said.lines().map(str::trim_end).skip_while(|line| !line.starts_with("ERROR:"));
    let lines: Vec<&str> = lines.take_while(|line| !line.starts_with("If you would like to report")).take(12).collect();
    let text = if lines.is_empty() { said.trim().to_owned() } else { lines.join("\n") };
    text.trim().trim_start_matches("ERROR: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for (said, expected) in [
            (
                "ERROR: (gcloud.sql.instances.describe) HTTPError 404: The Cloud SQL instance does not exist.",
                Trouble::Absent,
            ),
            ("ERROR: (gcloud.storage.buckets.describe) gs://b not found: 404.", Trouble::Absent),
            (
                "ERROR: (gcloud.iam...create) Resource in projects [p] is the subject of a conflict: already exists",
                Trouble::Exists,
            ),
            (
                "HTTPError 409: The requested bucket name is not available. The bucket namespace is shared",
                Trouble::Exists,
            ),
            ("FAILED_PRECONDITION: Cannot modify allocated ranges in CreateConnection.", Trouble::Exists),
            ("INVALID_ARGUMENT: Service account mlflow@p.iam.gserviceaccount.com does not exist.", Trouble::TooEarly),
            ("Identity Pool does not exist (p.svc.id.goog). Please check", Trouble::TooEarly),
            ("ABORTED: There were concurrent policy changes. Please retry", Trouble::Busy),
            ("Cluster is running incompatible operation operation-1", Trouble::Busy),
            ("gcloud crashed (ConnectionError): ('Connection aborted.', RemoteDisconnected", Trouble::Passing),
            ("HTTPError 503: The service is currently unavailable.", Trouble::Passing),
            ("RESOURCE_EXHAUSTED: Quota exceeded for quota metric 'Requests'", Trouble::Passing),
            ("- Quota exceeded for quota metric 'Queries' and limit 'Queries per minute'.", Trouble::Passing),
            ("HTTPError 403: Quota 'CPUS' exceeded. quotaExceeded", Trouble::Fatal),
            ("PERMISSION_DENIED: Cloud SQL Admin API has not been used in project 7 before", Trouble::Disabled),
            ("PERMISSION_DENIED: Permission 'a.b.c' denied on resource", Trouble::Fatal),
        ] {
            assert_eq!(trouble(said), expected, "{said}");
        }
    }

    #[test]
    fn each_complaint_gets_its_kind_and_its_fix() {
        for (said, area, kind, hint) in [
            ("You do not currently have an active account selected.", "sql", Kind::Auth, "gcloud auth login"),
            (
                "Cloud Build API has not been used in project 7 before or it is disabled. Enable it by visiting \
                 https://console.developers.google.com/apis/api/cloudbuild.googleapis.com/overview?project=7 then retry.",
                "builds",
                Kind::Refused,
                "gcloud services enable cloudbuild.googleapis.com --project p-1",
            ),
            ("API [x] not enabled on project [p-1].", "sql", Kind::Refused, "enable sqladmin.googleapis.com"),
            ("This API method requires billing to be enabled.", "storage", Kind::Refused, "billing account"),
            ("Quota 'CPUS' exceeded. Limit: 8", "container", Kind::Refused, "iam-admin/quotas"),
            ("Quota exceeded for limit 'Queries per minute'.", "compute", Kind::Remote, "carries on"),
            ("type: constraints/sql.restrictPublicIp\n", "sql", Kind::Refused, "constraints/sql.restrictPublicIp:"),
            ("HTTPError 409: The requested bucket name is not available.", "storage", Kind::Conflict, "`bucket`"),
            ("you can't reuse the name of the deleted instance until one week", "sql", Kind::Conflict, "`instance`"),
            ("Project not found or deleted", "projects", Kind::Config, "is p-1 the project's id?"),
            (
                "(gcloud.storage.buckets.create) me@a.b does not have permission: me does not have \
                 storage.buckets.create access",
                "storage",
                Kind::Forbidden,
                "needs roles/storage.admin for storage.buckets.create",
            ),
            (
                "Required 'compute.networks.create' permission for 'projects/p-1'",
                "compute",
                Kind::Forbidden,
                "roles/compute.networkAdmin for compute.networks.create",
            ),
            (
                "ERROR: (gcloud.sql.instances.create) HTTPError 403: The caller does not have permission",
                "sql",
                Kind::Forbidden,
                "needs roles/cloudsql.admin in",
            ),
            ("The network resource is already being used by 'firewalls/x'", "compute", Kind::Conflict, "uses it"),
            ("gcloud crashed (ConnectionError): x", "sql", Kind::Remote, "network and proxy"),
            ("HTTPError 500: Internal error encountered.", "sql", Kind::Remote, "carries on"),
        ] {
            let error = explain("m", said, said, "p-1", area);
            let found = error.hint_text().unwrap_or_default();
            assert!(error.kind() == kind && found.contains(hint), "{said}: {:?} {found}", error.kind());
        }
        let error = explain("m", "something else", "something else", "p-1", "sql");
        assert_eq!((error.kind(), error.hint_text()), (Kind::Tool, None));
    }

    #[test]
    fn the_essence_is_what_is_wrong() {
        for (said, expected) in [
            (
                "Creating...\nERROR: (gcloud.x) no\nmore\n\nIf you would like to report this issue, run\n",
                "(gcloud.x) no\nmore",
            ),
            ("plain\n", "plain"),
        ] {
            assert_eq!(essence(said), expected);
        }
    }
}
