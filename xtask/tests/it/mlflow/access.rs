//! Who gets in: every way to ask the server, with the right password, a wrong one and none, and under
//! names that are the server's and names that are not. Expected and got, as a table.

use std::path::{Path, PathBuf};

use serde_json::Value;
use testbed::{Home, command};

use super::envs::Python;
use super::server::{ADMIN, ADMIN_PASSWORD, Database, Server};
use crate::google::BEHIND_IAP;
use crate::image;

/// Reaches the database.
pub(super) const API: &str = "/api/2.0/mlflow/experiments/search?max_results=1";

pub(super) const ARTIFACTS: &str = "/api/2.0/mlflow-artifacts/artifacts";

/// A trace without content: who may not send one is told so before anybody reads it.
pub(super) const OTLP: [&str; 6] =
    ["-X", "POST", "-H", "content-type: application/x-protobuf", "-H", "x-mlflow-experiment-id: 0"];

const DEPLOY: &str = r#"
[environment.lab]
kind = "kubernetes"
context = "nowhere"
namespace = "lab"
hosts = ["mlflow.example.com", "ml.example.com:8443"]
gateway = "infra/external"
gateway-is-internal = true
[environment.lab.database]
secret = "db"
[environment.lab.artifacts]
uri = "gs://bucket"
"#;

/// What MLflow's own client does with what its environment says.
pub(super) const CLIENT: &str =
    "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]); mlflow.search_experiments(max_results=1)";

/// A table of what was expected and found.
pub(super) struct Table {
    option: &'static str,
    lines: Vec<String>,
    wrong: usize,
}

impl Table {
    pub(super) fn new(option: &'static str) -> Self {
        Self { option, lines: Vec::new(), wrong: 0 }
    }

    pub(super) fn row(&mut self, what: &str, expected: &str, got: &str) {
        let mark = if got == expected { "" } else { "  <- WRONG" };
        self.wrong += usize::from(got != expected);
        self.lines.push(format!("{:8} | {what:66} | {expected:10} | {got}{mark}", self.option));
    }

    pub(super) fn end(self) {
        let text = self.lines.join("\n");
        println!("{text}");
        assert_eq!(self.wrong, 0, "\n{text}");
    }
}

/// A server to ask, and files with a login, for an argument is seen by all.
struct Asked {
    server: Server,
    right: PathBuf,
    wrong: PathBuf,
}

impl Asked {
    fn new(server: Server) -> Self {
        let file = |name: &str, password: &str| {
            let path = server.home.file(name);
            std::fs::write(&path, format!("user = \"{ADMIN}:{password}\"\n")).expect("a file");
            path
        };
        let (right, wrong) = (file("right", ADMIN_PASSWORD), file("wrong", "not the password"));
        Self { server, right, wrong }
    }

    /// The status, and whether the answer asks for a login.
    fn ask(&self, path: &str, login: Option<&Path>, args: &[&str]) -> String {
        let mut curl = command("curl");
        curl.args(["-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code} %header{www-authenticate}"]).args(args);
        if let Some(login) = login {
            curl.arg("-K").arg(login);
        }
        let output = curl.arg(format!("{}{path}", self.server.url())).output().expect("curl starts");
        assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        match text.split_once(' ') {
            Some((status, asks)) if asks.starts_with("Basic") => format!("{status} login"),
            _ => text.trim().to_owned(),
        }
    }

    /// Whether MLflow's own client gets in with these variables; `None` where there is no Python for it.
    fn client(&self, login: &[(&str, &str)]) -> Option<&'static str> {
        let python = Python::client()?;
        let mut client = self.server.home.command(python.interpreter());
        client.args(["-c", CLIENT, &self.server.url()]).env("GIT_PYTHON_REFRESH", "quiet").envs(login.iter().copied());
        let output = client.output().expect("python starts");
        let refused = String::from_utf8_lossy(&output.stderr).contains("not authenticated");
        Some(match (output.status.success(), refused) {
            (true, _) => "in",
            (false, true) => "refused",
            (false, false) => "broken",
        })
    }

    /// How a check of the smoke test ends.
    fn smoke(&self, check: &str) -> String {
        let mut smoke = self.server.home.command(env!("CARGO_BIN_EXE_xtask"));
        smoke.args(["smoke", "--json", "--url", &self.server.url()]);
        smoke.env("MLFLOW_TRACKING_USERNAME", ADMIN).env("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD);
        let output = smoke.output().expect("xtask starts");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let found = report["checks"].as_array().into_iter().flatten().find(|found| found["name"] == check);
        found.and_then(|found| found["status"].as_str()).unwrap_or("absent").to_owned()
    }
}

