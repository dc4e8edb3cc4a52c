//! The checks themselves: each asks the server for one thing and compares the answer.

use std::time::{SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HOST, HeaderMap};
use serde_json::{Value, json};

use crate::mlflow::client::{self, Class, Client, DATABASE_PROBE, Failure, Outcome};
use crate::mlflow::otlp;
use crate::mlflow::smoke::{Check, Made, RunMade, Target, artifact};

/// A host that no server is called (RFC 2606).
const WRONG_HOST: &str = "smoke-test.invalid";

/// The batch that is logged and searched for.
const PARAMS: [(&str, &str); 3] = [("alpha", "0.5"), ("model", "elastic net"), ("unicode", "grün ≠ 緑")];
const METRICS: [(&str, [f64; 3]); 2] = [("loss", [0.9, 0.4, 0.125]), ("accuracy", [0.1, 0.75, 1.0])];
const TAGS: [(&str, &str); 2] = [("purpose", "smoke test"), ("team", "platform")];

/// Performs one check; the text is what was seen.
pub async fn perform(check: Check, client: &Client, target: &Target, made: &mut Made) -> Outcome<String> {
    if made.unreachable {
        return Err(Failure::skipped("the server does not answer"));
    }
    match check {
        Check::Health => health(client).await,
        Check::Version => version(client, target.expect_version.as_deref()).await,
        Check::Ui => ui(client).await,
        Check::Experiment => experiment(client, made).await,
        Check::Run => run(client, made).await,
        Check::LogBatch => log_batch(client, made).await,
        Check::Search => search(client, made).await,
        Check::Artifact => artifact::check(client, target.artifact_size, made).await,
        Check::Model => model(client, made).await,
        Check::Trace => trace(client, made).await,
        Check::Otlp => otlp(client, made).await,
        Check::Host => host(client).await,
    }
}

async fn get_text(client: &Client, path: &str) -> Outcome<(HeaderMap, String)> {
    let answer = client::send("GET", path, client.request(Method::GET, path)).await?;
    let headers = answer.headers().clone();
    Ok((headers, client::text(&format!("GET {path}"), answer).await?))
}

async fn health(client: &Client) -> Outcome<String> {
    let (_, text) = get_text(client, "/health").await?;
    match text.trim() {
        "OK" => Ok("OK".to_owned()),
        other => Err(Failure::wrong(format!("GET /health answered {:?} where MLflow answers OK", head(other)))),
    }
}

async fn version(client: &Client, expected: Option<&str>) -> Outcome<String> {
    let (_, text) = get_text(client, "/version").await?;
    let found = text.trim();
    if found.is_empty() || found.len() > 40 || !found.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(Failure::wrong(format!("GET /version answered {:?}, which is no version", head(found))));
    }
    match expected {
        Some(expected) if expected != found => {
            Err(Failure::wrong(format!("MLflow {found} runs where {expected} is expected"))
                .hint("another image than the expected one serves this address"))
        }
        _ => Ok(found.to_owned()),
    }
}

async fn ui(client: &Client) -> Outcome<String> {
    let (headers, page) = get_text(client, "/").await?;
    if !content_type(&headers).starts_with("text/html") {
        return Err(Failure::wrong(format!("GET / answered no HTML page: {:?}", head(&page)))
            .hint("the image lacks the built UI (mlflow/server/js/build)"));
    }
    let script = main_script(&page)
        .ok_or_else(|| Failure::wrong("the page at / names no static-files/*.js: it is not the MLflow UI"))?;
    let path = format!("/{script}");
    let (headers, text) = get_text(client, &path).await?;
    if !content_type(&headers).contains("javascript") || text.is_empty() {
        return Err(Failure::wrong(format!("GET {path} answered no script ({})", content_type(&headers))));
    }
    Ok(format!("{script}, {} bytes", text.len()))
}

/// The largest bundle of the page is its main one; else any of its scripts.
fn main_script(page: &str) -> Option<&str> {
    let scripts = || {
        page.match_indices("static-files/").filter_map(|(at, _)| {
            let end = page[at..].find(['"', '\'', '>', ' ', '?'])?;
            Some(&page[at..at + end]).filter(|path| path.ends_with(".js") && !path.contains(".."))
        })
    };
    scripts().find(|path| path.contains("/main.")).or_else(|| scripts().next())
}

