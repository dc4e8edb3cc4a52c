//! Which permission a call needs, and who has it.

use http::Method;
use serde_json::json;

use super::call::{Call, Principal};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::roles;
use super::state::State;

/// The API that has to be enabled for a service, and what people call it.
const APIS: &[(&str, &str, &str)] = &[
    ("artifactregistry", "artifactregistry.googleapis.com", "Artifact Registry API"),
    ("cloudbilling", "cloudbilling.googleapis.com", "Cloud Billing API"),
    ("cloudbuild", "cloudbuild.googleapis.com", "Cloud Build API"),
    ("cloudresourcemanager", "cloudresourcemanager.googleapis.com", "Cloud Resource Manager API"),
    ("compute", "compute.googleapis.com", "Compute Engine API"),
    ("container", "container.googleapis.com", "Kubernetes Engine API"),
    ("iam", "iam.googleapis.com", "Identity and Access Management (IAM) API"),
    ("iamcredentials", "iamcredentials.googleapis.com", "IAM Service Account Credentials API"),
    ("orgpolicy", "orgpolicy.googleapis.com", "Organization Policy API"),
    ("servicenetworking", "servicenetworking.googleapis.com", "Service Networking API"),
    ("sql", "sqladmin.googleapis.com", "Cloud SQL Admin API"),
    ("storage", "storage.googleapis.com", "Cloud Storage API"),
];

/// Services that gcloud calls in a project of its own for people.
const SHARED: &[&str] = &["cloudbilling", "cloudresourcemanager", "orgpolicy"];

/// What a call is about.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// The project, as it is named in the call.
    pub(crate) project: Option<String>,
    /// The resources whose policies count, the nearest first, without the project.
    pub(crate) resources: Vec<String>,
    /// Empty for calls that everybody may make.
    pub(crate) permission: String,
}

impl State {
    /// Whether somebody has a permission on a resource or on the project above it.
    pub(crate) fn holds(&self, principal: &Principal, permission: &str, resource: &str) -> bool {
        let Principal::Account(email) = principal else { return matches!(principal, Principal::Owner(_)) };
        let member = format!("serviceAccount:{email}");
        let mut names = vec![resource.to_owned()];
        let parts: Vec<&str> = resource.split('/').collect();
        match parts.as_slice() {
            ["projects", project, _, ..] => names.push(format!("projects/{project}")),
            ["buckets", bucket] => {
                let project = self.get("storage.buckets", bucket).and_then(|bucket| bucket["testbedProject"].as_str());
                names.extend(project.map(|project| format!("projects/{project}")));
            }
            _ => {}
        }
        names.iter().filter_map(|name| self.policies.get(name)).flat_map(|policy| &policy.bindings).any(|binding| {
            // Conditions are not evaluated: what is granted under one does not count.
            binding["condition"].is_null()
                && binding["members"].as_array().is_some_and(|members| members.iter().any(|found| *found == member))
                && roles::grants(binding["role"].as_str().unwrap_or_default(), permission)
        })
    }

    /// What a call is about.
    pub(crate) fn subject(&self, call: &Call) -> Subject {
        let parts = call.parts();
        match (call.service.as_str(), parts.as_slice()) {
            ("storage", parts) => self.storage_subject(call, parts),
            ("serviceusage", ["v1" | "v1beta1", "projects", project, "services", ..]) => Subject {
                project: Some((*project).to_owned()),
                permission: format!("serviceusage.services.{}", action(call, parts.len() == 5)),
                ..Subject::default()
            },
            ("cloudresourcemanager" | "cloudbilling" | "orgpolicy", [_, "projects", project, rest @ ..]) => Subject {
                project: Some((*project).to_owned()),
                permission: if rest.is_empty() {
                    format!("resourcemanager.projects.{}", action(call, true))
                } else {
                    "resourcemanager.projects.get".to_owned()
                },
                ..Subject::default()
            },
            _ => {
                let Some(at) = parts.iter().position(|part| *part == "projects") else { return Subject::default() };
                self.common_subject(call, &parts[at + 1..])
            }
        }
    }

