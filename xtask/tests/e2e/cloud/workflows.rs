//! The shell steps of `.github/workflows`, as they stand, against a real cluster and the fake Google.

use std::ffi::OsString;

use serde_json::json;
use testbed::actions::shim::built_cargo;
use testbed::actions::{Action, Api, Conclusion, Context, JobResult, job, matrix};

use super::site::{Cloud, NAMESPACE};
use crate::report::Row;
use crate::site::{copy, repository};
use crate::world::{World, package_settings};
use crate::{Result, ensure};

/// The repository on GitHub.
const REPOSITORY: &str = "octo/mlflow";

pub fn run(world: &World) -> Result<Row> {
    for tool in ["curl", "jq"] {
        ensure!(testbed::require(tool, tool).is_some() || std::env::var_os("CI").is_none(), "{tool} is not installed");
    }
    let github = "github = \"octo/mlflow\"\ngithub-repository-id = \"42\"\ngithub-owner-id = \"7\"";
    let cloud = Cloud::named(world, "staging", "gke", "", github)?;
    copy(&repository().join(".github"), &cloud.root.join(".github"))?;
    let (applied, _) = cloud.answer(&["infra", "apply", "--yes"])?;
    let github = applied["outputs"]["github"].clone();
    ensure!(github["deploy"].is_string(), "no account deploys from GitHub: {applied}");

    let api = Api::start(REPOSITORY, "token-of-this-run");
    let mut runner = Runner { cloud: &cloud, context: context(&cloud, &api, &github.to_string())? };
    runner.need("deploy.yml", "environments")?;
    let built = runner.need("deploy.yml", "build")?;
    let image = built.outputs.get("image").cloned().unwrap_or_default();
    ensure!(image.contains("@sha256:"), "the job names no digest: {image}");
    let deployed = runner.need("deploy.yml", "staging")?;
    ensure!(deployed.environment.as_deref() == Some("staging"), "nobody is asked to approve");
    ensure!(deployed.summary.contains("checks passed"), "the summary does not say so: {}", deployed.summary);

    // A morning on which nothing has happened, and one after somebody was at work by hand.
    runner.context.needs.clear();
    runner.need("drift.yml", "environments")?;
    runner.drift()?;
    ensure!(api.issues().is_empty(), "an issue about nothing: {:?}", api.issues());
    let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/mlflow");
    cloud.world.kube.edit(&deployment, &json!({ "spec": { "progressDeadlineSeconds": 999 } }))?;
    runner.drift()?;
    let open = api.issues().into_iter().filter(|issue| issue.open).count();
    ensure!(open == 1, "{open} issues after the Deployment was changed by hand");
    cloud.close()?;
    Ok(Row {
        notes: vec![format!(
            "build, staging and drift as they stand: {image} is deployed, one issue for what was changed by hand"
        )],
        ..Row::default()
    })
}

struct Runner<'a> {
    cloud: &'a Cloud<'a>,
    context: Context<'a>,
}

impl Runner<'_> {
    fn run(&self, workflow: &str, name: &str) -> Result<JobResult> {
        let file = self.cloud.root.join(".github/workflows").join(workflow);
        let result = job(&file, name, &self.context)?;
        ensure!(result.conclusion == Conclusion::Success, "{workflow}, {name}: {}", result.log());
        Ok(result)
    }

    /// Runs a job for those that need it.
    fn need(&mut self, workflow: &str, name: &str) -> Result<JobResult> {
        let result = self.run(workflow, name)?;
        self.context.needs.insert(name.to_owned(), result.clone());
        Ok(result)
    }

    fn drift(&mut self) -> Result<()> {
        let file = self.cloud.root.join(".github/workflows/drift.yml");
        for values in matrix(&file, "drift", &self.context)? {
            self.context.matrix = values;
            self.run("drift.yml", "drift")?;
        }
        Ok(())
    }
}

fn context<'a>(cloud: &'a Cloud<'_>, api: &Api, github: &str) -> Result<Context<'a>> {
    let mut context = Context::new(&cloud.home, &cloud.root);
    let bin = cloud.home.path().join("bin");
    std::fs::create_dir_all(&bin)?;
    built_cargo(&bin, env!("CARGO_BIN_EXE_xtask").as_ref());
    context.path.push(bin);
    context.github.insert("repository".to_owned(), json!(REPOSITORY));
    context.github.insert("api_url".to_owned(), json!(api.url()));
    context.vars.insert("MLFLOW_STAGING".to_owned(), github.to_owned());
    context.vars.insert("MLFLOW_PRODUCTION".to_owned(), String::new());
    context.secrets.insert("GITHUB_TOKEN".to_owned(), "token-of-this-run".to_owned());
    let text = |value: OsString| value.to_string_lossy().into_owned();
    let settings = package_settings().map(|(name, value)| (text(name), text(value)));
    let env = cloud.environment().into_iter().map(|(name, value)| (name, text(value))).chain(settings).collect();
    context.actions.insert("./.github/actions/setup".to_owned(), Action { env, ..Action::default() });
    Ok(context)
}
