//! Where the image of a server in a cluster comes from: always a registry, always by digest.

use std::collections::BTreeSet;

use crate::builders::draft::{Draft, Options};
use crate::builders::push;
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::Config;
use crate::config::cluster::{ClusterConfig, Database};
use crate::error::{Error, Kind, Result};
use crate::registry::{Access, Client, CredentialSource, Reference, Secret};
use crate::schema::{self, Schema};
use crate::signing;
use crate::verify;

use super::{image, pull_secret};

/// Where to get the image.
#[derive(Clone, Debug)]
pub enum Source {
    /// Built from the locks and pushed to the environment's repository.
    Build,
    /// In a registry already.
    Registry(Reference),
}

impl Source {
    /// What `--image` says.
    ///
    /// # Errors
    /// `Usage` for an OCI layout, which no cluster can pull.
    pub fn of(image: Option<&str>) -> Result<Self> {
        match image {
            None => Ok(Self::Build),
            Some(text) if text.starts_with("oci:") => {
                Err(Error::new(Kind::Usage, format!("{text} is on this machine, where no cluster can pull it"))
                    .hint("push it: `cargo xtask push-layout`, then name it as REGISTRY/PATH@sha256:..."))
            }
            Some(text) => Reference::parse(text).map(Self::Registry),
        }
    }
}

/// An image that the nodes can pull.
#[derive(Clone, Debug)]
pub struct Image {
    /// By digest.
    pub reference: Reference,
    /// MLflow's version, where a label tells it.
    pub version: Option<String>,
    /// What its MLflow knows about its databases.
    pub schema: Schema,
    /// Bytes sent to the registry for it.
    pub pushed_bytes: u64,
    /// The login that the cluster needs to pull it, where it needs one.
    pub pull: Option<Secret>,
}

impl Image {
    /// `REGISTRY/PATH@sha256:...`.
    pub fn name(&self) -> String {
        self.reference.to_string()
    }
}

/// The image, as far as it is known without a push: what the locks foretell, or what the registry has.
pub async fn foretell(
    run: &Run,
    config: &Config,
    cache: &Cache,
    source: &Source,
    locked: bool,
    settings: &ClusterConfig,
) -> Result<Image> {
    match source {
        Source::Registry(_) => publish(run, config, cache, source, locked, &BTreeSet::new(), settings).await,
        Source::Build => {
            let options = Options { locked, ..Options::new(config) };
            let draft = Draft::plan(run, config, &options).await?;
            let (digest, schema) = schema::image::to_be_built(run, config, &options, cache).await?;
            let reference = repository(config)?.with_digest(digest);
            Ok(Image { reference, version: Some(draft.project.version), schema, pushed_bytes: 0, pull: None })
        }
    }
}

/// The image, in its registry, for the platforms of the `nodes`, and with what the environment requires of
/// it.
///
/// # Errors
/// `Image` where the registry does not have it, or not for the nodes' platforms; as
/// [`verify::before_deploy`].
pub async fn publish(
    run: &Run,
    config: &Config,
    cache: &Cache,
    source: &Source,
    locked: bool,
    nodes: &BTreeSet<String>,
    settings: &ClusterConfig,
) -> Result<Image> {
    let (reference, pushed_bytes) = match source {
        Source::Registry(reference) => (reference.clone(), 0),
        Source::Build => {
            let options = Options { locked, ..Options::new(config) };
            let repository = repository(config)?;
            let login = CredentialSource::Machine;
            let (built, pushed, _) = push::build(run, config, &options, &repository, login.clone()).await?;
            signing::after_push(run, config, cache, &repository, &built.digest(), login).await?;
            (repository.with_digest(built.digest()), pushed.pushed_bytes)
        }
    };
    let client = Client::connect(run, cache, &reference, Access::Pull, CredentialSource::Machine)?;
    let found = image::check(&client, nodes).await?;
    // A tag may have moved since.
    let by_digest = Client::connect(run, cache, &found.reference, Access::Pull, CredentialSource::Machine)?;
    verify::before_deploy(run, config, &by_digest).await?;
    let schema = schema::image::in_registry(&by_digest, cache).await?;
    let google = matches!(settings.database, Database::CloudSql(_));
    let pull = pull_secret::make(run, &client, &settings.pull_secret, google).await?;
    Ok(Image { reference: found.reference, version: found.version, schema, pushed_bytes, pull })
}

/// What to push to.
fn repository(config: &Config) -> Result<Reference> {
    let repository = config.image.repository.as_ref().ok_or_else(|| {
        Error::new(Kind::Config, format!("environment {} has no image.repository to push to", config.env))
            .hint("set it in deploy.toml, or name an image that is in a registry already with --image")
    })?;
    Reference::parse(repository)?.with_tag(&config.image.tag)
}
