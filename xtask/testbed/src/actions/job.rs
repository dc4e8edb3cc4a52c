//! One job of a workflow.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::expression::Scope;
use super::step::{List, Steps, evaluate, inputs};
use super::workflow::{Concurrency, Job, Workflow};
use super::{Conclusion, Context, JobResult, Result, error};

/// Runs a job of a workflow; one that calls another workflow runs that one's jobs.
///
/// # Errors
/// When the workflow is wrong or uses what is not known here. A job whose steps fail is a result.
pub fn job(workflow: &Path, job: &str, context: &Context<'_>) -> Result<JobResult> {
    let read = Workflow::read(workflow)?;
    let named = |problem| error(format!("{}, job {job}: {problem}", workflow.display()));
    run(&read, job, context).map_err(named)
}

/// The combinations for which GitHub would run a job.
///
/// # Errors
/// When the workflow is wrong or uses what is not known here.
pub fn matrix(workflow: &Path, job: &str, context: &Context<'_>) -> Result<Vec<Map<String, Value>>> {
    let read = Workflow::read(workflow)?;
    let scope = scope(&read, job, context)?;
    let strategy = read.job(job)?.strategy.as_ref().ok_or_else(|| error(format!("{job} has no matrix")))?;
    let include = match &strategy.matrix.include {
        Value::String(text) => scope.value(text)?,
        other => other.clone(),
    };
    serde_json::from_value(include).map_err(|problem| error(format!("the matrix of {job}: {problem}")))
}

/// What an expression of the job can see before its first step.
fn scope(workflow: &Workflow, name: &str, context: &Context<'_>) -> Result<Scope> {
    let mut scope = Scope { workspace: context.workspace.clone(), ..Scope::default() };
    let mut github = context.github.clone();
    github.insert("job".to_owned(), name.into());
    github.insert("workflow".to_owned(), workflow.name.clone().unwrap_or_default().into());
    github.insert("workspace".to_owned(), json!(context.workspace));
    scope.set("github", github);
    scope.set("vars", json!(context.vars));
    scope.set("inputs", context.inputs.clone());
    let mut needs = Map::new();
    for job in workflow.job(name)?.needs.as_slice() {
        let result = context.needs.get(job).ok_or_else(|| error(format!("it needs the result of {job}")))?;
        needs.insert(job.clone(), json!({ "result": result.conclusion.as_str(), "outputs": result.outputs }));
        scope.failed |= result.conclusion != Conclusion::Success;
    }
    scope.set("needs", needs);
    Ok(scope)
}

fn run(workflow: &Workflow, name: &str, context: &Context<'_>) -> Result<JobResult> {
    let job = workflow.job(name)?;
    let mut scope = scope(workflow, name, context)?;
    let condition = job.condition.as_ref().map_or(Ok("success()".to_owned()), super::expression::to_text)?;
    if !scope.condition(&condition)? {
        return Ok(result(Conclusion::Skipped));
    }
    if job.strategy.is_some() {
        scope.set("matrix", context.matrix.clone());
    }
    for concurrency in workflow.concurrency.iter().chain(&job.concurrency) {
        check(concurrency, &scope)?;
    }
    if let Some(uses) = &job.uses {
        return call(job, uses, &scope, context);
    }
    let environment = job.environment.as_ref().map(|name| scope.text(name)).transpose()?;
    scope.set("secrets", json!(context.secrets));
    let mut env = evaluate(&scope, &workflow.env)?;
    scope.set("env", json!(env));
    env.extend(evaluate(&scope, &job.env)?);
    scope.failed = false;
    let mut steps = Steps::new(context, env)?;
    scope.set("runner", steps.runner());
    let shell = workflow.defaults.run.shell.as_deref();
    let done = steps.run(List { steps: &job.steps, scope: scope.clone(), shell, env: BTreeMap::new() })?;
    let Steps { failed, results, summary, .. } = steps;
    let mut outputs = BTreeMap::new();
    if !failed {
        scope.set("steps", done);
        for (name, text) in &job.outputs {
            outputs.insert(name.clone(), scope.text(text)?);
        }
    }
    let conclusion = if failed { Conclusion::Failure } else { Conclusion::Success };
    Ok(JobResult { outputs, environment, steps: results, summary, ..result(conclusion) })
}

/// Another workflow's jobs. None of those that are called here has jobs that wait for each other.
fn call(job: &Job, uses: &str, scope: &Scope, context: &Context<'_>) -> Result<JobResult> {
    let local = uses.strip_prefix("./").ok_or_else(|| error(format!("{uses} is not in this repository")))?;
    let workflow = Workflow::read(&context.workspace.join(local))?;
    let call = workflow.call()?;
    let given = evaluate(scope, &job.with)?;
    let given = given.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    let called = Context {
        home: context.home,
        workspace: context.workspace.clone(),
        path: context.path.clone(),
        env: context.env.clone(),
        github: context.github.clone(),
        vars: context.vars.clone(),
        secrets: context.secrets.clone(),
        inputs: inputs(&call.inputs, given)?,
        needs: BTreeMap::new(),
        matrix: Map::new(),
        actions: context.actions.clone(),
    };
    let mut whole = result(Conclusion::Success);
    let mut jobs = Map::new();
    for name in workflow.jobs.keys() {
        let one = run(&workflow, name, &called)?;
        jobs.insert(name.clone(), json!({ "result": one.conclusion.as_str(), "outputs": one.outputs }));
        if one.conclusion == Conclusion::Failure {
            whole.conclusion = Conclusion::Failure;
        }
        whole.steps.extend(one.steps);
        whole.summary.push_str(&one.summary);
    }
    if whole.conclusion == Conclusion::Success {
        let mut scope = Scope::default();
        scope.set("jobs", jobs);
        for (name, output) in &call.outputs {
            whole.outputs.insert(name.clone(), scope.text(&output.value)?);
        }
    }
    Ok(whole)
}

/// Nothing waits here; but what GitHub would evaluate must be there.
fn check(concurrency: &Concurrency, scope: &Scope) -> Result<()> {
    if scope.text(&concurrency.group)?.is_empty() {
        return Err(error(format!("a group without a name: {}", concurrency.group)));
    }
    if let Value::String(text) = &concurrency.cancel_in_progress {
        scope.text(text)?;
    }
    Ok(())
}

fn result(conclusion: Conclusion) -> JobResult {
    JobResult { conclusion, outputs: BTreeMap::new(), environment: None, steps: Vec::new(), summary: String::new() }
}
