//! `db head`: the schema that an image's MLflow works with.

use std::io;
use std::process::ExitCode;

use mlflow_image::Platform;

use crate::builders::draft::Options;
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::local::source::Source;
use crate::registry::{Access, Client, CredentialSource, Reference};
use crate::report::Report;
use crate::schema::{self, Revisions, Schema};

/// Print the schema that an image's MLflow works with, and no other
///
/// It is read from the image's layers: nothing is started, and no database is asked.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml whose image it is.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// An image: REGISTRY/PATH@sha256:DIGEST, REGISTRY/PATH:TAG or oci:DIR [default: what the locks
    /// describe].
    #[arg(long, value_name = "IMAGE")]
    image: Option<Source>,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let cache = Cache::open()?;
    let (image, schema) = match args.image.unwrap_or(Source::Build) {
        Source::Build => {
            let (digest, schema) = schema::image::to_be_built(run, &config, &Options::new(&config), &cache).await?;
            (digest.to_string(), schema)
        }
        source @ Source::Layout(_) => {
            let image = source.fetch(run, &config, &cache, Platform::host(), true).await?;
            (image.digest.to_string(), schema::image::on_this_machine(&image, &cache).await?)
        }
        Source::Registry(reference) => of_registry(run, &cache, reference).await?,
    };
    let Schema { tracking, login } = &schema;
    run.answer(&Answer { image, tracking: tracking.into(), login: login.as_ref().map(Head::from) })
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

#[derive(serde::Serialize)]
struct Answer {
    image: String,
    tracking: Head,
    login: Option<Head>,
}

#[derive(serde::Serialize)]
struct Head {
    head: String,
    revisions: usize,
}

impl From<&Revisions> for Head {
    fn from(revisions: &Revisions) -> Self {
        Self { head: revisions.head().to_owned(), revisions: revisions.count() }
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{}", self.image)?;
        let mut line = |name: &str, head: &Head| {
            writeln!(out, "  {name:9} {} (the newest of {} revisions)", head.head, head.revisions)
        };
        line("tracking", &self.tracking)?;
        match &self.login {
            Some(login) => line("login", login),
            None => writeln!(out, "  login     not migrated by this MLflow"),
        }
    }
}