    fn common_subject(&self, call: &Call, parts: &[&str]) -> Subject {
        let Some((project, rest)) = parts.split_first() else { return Subject::default() };
        let project_id = self.project(project).map_or_else(|_| (*project).to_owned(), |found| found.id.clone());
        let subject = Subject { project: Some((*project).to_owned()), ..Subject::default() };
        if rest.contains(&"operations") {
            return subject;
        }
        let service = match call.service.as_str() {
            "sql" => "cloudsql",
            "iamcredentials" => "iam",
            other => other,
        };
        // Pairs of collection and name; places stand before what is in them.
        let mut pairs: Vec<(&str, Option<&str>)> = rest.chunks(2).map(|pair| (pair[0], pair.get(1).copied())).collect();
        let is_place = |pair: &(&str, Option<&str>)| {
            ["locations", "zones", "regions", "global"].contains(&pair.0) && pair.1.is_some()
        };
        if service == "compute" && rest.first() == Some(&"global") {
            pairs = rest[1..].chunks(2).map(|pair| (pair[0], pair.get(1).copied())).collect();
        }
        let resource = format!("projects/{project_id}/{}", rest.join("/"));
        let Some(&(noun, name)) = pairs.iter().rev().find(|pair| !is_place(pair)) else { return subject };
        let (noun, action) = match (noun, call.verb.as_str()) {
            ("connectSettings", _) | (_, "generateEphemeralCert") => ("instances", "connect".to_owned()),
            (_, "generateAccessToken") => ("serviceAccounts", "getAccessToken".to_owned()),
            (_, "generateIdToken") => ("serviceAccounts", "getOpenIdToken".to_owned()),
            ("keys", _) => ("serviceAccountKeys", action(call, name.is_some())),
            _ => (noun, action(call, name.is_some())),
        };
        let account = rest.iter().position(|part| *part == "serviceAccounts").and_then(|at| rest.get(at + 1));
        let resource = match account {
            Some(email) => {
                let home =
                    email.split_once('@').and_then(|(_, domain)| domain.split('.').next()).unwrap_or(&project_id);
                format!("projects/{}/serviceAccounts/{email}", if *project == "-" { home } else { &project_id })
            }
            None => resource,
        };
        Subject { permission: format!("{service}.{noun}.{action}"), resources: vec![resource], ..subject }
    }

    fn storage_subject(&self, call: &Call, parts: &[&str]) -> Subject {
        let parts =
            if parts.first() == Some(&"upload") || parts.first() == Some(&"download") { &parts[1..] } else { parts };
        let Some(["b", rest @ ..]) = parts.get(2..) else { return Subject::default() };
        let Some((bucket, rest)) = rest.split_first().filter(|(bucket, _)| !bucket.is_empty()) else {
            return Subject {
                project: call.query("project").map(str::to_owned),
                permission: format!("storage.buckets.{}", action(call, false)),
                ..Subject::default()
            };
        };
        let project = self.get("storage.buckets", bucket).and_then(|bucket| bucket["testbedProject"].as_str());
        let permission = match rest {
            ["iam", "testPermissions"] => String::new(),
            ["iam"] if call.method == Method::GET => "storage.buckets.getIamPolicy".to_owned(),
            ["iam"] => "storage.buckets.setIamPolicy".to_owned(),
            ["o", name @ ..] => format!("storage.objects.{}", action(call, !name.is_empty())),
            _ => format!("storage.buckets.{}", action(call, true)),
        };
        Subject { project: project.map(str::to_owned), resources: vec![format!("buckets/{bucket}")], permission }
    }
}

/// What a method does, in the word of the permissions.
fn action(call: &Call, is_item: bool) -> String {
    match (call.verb.as_str(), call.method.as_str()) {
        ("", "GET" | "HEAD") => if is_item { "get" } else { "list" }.to_owned(),
        ("", "POST") => "create".to_owned(),
        ("", "PUT" | "PATCH") => "update".to_owned(),
        ("", "DELETE") => "delete".to_owned(),
        ("batchEnable", _) => "enable".to_owned(),
        (verb, _) => verb.to_owned(),
    }
}

