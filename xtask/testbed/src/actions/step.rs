//! The steps of a job, one after the other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::expression::{Scope, to_text};
use super::workflow::{Composite, Input, Step};
use super::{Action, Conclusion, Context, Result, StepResult, error, files};

type Variables = BTreeMap<String, String>;

/// A job at work.
pub(super) struct Steps<'a> {
    context: &'a Context<'a>,
    /// What the steps before have left for the next ones.
    env: Variables,
    path: Vec<PathBuf>,
    temp: TempDir,
    pub(super) failed: bool,
    pub(super) results: Vec<StepResult>,
    pub(super) summary: String,
}

/// What the steps of one list share: those of a job, or of a composite action.
pub(super) struct List<'a> {
    pub(super) steps: &'a [Step],
    /// The contexts besides `env` and `steps`, which grow.
    pub(super) scope: Scope,
    /// The shell of steps that name none.
    pub(super) shell: Option<&'a str>,
    /// Variables of the step that uses the action.
    pub(super) env: Variables,
}

/// How a step went.
struct Ended {
    code: Option<i32>,
    log: String,
    with: Variables,
    outputs: Variables,
    failed: bool,
}

impl<'a> Steps<'a> {
    pub(super) fn new(context: &'a Context<'a>, env: Variables) -> Result<Self> {
        let temp =
            tempfile::Builder::new().prefix("runner-").tempdir_in(context.home.path()).map_err(io("RUNNER_TEMP"))?;
        let path = context.path.clone();
        Ok(Self { context, env, path, temp, failed: false, results: Vec::new(), summary: String::new() })
    }

    /// The context `runner`.
    pub(super) fn runner(&self) -> Value {
        json!({ "os": "Linux", "arch": "X64", "temp": self.temp.path().join("temp") })
    }

    /// Runs a list to its end and gives the context `steps` as it is then.
    pub(super) fn run(&mut self, mut list: List<'_>) -> Result<Map<String, Value>> {
        let mut done = Map::new();
        for step in list.steps {
            let name = name(step);
            let named = |problem: super::Error| error(format!("step `{name}`: {problem}"));
            list.scope.failed = self.failed;
            list.scope.set("steps", done.clone());
            let mut env = self.env.clone();
            env.extend(list.env.clone());
            list.scope.set("env", json!(env));
            let condition = step.condition.as_ref().map_or(Ok("success()".to_owned()), to_text).map_err(named)?;
            let (conclusion, ended) = if list.scope.condition(&condition).map_err(named)? {
                env.extend(evaluate(&list.scope, &step.env).map_err(named)?);
                list.scope.set("env", json!(env));
                let ended = self.step(step, &name, &list, env).map_err(named)?;
                (if ended.failed { Conclusion::Failure } else { Conclusion::Success }, ended)
            } else {
                let ended = Ended {
                    code: None,
                    log: String::new(),
                    with: Variables::new(),
                    outputs: Variables::new(),
                    failed: false,
                };
                (Conclusion::Skipped, ended)
            };
            self.failed |= ended.failed;
            if let Some(id) = &step.id {
                let word = conclusion.as_str();
                let state = json!({ "outputs": ended.outputs, "outcome": word, "conclusion": word });
                done.insert(id.clone(), state);
            }
            let Ended { code, log, with, outputs, .. } = ended;
            self.results.push(StepResult { name, conclusion, code, log, with, outputs });
        }
        Ok(done)
    }

    fn step(&mut self, step: &Step, name: &str, list: &List<'_>, env: Variables) -> Result<Ended> {
        match (&step.run, &step.uses) {
            (Some(script), None) => {
                self.shell(&list.scope.text(script)?, step.shell.as_deref().or(list.shell), name, env)
            }
            (None, Some(uses)) => {
                let with = evaluate(&list.scope, &step.with)?;
                let action = uses.split_once('@').map_or(uses.as_str(), |(action, _)| action);
                if let Some(known) = self.context.actions.get(action) {
                    Ok(self.pretend(known, with))
                } else if let Some(local) = action.strip_prefix("./") {
                    self.composite(&self.context.workspace.join(local), with, list, env)
                } else {
                    Err(error(format!("nobody said what {action} would do")))
                }
            }
            _ => Err(error("it must have one of run and uses")),
        }
    }

    /// An action that is not executed.
    fn pretend(&mut self, action: &Action, with: Variables) -> Ended {
        self.env.extend(action.env.clone());
        Ended { code: None, log: String::new(), with, outputs: action.outputs.clone(), failed: false }
    }

