//! Who gets in by OpenID Connect: the real oauth2-proxy with the flags that a deploy would give it, before a
//! real server, and an issuer with people and passwords. Expected and got, as a table.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::{Value, json};
use testbed::cluster::OAUTH2_PROXY;
use testbed::{Client, Home, Issuer, Person, Service, Signer, command, free_port};

use super::access::{API, ARTIFACTS, CLIENT, OTLP, Table, deployment, variable};
use super::envs::Python;
use super::server::{Database, Server};
use crate::node::program;

/// The proxy's own address, and the server's, as the manifest has them.
const LISTEN: &str = "--http-address=0.0.0.0:4180";
const UPSTREAM: &str = "--upstream=http://127.0.0.1:5000";
const EMAILS: &str = "/etc/oauth2-proxy/emails";

/// A page of a browser.
const PAGE: [&str; 2] = ["-H", "Accept: text/html"];

/// The server, the proxy before it, and the issuer.
struct World {
    home: Home,
    server: Server,
    issuer: Issuer,
    program: PathBuf,
    ann: Person,
    bob: Person,
    eve: Person,
    mallory: Person,
    port: u16,
    secret: String,
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl World {
    fn start() -> Option<Self> {
        let program = program(&OAUTH2_PROXY)?;
        let (home, port, secret) = (Home::new(), free_port(), random());
        let [ann, bob, eve] = [("ann@example.com", "lab"), ("bob@example.org", "guests"), ("eve@example.org", "lab")]
            .map(|(email, group)| Person::new(email, &random(), &[group]));
        let mallory = Person { verified: false, ..Person::new("mallory@example.com", &random(), &["lab"]) };
        let redirect = format!("http://127.0.0.1:{port}/oauth2/callback");
        let client = Client { id: "mlflow".to_owned(), secret: secret.clone(), redirects: vec![redirect] };
        let people = vec![ann.clone(), bob.clone(), eve.clone(), mallory.clone()];
        let issuer = Issuer::start(Ipv4Addr::LOCALHOST.into(), client, people);
        let pods = rendered(&home, &issuer.url(), port, "");
        let hosts = variable(&pods, "MLFLOW_SERVER_ALLOWED_HOSTS").replace("$(POD_IP)", "100.64.7.8");
        let server = Server::start_with(&Database::sqlite(), |_, command| {
            super::as_in_the_image(command);
            command.env("MLFLOW_SERVER_ALLOWED_HOSTS", &hosts);
        })?;
        Some(Self { home, server, issuer, program, ann, bob, eve, mallory, port, secret })
    }

    /// The proxy as a deploy with these further lines would start it, at this issuer.
    fn proxy(&self, issuer: &str, lines: &str) -> std::process::Command {
        let pods = &rendered(&self.home, issuer, self.port, lines)["spec"]["template"];
        let containers = pods["spec"]["containers"].as_array().expect("containers");
        let proxy = containers.iter().find(|container| container["name"] == "oauth2-proxy").expect("the proxy");
        let emails = self.home.file("emails");
        let listed = pods["metadata"]["annotations"]["mlflow-on-kubernetes/emails"].as_str().expect("people");
        std::fs::write(&emails, listed).expect("a file");
        let (listen, server) = (format!("127.0.0.1:{}", self.port), self.server.url());
        let mut command = self.home.command(&self.program);
        let mut replaced = 0;
        for flag in proxy["args"].as_array().expect("flags").iter().map(|flag| flag.as_str().expect("a text")) {
            let own = match flag {
                LISTEN => format!("--http-address={listen}"),
                UPSTREAM => format!("--upstream={server}"),
                _ => flag.replace(EMAILS, &emails.display().to_string()),
            };
            replaced += u32::from(own != flag);
            command.arg(own);
        }
        assert!(replaced >= 2, "the manifest has other addresses");
        for variable in proxy["env"].as_array().expect("variables") {
            let value = match variable["name"].as_str().expect("a name") {
                "OAUTH2_PROXY_CLIENT_SECRET" => self.secret.clone(),
                "OAUTH2_PROXY_COOKIE_SECRET" => random(),
                other => panic!("a variable that the test does not know: {other}"),
            };
            command.env(variable["name"].as_str().expect("a name"), value);
        }
        command
    }

    fn start_proxy(&self, lines: &str) -> Service {
        let command = self.proxy(&self.issuer.url(), lines);
        let mut service = Service::start(command, self.home.file("proxy.log"));
        service.wait_for(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)));
        service
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What curl sees: the status, and where a redirect leads.
    fn curl(&self, url: &str, args: &[&str]) -> (String, String) {
        let mut curl = command("curl");
        curl.args(["-sS", "-m", "30", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}"]);
        let output = curl.args(args).arg(url).output().expect("curl starts");
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, to) = text.split_once(' ').expect("a status");
        (status.to_owned(), to.to_owned())
    }

