//! `doctor`: each thing that is missing is named with its fix, and nothing is changed by asking.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::google::{Fault, Google, Options, Project, Rule};
use testbed::{Auth, Home, Registry};

use crate::image;

const PROJECT: &str = "testbed-project";

/// The APIs that everything needs that the tests want.
const APIS: [&str; 9] = [
    "artifactregistry",
    "cloudresourcemanager",
    "compute",
    "container",
    "iam",
    "iamcredentials",
    "serviceusage",
    "sqladmin",
    "storage",
];

/// A program that answers to its first argument.
fn program(home: &Home, name: &str, answer: &str) {
    let file = home.file(&format!("bin/{name}"));
    fs::write(&file, format!("#!/bin/sh\nprintf '%s\\n' '{answer}'\n")).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
}

/// A checkout, and a machine that has all the programs and nothing else.
struct World {
    home: Home,
    google: Google,
}

/// What doctor answered.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    checks: Value,
    stderr: String,
}

impl Answer {
    fn check(&self, name: &str) -> &Value {
        let found = self.checks.as_array().into_iter().flatten().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no check {name}: {self:?}"))
    }

    /// Names of the checks in this state.
    fn with(&self, state: &str) -> Vec<&str> {
        let checks = self.checks.as_array().into_iter().flatten();
        checks.filter(|check| check["state"] == state).filter_map(|check| check["name"].as_str()).collect()
    }
}

impl World {
    fn new(project: Project, infra: &str) -> Self {
        let home = Home::new();
        program(&home, "uv", "uv 0.13.9");
        program(&home, "cargo", "cargo 1.95.0");
        program(&home, "terraform", r#"{"terraform_version": "1.11.4"}"#);
        let google = Google::start(Options { projects: vec![project], ..Options::default() });
        let world = Self { home, google };
        world.settings(&format!(
            "[environment.lab]\nkind = \"gke\"\n\
             [environment.lab.infra]\nproject = \"{PROJECT}\"\nregion = \"europe-west1\"\n{infra}"
        ));
        world
    }

    fn settings(&self, text: &str) {
        fs::write(self.home.file("checkout/Cargo.toml"), "").expect("a file");
        fs::write(self.home.file("checkout/mlflow_server/requirements.in"), "").expect("a file");
        fs::write(self.home.file("checkout/deploy.toml"), text).expect("a file");
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
        image::copy(&repository.join("kubernetes"), &self.home.path().join("checkout/kubernetes"));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).stdin(Stdio::null());
        command.env("PATH", self.home.path().join("bin")).env("CARGO_MANIFEST_DIR", self.home.path().join("checkout"));
        // A machine without Google's metadata server.
        command.env("GCE_METADATA_HOST", "127.0.0.1:1");
        command.envs(self.google.gcloud_env());
        command
    }

