//! `infra`: the resources at Google. observe -> plan -> execute -> outputs.

mod answer;
mod apply;
mod destroy;
mod import_outputs;
mod outputs;
mod plan;

use std::process::ExitCode;

use crate::cache::Lock;
use crate::commands::Run;
use crate::config::Config;
use crate::config::infra::{InfraConfig, Via};
use crate::error::Result;
use crate::infra::secrets::Secrets;
use crate::infra::way::{Given, Way};

/// Make, show or destroy an environment's resources at Google
///
/// What there is to be stands in [environment.NAME.infra] of deploy.toml; terraform or gcloud makes it.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Plan(plan::Args),
    Apply(apply::Args),
    Outputs(outputs::Args),
    ImportOutputs(import_outputs::Args),
    Destroy(destroy::Args),
}

/// Which environment, and by what.
#[derive(clap::Args, Clone, Debug)]
struct Target {
    /// The environment in deploy.toml.
    #[arg(long)]
    env: String,
    /// What makes the resources [default: `via` in deploy.toml].
    #[arg(long, value_name = "terraform|gcloud", value_parser = parse_via)]
    via: Option<Via>,
    /// Seconds to wait for the lock of terraform's state.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

fn parse_via(text: &str) -> std::result::Result<Via, String> {
    let found = Via::NAMES.iter().find(|(name, _)| *name == text).map(|(_, via)| *via);
    found.ok_or_else(|| crate::config::did_you_mean(text, &Via::NAMES.map(|(name, _)| name)))
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    match args.command {
        Command::Plan(args) => plan::run(args, run).await,
        Command::Apply(args) => apply::run(args, run).await,
        Command::Outputs(args) => outputs::run(args, run).await,
        Command::ImportOutputs(args) => import_outputs::run(args, run),
        Command::Destroy(args) => destroy::run(args, run).await,
    }
}

/// An environment whose infrastructure is at hand: nobody else on this machine works on it.
struct Site {
    config: Config,
    infra: InfraConfig,
    way: Way,
    lock_wait: u64,
    _lock: Lock,
}

impl Site {
    async fn open(run: &Run, target: &Target) -> Result<Self> {
        let config = Config::load(&target.env)?;
        let mut infra = config.infra()?.clone();
        infra.via = target.via.unwrap_or(infra.via);
        let folder = crate::outputs::folder(&config.root, &config.env);
        // Files in terraform/ are written for each call: one environment at a time.
        let lock = folder.parent().unwrap_or(&folder).join("lock");
        let lock = Lock::take(&lock, &format!("the infrastructure of environment {}", config.env))?;
        let way = Way::open(run, &config, &infra, &folder).await?;
        Ok(Self { config, infra, way, lock_wait: target.lock_wait, _lock: lock })
    }

    /// What the cluster holds, where anything secret is wanted.
    async fn secrets(&self, run: &Run) -> Result<Secrets> {
        let mut config = self.config.clone();
        let mut found = None;
        if self.infra.has_secrets() {
            found = crate::outputs::read(&config.root, &config.env)?;
            if found.is_none() {
                // Another machine may have made the cluster.
                found = self.way.outputs(run).await?;
                if let Some(found) = &found {
                    crate::outputs::write(&config.root, &config.env, found)?;
                    config = Config::load(&config.env)?;
                }
            }
        }
        Secrets::find(&config, &self.infra, found.as_ref()).await
    }

    fn no_secrets(&self) -> Secrets {
        Secrets::none(&self.infra)
    }

    fn given<'a>(&self, secrets: &'a Secrets) -> Given<'a> {
        Given { password: secrets.password(), lock_wait: self.lock_wait }
    }
}