    /// The status; `login`: sent to the issuer.
    fn ask(&self, path: &str, token: Option<&str>, args: &[&str]) -> String {
        let mut args = args.to_vec();
        let file = self.home.file("header");
        let config = file.display().to_string();
        // An argument is seen by all.
        if let Some(token) = token {
            std::fs::write(&file, format!("header = \"Authorization: Bearer {token}\"\n")).expect("a file");
            args.extend(["-K", &config]);
        }
        let (status, to) = self.curl(&format!("{}{path}", self.url()), &args);
        match to.starts_with(&format!("{}/authorize?", self.issuer.url())) {
            true => format!("{status} login"),
            false => status,
        }
    }

    /// Logs a person in with a browser's cookies, and says how each step was answered.
    fn log_in(&self, person: &Person, password: &str) -> String {
        let jar = self.home.file(&format!("jar-{}", person.email)).display().to_string();
        let cookies = ["-b", &jar, "-c", &jar];
        let (first, to) = self.curl(&format!("{}/", self.url()), &[&PAGE[..], &cookies].concat());
        let form = self.home.file("form");
        std::fs::write(
            &form,
            format!("data-urlencode = \"email={}\"\ndata-urlencode = \"password={password}\"\n", person.email),
        )
        .expect("a file");
        let (second, back) = self.curl(&to, &["-K", &form.display().to_string()]);
        if back.is_empty() {
            return format!("{first} {second}");
        }
        let (third, _) = self.curl(&back, &cookies);
        let (page, _) = self.curl(&format!("{}/", self.url()), &[&PAGE[..], &cookies].concat());
        let (api, _) = self.curl(&format!("{}{}", self.url(), API.replace("/api/", "/ajax-api/")), &cookies);
        format!("{first} {second} {third} {page} {api}")
    }

    /// Whether MLflow's own client gets in; `None` where there is no Python for it.
    fn client(&self, token: Option<&str>) -> Option<&'static str> {
        let python = Python::client()?;
        let mut client = self.home.command(python.interpreter());
        client.args(["-c", CLIENT, &self.url()]).env("GIT_PYTHON_REFRESH", "quiet");
        client.envs(token.map(|token| ("MLFLOW_TRACKING_TOKEN", token)));
        let output = client.output().expect("python starts");
        // What it makes of a 401 without a text.
        let refused = String::from_utf8_lossy(&output.stderr).contains("INTERNAL_ERROR: Response: {}");
        Some(match (output.status.success(), refused) {
            (true, _) => "in",
            (false, true) => "refused",
            (false, false) => "broken",
        })
    }
}

/// The Deployment of an environment behind this issuer.
fn rendered(home: &Home, issuer: &str, port: u16, lines: &str) -> Value {
    let who = match lines {
        "" => "email-domains = [\"example.com\"]\nemails = [\"bob@example.org\"]\naudiences = [\"jobs\"]",
        lines => lines,
    };
    let text = format!(
        "[environment.lab]\nkind = \"kubernetes\"\ncontext = \"nowhere\"\nhosts = [\"mlflow.example.com\"]\nlogin = \
         \"oidc\"\n[environment.lab.oidc]\nissuer = \"{issuer}\"\nclient-id = \"mlflow\"\nclient-secret-variable = \
         \"OIDC\"\nurl = \"http://127.0.0.1:{port}\"\n{who}\n[environment.lab.database]\nsecret = \
         \"db\"\n[environment.lab.artifacts]\nuri = \"gs://bucket\"\n"
    );
    deployment(home, &text, &[("OIDC", "of no issuer")])
}

