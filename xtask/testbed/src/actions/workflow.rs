//! The files below `.github`: workflows and composite actions. A key that is not listed here is one
//! that this runner would ignore, so it is refused.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use super::{Result, error};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Workflow {
    pub(super) name: Option<String>,
    pub(super) on: Value,
    #[serde(default)]
    pub(super) env: Map<String, Value>,
    #[serde(default)]
    pub(super) defaults: Defaults,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) jobs: BTreeMap<String, Job>,
    #[serde(default, rename = "permissions")]
    _permissions: IgnoredAny,
}

impl Workflow {
    pub(super) fn read(file: &Path) -> Result<Self> {
        read(file)
    }

    pub(super) fn job(&self, name: &str) -> Result<&Job> {
        self.jobs.get(name).ok_or_else(|| {
            let known: Vec<_> = self.jobs.keys().map(String::as_str).collect();
            error(format!("there is no job {name}, but {}", known.join(", ")))
        })
    }

    /// What it is when another workflow calls it.
    pub(super) fn call(&self) -> Result<Call> {
        let call = self.on.get("workflow_call").ok_or_else(|| error("it cannot be called"))?;
        serde_json::from_value(call.clone()).map_err(|problem| error(format!("workflow_call: {problem}")))
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Defaults {
    #[serde(default)]
    pub(super) run: Shell,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shell {
    pub(super) shell: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Concurrency {
    pub(super) group: String,
    pub(super) cancel_in_progress: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    #[serde(default)]
    pub(super) inputs: BTreeMap<String, Input>,
    #[serde(default)]
    pub(super) outputs: BTreeMap<String, Output>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    pub(super) default: Option<Value>,
    #[serde(default, rename = "description")]
    _description: IgnoredAny,
    #[serde(default, rename = "required")]
    _required: IgnoredAny,
    #[serde(default, rename = "type")]
    _kind: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    pub(super) value: String,
    #[serde(default, rename = "description")]
    _description: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    #[serde(default)]
    pub(super) needs: OneOrMore,
    #[serde(rename = "if")]
    pub(super) condition: Option<Value>,
    pub(super) environment: Option<String>,
    pub(super) concurrency: Option<Concurrency>,
    pub(super) strategy: Option<Strategy>,
    #[serde(default)]
    pub(super) env: Map<String, Value>,
    #[serde(default)]
    pub(super) outputs: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) steps: Vec<Step>,
    pub(super) uses: Option<String>,
    #[serde(default)]
    pub(super) with: Map<String, Value>,
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    #[serde(default, rename = "permissions")]
    _permissions: IgnoredAny,
    #[serde(default, rename = "runs-on")]
    _runs_on: IgnoredAny,
    #[serde(default, rename = "timeout-minutes")]
    _timeout: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMore {
    #[default]
    None,
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Strategy {
    pub(super) matrix: Matrix,
    #[serde(default, rename = "fail-fast")]
    _fail_fast: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Matrix {
    pub(super) include: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    pub(super) name: Option<String>,
    pub(super) id: Option<String>,
    #[serde(rename = "if")]
    pub(super) condition: Option<Value>,
    pub(super) uses: Option<String>,
    #[serde(default)]
    pub(super) with: Map<String, Value>,
    pub(super) run: Option<String>,
    #[serde(default)]
    pub(super) env: Map<String, Value>,
    pub(super) shell: Option<String>,
}

/// A composite action.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Composite {
    #[serde(default)]
    pub(super) inputs: BTreeMap<String, Input>,
    pub(super) runs: Runs,
    #[serde(default, rename = "name")]
    _name: IgnoredAny,
    #[serde(default, rename = "description")]
    _description: IgnoredAny,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Runs {
    pub(super) using: String,
    pub(super) steps: Vec<Step>,
}

impl Composite {
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let action: Self = read(&dir.join("action.yml"))?;
        if action.runs.using == "composite" { Ok(action) } else { Err(error("it is not composite")) }
    }
}

fn read<T: DeserializeOwned>(file: &Path) -> Result<T> {
    let named = |problem: String| error(format!("{}: {problem}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|problem| named(problem.to_string()))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|problem| named(problem.to_string()))?;
    serde_json::from_value(value).map_err(|problem| named(problem.to_string()))
}