/// The Deployment that a deploy with this `deploy.toml` would apply.
pub(super) fn deployment(home: &Home, deploy: &str, vars: &[(&str, &str)]) -> Value {
    let root = home.path().join("project");
    image::copy_project(&root);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    image::copy(&from.join("kubernetes"), &root.join("kubernetes"));
    std::fs::write(root.join("deploy.toml"), deploy).expect("a file");
    let digest = "0".repeat(64);
    let mut render = home.command(env!("CARGO_BIN_EXE_xtask"));
    render.args(["render", "--env", "lab", "--json", "--image", &format!("a.example.com/b@sha256:{digest}")]);
    let output = render.env("CARGO_MANIFEST_DIR", &root).envs(vars.iter().copied()).output().expect("xtask starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let deployment = answer["objects"].as_array().into_iter().flatten().find(|object| object["kind"] == "Deployment");
    deployment.expect("a Deployment").clone()
}

/// A container's variable.
pub(super) fn variable(deployment: &Value, name: &str) -> String {
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    let variables = containers[0]["env"].as_array().expect("variables");
    let found = variables.iter().find(|variable| variable["name"] == name);
    found.expect("the variable")["value"].as_str().expect("a text").to_owned()
}

/// A server that allows the hosts that a deploy of this environment does.
fn serve_as(deploy: &str) -> Option<Asked> {
    let deployment = deployment(&Home::new(), deploy, &[]);
    // As Kubernetes replaces it.
    let hosts = variable(&deployment, "MLFLOW_SERVER_ALLOWED_HOSTS").replace("$(POD_IP)", "100.64.7.8");
    let server = Server::start_with(&Database::sqlite(), |_, command| {
        command.env("MLFLOW_SERVER_ALLOWED_HOSTS", &hosts);
    })?;
    Some(Asked::new(server))
}

#[test]
fn with_mlflows_login_nothing_but_probes_is_served_without_a_password() {
    let Some(server) = Server::start_with_login(&Database::sqlite()) else { return };
    let asked = Asked::new(server);
    let (right, wrong) = (Some(asked.right.as_path()), Some(asked.wrong.as_path()));
    let mut table = Table::new("basic");
    for path in ["/health", "/ready"] {
        table.row(&format!("probe {path}, no password"), "200", &asked.ask(path, None, &[]));
    }
    for (what, path, args) in [
        ("browser page", "/", &[][..]),
        ("API", API, &[]),
        ("artifacts", ARTIFACTS, &[]),
        ("OTLP trace", "/v1/traces", &OTLP),
    ] {
        table.row(&format!("{what}, no password"), "401 login", &asked.ask(path, None, args));
        table.row(&format!("{what}, wrong password"), "401 login", &asked.ask(path, wrong, args));
    }
    for (what, path) in [("browser page", "/"), ("API", API), ("artifacts", ARTIFACTS)] {
        table.row(&format!("{what}, password"), "200", &asked.ask(path, right, &[]));
    }
    table.row("OTLP trace, password", "passed", &asked.smoke("otlp"));
    let evil = ["-H", "Host: evil.example.com"];
    table.row("wrong Host, password", "403", &asked.ask(API, right, &evil));
    table.row("wrong Host, no password", "403", &asked.ask(API, None, &evil));
    // MLflow asks for no login where a path begins like /health; nothing may be found there.
    table.row("prefix /health, no password", "404", &asked.ask(&format!("/health{API}"), None, &[]));
    table.row("prefix /mlflow, no password", "401 login", &asked.ask(&format!("/mlflow{API}"), None, &[]));
    let user = ("MLFLOW_TRACKING_USERNAME", ADMIN);
    for (what, login, expected) in [
        ("password", &[user, ("MLFLOW_TRACKING_PASSWORD", ADMIN_PASSWORD)][..], "in"),
        ("wrong password", &[user, ("MLFLOW_TRACKING_PASSWORD", "not the password")], "refused"),
        ("no password", &[], "refused"),
    ] {
        if let Some(found) = asked.client(login) {
            table.row(&format!("MLflow's Python client, {what}"), expected, found);
        }
    }
    table.end();
}

#[test]
fn the_server_answers_to_the_hosts_that_follow_from_the_environment() {
    let Some(asked) = serve_as(DEPLOY) else { return };
    let mut table = Table::new("none");
    for (what, host, expected) in [
        ("Service", "mlflow:5000", "200"),
        ("Service with namespace", "mlflow.lab:5000", "200"),
        ("Service in full", "mlflow.lab.svc.cluster.local:5000", "200"),
        ("Service of another namespace", "mlflow.other.svc.cluster.local:5000", "403"),
        ("port-forward", "localhost:41234", "200"),
        ("port-forward by address", "127.0.0.1:5000", "200"),
        ("probe", "localhost", "200"),
        ("Service's address", "10.97.12.200:5000", "200"),
        ("pod's address", "100.64.7.8:5000", "200"),
        ("host", "mlflow.example.com", "200"),
        ("host, any port", "mlflow.example.com:443", "200"),
        ("host:port", "ml.example.com:8443", "200"),
        ("host:port, another port", "ml.example.com:443", "403"),
        ("another name", "evil.example.com", "403"),
        ("a name like an address", "10.evil.example.com:5000", "403"),
        ("a name that begins as an address", "10.97.12.200.evil.example.com:5000", "403"),
        ("a public address", "203.0.113.7:5000", "403"),
    ] {
        let got = asked.ask(API, None, &["-H", &format!("Host: {host}")]);
        table.row(&format!("{what}: {host}"), expected, &got);
    }
    table.end();
}

/// Who gets in is decided before the server, by Google; this is what Google lets through, and what would come past it.
#[test]
fn behind_googles_proxy_the_server_answers_what_is_let_through_and_to_no_other_host() {
    let Some(asked) = serve_as(BEHIND_IAP) else { return };
    let mut table = Table::new("iap");
    // Of a program, and of a browser (https://cloud.google.com/iap/docs/identity-howto). The token is none: the
    // server must not care.
    let token = ["-H", "Authorization: Bearer a.b.c"];
    let person = ["-H", "X-Goog-Authenticated-User-Email: accounts.google.com:ann@example.com"];
    let through = |host: &'static str| ["-H", host];
    let (ours, other) = (through("Host: mlflow.example.com"), through("Host: evil.example.com"));
    let health = ["-H", "Host: 100.64.7.8", "-H", "User-Agent: GoogleHC/1.0"];
    table.row("Google's health check", "200", &asked.ask("/health", None, &health));
    table.row("browser page, person", "200", &asked.ask("/", None, &[ours, person].concat()));
    table.row("API, person", "200", &asked.ask(API, None, &[ours, person].concat()));
    table.row("API, token", "200", &asked.ask(API, None, &[ours, token].concat()));
    table.row("artifacts, token", "200", &asked.ask(ARTIFACTS, None, &[ours, token].concat()));
    let trace = asked.ask("/v1/traces", None, &[&OTLP[..], &ours, &token].concat());
    table.row("OTLP trace, token, without content", "400", &trace);
    table.row("wrong Host, token", "403", &asked.ask(API, None, &[other, token].concat()));
    table.row("prefix /mlflow, token", "404", &asked.ask(&format!("/mlflow{API}"), None, &[ours, token].concat()));
    table.row("prefix /health, token", "404", &asked.ask(&format!("/health{API}"), None, &[ours, token].concat()));
    if let Some(found) = asked.client(&[("MLFLOW_TRACKING_TOKEN", "a.b.c")]) {
        table.row("MLflow's Python client, token", "in", found);
    }
    table.end();
}
