//! GitHub Actions on this machine: the jobs of a workflow, their `run` steps executed as they stand
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax>), and the
//! part of GitHub's API that they call.
//!
//! It is stricter than GitHub: what is not known here is an error and never an empty string.

mod api;
mod expression;
mod files;
mod hash;
mod job;
pub mod shim;
mod step;
#[cfg(test)]
mod tests;
mod workflow;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub use api::{Api, Comment, Issue};
pub use job::{job, matrix};

use crate::Home;

/// Why a workflow cannot be run here: it is wrong, or uses something that this runner does not know.
/// A step that fails is none of these, but a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The result of everything here.
pub type Result<T> = std::result::Result<T, Error>;

/// An error with a message.
fn error(message: impl Into<String>) -> Error {
    Error(message.into())
}

/// What surrounds a job.
#[derive(Debug)]
pub struct Context<'a> {
    /// HOME, caches and logins of the steps.
    pub home: &'a Home,
    /// The checkout: where the steps run, and where local actions and workflows are.
    pub workspace: PathBuf,
    /// Folders that lead the PATH.
    pub path: Vec<PathBuf>,
    /// Variables of the runner itself.
    pub env: BTreeMap<String, String>,
    /// `github.*`; its strings are also the variables `GITHUB_*`.
    pub github: Map<String, Value>,
    /// `vars.*`. One that is not set is given as an empty string; one that is not given is an error.
    pub vars: BTreeMap<String, String>,
    /// `secrets.*`.
    pub secrets: BTreeMap<String, String>,
    /// `inputs.*`.
    pub inputs: Map<String, Value>,
    /// The jobs before this one. It sees those that it says it needs.
    pub needs: BTreeMap<String, JobResult>,
    /// `matrix.*`.
    pub matrix: Map<String, Value>,
    /// What the actions that are not executed would have done: by name, without the `@` and what follows.
    pub actions: BTreeMap<String, Action>,
}

impl<'a> Context<'a> {
    /// A push to main of `owner/repository`, with nothing configured.
    pub fn new(home: &'a Home, workspace: &Path) -> Self {
        let github = json!({
            "actor": "someone",
            "api_url": "http://127.0.0.1:9",
            "event": {},
            "event_name": "push",
            "ref": "refs/heads/main",
            "repository": "owner/repository",
            "run_id": "1",
            "server_url": "https://github.com",
            "sha": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        });
        let Value::Object(github) = github else { unreachable!("an object") };
        Self {
            home,
            workspace: workspace.to_owned(),
            path: Vec::new(),
            env: BTreeMap::new(),
            github,
            vars: BTreeMap::new(),
            secrets: BTreeMap::new(),
            inputs: Map::new(),
            needs: BTreeMap::new(),
            matrix: Map::new(),
            actions: BTreeMap::from([("actions/checkout".to_owned(), Action::default())]),
        }
    }
}

/// What an action that is not executed would have left behind.
#[derive(Clone, Debug, Default)]
pub struct Action {
    /// Variables of the steps after it.
    pub env: BTreeMap<String, String>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
}

/// How a step or a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// It did what it should.
    Success,
    /// A command failed.
    Failure,
    /// Its condition did not hold.
    Skipped,
}

impl Conclusion {
    /// As expressions see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Skipped => "skipped",
        }
    }
}

/// What became of a job.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// How it ended.
    pub conclusion: Conclusion,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
    /// The GitHub environment that it asks for.
    pub environment: Option<String>,
    /// Its steps, those of composite actions among them.
    pub steps: Vec<StepResult>,
    /// What the steps wrote on the summary page.
    pub summary: String,
}

impl JobResult {
    /// All that the steps printed.
    pub fn log(&self) -> String {
        self.steps.iter().map(|step| format!("{}:\n{}\n", step.name, step.log)).collect()
    }

    /// The step of this name.
    ///
    /// # Panics
    /// When there is none.
    pub fn step(&self, name: &str) -> &StepResult {
        let found = self.steps.iter().find(|step| step.name == name);
        found.unwrap_or_else(|| panic!("no step {name} in:\n{}", self.log()))
    }
}

/// What became of a step.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub conclusion: Conclusion,
    /// The exit code of its shell; of an action none.
    pub code: Option<i32>,
    /// What it printed, stdout and stderr as they came.
    pub log: String,
    /// What an action was given.
    pub with: BTreeMap<String, String>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
}