async fn experiment(client: &Client, made: &mut Made) -> Outcome<String> {
    let name = format!("smoke-{}", unique());
    made.experiment_name = Some(name.clone());
    let tags = json!([{"key": "smoke", "value": "true"}]);
    let answer = client.post("/api/2.0/mlflow/experiments/create", &json!({"name": name, "tags": tags})).await?;
    let id = text_at(&answer, "/experiment_id")?;
    made.experiment = Some(id.clone());
    let answer = client.get(&format!("/api/2.0/mlflow/experiments/get?experiment_id={id}")).await?;
    equal("the experiment's name", &text_at(&answer, "/experiment/name")?, &name)?;
    Ok(format!("{name} is {id}"))
}

async fn run(client: &Client, made: &mut Made) -> Outcome<String> {
    let experiment = made.experiment()?;
    let body = json!({"experiment_id": experiment, "run_name": "smoke", "start_time": now_ms()});
    let answer = client.post("/api/2.0/mlflow/runs/create", &body).await?;
    let run = RunMade {
        id: text_at(&answer, "/run/info/run_id")?,
        artifact_uri: text_at(&answer, "/run/info/artifact_uri")?,
    };
    made.run = Some(run.clone());
    equal("the run's status", &text_at(&answer, "/run/info/status")?, "RUNNING")?;
    Ok(run.id)
}

async fn log_batch(client: &Client, made: &mut Made) -> Outcome<String> {
    let run = made.run()?;
    let pairs = |pairs: &[(&str, &str)]| -> Vec<Value> {
        pairs.iter().map(|(key, value)| json!({"key": key, "value": value})).collect()
    };
    let now = now_ms();
    let metrics: Vec<Value> = METRICS
        .iter()
        .flat_map(|(key, values)| {
            (0..)
                .zip(values)
                .map(move |(step, value)| json!({"key": key, "value": value, "step": step, "timestamp": now + step}))
        })
        .collect();
    let count = metrics.len();
    let body = json!({"run_id": run.id, "params": pairs(&PARAMS), "metrics": metrics, "tags": pairs(&TAGS)});
    client.post("/api/2.0/mlflow/runs/log-batch", &body).await?;
    let body = json!({"run_id": run.id, "status": "FINISHED", "end_time": now_ms()});
    client.post("/api/2.0/mlflow/runs/update", &body).await?;
    made.logged = true;
    Ok(format!("{} params, {count} metrics, {} tags", PARAMS.len(), TAGS.len()))
}

async fn search(client: &Client, made: &mut Made) -> Outcome<String> {
    let (experiment, run) = (made.experiment()?, made.run()?);
    if !made.logged {
        return Err(Failure::skipped("needs log-batch"));
    }
    let ask = async |filter: &str| {
        let body = json!({"experiment_ids": [experiment], "filter": filter, "max_results": 10});
        client.post("/api/2.0/mlflow/runs/search", &body).await
    };
    let found = ask("params.alpha = '0.5' and metrics.loss < 0.2 and tags.purpose = 'smoke test'").await?;
    let runs = found.get("runs").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let [only] = runs else {
        return Err(Failure::wrong(format!("the filter found {} runs where one matches", runs.len())));
    };
    equal("the run found", &text_at(only, "/info/run_id")?, &run.id)?;
    equal("its status", &text_at(only, "/info/status")?, "FINISHED")?;
    for (key, value) in PARAMS {
        equal(key, &value_of(only, "params", key)?, &json!(value))?;
    }
    for (key, value) in TAGS {
        equal(key, &value_of(only, "tags", key)?, &json!(value))?;
    }
    for (key, [.., last]) in METRICS {
        equal(key, &value_of(only, "metrics", key)?, &json!(last))?;
    }
    let found = ask("metrics.loss > 0.2").await?;
    if found.get("runs").and_then(Value::as_array).is_some_and(|runs| !runs.is_empty()) {
        return Err(Failure::wrong("a filter that matches nothing found a run"));
    }
    let path = format!("/api/2.0/mlflow/metrics/get-history?run_id={}&metric_key=loss", run.id);
    let history = client.get(&path).await?;
    let points = history.get("metrics").and_then(Value::as_array).map_or(0, Vec::len);
    equal("the points of a metric", &points, &METRICS[0].1.len())?;
    Ok(format!("found by param, metric and tag; {points} points of a metric"))
}

