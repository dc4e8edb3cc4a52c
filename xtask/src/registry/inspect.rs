//! What a registry says of an image, without fetching its layers.

use std::collections::BTreeMap;

use http::Method;
use mlflow_image::Digest;
use oci_distribution::manifest::{ImageIndexEntry, OciManifest};

use crate::error::{Context as _, Error, Kind, Result};

use super::Client;
use super::blobs::wrong_digest;
use super::layout::blob;
use super::pull::LARGEST_CONFIG;

/// An image as a registry describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The digest of the manifest or index that the reference names.
    pub digest: Digest,
    /// What it runs on, as `linux/amd64`; each once, in the index's order.
    pub platforms: Vec<String>,
    /// The labels of the first platform's image.
    pub labels: BTreeMap<String, String>,
}

/// The part of a config that is read (image-spec, config.md).
#[derive(serde::Deserialize)]
struct Config {
    architecture: String,
    os: String,
    #[serde(default)]
    config: Option<Execution>,
}

#[derive(serde::Deserialize)]
struct Execution {
    #[serde(default, rename = "Labels")]
    labels: Option<BTreeMap<String, String>>,
}

/// An image's manifests, each read and found to have the digest by which it is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The digest of the index, or of the only manifest.
    pub digest: Digest,
    /// Platforms, as `linux/amd64`, and their manifests' digests; empty without an index.
    pub images: Vec<(String, Digest)>,
}

impl Client {
    /// Reads all manifests of the client's reference; `None` where the registry has no such image.
    ///
    /// # Errors
    /// `Image` for an index that names what is not there; `Auth` or `Remote`.
    pub async fn tree(&self) -> Result<Option<Tree>> {
        let name = self.reference().to_string();
        let Some((digest, manifest)) = self.read_manifest(&self.reference().selector()).await? else {
            return Ok(None);
        };
        let OciManifest::ImageIndex(index) = manifest else { return Ok(Some(Tree { digest, images: Vec::new() })) };
        let mut images = Vec::new();
        for entry in index.manifests.iter().filter(|entry| is_image(entry)) {
            let Some((digest, OciManifest::Image(_))) = self.read_manifest(&entry.digest).await? else {
                return Err(not_an_image(&name, "its index names an image that is not there"));
            };
            images.push((platforms(&[entry]).concat(), digest));
        }
        Ok(Some(Tree { digest, images }))
    }

    /// Reads the manifest and, for labels, one config of the client's reference; `None` where the
    /// registry has no such image.
    ///
    /// # Errors
    /// `Auth` or `Remote`, also for an answer that is no image.
    pub async fn inspect(&self) -> Result<Option<Inspected>> {
        let name = self.reference().to_string();
        let Some((digest, manifest)) = self.read_manifest(&self.reference().selector()).await? else {
            return Ok(None);
        };
        let (listed, image) = match manifest {
            OciManifest::Image(image) => (None, image),
            OciManifest::ImageIndex(index) => {
                let runs: Vec<&ImageIndexEntry> = index.manifests.iter().filter(|entry| is_image(entry)).collect();
                let first = runs.first().ok_or_else(|| not_an_image(&name, "its index names no image"))?;
                let Some((_, OciManifest::Image(image))) = self.read_manifest(&first.digest).await? else {
                    return Err(not_an_image(&name, "its index names an image that is not there"));
                };
                (Some(platforms(&runs)), image)
            }
        };
        let config = blob(&image.config)?;
        if config.size > LARGEST_CONFIG {
            return Err(not_an_image(&name, "its config has more than 8 MiB"));
        }
        let doing = format!("read the config of {name}");
        let answer =
            self.transport.simple(&doing, Method::GET, &format!("blobs/{}", config.digest), &[], &[200]).await?;
        if Digest::of(&answer.body) != config.digest {
            let found = Digest::of(&answer.body).to_string();
            return Err(wrong_digest(self.reference().registry(), &found, &config.digest, &doing));
        }
        let config: Config = serde_json::from_slice(&answer.body)
            .context(Kind::Remote, || format!("the config of {name} cannot be read"))?;
        let own = format!("{}/{}", config.os, config.architecture);
        let labels = config.config.and_then(|config| config.labels).unwrap_or_default();
        Ok(Some(Inspected { digest, platforms: listed.unwrap_or_else(|| vec![own]), labels }))
    }

    async fn read_manifest(&self, selector: &str) -> Result<Option<(Digest, OciManifest)>> {
        let Some(answer) = self.manifest(selector).await? else { return Ok(None) };
        let found = Digest::of(&answer.body);
        if let Ok(wanted) = selector.parse::<Digest>()
            && wanted != found
        {
            let doing = format!("read {selector}");
            return Err(wrong_digest(self.reference().registry(), &found.to_string(), &wanted, &doing));
        }
        let damaged = || format!("{} answers with a manifest that cannot be read", self.reference().registry());
        let manifest = serde_json::from_slice(&answer.body).context(Kind::Remote, damaged)?;
        Ok(Some((found, manifest)))
    }
}

/// Whether an entry runs somewhere. Attestations are listed for the platform `unknown/unknown`.
fn is_image(entry: &ImageIndexEntry) -> bool {
    entry.platform.as_ref().is_some_and(|platform| platform.os.to_string() != "unknown")
}

fn platforms(entries: &[&ImageIndexEntry]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for platform in entries.iter().filter_map(|entry| entry.platform.as_ref()) {
        let name = format!("{}/{}", platform.os, platform.architecture);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn not_an_image(name: &str, why: &str) -> Error {
    Error::new(Kind::Image, format!("{name} is not an image that can run")).source(why.to_owned())
}
