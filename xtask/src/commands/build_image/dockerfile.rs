//! `build-image` with a builder that follows the Dockerfile.

use std::io;
use std::process::ExitCode;
use std::time::Instant;

use mlflow_image::Platform;
use mlflow_image::plan::Format;

use super::{Args, NAME, answer, options};
use crate::builders::docker::{self, Tool};
use crate::builders::recipe::Recipe;
use crate::builders::{Builder, cloud_build, push};
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::registry::Reference;
use crate::report::Report;
use crate::signing;

pub async fn run(
    args: &Args,
    run: &Run,
    config: &Config,
    target: Option<Reference>,
    begun: Instant,
) -> Result<ExitCode> {
    refuse_native_options(args)?;
    let vars = |name: &str| std::env::var(name).ok();
    let recipe = Recipe::new(&config.root, &args.build_arg, run.offline, &vars)?;
    let mut platforms = options(args, config).platforms;
    platforms.sort();
    platforms.dedup();
    let cache = Cache::open()?;
    // Standard input is read once, and not for a plan.
    let login;
    let (built, pushed) = match tools(args.builder) {
        Some(tools) if args.dry_run => {
            let plan = local_plan(run, tools, &recipe, &platforms).await?;
            return run.answer(&Plan {
                sign: sign(config, target.as_ref()),
                target: target.map(|to| to.to_string()),
                ..plan
            });
        }
        Some(tools) => {
            login = args.login.source()?;
            let built = docker::build(run, &cache, tools, &recipe, &platforms).await?;
            let pushed = match &target {
                Some(target) => push::push_built(run, &cache, &built, target, login.clone()).await?,
                None => push::Pushed::default(),
            };
            (built, pushed)
        }
        None => {
            let target = target.as_ref().ok_or_else(|| {
                Error::new(Kind::Usage, "Cloud Build leaves the image in a repository").hint("add --push")
            })?;
            let project = config.infra.as_ref().map(|infra| infra.project.as_str());
            let job = cloud_build::Job::new(&recipe, &platforms, target, project, &vars)?;
            if args.dry_run {
                let commands = vec![job.submit("CONTEXT.tar.gz".as_ref(), "CONFIG.json".as_ref())];
                let (sign, target) = (sign(config, Some(target)), Some(target.to_string()));
                return run.answer(&Plan { commands, config: Some(job.config()), target, sign });
            }
            login = args.login.source()?;
            cloud_build::build(run, &cache, &job, &login).await?
        }
    };
    for output in &args.output {
        let name = target.as_ref().map_or_else(|| format!("{NAME}:latest"), ToString::to_string);
        output.write(run, &cache, &built, &name)?;
    }
    let signed = match &target {
        Some(target) => signing::after_push(run, config, &cache, target, &built.digest(), login).await?,
        None => None,
    };
    run.answer(&answer::Answer::new(&built, target.as_ref(), &args.output, pushed, signed, begun.elapsed()))
}

/// The local tools that may build; `None` for Cloud Build.
fn tools(builder: Builder) -> Option<&'static [Tool]> {
    match builder {
        Builder::Podman => Some(&[Tool::Podman]),
        Builder::Buildah => Some(&[Tool::Buildah]),
        Builder::CloudBuild => None,
        Builder::Docker | Builder::Native => Some(&Tool::ALL),
    }
}

fn refuse_native_options(args: &Args) -> Result<()> {
    let used = [
        ("--layer-format", args.layer_format != Format::default()),
        ("--no-bytecode", args.no_bytecode),
        ("--locked", args.locked),
        ("--sbom", args.sbom.is_some()),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((option, _)) => Err(Error::new(Kind::Usage, format!("{option} is for --builder native"))
            .hint(format!("leave {option} out, or build with --builder native"))),
        None => Ok(()),
    }
}

async fn local_plan(run: &Run, tools: &[Tool], recipe: &Recipe, platforms: &[Platform]) -> Result<Plan> {
    let (tool, path) = docker::choose(run, tools).await?;
    let commands = platforms
        .iter()
        .flat_map(|platform| [tool.build(recipe, *platform, "ID".as_ref()), tool.save("IMAGE", "ARCHIVE".as_ref())]);
    let commands = commands.map(|args| [vec![path.display().to_string()], args].concat()).collect();
    Ok(Plan { commands, config: None, target: None, sign: None })
}

/// What `--dry-run` answers: the programs that would be run.
#[derive(serde::Serialize)]
struct Plan {
    commands: Vec<Vec<String>>,
    /// Cloud Build's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<serde_json::Value>,
    /// Where the image would be pushed.
    target: Option<String>,
    /// With what it would be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    sign: Option<String>,
}

/// With what a push would be signed.
fn sign(config: &Config, target: Option<&Reference>) -> Option<String> {
    target.and(config.image.signing.sign.as_ref()).map(ToString::to_string)
}

impl Report for Plan {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for command in &self.commands {
            writeln!(out, "run   {}", command.join(" "))?;
        }
        if let Some(config) = &self.config {
            writeln!(out, "with  {config:#}")?;
        }
        if let Some(target) = &self.target {
            writeln!(out, "push  {target}, what the registry lacks")?;
        }
        match &self.sign {
            Some(with) => writeln!(out, "sign  it with {with}"),
            None => Ok(()),
        }
    }
}
