//! The dashboard and the alerts, beside the metrics of a real server.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::json;
use testbed::{Home, require};

use crate::observability::{OTHERS, expressions, file, metrics, rules, texts};

use super::envs::Python;
use super::server::{Connection, Database, Server};

#[test]
fn dashboard_and_alerts_ask_for_metrics_that_exist() {
    let Some(server) = Server::start(&Database::sqlite()) else { return };
    let mut connection = Connection::open(&server);
    let (head, _) = connection.post("/api/2.0/mlflow/experiments/create", &json!({ "name": "metrics" }));
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let (_, text) = connection.read("/metrics");
    let real: BTreeSet<&str> = text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    assert!(real.contains("mlflow_http_request_total"), "{text}");

    let mut unused = BTreeSet::from(OTHERS);
    for expression in &expressions() {
        let asked = metrics(expression);
        assert!(!asked.is_empty(), "{expression}");
        for metric in asked {
            assert!(real.contains(metric) || OTHERS.contains(&metric), "{metric} in {expression}");
            unused.remove(metric);
        }
    }
    assert!(unused.is_empty(), "nobody asks for {unused:?}");
}

#[test]
fn an_alert_has_a_section_in_the_runbook() {
    let (mut alerts, mut links) = (Vec::new(), Vec::new());
    texts(&rules(), "alert", &mut alerts);
    texts(&rules(), "runbook", &mut links);
    let runbook = file("RUNBOOK.md");
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    // Other sections follow those of the alerts.
    assert_eq!(sections[..alerts.len().min(sections.len())], alerts);
    let expected: Vec<String> = alerts.iter().map(|name| format!("RUNBOOK.md#{}", name.to_lowercase())).collect();
    assert_eq!(links, expected);
}

#[test]
fn prometheus_takes_the_alerts() {
    let Some(promtool) = require("promtool", "prometheus") else { return };
    let home = Home::new();
    let file = home.file("rules.yaml");
    fs::write(&file, rules()["spec"].to_string()).expect("a file");
    let output = home.command(promtool).args(["check", "rules"]).arg(&file).output().expect("promtool starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("8 rules found"), "{text}");
}

#[test]
fn metrics_of_an_earlier_server_are_left_out() {
    let Some(python) = Python::server() else { return };
    let packages: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../mlflow_server/rootfs/opt/mlflow/lib/python3.13/site-packages"]
            .iter()
            .collect();
    let hook = fs::read_to_string(packages.join("mlflow_server_metrics.pth")).expect("a file");
    let check = |args: &[&str], variables: &[(&str, &str)], is_emptied: bool| {
        let home = Home::new();
        let file = home.file("metrics/counter_7.db");
        fs::write(&file, "half a").expect("a file");
        let mut command = home.command(python.interpreter());
        command.args(["-c", &hook]).args(args).env("PYTHONPATH", &packages).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("MLFLOW_EXPOSE_PROMETHEUS", file.parent().expect("a folder")).envs(variables.iter().copied());
        let output = command.output().expect("python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(!file.exists(), is_emptied, "{args:?} {variables:?}");
    };
    check(&["/opt/mlflow/bin/mlflow", "server"], &[], true);
    check(&["mlflow", "server", "--workers", "2"], &[], true);
    // A worker, and whoever looks around in a running container.
    check(&["mlflow", "server"], &[("prometheus_multiproc_dir", "/tmp")], false);
    check(&["mlflow", "db", "upgrade"], &[], false);
    check(&[], &[], false);
}