    fn composite(&mut self, dir: &Path, with: Variables, caller: &List<'_>, env: Variables) -> Result<Ended> {
        let action = Composite::read(dir)?;
        let mut scope = Scope { workspace: self.context.workspace.clone(), ..Scope::default() };
        for name in ["github", "runner"] {
            scope.set(name, caller.scope.contexts.get(name).cloned().unwrap_or_default());
        }
        let given = with.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        scope.set("inputs", inputs(&action.inputs, given)?);
        let failed_before = self.failed;
        self.run(List { steps: &action.runs.steps, scope, shell: None, env })?;
        let failed = self.failed && !failed_before;
        Ok(Ended { code: None, log: String::new(), with, outputs: Variables::new(), failed })
    }

    /// A script, as GitHub's runner starts it.
    fn shell(&mut self, script: &str, shell: Option<&str>, name: &str, env: Variables) -> Result<Ended> {
        let options: &[&str] = match shell {
            None => &["-e"],
            Some("bash") => &["--noprofile", "--norc", "-eo", "pipefail"],
            Some(other) => return Err(error(format!("the shell {other} is not known here"))),
        };
        let dir = self.temp.path().join(format!("step-{}", self.results.len()));
        let temp = self.temp.path().join("temp");
        std::fs::create_dir_all(&dir).and_then(|()| std::fs::create_dir_all(&temp)).map_err(io("a folder"))?;
        let files = ["output", "env", "path", "step_summary"].map(|file| (file, dir.join(file)));
        for (_, file) in &files {
            std::fs::write(file, "").map_err(io("a file of the runner"))?;
        }
        let (file, log) = (dir.join("script.sh"), dir.join("log"));
        std::fs::write(&file, script).map_err(io("the script"))?;
        let out = std::fs::File::create(&log).map_err(io("the log"))?;
        let err = out.try_clone().map_err(io("the log"))?;
        let mut command = self.context.home.command("bash");
        let system = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(self.path.iter().cloned().chain(std::env::split_paths(&system)))
            .map_err(|problem| error(problem.to_string()))?;
        command.args(options).arg(&file).current_dir(&self.context.workspace);
        command.env("PATH", path).envs([("CI", "true"), ("GITHUB_ACTIONS", "true"), ("RUNNER_OS", "Linux")]);
        command.env("GITHUB_WORKSPACE", &self.context.workspace).env("RUNNER_TEMP", &temp);
        let facts = self.context.github.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        command.envs(facts.map(|(name, value)| (format!("GITHUB_{}", name.to_uppercase()), value)));
        command.envs(files.iter().map(|(name, file)| (format!("GITHUB_{}", name.to_uppercase()), file)));
        command.envs(&self.context.env).envs(&env).stdin(Stdio::null()).stdout(out).stderr(err);
        let status = command.status().map_err(io("bash"))?;

        let read = |file: &Path| std::fs::read_to_string(file).map_err(io(name));
        let [outputs, variables, paths, summary] = files.map(|(_, file)| read(&file));
        self.env.extend(files::parse(&variables?)?);
        self.path.splice(0..0, paths?.lines().map(PathBuf::from));
        self.summary.push_str(&summary?);
        let outputs = files::parse(&outputs?)?.into_iter().collect();
        let log = String::from_utf8_lossy(&std::fs::read(&log).map_err(io("the log"))?).into_owned();
        Ok(Ended { code: status.code(), log, with: Variables::new(), outputs, failed: !status.success() })
    }
}

/// A step's name: its own, or what GitHub would call it.
fn name(step: &Step) -> String {
    let first_line = |text: &String| text.lines().next().unwrap_or_default().to_owned();
    let run = || step.run.as_ref().map(first_line);
    step.name.clone().or_else(run).or_else(|| step.uses.clone()).unwrap_or_default()
}

/// A map of texts with expressions in them.
pub(super) fn evaluate(scope: &Scope, map: &Map<String, Value>) -> Result<Variables> {
    let value = |value: &Value| match value {
        Value::String(text) => scope.text(text),
        other => to_text(other),
    };
    map.iter().map(|(name, text)| Ok((name.clone(), value(text)?))).collect()
}

/// What was given, and the defaults of what was not.
pub(super) fn inputs(declared: &BTreeMap<String, Input>, mut given: Map<String, Value>) -> Result<Map<String, Value>> {
    if let Some(unknown) = given.keys().find(|name| !declared.contains_key(*name)) {
        return Err(error(format!("there is no input {unknown}")));
    }
    for (name, input) in declared {
        if !given.contains_key(name) {
            let default = input.default.clone().ok_or_else(|| error(format!("the input {name} is missing")))?;
            given.insert(name.clone(), default);
        }
    }
    Ok(given)
}

fn io(what: &str) -> impl Fn(std::io::Error) -> super::Error {
    move |problem| error(format!("{what}: {problem}"))
}
