//! What a pod's server holds while something is done with it, looked at from inside its container.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;

use crate::kube::wait_for;
use crate::site::Site;
use crate::{Result, ensure};

/// The kubelet knows memory to some seconds only, and counts the pages of files, which the kernel drops when it
/// has to. The program itself is counted, too, always alike.
const PROGRAM: &str = include_str!("usage.py");

/// For the first line, on a busy machine.
const START: Duration = Duration::from_secs(60);

/// The most that was seen, in bytes.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Usage {
    /// Memory that the kernel cannot drop: more than the limit of it ends the container.
    pub anonymous: u64,
    /// That and the pages of files that were used lately.
    pub working: u64,
    /// Files in `/tmp`.
    pub scratch: u64,
}

/// Looks until it is dropped.
pub struct Watch {
    kubectl: Child,
    seen: Arc<Mutex<Option<Usage>>>,
}

impl Watch {
    /// Begins to look at a pod.
    ///
    /// # Errors
    /// When nothing is seen.
    pub fn start(site: &Site<'_>, pod: &str) -> Result<Self> {
        let args = ["exec", pod, "--container", "mlflow", "--", "python", "-S", "-c", PROGRAM];
        let mut kubectl = site.kubectl(&args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(kubectl.stdout.take().ok_or("no stdout")?).lines();
        let seen = Arc::new(Mutex::new(None::<Usage>));
        let to = Arc::clone(&seen);
        std::thread::spawn(move || {
            for usage in lines.map_while(std::result::Result::ok) {
                let Ok(usage) = serde_json::from_str::<Usage>(&usage) else { break };
                let mut seen = to.lock().expect("nobody panics while it looks");
                *seen = Some(seen.unwrap_or_default().or(usage));
            }
        });
        let watch = Self { kubectl, seen };
        wait_for("what the pod holds", START, || {
            Ok(watch.seen.lock().expect("nobody panics while it looks").map(drop))
        })?;
        Ok(watch)
    }

    /// The most since the last time.
    ///
    /// # Errors
    /// When nothing was seen since then.
    pub fn take(&mut self) -> Result<Usage> {
        let seen = self.seen.lock().expect("nobody panics while it looks").take();
        ensure!(self.kubectl.try_wait()?.is_none(), "kubectl exec has ended");
        seen.ok_or_else(|| "nothing was seen of the pod".into())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

impl Usage {
    /// The larger of each.
    fn or(self, other: Self) -> Self {
        Self {
            anonymous: self.anonymous.max(other.anonymous),
            working: self.working.max(other.working),
            scratch: self.scratch.max(other.scratch),
        }
    }
}