async fn model(client: &Client, made: &mut Made) -> Outcome<String> {
    let run = made.run()?;
    let name = format!("smoke-{}", unique());
    made.model = Some(name.clone());
    client.post("/api/2.0/mlflow/registered-models/create", &json!({"name": name})).await?;
    let body = json!({"name": name, "source": format!("{}/model", run.artifact_uri), "run_id": run.id});
    let answer = client.post("/api/2.0/mlflow/model-versions/create", &body).await?;
    let version = text_at(&answer, "/model_version/version")?;
    let body = json!({"name": name, "alias": "champion", "version": version});
    client.post("/api/2.0/mlflow/registered-models/alias", &body).await?;
    let path = format!("/api/2.0/mlflow/registered-models/alias?name={name}&alias=champion");
    let answer = client.get(&path).await?;
    equal("the version behind the alias", &text_at(&answer, "/model_version/version")?, &version)?;
    equal("its run", &text_at(&answer, "/model_version/run_id")?, &run.id)?;
    Ok(format!("{name} version {version}, alias champion"))
}

async fn trace(client: &Client, made: &mut Made) -> Outcome<String> {
    let experiment = made.experiment()?;
    let id = format!("tr-{}", hex(&rand::random::<[u8; 16]>()));
    made.traces.push(id.clone());
    let request_time = time::OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .ok()
        .and_then(|now| now.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| "2000-01-01T00:00:00Z".to_owned());
    let info = json!({
        "trace_id": id,
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}},
        "request_time": request_time,
        "execution_duration": "0.250s",
        "state": "OK",
        "tags": {"purpose": "smoke test"},
    });
    client.post("/api/3.0/mlflow/traces", &json!({"trace": {"trace_info": info}})).await?;
    let answer = client.get(&format!("/api/3.0/mlflow/traces/{id}")).await?;
    for (what, pointer, expected) in [
        ("the trace's id", "/trace/trace_info/trace_id", id.as_str()),
        ("its state", "/trace/trace_info/state", "OK"),
        ("its tag", "/trace/trace_info/tags/purpose", "smoke test"),
        ("its duration", "/trace/trace_info/execution_duration", "0.250s"),
    ] {
        equal(what, text_at(&answer, pointer)?.as_str(), expected)?;
    }
    Ok(id)
}

async fn otlp(client: &Client, made: &mut Made) -> Outcome<String> {
    let experiment = made.experiment()?;
    let mut random = rand::rng();
    let trace_id: [u8; 16] = random.random();
    // An id of zeros is invalid (OTLP, "Span").
    let span_id = random.random_range(1..u64::MAX).to_be_bytes();
    let id = format!("tr-{}", hex(&trace_id));
    made.traces.push(id.clone());
    let end = u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX);
    let start = end.saturating_sub(250_000_000);
    let span =
        otlp::Span { trace_id, span_id, name: "smoke-span", start, end, attributes: &[("purpose", "smoke test")] };
    let path = "/v1/traces";
    let request = client
        .request(Method::POST, path)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header("x-mlflow-experiment-id", experiment)
        .body(otlp::export_request("smoke", &span));
    client::send("POST", path, request).await?;
    let answer = client.get(&format!("/api/3.0/mlflow/traces/get?trace_id={id}&allow_partial=true")).await?;
    equal("the span's name", &text_at(&answer, "/trace/spans/0/name")?, "smoke-span")?;
    Ok(id)
}

