//! Clients that ask the same question again and again, each as soon as it has its answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::http::answer;
use crate::load::{chain, http};
use crate::site::Site;
use crate::{Result, ensure};

/// How many there are.
pub const CLIENTS: u64 = 48;

/// Requests of this time are not counted: connections are opened, pools are filled.
const WARM_UP: Duration = Duration::from_secs(5);

/// How long answers are counted.
pub const MEASURED: Duration = Duration::from_secs(15);

/// A question's body, by the number of its client and that of its request.
pub type Body = dyn Fn(u64, u64) -> Value + Send + Sync;

/// How a question was answered.
pub struct Answered {
    /// Good answers within the measured time.
    pub answers: usize,
    /// Good answers a second.
    pub rate: f64,
    /// The median, in milliseconds.
    pub p50: u128,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99: u128,
    /// Requests without a good answer, in the whole time.
    pub failures: Vec<String>,
}

/// Lets all of them post to `/api/2.0/mlflow/PATH`.
///
/// # Errors
/// When there is no Service, or nothing was answered.
pub fn ask(site: &Site<'_>, path: &str, body: Arc<Body>) -> Result<Answered> {
    let url = format!("{}/api/2.0/mlflow/{path}", site.service()?);
    let from = Instant::now() + WARM_UP;
    let until = from + MEASURED;
    let (mut took, failures) = site.world.runtime.block_on(async {
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            clients.spawn(client(http(1, None)?, url.clone(), number, Arc::clone(&body), (from, until)));
        }
        let (mut took, mut failures) = (Vec::new(), Vec::new());
        while let Some(client) = clients.join_next().await {
            let (of_it, failed) = client?;
            took.extend(of_it);
            failures.extend(failed);
        }
        Result::Ok((took, failures))
    })?;
    ensure!(!took.is_empty(), "nobody had an answer to {path}; {} requests failed: {failures:?}", failures.len());
    took.sort_unstable();
    let percentile = |percent: usize| took[(took.len() * percent).div_ceil(100) - 1].as_millis();
    Ok(Answered {
        answers: took.len(),
        rate: took.len() as f64 / MEASURED.as_secs_f64(),
        p50: percentile(50),
        p99: percentile(99),
        failures,
    })
}

/// How long each answer took that came within the time, and what failed at any time.
async fn client(
    http: reqwest::Client,
    url: String,
    number: u64,
    body: Arc<Body>,
    (from, until): (Instant, Instant),
) -> (Vec<Duration>, Vec<String>) {
    let (mut took, mut failures) = (Vec::new(), Vec::new());
    let mut step = 0;
    while Instant::now() < until {
        step += 1;
        let request = http.post(&url).json(&body(number, step));
        let begun = Instant::now();
        let answer = answer(request).await;
        let now = Instant::now();
        match answer {
            Ok(_) if from <= now && now <= until => took.push(now - begun),
            Ok(_) => {}
            Err(error) => {
                failures.push(format!("client {number} after {} ms: {}", (now - begun).as_millis(), chain(&*error)));
                // One that is refused at once would do nothing else.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    (took, failures)
}
