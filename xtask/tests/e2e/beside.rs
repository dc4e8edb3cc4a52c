//! `kubectl rollout status`, watching the same rollout as the program under test.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Result;
use crate::run::{Ran, Running};
use crate::site::Site;
use crate::stamp::Stamp;

/// Longer than a Deployment's progress deadline, which ends kubectl.
const LONGEST: Duration = Duration::from_secs(700);

/// What kubectl made of a rollout.
#[derive(Clone, Debug, Serialize)]
pub struct Kubectl {
    /// Seconds until it ended, or until it was stopped.
    pub seconds: f64,
    /// Its exit code; `None`: it still waited when it was stopped.
    pub exit: Option<i32>,
    /// What it had printed when the program under test had its verdict.
    pub at_verdict: Option<String>,
    /// The last that it printed.
    pub last: String,
}

/// kubectl, which is started as soon as the Deployment has changed.
pub struct Beside {
    stop: Arc<AtomicBool>,
    ran: Arc<Mutex<Option<Ran>>>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    /// Waits for the change in the background. With `full`, kubectl ends by itself; without, with
    /// [`Beside::end`].
    ///
    /// # Errors
    /// When the Deployment cannot be read.
    pub fn start(site: &Site<'_>, full: bool) -> Result<Self> {
        let generation = |deployment: Option<serde_json::Value>| deployment?["metadata"]["generation"].as_i64();
        let before = generation(site.deployment()?);
        let (kube, path) = (site.world.kube.clone(), site.deployment_path());
        let command = site.kubectl(&["rollout", "status", "deployment/mlflow"]);
        let (stop, ran) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let (ended, result) = (Arc::clone(&stop), Arc::clone(&ran));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now = kube.find(&path).ok().and_then(generation);
                if now.is_some() && now != before {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            if ended.load(Ordering::Relaxed) {
                return;
            }
            let Ok(mut kubectl) = Running::start("kubectl rollout status", command) else { return };
            let begun = Instant::now();
            while kubectl.is_running() && begun.elapsed() < LONGEST && (full || !ended.load(Ordering::Relaxed)) {
                std::thread::sleep(Duration::from_millis(50));
            }
            *result.lock().expect("no watcher panics") = kubectl.stop(Duration::ZERO);
        });
        Ok(Self { stop, ran, thread: Some(thread) })
    }

    /// What kubectl did; `None` when nothing was rolled out. `verdict` is when the program under test
    /// had its own.
    pub fn end(mut self, verdict: Option<Stamp>) -> Option<Kubectl> {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take()?.join();
        let ran = self.ran.lock().expect("no watcher panics").take()?;
        let said: Vec<&str> = ran.out_lines().collect();
        let at_verdict = verdict.map(|verdict| {
            let ended = ran.started.since(verdict) + ran.seconds <= 0.0;
            match (ended, ran.code) {
                (true, Some(0)) => "success".to_owned(),
                (true, code) => format!("exit {}", code.unwrap_or(-1)),
                (false, _) => "waiting".to_owned(),
            }
        });
        let errors: Vec<&str> = ran.lines.iter().map(|line| line.text.as_str()).collect();
        let last = errors.last().or(said.last()).copied().unwrap_or_default().to_owned();
        Some(Kubectl { seconds: (ran.seconds * 10.0).round() / 10.0, exit: ran.code, at_verdict, last })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
