//! The API server, asked directly: what a scenario looks at or breaks is not seen through the eyes
//! of the program under test.

use std::path::Path;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::{Result, ensure};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A client with the rights of the cluster's administrator.
#[derive(Clone)]
pub struct Kube {
    runtime: Handle,
    client: kube::Client,
}

impl Kube {
    /// A client for the current context of a kubeconfig.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn new(runtime: &Handle, kubeconfig: &Path) -> Result<Self> {
        let client = runtime.block_on(async {
            let config = Kubeconfig::read_from(kubeconfig)?;
            let mut config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            config.connect_timeout = Some(Duration::from_secs(5));
            config.read_timeout = Some(ANSWER);
            Result::Ok(kube::Client::try_from(config)?)
        })?;
        Ok(Self { runtime: runtime.clone(), client })
    }

    /// An object or a list; `None` when there is no such thing.
    pub fn find(&self, path: &str) -> Result<Option<Value>> {
        match self.send("GET", path, "", None) {
            Ok(value) => Ok(Some(value)),
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// An object or a list.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, "", None)
    }

    /// The items of a list.
    pub fn list(&self, path: &str) -> Result<Vec<Value>> {
        Ok(self.get(path)?["items"].as_array().cloned().unwrap_or_default())
    }

    /// Makes an object in the collection at `path`.
    pub fn create(&self, path: &str, object: &Value) -> Result<Value> {
        self.send("POST", path, "application/json", Some(object))
    }

    /// Changes an object as `kubectl edit` does: the fields belong to the manager `kubectl-edit` then.
    pub fn edit(&self, path: &str, patch: &Value) -> Result<Value> {
        self.send("PATCH", &format!("{path}?fieldManager=kubectl-edit"), "application/merge-patch+json", Some(patch))
    }

    /// The same with a patch that knows what a list's entries are called.
    pub fn edit_strategic(&self, path: &str, patch: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager=kubectl-edit");
        self.send("PATCH", &path, "application/strategic-merge-patch+json", Some(patch))
    }

    /// Deletes an object; one that is not there is fine.
    pub fn delete(&self, path: &str) -> Result<()> {
        match self.send("DELETE", path, "application/json", Some(&json!({ "propagationPolicy": "Background" }))) {
            Err(error) => match error.downcast_ref::<kube::Error>() {
                Some(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                _ => Err(error),
            },
            Ok(_) => Ok(()),
        }
    }

    /// The end of a container's log, each line with its time.
    pub fn log(&self, namespace: &str, pod: &str, container: &str, previous: bool) -> Result<String> {
        let path = format!(
            "/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&tailLines=60&timestamps=true&previous={previous}"
        );
        let request = http::Request::get(path).body(Vec::new())?;
        let answer =
            self.runtime.block_on(async { tokio::time::timeout(ANSWER, self.client.request_text(request)).await });
        Ok(answer??)
    }

    fn send(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut request = http::Request::builder().method(method).uri(path);
        if !kind.is_empty() {
            request = request.header("Content-Type", kind);
        }
        let request = request.body(body)?;
        let answer = async { tokio::time::timeout(ANSWER, self.client.request::<Value>(request)).await };
        Ok(self.runtime.block_on(answer)??)
    }
}

/// Asks again until there is an answer.
///
/// # Errors
/// When `deadline` passes first; `what` says what was waited for.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(value) = ask()? {
            return Ok(value);
        }
        ensure!(begun.elapsed() < deadline, "{what}: not within {} s", deadline.as_secs());
        std::thread::sleep(Duration::from_millis(200));
    }
}