async fn host(client: &Client) -> Outcome<String> {
    let request = client.request(Method::GET, DATABASE_PROBE);
    // `header` would add a second Host beside the caller's own.
    let headers = HeaderMap::from_iter([(HOST, reqwest::header::HeaderValue::from_static(WRONG_HOST))]);
    let answer = match client::send("GET", DATABASE_PROBE, request.headers(headers)).await {
        Ok(answer) => client::text("GET with a wrong Host", answer).await?,
        Err(Failure { class: Class::Status(403), .. }) => return Ok(format!("Host {WRONG_HOST} answers 403")),
        // Whatever stands before the server does not know the host, and MLflow never sees it.
        Err(Failure { class: Class::Status(status @ (301 | 302 | 307 | 308 | 400 | 404 | 421)), .. }) => {
            return Ok(format!("Host {WRONG_HOST} is refused with {status} before it reaches MLflow"));
        }
        Err(failure) => return Err(failure),
    };
    if serde_json::from_str::<Value>(&answer).is_ok_and(|value| value.is_object()) {
        return Err(Failure::wrong(format!("a request for Host {WRONG_HOST} is served"))
            .hint("set MLFLOW_SERVER_ALLOWED_HOSTS to the server's own names, or any web page can rebind to it"));
    }
    Ok(format!("Host {WRONG_HOST} is answered by another site than MLflow"))
}

/// A name that no other run has: the time for people, 64 random bits against collisions.
fn unique() -> String {
    let format = time::macros::format_description!("[year][month][day]-[hour][minute][second]");
    let time = time::OffsetDateTime::now_utc().format(format).unwrap_or_default();
    format!("{time}-{:016x}", rand::random::<u64>())
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn now_ms() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn head(text: &str) -> &str {
    text.char_indices().nth(60).map_or(text, |(end, _)| &text[..end])
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("no content type")
}

/// A text or number at a JSON pointer (RFC 6901), as text.
pub fn text_at(value: &Value, pointer: &str) -> Outcome<String> {
    match value.pointer(pointer) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => Err(Failure::wrong(format!("the answer has no {pointer}: {}", head(&value.to_string())))),
    }
}

/// The value of `key` in a run's list of pairs.
fn value_of(run: &Value, list: &str, key: &str) -> Outcome<Value> {
    run.pointer(&format!("/data/{list}"))
        .and_then(Value::as_array)
        .and_then(|pairs| pairs.iter().find(|pair| pair.get("key").and_then(Value::as_str) == Some(key)))
        .and_then(|pair| pair.get("value").cloned())
        .ok_or_else(|| Failure::wrong(format!("{key} is missing among the run's {list}")))
}

/// Fails unless the two are equal, naming both.
pub fn equal<A, B>(what: &str, found: &A, expected: &B) -> Outcome<()>
where
    A: PartialEq<B> + std::fmt::Debug + ?Sized,
    B: std::fmt::Debug + ?Sized,
{
    if found == expected {
        return Ok(());
    }
    Err(Failure::wrong(format!("{what} is {found:?} where {expected:?} is expected")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_main_script_of_the_page_is_chosen() {
        let runtime = r#"<script src="static-files/manifest.js">"#;
        let main = r#"<script defer="defer" src="static-files/static/js/main.c2.js"></script>"#;
        for (page, expected) in [
            (format!("{runtime}{main}"), Some("static-files/static/js/main.c2.js")),
            (runtime.to_owned(), Some("static-files/manifest.js")),
            ("<link href=\"static-files/main.css\">".to_owned(), None),
            ("static-files/../../etc/passwd.js\"".to_owned(), None),
            ("static-files/cut.js".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(main_script(&page), expected, "{page}");
        }
    }

    #[test]
    fn pairs_of_a_run_are_found_by_key() {
        let run = json!({"data": {"params": [{"key": "a", "value": "1"}], "metrics": [{"key": "b", "value": 0.5}]}});
        assert_eq!(value_of(&run, "params", "a").unwrap(), json!("1"));
        assert_eq!(value_of(&run, "metrics", "b").unwrap(), json!(0.5));
        assert!(value_of(&run, "params", "b").unwrap_err().detail.contains("b is missing"));
        assert!(value_of(&json!({}), "tags", "b").is_err());
    }

    #[test]
    fn two_runs_have_two_names() {
        assert_ne!(unique(), unique());
        assert_eq!(unique().len(), "20261123-210000-".len() + 16);
    }
}
