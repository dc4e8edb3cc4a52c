//! `cargo xtask smoke` against a real server, in peace and behind a proxy that breaks things.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::{Fault, Home, Proxy, Rule, command, free_port};

use super::server::{ADMIN, ADMIN_PASSWORD, Database, Server};

const ALL: [&str; 12] = [
    "health",
    "version",
    "ui",
    "experiment",
    "run",
    "log-batch",
    "search",
    "artifact",
    "model",
    "trace",
    "otlp",
    "host",
];

fn smoke(home: &Home, url: &str, args: &[&str]) -> Command {
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.args(["smoke", "--json", "--url", url]).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// `name=status` of each check that did not pass.
fn not_passed(report: &Value) -> Vec<String> {
    let checks = report["checks"].as_array().expect("checks");
    let text = |check: &Value, key: &str| check[key].as_str().expect("text").to_owned();
    checks
        .iter()
        .filter(|check| check["ok"] != true)
        .map(|check| format!("{}={}", text(check, "name"), text(check, "status")))
        .collect()
}

fn check(home: &Home, url: &str, args: &[&str], code: i32, expected: &[&str]) -> Value {
    let output = smoke(home, url, args).output().expect("xtask starts");
    let report = json(&output);
    assert_eq!(not_passed(&report), expected, "{report:#}");
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert_eq!(report["ok"], code == 0);
    report
}

/// Asks the server itself.
fn ask(server: &Server, path: &str) -> Value {
    let output = command("curl").args(["-sS", &format!("{}{path}", server.url())]).output().expect("curl starts");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{path}: {error}: {output:?}"))
}

/// What a smoke must not leave behind.
fn nothing_is_left(server: &Server) {
    let found = ask(server, "/api/2.0/mlflow/experiments/search?max_results=100");
    let names: Vec<&str> = found["experiments"].as_array().unwrap().iter().filter_map(|e| e["name"].as_str()).collect();
    assert_eq!(names, ["Default"]);
    let models = ask(server, "/api/2.0/mlflow/registered-models/search");
    assert_eq!(models, serde_json::json!({}), "registered models");
    assert_eq!(artifacts(server), "", "artifacts");
}

/// The files below the server's artifact root.
fn artifacts(server: &Server) -> String {
    let find = command("find").arg(server.home.path().join("artifacts")).args(["-type", "f"]).output().unwrap();
    String::from_utf8_lossy(&find.stdout).into_owned()
}

#[test]
fn smoke_proves_a_server_and_leaves_nothing() {
    let Some(server) = Server::start(&Database::sqlite()) else { return };
    let (home, url) = (Home::new(), server.url());

    let report = check(&home, &url, &[], 0, &[]);
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(checks.iter().map(|check| check["name"].as_str().unwrap()).collect::<Vec<_>>(), ALL);
    assert!(checks.iter().all(|check| check["seconds"].is_f64() && check["detail"].is_string()));
    assert_eq!(report["cleanup"]["not_removed"], serde_json::json!([]));
    assert_eq!(report["cleanup"]["removed"].as_array().unwrap().len(), 5, "{report:#}");
    nothing_is_left(&server);
    let trace = report["checks"][9]["detail"].as_str().unwrap();
    assert_eq!(ask(&server, &format!("/api/3.0/mlflow/traces/{trace}"))["error_code"], "RESOURCE_DOES_NOT_EXIST");

    let version = report["version"].as_str().unwrap().to_owned();
    check(&home, &url, &["--expect-version", &version], 0, &[]);
    check(&home, &url, &["--expect-version", "0.0.1"], 12, &["version=failed"]);
    check(&home, &url, &["--artifact-size", "0"], 0, &[]);
    check(&home, &url, &["--artifact-size", "20000000"], 0, &[]);
    check(
        &home,
        &url,
        &["--leave-out", "run", "--leave-out", "run"],
        12,
        &["log-batch=skipped", "search=skipped", "artifact=skipped", "model=skipped"],
    );
    check(&home, &url, &["--host-header", "localhost"], 0, &[]);
    let report = check(
        &home,
        &url,
        &["--host-header", "other.invalid", "--leave-out", "ui"],
        12,
        &[
            "experiment=failed",
            "run=skipped",
            "log-batch=skipped",
            "search=skipped",
            "artifact=skipped",
            "model=skipped",
            "trace=skipped",
            "otlp=skipped",
        ],
    );
    assert!(report["checks"][2]["hint"].as_str().unwrap().contains("MLFLOW_SERVER_ALLOWED_HOSTS"), "{report:#}");

    let both: Vec<_> = (0..3).map(|_| smoke(&home, &url, &[]).spawn().expect("xtask starts")).collect();
    for child in both {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    nothing_is_left(&server);
}

#[test]
fn a_failing_check_skips_only_what_builds_on_it() {
    let Some(server) = Server::start(&Database::sqlite()) else { return };
    let (home, proxy) = (Home::new(), Proxy::start(server.address()));
    let url = format!("http://{}", proxy.host());
    let boom =
        || Fault::Answer { status: 500, headers: vec![], body: r#"{"error_code":"INTERNAL_ERROR","message":"boom"}"# };
    let all_of_the_run = ["log-batch=skipped", "search=skipped", "artifact=skipped", "model=skipped"];
    for (rule, expected) in [
        (Rule::always("POST", "/runs/log-batch", boom()), vec!["log-batch=failed", "search=skipped"]),
        (Rule::always("PUT", "/mlflow-artifacts/", boom()), vec!["artifact=failed"]),
        (Rule::always("GET", "/mlflow-artifacts/", Fault::Truncate), vec!["artifact=failed"]),
        (Rule::always("POST", "/model-versions/create", Fault::ResetAnswer), vec!["model=failed"]),
        (Rule::always("GET", "/static-files/", boom()), vec!["ui=failed"]),
        (Rule::always("POST", "/v1/traces", boom()), vec!["otlp=failed"]),
        // The server made it, the client does not know its id: clean-up finds it by its name.
        (
            Rule::always("POST", "/experiments/create", Fault::ResetAnswer),
            [&["experiment=failed", "run=skipped"], &all_of_the_run[..], &["trace=skipped", "otlp=skipped"]].concat(),
        ),
        (Rule::always("POST", "/runs/create", Fault::ResetAnswer), [&["run=failed"], &all_of_the_run[..]].concat()),
    ] {
        proxy.set_rules(vec![rule.clone()]);
        let report = check(&home, &url, &["--timeout", "10"], 12, &expected);
        assert_eq!(report["cleanup"]["not_removed"], serde_json::json!([]), "{rule:?}");
        nothing_is_left(&server);
    }

    proxy.set_rules(vec![Rule::always("DELETE", "/registered-models/delete", boom())]);
    let report = check(&home, &url, &[], 0, &[]);
    let left = report["cleanup"]["not_removed"][0].as_str().unwrap();
    assert!(left.contains("registered model smoke-") && left.contains("boom"), "{left}");
}

#[test]
fn ctrl_c_removes_what_was_made() {
    let Some(server) = Server::start(&Database::sqlite()) else { return };
    let (home, proxy) = (Home::new(), Proxy::start(server.address()));
    proxy.set_rules(vec![Rule::always("PUT", "/mlflow-artifacts/", Fault::StallAfter(100_000))]);
    let child = smoke(&home, &format!("http://{}", proxy.host()), &[]).spawn().expect("xtask starts");
    let deadline = Instant::now() + Duration::from_secs(30);
    // The stalled upload begins right after the run's search.
    while proxy.count("GET", "/metrics/get-history") == 0 {
        assert!(Instant::now() < deadline, "the smoke does not get to the artifact");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    assert!(command("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(json(&output)["error"]["kind"], "interrupted");
    // The proxy has kept the server waiting for the rest of the upload, whose part it then deletes.
    drop(proxy);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !artifacts(&server).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    nothing_is_left(&server);
}

#[test]
fn a_server_that_is_not_there_is_a_remote_error() {
    let home = Home::new();
    let begun = Instant::now();
    let url = format!("http://127.0.0.1:{}", free_port());
    let skipped = ALL[1..].iter().map(|name| format!("{name}=skipped")).collect::<Vec<_>>();
    let expected: Vec<&str> = std::iter::once("health=failed").chain(skipped.iter().map(String::as_str)).collect();
    check(&home, &url, &[], 6, &expected);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn garbage_in_place_of_a_server_is_named() {
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap());
    let page = Fault::Answer { status: 200, headers: vec![("Content-Type", "text/html")], body: "<h1>It works!</h1>" };
    proxy.set_rules(vec![Rule::always("", "", page)]);
    let output = smoke(&home, &format!("http://{}", proxy.host()), &[]).output().unwrap();
    let report = json(&output);
    assert_eq!(output.status.code(), Some(12));
    let failed = not_passed(&report);
    for name in ["health", "version", "ui", "experiment"] {
        assert!(failed.contains(&format!("{name}=failed")), "{failed:?}");
    }
}

#[test]
fn a_static_prefix_is_part_of_the_address() {
    let prefixed = Server::start_with(&Database::sqlite(), |_, command| {
        command.args(["--static-prefix", "/team/mlflow"]);
    });
    let Some(server) = prefixed else { return };
    check(&Home::new(), &format!("{}/team/mlflow/", server.url()), &[], 0, &[]);
}

/// Called by the test that has such a server.
pub fn passes_with_the_login(server: &Server) {
    let (home, url) = (Home::new(), server.url());
    let output = smoke(&home, &url, &[]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(12), "{text}");
    assert!(text.contains("--password-stdin"), "{text}");

    let mut child =
        smoke(&home, &url, &["--username", ADMIN, "--password-stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{ADMIN_PASSWORD}").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!format!("{output:?}").contains(ADMIN_PASSWORD));

    let wrong = smoke(&home, &url, &[])
        .env("MLFLOW_TRACKING_USERNAME", ADMIN)
        .env("MLFLOW_TRACKING_PASSWORD", "wrong")
        .output()
        .unwrap();
    assert_eq!(wrong.status.code(), Some(12), "{wrong:?}");
}
