//! Removes what the checks made, as far as the API allows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::mlflow::client::{Class, Client, Failure, Outcome};
use crate::mlflow::smoke::checks::text_at;
use crate::mlflow::smoke::{Made, artifact};

/// What became of the things that the checks made.
#[derive(Debug, Default, serde::Serialize)]
pub struct Cleanup {
    /// Gone.
    pub removed: Vec<String>,
    /// Still there, each with the reason.
    pub not_removed: Vec<String>,
    /// What the server only marks as deleted.
    pub until_gc: Option<String>,
}

impl Cleanup {
    fn note(&mut self, what: String, outcome: Outcome<Value>) -> bool {
        match outcome {
            Ok(_) => self.removed.push(what),
            // The request that should have made it failed after all.
            Err(Failure { class: Class::Status(404), .. }) => return false,
            Err(failure) => self.not_removed.push(format!("{what} ({})", failure.detail)),
        }
        true
    }
}

/// Removes everything within `limit`, the newest first, each on its own: one that fails does not
/// keep the others.
pub async fn remove(client: &Client, made: &Made, limit: Duration) -> Cleanup {
    let mut cleanup = Cleanup::default();
    if made.unreachable {
        return cleanup;
    }
    if tokio::time::timeout(limit, steps(client, made, &mut cleanup)).await.is_err() {
        let names = [made.experiment_name.as_deref(), made.model.as_deref()];
        let names = names.into_iter().flatten().collect::<Vec<_>>().join(", ");
        cleanup.not_removed.push(format!("some of {names} (not done within {} s)", limit.as_secs()));
    }
    cleanup
}

async fn steps(client: &Client, made: &Made, cleanup: &mut Cleanup) {
    // A run that was interrupted while its experiment was being created left one without an id here.
    let experiment = match (&made.experiment, &made.experiment_name) {
        (Some(id), _) => Some(id.clone()),
        (None, Some(name)) => find_experiment(client, name, cleanup).await,
        (None, None) => None,
    };
    if let Some(name) = &made.model {
        let body = json!({"name": name});
        let outcome = client.delete("/api/2.0/mlflow/registered-models/delete", &body).await;
        cleanup.note(format!("registered model {name} with its version and alias"), outcome);
    }
    if let Some(folder) = &made.artifact_folder {
        let outcome = client.delete(&format!("{}/{folder}", artifact::ROUTE), &json!({})).await;
        cleanup.note(format!("artifacts below {folder}"), outcome);
    }
    let Some(experiment) = experiment else { return };
    if !made.traces.is_empty() {
        let body = json!({"experiment_id": experiment, "request_ids": made.traces});
        let outcome = client.post("/api/3.0/mlflow/traces/delete-traces", &body).await;
        cleanup.note(format!("traces {}", made.traces.join(", ")), outcome);
    }
    if let Some(run) = &made.run {
        let outcome = client.post("/api/2.0/mlflow/runs/delete", &json!({"run_id": run.id})).await;
        cleanup.note(format!("run {}", run.id), outcome);
    }
    let body = json!({"experiment_id": experiment});
    let outcome = client.post("/api/2.0/mlflow/experiments/delete", &body).await;
    let deleted = outcome.is_ok();
    cleanup.note(format!("experiment {experiment}"), outcome);
    if deleted {
        cleanup.until_gc = Some(format!(
            "experiment {experiment} and its run are marked as deleted; `mlflow gc --experiment-ids {experiment}` removes them for good"
        ));
    }
}

async fn find_experiment(client: &Client, name: &str, cleanup: &mut Cleanup) -> Option<String> {
    let path = format!("/api/2.0/mlflow/experiments/get-by-name?experiment_name={name}");
    match client.get(&path).await.and_then(|answer| text_at(&answer, "/experiment/experiment_id")) {
        Ok(id) => Some(id),
        Err(failure) => {
            cleanup.note(format!("experiment {name}"), Err(failure));
            None
        }
    }
}
