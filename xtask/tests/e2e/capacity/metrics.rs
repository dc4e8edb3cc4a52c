//! Metrics on a cluster: each way to tell a Prometheus where they are leads to all that dashboard and alerts
//! ask for, the network policy lets it in there and nowhere else, and the server's log is JSON.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::pods;
use crate::api::Api;
use crate::kube::wait_for;
use crate::observability::{OTHERS, expressions, metrics as asked_by};
use crate::report::Row;
use crate::site::Site;
use crate::world::World;
use crate::{Result, ensure};

/// Where kinds of objects are known.
const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Pods of before serve for 10 s, and have 50 s more for what they have begun.
const GONE: Duration = Duration::from_secs(120);

/// For an answer, and for what follows from one.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Objects by which a Prometheus is told: `metrics` in deploy.toml, group, kind, and where the ends are listed.
const MONITORS: [(&str, &str, &str, &str); 2] = [
    ("pod-monitor", "monitoring.coreos.com", "PodMonitor", "podMetricsEndpoints"),
    ("pod-monitoring", "monitoring.googleapis.com", "PodMonitoring", "endpoints"),
];

/// Where metrics are to be fetched.
#[derive(Debug)]
struct End {
    pod: Value,
    port: u64,
    path: String,
}

pub fn metrics(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "metrics")?;
    site.deploy(&[])?.expect(0)?;
    let without = End { pod: pods::server(&site)?.0, port: 5000, path: "/metrics".to_owned() };
    let (status, text) = fetch(&site, &without)?;
    ensure!(!text.contains("mlflow_http_request_total"), "without the setting there are metrics, status {status}");

    let make = |(_, group, kind, _): (&str, &str, &str, &str)| Definition::make(&site, group, kind);
    let _definitions = MONITORS.map(make).into_iter().collect::<Result<Vec<_>>>()?;
    let mut notes = Vec::new();
    let monitors = MONITORS.map(|(setting, group, kind, list)| (setting, Some((group, kind, list))));
    for (setting, monitor) in monitors.into_iter().chain([("annotations", None)]) {
        site.set(|settings| settings.lines = vec![format!("metrics = {setting:?}")])?;
        site.deploy(&[])?.expect(0)?;
        Api::of(&site)?.experiment(setting)?;
        let ends = wait_for("the one pod", GONE, || {
            let ends = match monitor {
                Some(monitor) => of_monitor(&site, monitor)?,
                None => of_annotations(&site)?,
            };
            Ok((ends.len() == 1).then_some(ends))
        })?;
        for end in &ends {
            let (status, text) = fetch(&site, end)?;
            ensure!(status == 200, "{setting}: {} answers {status}: {text}", end.path);
            let found = complete(&text).map_err(|error| format!("{setting}: {error}"))?;
            is_let_in(&site, end).map_err(|error| format!("{setting}: {error}"))?;
            notes
                .push(format!("{setting}: port {}{} gives all {found} metrics that are asked for", end.port, end.path));
        }
    }
    notes.push(format!("{} lines of the log, all JSON", log(&site)?));
    site.close()?;
    Ok(Row { exit: Some(0), notes, ..Row::default() })
}

/// A kind of objects that a Prometheus brings along; gone with its objects when it is dropped.
struct Definition<'w> {
    world: &'w World,
    path: String,
}

impl<'w> Definition<'w> {
    fn make(site: &Site<'w>, group: &str, kind: &str) -> Result<Self> {
        let plural = plural(kind);
        let name = format!("{plural}.{group}");
        let schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        site.world.kube.create(
            CRDS,
            &json!({
                "metadata": { "name": name },
                "spec": {
                    "group": group,
                    "scope": "Namespaced",
                    "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
                    "versions": [{
                        "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
                    }],
                },
            }),
        )?;
        let made = Self { world: site.world, path: format!("{CRDS}/{name}") };
        let objects = site.path(&format!("{group}/v1"), &plural);
        wait_for(&format!("the kind {kind}"), TIMEOUT, || Ok(site.world.kube.find(&objects)?.map(drop)))?;
        Ok(made)
    }
}

impl Drop for Definition<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.world.kube.delete(&self.path) {
            eprintln!("{} stays: {error}", self.path);
        }
    }
}

fn plural(kind: &str) -> String {
    format!("{}s", kind.to_lowercase())
}

/// The ends that an object names, as the operator that reads it finds them.
fn of_monitor(site: &Site<'_>, (group, kind, list): (&str, &str, &str)) -> Result<Vec<End>> {
    let path = site.path(&format!("{group}/v1"), &format!("{}/mlflow", plural(kind)));
    let spec = site.world.kube.get(&path)?["spec"].clone();
    let labels = spec["selector"]["matchLabels"].as_object().ok_or("a selector without labels")?;
    let selector: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    let mut ends = Vec::new();
    for pod in pods::of(site, &selector.join(","))? {
        for end in spec[list].as_array().into_iter().flatten() {
            let port =
                ports(&pod).find(|port| port["name"] == end["port"]).and_then(|port| port["containerPort"].as_u64());
            let port = port.ok_or_else(|| format!("no port of the pod is called {}", end["port"]))?;
            let path = end["path"].as_str().unwrap_or("/metrics").to_owned();
            ends.push(End { pod: pod.clone(), port, path });
        }
    }
    Ok(ends)
}

