//! `db`: the database's schema, and its backups.

mod backup;
mod backups;
mod drill;
mod head;
mod restore;
mod status;
mod upgrade;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use mlflow_image::Platform;

use crate::builders::draft::Options;
use crate::cache::Cache;
use crate::cluster::lease::{self, Held, Holder};
use crate::cluster::{Cluster, job};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};
use crate::local::source::Source;
use crate::registry::{Access, Client, CredentialSource, Reference};
use crate::schema::{self, Schema};

/// The database's schema, the one that an image's MLflow works with, and the database's backups
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Status(status::Args),
    Head(head::Args),
    Backup(backup::Args),
    Backups(backups::Args),
    Verify(verify::Args),
    Restore(restore::Args),
    Drill(drill::Args),
    Upgrade(upgrade::Args),
}

/// The image whose schema is asked for.
#[derive(clap::Args)]
struct Wanted {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The image: REGISTRY/PATH@sha256:DIGEST, REGISTRY/PATH:TAG or oci:DIR [default: what the locks
    /// describe, as for deploy].
    #[arg(long, value_name = "IMAGE")]
    image: Option<Source>,
}

/// A backup that is looked at.
#[derive(clap::Args)]
struct Chosen {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The backup [default: the newest].
    id: Option<String>,
}

/// How the databases are changed.
#[derive(clap::Args)]
struct Change {
    /// The environment in deploy.toml.
    #[arg(long)]
    env: String,
    /// Ask no questions.
    #[arg(long, short)]
    yes: bool,
    /// Make no backup first.
    #[arg(long)]
    without_backup: bool,
    /// Seconds to wait for another run to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

impl Change {
    /// The lock of the server's namespace.
    ///
    /// # Errors
    /// `Locked` where another run has it for longer.
    async fn lock(&self, run: &Run, cluster: &Cluster) -> Result<Held> {
        lease::take(run, cluster, Holder::this_process(), Duration::from_secs(self.lock_wait)).await
    }

    /// Asks, unless nobody is to be asked.
    ///
    /// # Errors
    /// As [`crate::ui::Ui::confirm`].
    fn agree(&self, run: &Run, question: &str) -> Result<()> {
        match self.yes {
            true => Ok(()),
            false => run.ui.confirm(question, "--yes"),
        }
    }
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    match args.command {
        Command::Status(args) => status::run(args, run).await,
        Command::Head(args) => head::run(args, run).await,
        Command::Upgrade(args) => upgrade::run(args, run).await,
        Command::Backup(args) => backup::run(args, run).await,
        Command::Backups(args) => backups::run(args, run).await,
        Command::Verify(args) => verify::run(args, run).await,
        Command::Restore(args) => restore::run(args, run).await,
        Command::Drill(args) => drill::run(args, run).await,
    }
}

/// A server in a cluster, through whose pods its database is reached.
struct Server {
    settings: ClusterConfig,
    cluster: Cluster,
    deployment: Deployment,
}

impl Server {
    /// # Errors
    /// `Usage` for an environment on this machine, `Check` where nothing is deployed.
    async fn of(env: &str) -> Result<Self> {
        let config = Config::load(env)?;
        let settings = match config.environment()? {
            Environment::Cluster(settings) => settings.as_ref().clone(),
            Environment::Local(_) => {
                let message = format!("environment {env} is on this machine: its database is a file");
                return Err(Error::new(Kind::Usage, message).hint(
                    "name an environment in a cluster with --env; deploy copies the file before another image runs",
                ));
            }
        };
        let cluster = Cluster::connect(&settings).await?;
        let deployment = job::deployment(&cluster, env).await?;
        Ok(Self { settings, cluster, deployment })
    }

    /// The same for its backups.
    fn backups<'a>(&'a self, run: &'a Run) -> crate::backup::Server<'a> {
        crate::backup::Server { run, cluster: &self.cluster, settings: &self.settings, deployment: &self.deployment }
    }
}

/// An image's name, by digest, and the schema that its MLflow works with.
async fn schema_of(run: &Run, config: &Config, image: Option<Source>) -> Result<(String, Schema)> {
    let cache = &Cache::open()?;
    match image.unwrap_or(Source::Build) {
        Source::Build => {
            let (digest, schema) = schema::image::to_be_built(run, config, &Options::new(config), cache).await?;
            Ok((digest.to_string(), schema))
        }
        source @ Source::Layout(_) => {
            let image = source.fetch(run, config, cache, Platform::host(), true).await?;
            Ok((image.digest.to_string(), schema::image::on_this_machine(&image, cache).await?))
        }
        Source::Registry(reference) => of_registry(run, cache, reference).await,
    }
}

/// By digest, so that it need not be read again.
async fn of_registry(run: &Run, cache: &Cache, reference: Reference) -> Result<(String, Schema)> {
    let connect =
        |reference: &Reference| Client::connect(run, cache, reference, Access::Pull, CredentialSource::Machine);
    let client = connect(&reference)?;
    if reference.digest().is_some() {
        return Ok((reference.to_string(), schema::image::in_registry(&client, cache).await?));
    }
    let digest = client.has_manifest(&reference.selector()).await?.ok_or_else(|| {
        Error::new(Kind::Image, format!("the registry has no image {reference}")).hint("check repository and tag")
    })?;
    let reference = reference.with_digest(digest);
    let client = connect(&reference)?;
    Ok((reference.to_string(), schema::image::in_registry(&client, cache).await?))
}
