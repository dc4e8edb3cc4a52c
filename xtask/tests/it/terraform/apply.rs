//! terraform/ applied to the fake Google.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::{Value, json};
use testbed::google::{Fault, Google, Options, Project, Rule};

use super::{World, told};

const PROJECT: &str = "testbed-project";
const PASSWORD: &str = "correct horse battery staple";

/// A fake Google and a folder to apply to it.
struct Cloud {
    google: Google,
    world: World,
    variables: Vec<(String, String)>,
}

impl Cloud {
    /// `None` where a program is missing.
    fn start(variables: &[(&str, &str)]) -> Option<Self> {
        let world = World::new()?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let google = Google::start(Options { projects: vec![Project::new(PROJECT)], ..Options::default() });
        let all = [("project", PROJECT), ("region", "europe-west1")];
        let named = all.iter().chain(variables).map(|(name, value)| (format!("TF_VAR_{name}"), (*value).to_owned()));
        Some(Self { google, world, variables: named.collect() })
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.world.command(args);
        command.envs(self.google.terraform_env()).envs(self.variables.iter().cloned());
        command.output().expect("terraform starts")
    }

    fn succeed(&self, args: &[&str]) -> String {
        told(args, &self.run(args))
    }

    /// What it said when it failed.
    fn refused(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(!output.status.success(), "{args:?} succeeds");
        // As wide as it comes: terraform breaks lines.
        let said = String::from_utf8_lossy(&output.stderr).replace(['│', '\n'], " ");
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Plans, and applies that very plan.
    fn apply(&self) {
        self.succeed(&["plan", "-input=false", "-out=this.plan"]);
        self.succeed(&["apply", "-input=false", "this.plan"]);
    }

    /// The plan after an apply has nothing to do.
    fn is_settled(&self) {
        let output = self.run(&["plan", "-input=false", "-detailed-exitcode"]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn contract(&self) -> Value {
        serde_json::from_str(&self.succeed(&["output", "-json", "contract"])).expect("JSON")
    }

    /// `role on what: member`, of everything that is granted but a bucket's own legacy roles.
    fn grants(&self) -> BTreeSet<String> {
        let state = self.google.state();
        let mut grants = BTreeSet::new();
        for (of, bindings) in state["policies"].as_object().expect("policies") {
            for binding in bindings.as_array().expect("bindings") {
                let role = binding["role"].as_str().unwrap_or_default().trim_start_matches("roles/").to_owned();
                let members = binding["members"].as_array().expect("members");
                let named = members.iter().map(|member| member.as_str().unwrap_or_default());
                grants.extend(
                    named.filter(|_| !role.contains(".legacy")).map(|member| format!("{role} on {of}: {member}")),
                );
            }
        }
        grants
    }

    /// Everything that exists, by kind.
    fn exists(&self, kind: &str) -> bool {
        self.google.state()["resources"].get(kind).is_some()
    }
}

#[test]
fn everything_is_made_once_and_the_data_outlives_the_rest() {
    let Some(cloud) = Cloud::start(&[]) else { return };
    cloud.apply();
    let contract = cloud.contract();
    let endpoint = contract["cluster"]["endpoint"].as_str().unwrap_or_default().to_owned();
    assert!(endpoint.starts_with("https://") && endpoint.len() > 10, "{contract:#}");
    let expected = json!({
        "version": 1, "project": PROJECT, "region": "europe-west1", "bucket": "testbed-project-mlflow",
        "database": {
            "instance": "testbed-project:europe-west1:mlflow", "name": "mlflow", "user": "mlflow@testbed-project.iam",
            "login": "iam", "private_ip": true, "tier": "db-custom-1-3840", "version": "POSTGRES_17",
        },
        "registry": { "repository": "europe-west1-docker.pkg.dev/testbed-project/mlflow" },
        "identities": {
            "server": "mlflow@testbed-project.iam.gserviceaccount.com",
            "pull": "mlflow-nodes@testbed-project.iam.gserviceaccount.com",
        },
        "cluster": { "name": "mlflow", "location": "europe-west1", "endpoint": endpoint, "ca_certificate": null },
        "github": null,
    });
    assert_eq!(contract, expected);
    let server = "serviceAccount:mlflow@testbed-project.iam.gserviceaccount.com";
    let nodes = "serviceAccount:mlflow-nodes@testbed-project.iam.gserviceaccount.com";
    let account = "projects/testbed-project/serviceAccounts/mlflow@testbed-project.iam.gserviceaccount.com";
    let repository = "projects/testbed-project/locations/europe-west1/repositories/mlflow";
    let granted = [
        format!("storage.objectUser on buckets/testbed-project-mlflow: {server}"),
        format!("cloudsql.client on projects/testbed-project: {server}"),
        format!("cloudsql.instanceUser on projects/testbed-project: {server}"),
        format!("container.defaultNodeServiceAccount on projects/testbed-project: {nodes}"),
        format!("iam.workloadIdentityUser on {account}: serviceAccount:testbed-project.svc.id.goog[mlflow/mlflow]"),
        format!("artifactregistry.reader on {repository}: {nodes}"),
    ];
    assert_eq!(cloud.grants(), granted.into());
    cloud.is_settled();
    // Neither the second plan nor anything before it asked for a key.
    let log = cloud.google.log();
    assert!(!log.iter().any(|entry| entry.path.contains("/keys")), "{log:#?}");
    outlives(&cloud);
}

/// What `infra destroy` does without and with `--delete-data`.
fn outlives(cloud: &Cloud) {
    let said = cloud.refused(&["destroy", "-auto-approve", "-target=module.cluster"]);
    assert!(said.contains("deletion_protection is set to true"), "{said}");
    let cluster = "-target=module.cluster[0].google_container_cluster.this";
    let unprotected = "-var=deletion_protection=false";
    cloud.succeed(&["apply", "-auto-approve", unprotected, cluster]);
    let rest =
        ["-target=module.cluster", "-target=module.identities", "-target=module.registry", "-target=module.github"];
    cloud.succeed(&[&["destroy", "-auto-approve", unprotected][..], &rest].concat());
    for (kind, left) in [
        ("storage.buckets", true),
        ("sql.instances", true),
        ("sql.databases", true),
        ("container.clusters", false),
        ("artifactregistry.repositories", false),
        ("iam.serviceAccounts", false),
    ] {
        assert_eq!(cloud.exists(kind), left, "{kind}");
    }
    assert!(cloud.grants().is_empty(), "{:#?}", cloud.grants());
    let data = ["-target=module.bucket", "-target=module.database.google_sql_database_instance.this"];
    cloud.succeed(&[&["apply", "-auto-approve", "-var=delete_data=true"][..], &data].concat());
    cloud.succeed(&["destroy", "-auto-approve", "-var=delete_data=true"]);
    let state = cloud.google.state();
    assert_eq!(state["resources"], json!({}));
}

#[test]
fn other_choices_are_made_too_and_no_password_is_kept() {
    let Some(cloud) = Cloud::start(&[
        ("cluster", "standard"),
        ("login", "password"),
        ("database_password", PASSWORD),
        ("private_ip", "false"),
        ("registry", "gcr.io"),
        ("deletion_protection", "false"),
        ("github", "someone/mlflow"),
        ("github_repository_id", "123"),
        ("github_owner_id", "45"),
        ("github_environment", "production"),
        ("labels", r#"{"team":"ml"}"#),
    ]) else {
        return;
    };
    cloud.apply();
    cloud.is_settled();
    let contract = cloud.contract();
    assert_eq!(contract["database"]["user"], "mlflow");
    let provider = contract["github"]["provider"].as_str().unwrap_or_default();
    assert!(provider.ends_with("/locations/global/workloadIdentityPools/mlflow-github/providers/github"), "{provider}");
    let roles: BTreeSet<String> = cloud
        .grants()
        .iter()
        .filter_map(|grant| {
            grant.split_once(" on ").map(|(role, rest)| (role, rest.rsplit_once(": ").unwrap_or_default().1))
        })
        .map(|(role, member)| format!("{role} {}", member.split(['@', '/']).next().unwrap_or_default()))
        .collect();
    let expected = [
        "artifactregistry.reader serviceAccount:mlflow-nodes",
        "artifactregistry.writer serviceAccount:mlflow-build",
        "artifactregistry.writer serviceAccount:mlflow-deploy",
        "cloudsql.client serviceAccount:mlflow",
        "container.defaultNodeServiceAccount serviceAccount:mlflow-nodes",
        "container.developer serviceAccount:mlflow-deploy",
        "iam.securityReviewer serviceAccount:mlflow-plan",
        "iam.workloadIdentityUser principal:",
        "iam.workloadIdentityUser principalSet:",
        "iam.workloadIdentityUser serviceAccount:testbed-project.svc.id.goog[mlflow",
        "storage.objectUser serviceAccount:mlflow",
        "viewer serviceAccount:mlflow-plan",
    ];
    assert_eq!(roles, expected.map(str::to_owned).into());
    for file in ["this.plan", "terraform.tfstate"] {
        let bytes = std::fs::read(cloud.world.dir.join(file)).expect(file);
        assert!(!String::from_utf8_lossy(&bytes).contains(PASSWORD), "{file} has the password");
    }
    let log = serde_json::to_string(&cloud.google.log()).expect("JSON");
    assert!(!log.contains(PASSWORD) && log.contains("<secret>"));
    cloud.succeed(&["destroy", "-auto-approve", "-var=delete_data=true"]);
    assert!(!cloud.exists("sql.instances") && !cloud.exists("storage.buckets") && !cloud.exists("container.clusters"));
}

#[test]
fn what_passes_is_asked_again_and_what_does_not_is_told() {
    let Some(cloud) = Cloud::start(&[("cluster", "none"), ("private_ip", "false")]) else { return };
    for (service, path, fault) in [
        ("storage", "/b?", Fault::RateLimited),
        ("sql", "/users", Fault::Status(503)),
        ("iam", "/serviceAccounts", Fault::Status(500)),
        ("artifactregistry", "/repositories", Fault::Closed),
    ] {
        cloud.google.fail(&Rule::once(service, "POST", path, fault));
    }
    cloud.google.fail(&Rule::once("sql", "POST", "/databases", Fault::PermissionDenied));
    cloud.succeed(&["plan", "-input=false", "-out=this.plan"]);
    let said = cloud.refused(&["apply", "-input=false", "this.plan"]);
    assert!(said.contains("Error creating Database: googleapi: Error 403:"), "{said}");
    assert_eq!(said.matches("Error:").count(), 1, "{said}");
    // The second run makes what lacks, and nothing twice.
    cloud.google.clear_log();
    cloud.apply();
    cloud.is_settled();
    let made =
        cloud.google.log().into_iter().filter(|entry| entry.method == "POST" && entry.path.ends_with("/instances"));
    assert_eq!(made.count(), 0);
    // What someone else changes is seen.
    cloud.succeed(&["state", "rm", "module.bucket.google_storage_bucket.this"]);
    let said = cloud.refused(&["apply", "-auto-approve", "-input=false"]);
    assert!(said.contains("googleapi: Error 409:"), "{said}");
    cloud.succeed(&["import", "-input=false", "module.bucket.google_storage_bucket.this", "testbed-project-mlflow"]);
    cloud.is_settled();
}