impl Core {
    /// Refuses calls to APIs that are not enabled, and calls without the permission.
    pub(crate) fn admit(&self, call: &Call) -> Outcome<()> {
        let state = self.state();
        let subject = state.subject(call);
        let Some(named) = subject.project.as_deref().filter(|named| *named != "-") else { return Ok(()) };
        let project = state.project(named)?;
        let shared = SHARED.contains(&call.service.as_str())
            && matches!(call.principal, Principal::Owner(_))
            && call.header("x-goog-user-project").is_none();
        if let Some((_, api, title)) = APIS.iter().find(|(service, ..)| *service == call.service)
            && !shared
            && !state.enabled.get(&project.id).is_some_and(|enabled| enabled.contains(*api))
        {
            return Err(disabled(api, title, project.number));
        }
        if !self.options.enforce || subject.permission.is_empty() || subject.permission.ends_with("testIamPermissions")
        {
            return Ok(());
        }
        let above = format!("projects/{}", project.id);
        let held = subject.resources.iter().chain([&above]);
        let mut names = held.clone();
        if names.any(|resource| state.holds(&call.principal, &subject.permission, resource)) {
            return Ok(());
        }
        let resource = subject.resources.first().unwrap_or(&above);
        let mut failure = Failure::permission(&subject.permission, resource);
        if call.service == "sql" {
            failure.message = format!(
                "boss::NOT_AUTHORIZED: Not authorized to access resource. Possibly missing permission {} on resource \
                 {}.",
                subject.permission,
                resource.split_once(&format!("{above}/")).map_or("", |(_, rest)| rest),
            );
        }
        Err(failure)
    }
}

/// An API that is not enabled.
fn disabled(api: &str, title: &str, number: u64) -> Failure {
    let url = format!("https://console.developers.google.com/apis/api/{api}/overview?project={number}");
    let message = format!(
        "{title} has not been used in project {number} before or it is disabled. Enable it by visiting {url} then \
         retry. If you enabled this API recently, wait a few minutes for the action to propagate to our systems and \
         retry."
    );
    let help = json!({ "@type": "type.googleapis.com/google.rpc.Help",
        "links": [{ "description": "Google developers console API activation", "url": url }] });
    let metadata = json!({ "service": api, "serviceTitle": title, "consumer": format!("projects/{number}"),
        "containerInfo": number.to_string(), "activationUrl": url });
    Failure::new(403, message)
        .reason("accessNotConfigured")
        .info("SERVICE_DISABLED", "googleapis.com", metadata)
        .detail(help)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a_call_needs_a_permission() {
        let sa = "a@p.iam.gserviceaccount.com";
        for (method, path, permission) in [
            (Method::GET, "/sql/sql/v1beta4/projects/p/instances/i/connectSettings", "cloudsql.instances.connect"),
            (Method::POST, "/sql/v1/projects/p/instances/i:generateEphemeralCert", "cloudsql.instances.connect"),
            (Method::POST, "/sql/sql/v1beta4/projects/p/instances", "cloudsql.instances.create"),
            (Method::GET, "/sql/sql/v1beta4/projects/p/operations/o", ""),
            (Method::GET, "/storage/storage/v1/b/x/o", "storage.objects.list"),
            (Method::GET, "/storage/storage/v1/b/x", "storage.buckets.get"),
            (Method::POST, "/storage/upload/storage/v1/b/x/o", "storage.objects.create"),
            (Method::PUT, "/storage/storage/v1/b/x/iam", "storage.buckets.setIamPolicy"),
            (Method::POST, "/cloudresourcemanager/v1/projects/p:setIamPolicy", "resourcemanager.projects.setIamPolicy"),
            (Method::POST, "/serviceusage/v1/projects/p/services:batchEnable", "serviceusage.services.enable"),
            (Method::GET, "/container/v1/projects/p/locations/r/clusters", "container.clusters.list"),
            (Method::GET, "/container/v1/projects/p/locations/r/clusters/c", "container.clusters.get"),
            (
                Method::POST,
                "/artifactregistry/v1/projects/p/locations/r/repositories",
                "artifactregistry.repositories.create",
            ),
            (Method::POST, "/compute/compute/v1/projects/p/global/networks", "compute.networks.create"),
            (Method::GET, "/compute/compute/v1/projects/p/regions/r/subnetworks/s", "compute.subnetworks.get"),
            (Method::POST, &format!("/iam/v1/projects/p/serviceAccounts/{sa}/keys"), "iam.serviceAccountKeys.create"),
            (
                Method::POST,
                &format!("/iamcredentials/v1/projects/-/serviceAccounts/{sa}:generateAccessToken"),
                "iam.serviceAccounts.getAccessToken",
            ),
        ] {
            let call = Call::new(method, path, "", HeaderMap::new(), Bytes::new());
            assert_eq!(State::default().subject(&call).permission, permission, "{path}");
        }
    }
}
