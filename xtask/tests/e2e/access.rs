//! Who gets in: each way to ask the server, with the right password, a wrong one, none, and under a
//! wrong name; expected and got, as a table.

mod oidc;

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::first_deploy::envs;
use crate::report::Row;
use crate::run::Running;
use crate::scenario::Scenario;
use crate::site::{ENV, LONGEST, Site};
use crate::world::World;
use crate::{Result, ensure};

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "access-login",
        about: "MLflow's own login: who gets in, and who does not",
        alone: false,
        needs: None,
        run: login,
    },
    Scenario {
        name: "access-oidc",
        about: "OpenID Connect by oauth2-proxy: who gets in, a rollout under load, an issuer that is away",
        alone: false,
        needs: None,
        run: oidc::run,
    },
    Scenario {
        name: "access-public",
        about: "a public address without a login is refused",
        alone: false,
        needs: None,
        run: public,
    },
];

/// Reaches the database, so it is behind the login.
pub(super) const API: &str = "/api/2.0/mlflow/experiments/search?max_results=1";

/// A span without content: who may not send one is told so before anybody reads it.
pub(super) const OTLP: [&str; 6] =
    ["-X", "POST", "-H", "content-type: application/x-protobuf", "-H", "x-mlflow-experiment-id: 0"];

/// What the table says of one way to ask.
pub(super) struct Line {
    what: &'static str,
    expected: String,
    got: String,
}

/// A table of expected and found answers.
#[derive(Default)]
pub(super) struct Table(Vec<Line>);

impl Table {
    pub(super) fn add(&mut self, what: &'static str, expected: &str, got: impl Into<String>) {
        self.0.push(Line { what, expected: expected.to_owned(), got: got.into() });
    }

    /// Its lines, printed where all can see them.
    ///
    /// # Errors
    /// With the whole table, where a line is not as expected.
    pub(super) fn end(self, option: &str) -> Result<Vec<String>> {
        let line = |line: &Line| {
            let mark = if line.got == line.expected { "ok" } else { "WRONG" };
            format!("{option:6} | {:34} | {:12} | {:12} | {mark}", line.what, line.expected, line.got)
        };
        let lines: Vec<String> = self.0.iter().map(line).collect();
        ensure!(self.0.iter().all(|line| line.got == line.expected), "who gets in:\n{}", lines.join("\n"));
        Ok(lines)
    }
}

/// The status of an answer, and whether it asks for a login.
fn ask(site: &Site<'_>, path: &str, args: &[&str]) -> Result<String> {
    let url = format!("{}{path}", site.service()?);
    let mut curl = site.home.command("curl");
    curl.args(["-sS", "-m", "30", "-o", "/dev/null", "-w", "%{http_code} %header{www-authenticate}"]).args(args);
    let output = curl.arg(&url).output()?;
    ensure!(output.status.success(), "curl {url}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let (status, asks) = text.split_once(' ').unwrap_or((&text, ""));
    Ok(if asks.starts_with("Basic") { format!("{status}, login") } else { status.to_owned() })
}

/// A curl configuration with a login, for an argument is seen by all.
fn credentials(site: &Site<'_>, name: &str, password: &str) -> Result<String> {
    let path = site.file(name, &format!("user = \"admin:{password}\"\n"))?;
    Ok(path.display().to_string())
}

/// The administrator's password, by the way that `status` names.
fn password(site: &Site<'_>) -> Result<(String, Value)> {
    let secret = site.world.kube.get(&site.path("v1", "secrets/mlflow-login"))?;
    let encoded = secret["data"]["admin-password"].as_str().ok_or("the Secret has no password")?;
    Ok((String::from_utf8(STANDARD.decode(encoded)?)?, secret))
}

fn login(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "login")?;
    site.set(|settings| {
        settings.replicas = 2;
        settings.lines.push("login = \"basic\"".to_owned());
    })?;
    let first = site.deploy(&["--json"])?.expect(0)?;
    let report = first.json()?;
    let (password, secret) = password(&site)?;
    ensure!(!first.text().contains(&password), "deploy prints the password");
    let mut table = Table::default();
    let check = |name: &str| {
        let checks = report["smoke"]["checks"].as_array().into_iter().flatten();
        checks
            .clone()
            .find(|check| check["name"] == name)
            .map_or("-", |check| check["status"].as_str().unwrap_or("-"))
            .to_owned()
    };
    let (right, wrong) = (credentials(&site, "right", &password)?, credentials(&site, "wrong", "not the password")?);
    let (right, wrong) = (["-K", right.as_str()], ["-K", wrong.as_str()]);
    let deployment = site.deployment()?.ok_or("there is no Deployment")?;
    table.add("probe: pods ready", "2", deployment["status"]["readyReplicas"].to_string());
    table.add("probe: /health, no password", "200", ask(&site, "/health", &[])?);
    table.add("probe: /ready, no password", "200", ask(&site, "/ready", &[])?);
    table.add("browser page, no password", "401, login", ask(&site, "/", &[])?);
    table.add("browser page, password", "200", ask(&site, "/", &right)?);
    table.add("API, no password", "401, login", ask(&site, API, &[])?);
    table.add("API, wrong password", "401, login", ask(&site, API, &wrong)?);
    table.add("API, password", "200", ask(&site, API, &right)?);
    table.add("OTLP trace, no password", "401, login", ask(&site, "/v1/traces", &OTLP)?);
    table.add("OTLP trace, wrong password", "401, login", ask(&site, "/v1/traces", &[&OTLP[..], &wrong].concat())?);
    table.add("OTLP trace, password (smoke)", "passed", check("otlp"));
    table.add("artifacts, no password", "401, login", ask(&site, "/api/2.0/mlflow-artifacts/artifacts", &[])?);
    let evil = ["-H", "Host: evil.example.com"];
    table.add("wrong Host, password", "403", ask(&site, API, &[&evil[..], &right].concat())?);
    table.add("wrong Host, no password", "403", ask(&site, API, &evil)?);
    table.add("prefix /mlflow, no password", "401, login", ask(&site, &format!("/mlflow{API}"), &[])?);
    // MLflow asks for no login where a path begins like /health; nothing may be found there.
    table.add("prefix /health, no password", "404", ask(&site, &format!("/health{API}"), &[])?);
    if let Some(line) = client(&site, &password)? {
        table.add("MLflow's Python client, password", "ok", line);
    }
    let notes = table.end("basic")?;

    // The same again changes nothing, and least of all the password.
    let second = site.deploy(&["--json"])?.expect(0)?;
    ensure!(second.json()?["changed"] == false, "the second deploy changes something: {}", second.out);
    let status = site.xtask(&["status", "--env", ENV])?.expect(0)?;
    ensure!(
        status.out.contains("get secret mlflow-login"),
        "status does not say where the password is: {}",
        status.out
    );
    ensure!(!status.text().contains(&password), "status prints the password");
    site.set(|settings| drop(settings.env.insert("ROUND".to_owned(), "two".to_owned())))?;
    site.deploy(&[])?.expect(0)?;
    ensure!(self::password(&site)?.1["data"] == secret["data"], "a later deploy changes the login's Secret");
    // A password that the database does not know is found out, and undone.
    let other = site.file("other-password", "another password than the first\n")?;
    let line = format!("admin-password-file = {:?}", other.display().to_string());
    site.set(|settings| settings.lines.push(line))?;
    let refused = site.deploy(&[])?.expect(10)?;
    ensure!(refused.text().contains("update-password"), "what to do is not said:\n{}", refused.text());
    site.close()?;
    Ok(Row { exit: refused.code, notes, ..Row::default() })
}

