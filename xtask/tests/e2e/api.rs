//! A site's server, asked directly: MLflow's REST API, and artifacts through the server.

use serde_json::Value;

use crate::site::Site;
use crate::{Result, http};

/// A client of a site's Service.
pub struct Api<'s> {
    site: &'s Site<'s>,
    http: reqwest::Client,
    base: String,
}

impl<'s> Api<'s> {
    /// The client.
    ///
    /// # Errors
    /// When there is no Service.
    pub fn of(site: &'s Site<'s>) -> Result<Self> {
        Ok(Self { site, http: reqwest::Client::builder().no_proxy().build()?, base: site.service()? })
    }

    /// Calls `/api/2.0/mlflow/PATH`.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.base);
        Ok(serde_json::from_slice(&self.send(self.http.post(url).json(body))?)?)
    }

    /// Makes an experiment; its id.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn experiment(&self, name: &str) -> Result<String> {
        let answer = self.post("experiments/create", &serde_json::json!({ "name": name }))?;
        Ok(answer["experiment_id"].as_str().ok_or("an experiment without an id")?.to_owned())
    }

    /// Stores an artifact.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn put(&self, path: &str, bytes: Vec<u8>) -> Result<()> {
        self.send(self.http.put(self.artifact_url(path)).body(bytes)).map(drop)
    }

    /// Reads an artifact.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn artifact(&self, path: &str) -> Result<Vec<u8>> {
        self.send(self.http.get(self.artifact_url(path)))
    }

    /// Where an artifact is.
    pub fn artifact_url(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow-artifacts/artifacts/{path}", self.base)
    }

    fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>> {
        self.site.world.runtime.block_on(http::answer(request))
    }
}