/// The ends that pods name themselves.
fn of_annotations(site: &Site<'_>) -> Result<Vec<End>> {
    let mut ends = Vec::new();
    for pod in pods::of(site, "")? {
        let annotation = |name: &str| pod["metadata"]["annotations"][format!("prometheus.io/{name}")].as_str();
        if annotation("scrape") == Some("true") {
            let port = annotation("port").and_then(|port| port.parse().ok()).ok_or("no port is annotated")?;
            let path = annotation("path").unwrap_or("/metrics").to_owned();
            ends.push(End { pod: pod.clone(), port, path });
        }
    }
    Ok(ends)
}

fn ports(pod: &Value) -> impl Iterator<Item = &Value> {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    containers.flat_map(|container| container["ports"].as_array().into_iter().flatten())
}

/// Status and answer, asked by the pod's address, as a Prometheus does.
fn fetch(site: &Site<'_>, end: &End) -> Result<(u16, String)> {
    let address = end.pod["status"]["podIP"].as_str().ok_or("a pod without an address")?;
    let url = format!("http://{address}:{}{}", end.port, end.path);
    let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    site.world.runtime.block_on(async {
        let answer = http.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    })
}

/// How many metrics of the server's are asked for; all are there, and it has counted requests.
fn complete(text: &str) -> Result<usize> {
    let real: BTreeSet<&str> = text.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let expressions = expressions();
    let mut asked: BTreeSet<&str> = expressions.iter().flat_map(|expression| asked_by(expression)).collect();
    asked.retain(|metric| !OTHERS.contains(metric));
    ensure!(!asked.is_empty(), "nobody asks for a metric of the server's");
    let missing: Vec<_> = asked.difference(&real).collect();
    ensure!(missing.is_empty(), "{missing:?} are asked for, and not there:\n{text}");
    let counts = text.lines().filter(|line| line.starts_with("mlflow_http_request_total{"));
    let counted = counts
        .filter_map(|line| line.rsplit_once(' '))
        .any(|(_, count)| count.parse().is_ok_and(|count: f64| count > 0.0));
    ensure!(counted, "the server has counted no request:\n{text}");
    Ok(asked.len())
}

/// Fails unless the policies for the pod open this port, and no other.
fn is_let_in(site: &Site<'_>, end: &End) -> Result<()> {
    let policies = site.world.kube.list(&site.path("networking.k8s.io/v1", "networkpolicies"))?;
    let empty = Map::new();
    let labels = end.pod["metadata"]["labels"].as_object().ok_or("a pod without labels")?;
    let is_for_it = |policy: &&Value| {
        let wanted = policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap_or(&empty);
        wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let of_it: Vec<&Value> = policies.iter().filter(is_for_it).collect();
    ensure!(!of_it.is_empty(), "no network policy is for the pod");
    let mut open = BTreeSet::new();
    for rule in of_it.iter().flat_map(|policy| policy["spec"]["ingress"].as_array().into_iter().flatten()) {
        let listed = rule["ports"].as_array().ok_or_else(|| format!("a rule opens all ports: {rule}"))?;
        for listed in listed {
            let named =
                ports(&end.pod).find(|port| port["name"] == listed["port"] || port["containerPort"] == listed["port"]);
            open.extend(named.and_then(|port| port["containerPort"].as_u64()));
        }
    }
    ensure!(open == BTreeSet::from([end.port]), "metrics are at port {}, and the policies open {open:?}", end.port);
    Ok(())
}

/// How many lines of the log there are since the server serves: each is JSON, also that of a refusal.
fn log(site: &Site<'_>) -> Result<usize> {
    let refused = Api::of(site)?.post("experiments/delete", &json!({ "experiment_id": "4711" }));
    ensure!(refused.is_err(), "an experiment that is not there was deleted");
    let (_, name) = pods::server(site)?;
    let is_it = |line: &Value| {
        let request = &line["httpRequest"];
        request["status"] == 404 && request["requestUrl"] == "/api/2.0/mlflow/experiments/delete"
    };
    wait_for("the refusal in the log", TIMEOUT, || {
        let log = site.world.kube.log(&site.name, &name, "mlflow", false)?;
        // Each line begins with its time.
        let lines: Vec<&str> = log.lines().filter_map(|line| line.split_once(' ')).map(|(_, line)| line).collect();
        // MLflow starts its workers with words of its own.
        let serves = lines.iter().rposition(|line| line.contains("Application startup complete")).unwrap_or(0);
        let mut parsed = Vec::new();
        for line in &lines[serves..] {
            let line: Value =
                serde_json::from_str(line).map_err(|error| format!("a line of the log: {error}: {line}"))?;
            let has = |field: &str| line[field].as_str().is_some_and(|text| !text.is_empty());
            ensure!(["severity", "time", "logger", "message"].into_iter().all(has), "a line of the log: {line}");
            parsed.push(line);
        }
        Ok(parsed.iter().any(is_it).then_some(parsed.len()))
    })
}
