//! Where the image of a local server comes from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use mlflow_image::{Digest, Platform};

use crate::builders::draft::Options;
use crate::builders::native;
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::registry::{Access, Client, CredentialSource, Reference};
use crate::verify;

use super::image::{self, Image};

/// Where to get the image.
#[derive(Clone, Debug)]
pub enum Source {
    /// Built from the locks.
    Build,
    /// An OCI layout.
    Layout(PathBuf),
    /// A registry.
    Registry(Reference),
}

impl FromStr for Source {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("oci:") {
            Some("") => Err(Error::new(Kind::Usage, "oci: names no folder")),
            Some(dir) => Ok(Self::Layout(dir.into())),
            None => Reference::parse(text).map(Self::Registry),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Build => f.write_str("build"),
            Self::Layout(dir) => write!(f, "oci:{}", dir.display()),
            Self::Registry(reference) => write!(f, "{reference}"),
        }
    }
}

impl Source {
    /// The digest of the image for `platform`, foretold where it can be; nothing large is moved
    /// from elsewhere, except for an image that a registry knows by a tag only.
    pub async fn digest(
        &self,
        run: &Run,
        config: &Config,
        cache: &Cache,
        platform: Platform,
        locked: bool,
    ) -> Result<Digest> {
        match self {
            Self::Build => built(run, config, platform, locked, false).await,
            Self::Layout(dir) => Ok(image::from_layout(dir, platform)?.digest),
            Self::Registry(_) => Ok(self.fetch(run, config, cache, platform, locked).await?.digest),
        }
    }

    /// The image, with all its layers on this machine.
    pub async fn fetch(
        &self,
        run: &Run,
        config: &Config,
        cache: &Cache,
        platform: Platform,
        locked: bool,
    ) -> Result<Image> {
        let digest = match self {
            Self::Build => built(run, config, platform, locked, true).await?,
            Self::Layout(dir) => {
                let dir = dir.canonicalize().on_machine(|| format!("cannot find {}", dir.display()))?;
                return image::from_layout(&dir, platform);
            }
            Self::Registry(reference) => {
                let client = Client::connect(run, cache, reference, Access::Pull, CredentialSource::Machine)?;
                let verified = verify::before_deploy(run, config, &client).await?;
                let client = Client::connect(run, cache, &verified, Access::Pull, CredentialSource::Machine)?;
                client.pull(cache, platform).await?.digest
            }
        };
        image::read(&digest, platform, &|digest| cache.blob(digest))
    }
}

/// The manifest's digest of the image that the locks describe; with `materialize` it is built.
async fn built(run: &Run, config: &Config, platform: Platform, locked: bool, materialize: bool) -> Result<Digest> {
    let options = Options { platforms: vec![platform], locked, ..Options::new(config) };
    let built = native::build(run, config, &options, materialize).await?;
    let image = built.images.iter().find(|image| image.platform == platform);
    image
        .map(|image| image.manifest.digest)
        .ok_or_else(|| Error::new(Kind::Internal, format!("the build made no image for {platform}")))
}
