//! Many clients at one, two and three pods: how many requests they answer and how fast, and that the
//! database never has more connections than `doctor` foretells.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::clients::{self, Answered, Body, CLIENTS, MEASURED};
use super::connections::Connections;
use super::pods;
use crate::api::Api;
use crate::kube::wait_for;
use crate::report::{Row, tenths};
use crate::site::{ENV, Site};
use crate::stamp::Stamp;
use crate::world::World;
use crate::{Result, ensure};

/// What the database is said to take: as the tier of Cloud SQL that is made by default.
const LIMIT: u32 = 100;

/// Runs that are searched.
const RUNS: u32 = 1_000;

/// Metrics in a request.
const METRICS: u64 = 100;

/// A pod that goes serves for 10 s, and has 50 s more for what it has begun.
const GONE: Duration = Duration::from_secs(120);

/// What was measured of one question at so many pods.
struct Measured {
    replicas: u32,
    question: &'static str,
    answered: Answered,
    /// Connections: the most that there were, and the most that there may be.
    connections: (u64, u64),
}

pub fn load(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "load")?;
    let mut questions = Vec::new();
    let mut table = Vec::new();
    for replicas in 1..=3 {
        let uri = format!("uri-file = {:?}", site.home.file("database-uri").display().to_string());
        site.set(|settings| {
            settings.replicas = replicas;
            settings.database = vec![uri, format!("max-connections = {LIMIT}")];
        })?;
        site.deploy(&[])?.expect(0)?;
        alone(&site, replicas)?;
        if questions.is_empty() {
            questions = prepare(&site)?;
        }
        let budget = budget(&site)?;
        for (question, path, body) in &questions {
            let connections = Connections::watch(&site)?;
            let answered = clients::ask(&site, path, Arc::clone(body))?;
            let connections = (connections.peak()?, budget);
            table.push(Measured { replicas, question, answered, connections });
        }
    }
    for Measured { replicas, question, answered, connections: (peak, budget) } in &table {
        let failures = &answered.failures;
        ensure!(
            failures.is_empty(),
            "{question} at {replicas} pods: {} requests failed, first {}\n{}",
            failures.len(),
            failures[0],
            lines(&table).join("\n")
        );
        ensure!(
            (1..=*budget).contains(peak),
            "{question} at {replicas} pods: {peak} connections, and {budget} were foretold"
        );
    }
    site.close()?;
    Ok(Row { notes: lines(&table), figures: Some(figures(&table)), ..Row::default() })
}

/// Waits until the pods of before are gone: they answer nothing, and hold connections.
fn alone(site: &Site<'_>, replicas: u32) -> Result<()> {
    wait_for(&format!("{replicas} pods and no other"), GONE, || {
        Ok((pods::servers(site)? == replicas as usize).then_some(()))
    })
}

/// The questions: name, path, body. Each writer has a run of its own; what is searched stays as it is.
fn prepare(site: &Site<'_>) -> Result<Vec<(&'static str, &'static str, Arc<Body>)>> {
    let api = Api::of(site)?;
    let searched = api.experiment("searched")?;
    site.world.database.sql(
        &site.name,
        &format!(
            "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, \
             artifact_uri, experiment_id) SELECT md5('run' || n), 'run ' || n, 'LOCAL', 'e2e', 'FINISHED', n, n + 1, \
             'active', 'mlflow-artifacts:/searched/' || n, {searched} FROM generate_series(1, {RUNS}) n; \
             INSERT INTO params (key, value, run_uuid) \
             SELECT 'p' || p, n::text, md5('run' || n) FROM generate_series(1, {RUNS}) n, generate_series(1, 5) p; \
             INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) \
             SELECT 'm' || m, n, n, 1, false, md5('run' || n) FROM generate_series(1, {RUNS}) n, generate_series(1, 5) m; \
             ANALYZE"
        ),
    )?;
    let written = api.experiment("written")?;
    let mut runs = Vec::new();
    for _ in 0..CLIENTS {
        let body = json!({ "experiment_id": written, "start_time": Stamp::now().millis() });
        let made = api.post("runs/create", &body)?;
        runs.push(made["run"]["info"]["run_id"].as_str().ok_or("a run without an id")?.to_owned());
    }
    let log_batch = move |client: u64, step: u64| {
        let timestamp = Stamp::now().millis();
        let metric =
            |number: u64| json!({ "key": format!("m{number}"), "value": 0.5, "timestamp": timestamp, "step": step });
        let metrics: Vec<Value> = (0..METRICS).map(metric).collect();
        json!({ "run_id": runs.get(client as usize), "metrics": metrics })
    };
    let search = json!({
        "experiment_ids": [searched],
        "filter": format!("metrics.m1 > {}", RUNS / 2),
        "order_by": ["metrics.m1 DESC"],
        "max_results": 100,
    });
    Ok(vec![
        ("log-batch", "runs/log-batch", Arc::new(log_batch)),
        ("runs/search", "runs/search", Arc::new(move |_, _| search.clone())),
    ])
}

/// How many connections the server may open, as `doctor` says.
fn budget(site: &Site<'_>) -> Result<u64> {
    let answer = site.xtask(&["doctor", "--env", ENV, "--json"])?.json()?;
    let mut checks = answer["checks"].as_array().into_iter().flatten();
    let seen = checks.find(|check| check["name"] == "connections").and_then(|check| check["seen"].as_str());
    let seen = seen.ok_or_else(|| format!("doctor says nothing of connections: {answer}"))?;
    let number = seen.strip_prefix("up to ").and_then(|rest| rest.split(' ').next()).and_then(|word| word.parse().ok());
    number.ok_or_else(|| format!("doctor tells no number of connections: {seen}").into())
}

/// The table for people.
fn lines(table: &[Measured]) -> Vec<String> {
    let seconds = MEASURED.as_secs();
    let head = format!("{CLIENTS} clients, {METRICS} metrics a batch, {RUNS} runs searched, {seconds} s each");
    let columns = format!(
        "{:4}  {:11}  {:>10}  {:>8}  {:>8}  {:>6}  {:>15}",
        "pods", "question", "requests/s", "p50", "p99", "failed", "connections"
    );
    let line = |Measured { replicas, question, answered, connections: (peak, budget) }: &Measured| {
        let Answered { rate, p50, p99, failures, .. } = answered;
        let connections = format!("{peak} of {budget}");
        let failed = failures.len();
        format!("{replicas:4}  {question:11}  {rate:10.1}  {p50:>5} ms  {p99:>5} ms  {failed:>6}  {connections:>15}")
    };
    [head, columns].into_iter().chain(table.iter().map(line)).collect()
}

/// The table for programs: times are in milliseconds.
fn figures(table: &[Measured]) -> Value {
    let line = |Measured { replicas, question, answered, connections: (peak, budget) }: &Measured| {
        let Answered { answers, rate, p50, p99, failures } = answered;
        json!({
            "pods": replicas, "question": question, "answers": answers, "requests_per_second": tenths(*rate),
            "p50_ms": u64::try_from(*p50).ok(), "p99_ms": u64::try_from(*p99).ok(), "failed": failures.len(),
            "connections": peak, "connections_foretold": budget,
        })
    };
    table.iter().map(line).collect()
}
