//! A client that never stops asking: it reads and writes through the Service's own address, as
//! clients in the cluster do, and keeps every request that failed.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::http::answer;
use crate::stamp::Stamp;
use crate::{Result, ensure};

/// Longer than any answer may take; a request that takes this long has failed.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How many clients of which sort.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Clients that keep their connection.
    pub keep_alive: usize,
    /// Clients that open a connection for each request.
    pub fresh: usize,
    /// Between two requests of a client.
    pub pause: Duration,
    /// Whether they write as well as read.
    pub writes: bool,
}

impl Shape {
    /// Eight clients, each with a moment between its requests.
    pub const BUSY: Self = Self { keep_alive: 4, fresh: 4, pause: Duration::from_millis(100), writes: true };

    /// One that only wants to know whether the server is there.
    pub const PROBE: Self = Self { keep_alive: 0, fresh: 1, pause: Duration::from_millis(250), writes: false };
}

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Count {
    /// Requests that were sent.
    pub requests: u64,
    /// Of these, writes.
    pub writes: u64,
    /// Requests without a good answer.
    pub failures: Vec<Failure>,
    /// The longest that a good answer took.
    pub slowest: Duration,
}

/// A request without a good answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it was known.
    pub at: Stamp,
    /// The request and what was wrong.
    pub why: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.at, self.why)
    }
}

/// Clients at work.
pub struct Load {
    runtime: Handle,
    stop: CancellationToken,
    count: Arc<Mutex<Count>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients. `base` is `http://ADDRESS:PORT`.
    ///
    /// # Errors
    /// When the server does not take what the clients need to begin with.
    pub fn start(runtime: &Handle, base: &str, shape: Shape) -> Result<Self> {
        Self::start_as(runtime, base, shape, None)
    }

    /// The same with a token that all requests carry.
    ///
    /// # Errors
    /// As [`Load::start`].
    pub fn start_as(runtime: &Handle, base: &str, shape: Shape, token: Option<&str>) -> Result<Self> {
        let (stop, count) = (CancellationToken::new(), Arc::new(Mutex::new(Count::default())));
        let mut clients = Vec::new();
        let experiment = match shape.writes {
            true => Some(runtime.block_on(experiment(base, token))?),
            false => None,
        };
        for number in 0..shape.keep_alive + shape.fresh {
            let idle = if number < shape.keep_alive { 1 } else { 0 };
            let http = http(idle, token)?;
            let client = Client {
                http,
                base: base.to_owned(),
                sort: if idle == 1 { "keep-alive" } else { "fresh" },
                count: Arc::clone(&count),
            };
            let (stop, experiment) = (stop.clone(), experiment.clone());
            clients.push(runtime.spawn(async move {
                tokio::select! {
                    // A request that is under way when the load ends is not counted.
                    () = stop.cancelled() => {}
                    () = client.ask(experiment, shape.pause) => {}
                }
            }));
        }
        Ok(Self { runtime: runtime.clone(), stop, count, clients })
    }

    /// What was counted so far.
    pub fn so_far(&self) -> Count {
        self.count.lock().expect("no client panics while it counts").clone()
    }

    /// Ends the clients.
    pub fn stop(mut self) -> Count {
        self.stop.cancel();
        for client in self.clients.drain(..) {
            let _ = self.runtime.block_on(client);
        }
        self.so_far()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A client that keeps so many connections.
///
/// # Errors
/// When the token is none.
pub fn http(idle: usize, token: Option<&str>) -> Result<reqwest::Client> {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let http = reqwest::Client::builder().no_proxy().http1_only().default_headers(headers);
    Ok(http.pool_max_idle_per_host(idle).timeout(TIMEOUT).build()?)
}

/// An experiment for the writers.
async fn experiment(base: &str, token: Option<&str>) -> Result<String> {
    let name = format!("load-{}", Stamp::now().unique());
    let answer = http(0, token)?
        .post(format!("{base}/api/2.0/mlflow/experiments/create"))
        .json(&json!({ "name": name }))
        .send()
        .await?;
    let (status, text) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "experiments/create answered {status}: {text}");
    let answer: Value = serde_json::from_str(&text)?;
    Ok(answer["experiment_id"].as_str().ok_or("an experiment without an id")?.to_owned())
}

struct Client {
    http: reqwest::Client,
    base: String,
    sort: &'static str,
    count: Arc<Mutex<Count>>,
}

impl Client {
    async fn ask(&self, experiment: Option<String>, pause: Duration) {
        let mut step = 0_u64;
        let mut run: Option<String> = None;
        loop {
            step += 1;
            match &experiment {
                None => drop(self.get("experiments/search?max_results=1").await),
                Some(experiment) if run.is_none() => {
                    let body = json!({ "experiment_id": experiment, "start_time": Stamp::now().millis() });
                    let made = self.post("runs/create", &body, true).await;
                    run = made.and_then(|made| made["run"]["info"]["run_id"].as_str().map(str::to_owned));
                }
                Some(experiment) => {
                    let metric = json!({ "key": "m", "value": 0.5, "timestamp": Stamp::now().millis(), "step": step });
                    let body = json!({ "run_id": run, "metrics": [metric] });
                    self.post("runs/log-batch", &body, true).await;
                    tokio::time::sleep(pause).await;
                    let body = json!({ "experiment_ids": [experiment], "max_results": 1 });
                    self.post("runs/search", &body, false).await;
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        self.send(path, self.http.get(format!("{}/api/2.0/mlflow/{path}", self.base)), false).await
    }

    async fn post(&self, path: &str, body: &Value, write: bool) -> Option<Value> {
        self.send(path, self.http.post(format!("{}/api/2.0/mlflow/{path}", self.base)).json(body), write).await
    }

    async fn send(&self, path: &str, request: reqwest::RequestBuilder, write: bool) -> Option<Value> {
        let begun = Instant::now();
        let answer = async { Ok(serde_json::from_slice(&answer(request).await?)?) };
        let answer: Result<Value> = answer.await;
        let mut count = self.count.lock().expect("no client panics while it counts");
        count.requests += 1;
        count.writes += u64::from(write);
        match answer {
            Ok(value) => {
                count.slowest = count.slowest.max(begun.elapsed());
                Some(value)
            }
            Err(error) => {
                let why = format!("{} {path} after {} ms: {}", self.sort, begun.elapsed().as_millis(), chain(&*error));
                count.failures.push(Failure { at: Stamp::now(), why });
                None
            }
        }
    }
}

/// An error with its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