    fn doctor(&self, change: impl FnOnce(&mut Command)) -> Answer {
        let mut command = self.command(&["doctor", "--env", "lab", "--json"]);
        change(&mut command);
        let output = command.output().expect("xtask starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
        Answer { code: output.status.code(), checks: answer["checks"].clone(), stderr }
    }

    fn sees(&self, name: &str, state: &str, parts: &[&str]) -> Answer {
        let answer = self.doctor(|_| {});
        answer.says(name, state, parts);
        answer
    }

    fn fail(&self, service: &str, path: &str, fault: Fault) {
        let rule = Rule { service: service.to_owned(), path: path.to_owned(), times: 99, fault, ..Rule::default() };
        self.google.fail(&rule);
    }
}

impl Answer {
    /// The check is in this state, says all this, and has a fix unless nobody knows one.
    fn says(&self, name: &str, state: &str, parts: &[&str]) {
        let check = self.check(name);
        assert_eq!(check["state"], state, "{name}: {self:?}");
        let text = format!("{} -> {}", check["seen"].as_str().unwrap_or(""), check["fix"].as_str().unwrap_or(""));
        for part in parts {
            assert!(text.contains(part), "{name}: {text:?} should contain {part:?}");
        }
        assert_eq!(self.code, Some(if self.with("missing").is_empty() { 0 } else { 12 }), "{self:?}");
    }
}

fn healthy() -> Project {
    let mut enabled: Vec<String> = APIS.iter().map(|name| format!("{name}.googleapis.com")).collect();
    enabled.push("servicenetworking.googleapis.com".to_owned());
    Project { enabled, ..Project::new(PROJECT) }
}

#[test]
fn a_healthy_project_lacks_nothing_and_is_not_changed() {
    let world = World::new(healthy(), "");
    let before = world.google.state();
    let answer = world.doctor(|_| {});
    assert_eq!(answer.code, Some(0), "{answer:?}");
    // What `infra apply` makes is not there yet, and so is not looked at.
    assert_eq!(answer.with("warning"), ["infrastructure"], "{answer:?}");
    assert_eq!(answer.with("unknown"), ["registry", "cluster"], "{answer:?}");
    let seen = |name: &str| answer.check(name)["seen"].as_str().unwrap_or_default().to_owned();
    assert!(seen("project").contains("415104041262"), "{answer:?}");
    assert!(seen("login").contains("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"), "{answer:?}");
    assert!(seen("bucket").contains("testbed-project-mlflow is free"), "{answer:?}");
    assert!(seen("connections").contains("takes 100 (tier db-custom-1-3840)"), "{answer:?}");
    assert_eq!(world.google.state(), before);
    let output = world.command(&["doctor", "--env", "lab"]).output().expect("xtask starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("ok       billing") && text.contains("lab: nothing is missing, 1 warning"), "{text}");
}

#[test]
fn what_a_project_lacks_is_named_with_its_fix() {
    let world = World::new(healthy(), "");
    world.google.set_project(&Project { billing: false, ..healthy() });
    world.sees(
        "billing",
        "missing",
        &["nobody pays for testbed-project", "gcloud billing projects link testbed-project"],
    );

    world.google.set_project(&Project { quotas: [("IN_USE_ADDRESSES".to_owned(), 0)].into(), ..healthy() });
    world.sees(
        "quotas",
        "missing",
        &["IN_USE_ADDRESSES", "in europe-west1", "iam-admin/quotas?project=testbed-project"],
    );
    world.google.set_project(&healthy());

    world.fail("storage", "testbed-project-mlflow", Fault::PermissionDenied);
    world.sees("bucket", "missing", &["taken by someone else", "bucket = "]);
    world.google.clear_faults();

    // A stranger may do nothing in the project.
    let token = world.google.token("stranger@elsewhere.iam.gserviceaccount.com");
    let answer = world.doctor(|command| {
        command.env("GOOGLE_OAUTH_ACCESS_TOKEN", token);
    });
    answer.says("permissions", "missing", &["cloudsql.instances.create", "let an owner of testbed-project grant"]);
    answer.says("login", "ok", &["GOOGLE_OAUTH_ACCESS_TOKEN"]);

    // What does not answer is not known, and nothing else suffers from it.
    world.fail("cloudbilling", "", Fault::Closed);
    let answer = world.sees("billing", "unknown", &["connection"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert_eq!(answer.check("policies")["state"], "ok");
    world.google.clear_faults();

    world.fail("cloudresourcemanager", "", Fault::Status(401));
    let answer = world.sees("project", "missing", &["does not accept", "gcloud auth application-default login"]);
    assert_eq!(answer.with("missing"), ["project"]);
    answer.says("billing", "unknown", &["not asked: the project comes first"]);
}

#[test]
fn what_is_off_or_forbidden_is_named_with_its_fix() {
    let mut project = healthy();
    project.enabled.retain(|name| !name.starts_with("compute.") && !name.starts_with("sqladmin."));
    project.constraints = vec!["iam.disableServiceAccountKeyCreation".to_owned(), "sql.restrictPublicIp".to_owned()];
    let world = World::new(
        project,
        "pull-key = true\nprivate-ip = false\nstate-bucket = \"testbed-state\"\ncluster = \"standard\"\n",
    );
    let answer =
        world.sees("APIs", "warning", &["sqladmin.googleapis.com, compute", "infra apply", "gcloud services enable"]);
    answer.says("quotas", "unknown", &["compute.googleapis.com is not enabled yet"]);
    answer.says("policies", "missing", &["KeyCreation forbids", "restrictPublicIp forbids", "private-ip = true"]);
    answer.says(
        "state bucket",
        "missing",
        &["testbed-state is not there", "gcloud storage buckets create gs://testbed-state"],
    );
    // The tier is told by the settings where the instance cannot be asked.
    answer.says("connections", "ok", &["tier db-custom-1-3840"]);

    let elsewhere = fs::read_to_string(world.home.file("checkout/deploy.toml")).expect("a file");
    world.settings(&elsewhere.replace(PROJECT, "another-project"));
    let answer = world.sees("project", "missing", &["another-project", "who is logged in"]);
    assert_eq!(answer.with("missing"), ["project"]);
}

#[test]
fn tools_and_logins_that_are_missing_are_named_with_their_fix() {
    let world = World::new(healthy(), "");
    let answer = world.doctor(|command| {
        command.env_remove("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE");
    });
    answer.says("login", "missing", &["there is no login at Google", "gcloud: it is not installed", "gcloud auth"]);
    assert_eq!(answer.with("missing"), ["login"], "nothing that needs it is a second error");
    answer.says("permissions", "unknown", &["not asked: no login"]);

    program(&world.home, "terraform", r#"{"terraform_version": "1.9.8"}"#);
    world.sees("terraform", "missing", &["1.9.8", "too old", "terraform 1.11 or newer"]);
    fs::remove_file(world.home.file("bin/terraform")).expect("a file");
    world.sees("terraform", "missing", &["terraform is not installed", "via = \"gcloud\""]);
    fs::remove_file(world.home.file("bin/uv")).expect("a file");
    let answer = world.sees("uv or pip", "missing", &["install uv"]);
    answer.says("package index", "unknown", &["neither uv nor pip"]);

    let world = World::new(healthy(), "via = \"gcloud\"\n");
    world.sees("gcloud", "missing", &["gcloud is not installed", "via = \"terraform\""]);
    program(&world.home, "gcloud", r#"{"Google Cloud SDK": "528.0.0"}"#);
    world.sees("gcloud", "ok", &["528.0.0"]);
}

#[test]
fn a_push_is_tried_without_leaving_anything() {
    let (user, password) = ("ada", format!("p{}", std::process::id()));
    let auth = Auth::Basic { user, password: &password };
    let Some(registry) = Registry::start_with(testbed::Options { auth, ..testbed::Options::default() }) else { return };
    let world = World::new(healthy(), "");
    world.settings(&format!(
        "[environment.lab]\nkind = \"kubernetes\"\ncontext = \"nowhere\"\nmax-replicas = 3\n\
         [environment.lab.database]\nuri-variable = \"URI\"\n[environment.lab.artifacts]\nuri = \"gs://bucket\"\n\
         [environment.lab.image]\nrepository = \"{}/team/mlflow\"\n",
        registry.host()
    ));
    world.sees("registry", "missing", &["does not accept an anonymous user", "docker login"]);
    let login = json!({ "auths": { registry.host(): { "auth": STANDARD.encode(format!("{user}:{password}")) } } });
    fs::write(world.home.file("docker/config.json"), login.to_string()).expect("a file");
    let answer = world.sees("registry", "ok", &["user ada (docker login) may push"]);
    answer.says("image pulls", "ok", &["as a pull secret"]);
    answer.says("connections", "unknown", &["up to 555 connections", "SHOW max_connections"]);
    answer.says("cluster", "missing", &["kubeconfig"]);
    answer.says("rights", "unknown", &["not asked: no connection to the cluster"]);
    assert!(!answer.stderr.contains(&password) && !answer.checks.to_string().contains(&password));
    assert_eq!(files(&registry.folder()), 0, "an upload was left behind");
    assert!(!world.home.path().join("cache/mlflow-on-kubernetes").exists(), "a cache was made");
}

/// Files below a folder; but for the state of a hash, which this registry forgets to remove with an
/// upload that is canceled.
fn files(dir: &std::path::Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let entries = entries.flatten().filter(|entry| entry.file_name() != "hashstates");
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[test]
fn a_cluster_of_googles_is_logged_in_to_without_its_plugin() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (seen, headers) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
            let path = lines.next().unwrap_or_default();
            let header = lines.filter(|line| line.to_lowercase().starts_with("authorization:")).last();
            let _ = seen.send(header.unwrap_or_default());
            let (status, body) = match path.contains(" /version ") {
                true => (
                    "200 OK",
                    r#"{"major":"1","minor":"33","gitVersion":"v1.33.0","gitCommit":"","gitTreeState":"","buildDate":"","goVersion":"","compiler":"","platform":""}"#,
                ),
                false => (
                    "401 Unauthorized",
                    r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","code":401,"message":"Unauthorized","reason":"Unauthorized"}"#,
                ),
            };
            let _ = (&stream).write_all(
                format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).as_bytes(),
            );
        }
    });
    let world = World::new(healthy(), "");
    world.settings(
        "[environment.lab]\nkind = \"kubernetes\"\ncontext = \"gke\"\nkubeconfig = \"kubeconfig\"\n\
         [environment.lab.database]\nuri-variable = \"URI\"\n[environment.lab.artifacts]\nuri = \"gs://bucket\"\n",
    );
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "",
        "clusters": [{ "name": "gke", "cluster": { "server": format!("http://127.0.0.1:{port}") } }],
        "contexts": [{ "name": "gke", "context": { "cluster": "gke", "user": "gke" } }],
        "users": [{ "name": "gke", "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "gke-gcloud-auth-plugin",
            "interactiveMode": "Never", "provideClusterInfo": true,
        } } }],
    });
    fs::write(world.home.file("checkout/kubeconfig"), config.to_string()).expect("a file");
    let token = format!("t{}", std::process::id());
    let answer = world.doctor(|command| {
        command.env("GOOGLE_OAUTH_ACCESS_TOKEN", &token);
    });
    answer.says("cluster", "ok", &["v1.33.0"]);
    answer.says("rights", "missing", &["log in again"]);
    let sent = headers.recv().expect("a request");
    assert!(sent.ends_with(&format!("Bearer {token}")), "{sent}");

    // The plugin itself, as kubectl runs it.
    let plugin = |change: &dyn Fn(&mut Command)| {
        let mut command = world.command(&["google-login"]);
        command.env_remove("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE");
        change(&mut command);
        command.output().expect("xtask starts")
    };
    let summary = world.home.file("summary");
    let output = plugin(&|command| {
        command
            .env("GOOGLE_OAUTH_ACCESS_TOKEN", &token)
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_STEP_SUMMARY", &summary);
    });
    let credential: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&credential["kind"], &credential["status"]["token"]), (&json!("ExecCredential"), &json!(token)));
    assert!(!fs::read_to_string(&summary).unwrap_or_default().contains(&token), "the summary page holds the token");
    let output = plugin(&|_| {});
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("there is no login at Google") && output.stdout.is_empty(), "{text}");
}