#[test]
fn only_who_is_named_gets_in_and_only_by_the_issuer() {
    let Some(world) = World::start() else { return };
    let proxy = world.start_proxy("");
    let mut table = Table::new("oidc");
    let token = |person: &Person, audience: &str| world.issuer.token(person, audience, 600);
    let ann = token(&world.ann, "mlflow");

    for path in ["/health", "/ready"] {
        table.row(&format!("probe {path}, no login"), "200", &world.ask(path, None, &[]));
    }
    for (what, path, args, refused) in [
        ("browser page", "/", &PAGE[..], "302 login"),
        ("API", API, &[], "401"),
        ("the page's own API", "/ajax-api/2.0/mlflow/experiments/search?max_results=1", &[], "401"),
        ("artifacts", ARTIFACTS, &[], "401"),
        ("OTLP trace", "/v1/traces", &OTLP, "401"),
        ("metrics", "/metrics", &[], "401"),
    ] {
        table.row(&format!("{what}, no token"), refused, &world.ask(path, None, args));
        table.row(&format!("{what}, wrong token"), refused, &world.ask(path, Some("no.to.ken"), args));
    }
    for (what, path, args) in [("browser page", "/", &PAGE[..]), ("API", API, &[]), ("artifacts", ARTIFACTS, &[])] {
        table.row(&format!("{what}, token"), "200", &world.ask(path, Some(&ann), args));
    }

    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let claims = |email: Value| {
        let mut claims =
            json!({ "iss": world.issuer.url(), "aud": "mlflow", "sub": "1", "iat": now, "exp": now + 600 });
        claims["email"] = email;
        claims
    };
    let unsigned = format!("{}.", Signer::new().sign(&claims(json!("ann@example.com"))).rsplit_once('.').unwrap().0);
    for (what, token, expected) in [
        ("in a named domain", ann.clone(), "200"),
        ("a named address", token(&world.bob, "mlflow"), "200"),
        ("another address", token(&world.eve, "mlflow"), "403"),
        ("an address that is not verified", token(&world.mallory, "mlflow"), "401"),
        ("another audience that is named", token(&world.ann, "jobs"), "200"),
        ("another audience", token(&world.ann, "payroll"), "401"),
        ("expired", world.issuer.token(&world.ann, "mlflow", -600), "401"),
        ("without an address", world.issuer.sign(&claims(Value::Null)), "403"),
        ("a name that looks like a domain's", world.issuer.sign(&claims(json!("x@y@example.com"))), "403"),
        ("a domain that ends alike", world.issuer.sign(&claims(json!("x@notexample.com"))), "403"),
        ("of another's key", Signer::new().sign(&claims(json!("ann@example.com"))), "401"),
        ("without a signature", unsigned, "401"),
    ] {
        table.row(&format!("API, token: {what}"), expected, &world.ask(API, Some(&token), &[]));
    }

    let (ann_in, eve_out) = ("302 302 302 200 200", "302 302 403 302 401");
    table.row("browser: ann logs in", ann_in, &world.log_in(&world.ann, &world.ann.password));
    table.row("browser: bob logs in", ann_in, &world.log_in(&world.bob, &world.bob.password));
    table.row("browser: eve logs in", eve_out, &world.log_in(&world.eve, &world.eve.password));
    table.row("browser: mallory logs in", eve_out, &world.log_in(&world.mallory, &world.mallory.password));
    table.row("browser: wrong password", "302 401", &world.log_in(&world.eve, "not the password"));
    let forged = ["-b", "_oauth2_proxy=djI6ZXZlQGV4YW1wbGUuY29t|1700000000|c2lnbmF0dXJl"];
    table.row("browser: a cookie of one's own", "401", &world.ask(API, None, &forged));

    let evil = ["-H", "Host: evil.example.com"];
    table.row("wrong Host, token", "403", &world.ask(API, Some(&ann), &evil));
    table.row("wrong Host, no token", "401", &world.ask(API, None, &evil));
    for path in [
        "/health/../api/2.0/mlflow/experiments/search",
        "/health/..%2fapi/2.0/mlflow/experiments/search",
        "/health%2f..%2fapi/2.0/mlflow/experiments/search",
        "/health/%2e%2e/api/2.0/mlflow/experiments/search",
        "//api/2.0/mlflow/experiments/search",
        "/%2fapi/2.0/mlflow/experiments/search",
        "/api%2f2.0%2fmlflow%2fexperiments%2fsearch",
        "/health//api/2.0/mlflow/experiments/search",
        "/health;/api/2.0/mlflow/experiments/search",
        "/health%3f/api/2.0/mlflow/experiments/search",
        "/oauth2/../api/2.0/mlflow/experiments/search",
        "/oauth2/static/../../api/2.0/mlflow/experiments/search",
        "/mlflow/api/2.0/mlflow/experiments/search",
        "/Health",
        "/health/",
        "/ready/..",
    ] {
        let got = world.ask(path, None, &[]);
        // Whatever it is, it is not the server's answer.
        let got = if ["301", "302 login", "401", "404"].contains(&got.as_str()) { "refused" } else { got.as_str() };
        table.row(&format!("{path}, no token"), "refused", got);
    }
    table.row("POST /health, no token", "302 login", &world.ask("/health", None, &["-X", "POST"]));
    for header in [
        "X-Forwarded-Uri: /health",
        "X-Original-URL: /health",
        "X-Forwarded-Email: ann@example.com",
        "X-Forwarded-For: 127.0.0.1",
        "Authorization: Basic YWRtaW46YWRtaW4=",
    ] {
        table.row(&format!("API, {header}"), "401", &world.ask(API, None, &["-H", header]));
    }
    for (what, token, expected) in [
        ("token", Some(ann.as_str()), "in"),
        ("wrong token", Some("no.to.ken"), "refused"),
        ("no token", None, "refused"),
    ] {
        if let Some(found) = world.client(token) {
            table.row(&format!("MLflow's Python client, {what}"), expected, found);
        }
    }
    table.row("every check of smoke, OTLP too, token", "ok", &smoke(&world, &ann));
    table.end();
    let log = proxy.log();
    assert!(!log.contains(&ann) && !log.contains(&world.secret), "a token or a secret is in the proxy's log");
    assert!(!log.contains("\"/health\"") && !log.contains("\"/ready\""), "the proxy logs probes");

    drop(proxy);
    let mut table = Table::new("groups");
    let proxy = world.start_proxy("groups = [\"lab\"]");
    let token = |person: &Person| world.issuer.token(person, "mlflow", 600);
    table.row("API, token: in the group", "200", &world.ask(API, Some(&token(&world.eve)), &[]));
    table.row("API, token: in another group", "403", &world.ask(API, Some(&token(&world.bob)), &[]));
    table.row("browser: eve logs in", ann_in, &world.log_in(&world.eve, &world.eve.password));
    table.row("API, no token", "401", &world.ask(API, None, &[]));
    table.end();

    // It asks the issuer for its keys first: pods do not start while that is away.
    drop(proxy);
    let output = world.proxy(&format!("http://127.0.0.1:{}", free_port()), "").output().expect("oauth2-proxy starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("connection refused"), "{:?} {said}", output.status);
}

/// How the smoke test ends before the proxy, as from outside.
fn smoke(world: &World, token: &str) -> String {
    let mut smoke = world.home.command(env!("CARGO_BIN_EXE_xtask"));
    smoke.args(["smoke", "--json", "--url", &world.url()]).env("MLFLOW_TRACKING_TOKEN", token);
    let output = smoke.output().expect("xtask starts");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let failed = report["checks"].as_array().into_iter().flatten().filter(|check| check["status"] != "passed");
    let failed: Vec<String> = failed.map(|check| format!("{}: {}", check["name"], check["detail"])).collect();
    if failed.is_empty() && report["ok"] == true { "ok".to_owned() } else { failed.join("; ") }
}