/// MLflow's own client, with `open` between it and the server; `None` without a Python 3.13.
fn client(site: &Site<'_>, password: &str) -> Result<Option<String>> {
    let Some(python) = envs::Python::client() else { return Ok(None) };
    let port = testbed::free_port().to_string();
    let mut open = site.start(&["open", "--env", ENV, "--port", &port])?;
    let url = format!("http://127.0.0.1:{port}");
    open.wait_for_answer(&url, Duration::from_secs(30))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow/seed_check.py");
    let mut client = site.home.command(python.interpreter());
    client.arg(script).arg(&url).env("PYTHONWARNINGS", "ignore").env("GIT_PYTHON_REFRESH", "quiet");
    client.env("MLFLOW_TRACKING_USERNAME", "admin").env("MLFLOW_TRACKING_PASSWORD", password);
    let ran = site.keep(Running::start("MLflow's client", client)?.end(LONGEST)?)?;
    open.signal(Signal::SIGINT)?;
    open.end(Duration::from_secs(30))?;
    Ok(Some(if ran.code == Some(0) { "ok".to_owned() } else { format!("exit {:?}", ran.code) }))
}

fn public(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "public")?;
    site.set(|settings| settings.lines.push("load-balancer = true".to_owned()))?;
    let file = "kubernetes/options/load-balancer.yaml";
    for annotation in [
        "    networking.gke.io/load-balancer-type: Internal\n",
        "    service.beta.kubernetes.io/azure-load-balancer-internal: \"true\"\n",
        "    service.beta.kubernetes.io/aws-load-balancer-scheme: internal\n",
    ] {
        site.edit(file, &[(annotation, "")])?;
    }
    site.edit(file, &[("  annotations:\n", "")])?;
    let refused = site.deploy(&["--dry-run"])?.expect(3)?;
    ensure!(refused.text().contains("public-without-login"), "the risk is not named:\n{}", refused.text());
    ensure!(refused.seconds < 5.0, "it took {:.1} s to refuse: somebody was asked", refused.seconds);
    let named = site.deploy(&["--dry-run", "--public-without-login"])?.expect(0)?;
    ensure!(named.text().contains("may be reached by everyone"), "no warning:\n{}", named.text());
    site.set(|settings| settings.lines.push("login = \"basic\"".to_owned()))?;
    site.deploy(&["--dry-run"])?.expect(0)?;
    let cause = refused.first(&["no login"]).map(|line| line.text.clone());
    site.close()?;
    Ok(Row { exit: refused.code, cause, undone: Some("nothing was asked".to_owned()), ..Row::default() })
}
