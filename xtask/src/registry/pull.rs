//! Pulling: the manifest for a platform and its blobs, through `oci-client`, into the cache.
//!
//! `oci-client` speaks the protocol; around it are the login and the retries that pushes have, a
//! check of every size and digest before a blob gets its name in the cache, and downloads that go
//! on in the middle after a broken connection.

use std::fs::File;
use std::io::{Seek as _, Write as _};

use futures::{StreamExt as _, TryStreamExt as _};
use mlflow_image::{Digest, HashWriter, Platform};
use oci_distribution::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_distribution::errors::{OciDistributionError, OciErrorCode};
use oci_distribution::manifest::{OciDescriptor, OciImageIndex, OciImageManifest, OciManifest};
use oci_distribution::secrets::RegistryAuth;
use oci_distribution::token_cache::{RegistryToken, RegistryTokenType};
use oci_distribution::{Reference as OciReference, RegistryOperation};
use tokio::sync::Mutex;

use crate::cache::{self, Cache};
use crate::error::{Context as _, Error, Kind, Result};
use crate::ui::Bar;

use super::auth::{Granted, GrantedKind};
use super::failure::Answer;
use super::http_client;
use super::layout::blob;
use super::manifests::ACCEPTED;
use super::retry::Fault;
use super::{Blob, Client};

/// Blobs that are fetched at once.
const PARALLEL_DOWNLOADS: usize = 4;
/// The largest config that is read.
pub(super) const LARGEST_CONFIG: u64 = 8 << 20;

/// A pulled image. Its manifest, config and layers are in the cache.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The digest of the platform's manifest.
    pub digest: Digest,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The config.
    pub config: Blob,
    /// Bytes that were fetched; what the cache had is not among them.
    pub downloaded_bytes: u64,
}

/// An image of one platform whose layers stay where they are.
pub struct Outline {
    /// The config.
    pub config: Vec<u8>,
    /// The layers, lowest first.
    pub layers: Vec<Blob>,
    descriptors: Vec<OciDescriptor>,
    oci: oci_distribution::Client,
    selected: OciReference,
}

/// A manifest of one platform, and how it was come by.
struct Found {
    oci: oci_distribution::Client,
    selected: OciReference,
    bytes: Vec<u8>,
    digest: Digest,
    image: OciImageManifest,
}

impl Client {
    /// Fetches the image for `platform`. Blobs that are in the cache are not fetched again, also
    /// those of an earlier pull that was interrupted; an image by digest that is there whole needs no
    /// registry.
    pub async fn pull(&self, cache: &Cache, platform: Platform) -> Result<Pulled> {
        let name = self.reference().to_string();
        let Found { oci, selected, bytes, digest, image } =
            self.find(cache, |index| select(index, platform, &name)).await?;
        let media_type = image.media_type.clone().unwrap_or_else(|| ACCEPTED[1].to_owned());
        let config = self.config(&image)?;
        let all: Vec<&OciDescriptor> = std::iter::once(&image.config).chain(&image.layers).collect();
        let downloaded_bytes = self.fetch_blobs(&oci, &selected, cache, &all).await?;
        self.check_platform(cache, &config, platform)?;
        Ok(Pulled { digest, media_type, manifest: bytes, config, downloaded_bytes })
    }

    /// The image for whichever platform is listed first, without its layers.
    pub async fn outline(&self, cache: &Cache) -> Result<Outline> {
        let name = self.reference().to_string();
        let Found { oci, selected, image, .. } = self.find(cache, |index| first(index, &name)).await?;
        let config = self.config(&image)?;
        self.fetch_blobs(&oci, &selected, cache, &[&image.config]).await?;
        let path = cache.blob(&config.digest)?;
        let config = std::fs::read(&path).on_machine(|| format!("cannot read {}", path.display()))?;
        let layers = image.layers.iter().map(blob).collect::<Result<_>>()?;
        Ok(Outline { config, layers, descriptors: image.layers, oci, selected })
    }

    /// Fetches one layer of an image into the cache, unless it is there.
    pub async fn fetch_layer(&self, cache: &Cache, outline: &Outline, layer: usize) -> Result<()> {
        self.fetch_blobs(&outline.oci, &outline.selected, cache, &[&outline.descriptors[layer]]).await?;
        Ok(())
    }

    /// The manifest that the client's reference names; of an index, the one that `select` names.
    async fn find(&self, cache: &Cache, select: impl Fn(&OciImageIndex) -> Result<String>) -> Result<Found> {
        let oci = self.oci_client()?;
        let mut selected = self.reference().to_oci();
        let (mut bytes, mut digest, mut manifest) = self.fetch_manifest(&oci, cache, &selected).await?;
        if let OciManifest::ImageIndex(index) = &manifest {
            selected = selected.clone_with_digest(select(index)?);
            (bytes, digest, manifest) = self.fetch_manifest(&oci, cache, &selected).await?;
        }
        match manifest {
            OciManifest::Image(image) => Ok(Found { oci, selected, bytes, digest, image }),
            OciManifest::ImageIndex(_) => Err(self.odd("an index inside of an index")),
        }
    }

    fn config(&self, image: &OciImageManifest) -> Result<Blob> {
        let config = blob(&image.config)?;
        if config.size > LARGEST_CONFIG {
            return Err(self.odd("a config of more than 8 MiB"));
        }
        Ok(config)
    }

    async fn fetch_manifest(
        &self,
        oci: &oci_distribution::Client,
        cache: &Cache,
        reference: &OciReference,
    ) -> Result<(Vec<u8>, Digest, OciManifest)> {
        let doing = format!("read the manifest of {reference}");
        let damaged = || format!("{} answers with a manifest that cannot be read", self.reference().registry());
        if let Some(digest) = reference.digest().and_then(|digest| digest.parse::<Digest>().ok())
            && let Ok(bytes) = std::fs::read(cache.blob(&digest)?)
            && Digest::of(&bytes) == digest
        {
            let manifest = serde_json::from_slice(&bytes).context(Kind::Remote, damaged)?;
            return Ok((bytes, digest, manifest));
        }
        self.refuse_offline(&doing)?;
        let scopes = self.transport.scopes();
        let (bytes, digest) = self
            .transport
            .retry(&doing, &scopes, |granted| {
                let doing = &doing;
                async move {
                    lend(oci, reference, granted).await;
                    let pulled = oci.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &ACCEPTED).await;
                    match pulled {
                        Ok(pulled) => Ok(pulled),
                        Err(error) => Err(self.translate(doing, error).await),
                    }
                }
            })
            .await?;
        let found = Digest::of(&bytes);
        if digest != found.to_string() {
            return Err(self.odd("a manifest that does not have the digest which it claims"));
        }
        let manifest = serde_json::from_slice(&bytes).context(Kind::Remote, damaged)?;
        cache::write(&cache.blob(&found)?, &bytes)?;
        Ok((bytes.to_vec(), found, manifest))
    }

    async fn fetch_blobs(
        &self,
        oci: &oci_distribution::Client,
        reference: &OciReference,
        cache: &Cache,
        wanted: &[&OciDescriptor],
    ) -> Result<u64> {
        let mut missing: Vec<(Blob, OciDescriptor)> = Vec::new();
        for descriptor in wanted {
            let blob = blob(descriptor)?;
            let there = cache.blob(&blob.digest)?.metadata().is_ok_and(|file| file.len() == blob.size);
            if !there && !missing.iter().any(|(seen, _)| seen.digest == blob.digest) {
                missing.push((blob, (*descriptor).clone()));
            }
        }
        if !missing.is_empty() {
            self.refuse_offline(&format!("fetch {} layers", missing.len()))?;
        }
        missing.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size));
        let total = missing.iter().map(|(blob, _)| blob.size).sum();
        let bar = self.transport.run().ui.bytes(format!("Pulling {}", self.reference()), total);
        futures::stream::iter(missing.into_iter().map(|(blob, descriptor)| {
            let bar = bar.clone();
            async move { self.fetch_blob(oci, reference, cache, blob, &descriptor, &bar).await }
        }))
        .buffer_unordered(PARALLEL_DOWNLOADS)
        .try_collect::<Vec<()>>()
        .await?;
        Ok(total)
    }

    async fn fetch_blob(
        &self,
        oci: &oci_distribution::Client,
        reference: &OciReference,
        cache: &Cache,
        blob: Blob,
        descriptor: &OciDescriptor,
        bar: &Bar,
    ) -> Result<()> {
        let doing = format!("fetch layer {} ({})", blob.digest.short(), crate::report::bytes(blob.size));
        let target = cache.blob(&blob.digest)?;
        let folder = cache.dir("blobs")?;
        let named = || format!("cannot write {}", target.display());
        let file = tempfile::Builder::new().prefix(".part-").tempfile_in(folder).on_machine(named)?;
        let download = Mutex::new(Download::new(file.reopen().on_machine(named)?, blob, bar.clone()));
        let scopes = self.transport.scopes();
        self.transport
            .retry(&doing, &scopes, |granted| {
                let (doing, download) = (&doing, &download);
                async move {
                    lend(oci, reference, granted).await;
                    let mut download = download.lock().await;
                    let answer = match download.done {
                        // A range of an empty blob would be refused.
                        0 => oci.pull_blob_stream(reference, descriptor).await.map(BlobResponse::Full),
                        done => oci.pull_blob_stream_partial(reference, descriptor, done, None).await,
                    };
                    let mut stream = match answer {
                        Ok(BlobResponse::Partial(stream)) => stream.stream,
                        Ok(BlobResponse::Full(stream)) => {
                            download.restart()?;
                            stream.stream
                        }
                        Err(error) => return Err(self.translate(doing, error).await),
                    };
                    while let Some(chunk) = stream.next().await {
                        // oci-client's own check of the digest ends the stream with an error too.
                        let chunk = chunk.map_err(|error| self.broken(doing).source(error));
                        let chunk = chunk.map_err(|error| Fault::Transient(error, None))?;
                        if download.done + chunk.len() as u64 > blob.size {
                            return Err(Fault::Fatal(self.odd("more bytes than the manifest names")));
                        }
                        download.write(&chunk)?;
                    }
                    if download.done < blob.size {
                        return Err(Fault::Transient(self.broken(doing), None));
                    }
                    let found = download.digest()?;
                    if found != blob.digest {
                        let message = format!("the content has the digest {found}");
                        return Err(Fault::Transient(self.broken(doing).source(message), None));
                    }
                    Ok(())
                }
            })
            .await?;
        cache::set_default_mode(file.as_file(), &target)?;
        file.persist(&target).map_err(|error| error.error).on_machine(named)?;
        Ok(())
    }

    fn check_platform(&self, cache: &Cache, config: &Blob, platform: Platform) -> Result<()> {
        #[derive(serde::Deserialize)]
        struct Config {
            architecture: String,
            os: String,
        }
        let path = cache.blob(&config.digest)?;
        let text = std::fs::read(&path).on_machine(|| format!("cannot read {}", path.display()))?;
        let damaged = || format!("the config of {} cannot be read", self.reference());
        let config: Config = serde_json::from_slice(&text).context(Kind::Input, damaged)?;
        let found = format!("{}/{}", config.os, config.architecture);
        if found == platform.to_string() {
            return Ok(());
        }
        Err(Error::new(Kind::Input, format!("{} is for {found}, not for {platform}", self.reference()))
            .hint("name an image that has this platform"))
    }

    /// The client is made for a pull only: it reads the system's certificates twice.
    fn oci_client(&self) -> Result<oci_distribution::Client> {
        let loopback = self.reference().is_loopback();
        let mut config = ClientConfig {
            protocol: if loopback { ClientProtocol::Http } else { ClientProtocol::Https },
            read_timeout: Some(self.transport.patience().stall),
            connect_timeout: Some(http_client::CONNECT),
            user_agent: http_client::USER_AGENT,
            platform_resolver: None,
            ..ClientConfig::default()
        };
        if loopback {
            // The only way to keep it from sending loopback requests to HTTP_PROXY: a proxy of its
            // own, which is used for nothing.
            config.http_proxy = Some("http://127.0.0.1:9".to_owned());
            config.no_proxy = Some("127.0.0.0/8,::1,localhost".to_owned());
        }
        oci_distribution::Client::try_from(config).context(Kind::Machine, || "cannot set up TLS")
    }

    fn refuse_offline(&self, doing: &str) -> Result<()> {
        if !self.transport.run().offline {
            return Ok(());
        }
        Err(Error::new(Kind::Usage, format!("cannot {doing}: --offline, and {} is not in the cache", self.reference()))
            .hint("run it once without --offline; a tag is always looked up, a digest is not"))
    }

    fn odd(&self, what: &str) -> Error {
        Error::new(Kind::Remote, format!("{} answers with {what}", self.reference().registry()))
    }

    fn broken(&self, doing: &str) -> Error {
        let registry = self.reference().registry();
        Error::new(Kind::Remote, format!("the connection to {registry} broke: cannot {doing}"))
            .hint("check the network, then run the same command again: what was fetched whole is kept")
    }

    /// What an error of `oci-client` means. It names the status only where the registry's answer
    /// was not the specification's JSON.
    async fn translate(&self, doing: &str, error: OciDistributionError) -> Fault {
        let answer = match error {
            OciDistributionError::RequestError(error) => {
                return http_client::fault(&error, self.reference().registry(), doing);
            }
            OciDistributionError::UnauthorizedError { .. } => Answer { status: 401, ..Answer::default() },
            OciDistributionError::AuthenticationFailure(text) => Answer { status: 401, text, ..Answer::default() },
            OciDistributionError::ServerError { code, message, .. } => Answer::parse(code, message.as_bytes()),
            OciDistributionError::RegistryError { envelope, .. } => {
                let status = envelope.errors.first().map_or(400, |error| status_of(&error.code));
                let body = serde_json::to_vec(&envelope).unwrap_or_default();
                Answer::parse(status, &body)
            }
            other => return Fault::Transient(self.broken(doing).source(other), None),
        };
        self.transport.explain(doing, &answer).await
    }
}

/// Gives `oci-client` the login that this client has.
async fn lend(oci: &oci_distribution::Client, reference: &OciReference, granted: Option<Granted>) {
    let token = match granted.map(|granted| granted.kind) {
        None => return,
        Some(GrantedKind::Basic(user, password)) => RegistryTokenType::Basic(user, password.expose().to_owned()),
        Some(GrantedKind::Bearer(token)) => {
            RegistryTokenType::Bearer(RegistryToken::Token { token: token.expose().to_owned() })
        }
    };
    oci.tokens.insert(reference, RegistryOperation::Pull, token).await;
}

fn status_of(code: &OciErrorCode) -> u16 {
    use OciErrorCode as Code;
    match code {
        Code::Unauthorized => 401,
        Code::Denied => 403,
        Code::BlobUnknown | Code::ManifestUnknown | Code::NameUnknown | Code::NotFound => 404,
        Code::Toomanyrequests => 429,
        _ => 400,
    }
}

/// The manifest for `platform`: the first whose system and CPU fit. Variants are not told apart:
/// all arm64 of an index run on every 64-bit ARM.
fn select(index: &OciImageIndex, platform: Platform, image: &str) -> Result<String> {
    let name = |entry: &oci_distribution::manifest::ImageIndexEntry| {
        entry.platform.as_ref().map(|platform| format!("{}/{}", platform.os, platform.architecture))
    };
    let wanted = platform.to_string();
    let found = index.manifests.iter().find(|entry| name(entry).as_ref() == Some(&wanted));
    found.map(|entry| entry.digest.clone()).ok_or_else(|| {
        let has: Vec<String> =
            index.manifests.iter().filter_map(name).filter(|name| !name.contains("unknown")).collect();
        Error::new(Kind::Input, format!("{image} is not for {wanted}"))
            .hint(format!("name an image that has this platform; this one has {}", has.join(", ")))
    })
}

/// The first manifest of an index that is an image's. Attestations are for the platform `unknown/unknown`.
fn first(index: &OciImageIndex, image: &str) -> Result<String> {
    let runs = |entry: &&oci_distribution::manifest::ImageIndexEntry| {
        entry.platform.as_ref().is_none_or(|platform| platform.os.to_string() != "unknown")
    };
    let found = index.manifests.iter().find(runs);
    found
        .map(|entry| entry.digest.clone())
        .ok_or_else(|| Error::new(Kind::Input, format!("the index of {image} names no image")))
}

/// A blob on its way to a file.
struct Download {
    writer: Option<HashWriter<File>>,
    done: u64,
    blob: Blob,
    bar: Bar,
}

impl Download {
    fn new(file: File, blob: Blob, bar: Bar) -> Self {
        Self { writer: Some(HashWriter::new(file)), done: 0, blob, bar }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<()> {
        let short = self.blob.digest.short();
        let writer = self.writer.as_mut().ok_or_else(|| Error::new(Kind::Internal, "a download without a file"))?;
        writer.write_all(chunk).on_machine(|| format!("cannot write layer {short}"))?;
        self.done += chunk.len() as u64;
        self.bar.inc(chunk.len() as u64);
        Ok(())
    }

    /// From the first byte again.
    fn restart(&mut self) -> Result<()> {
        if let Some((_, _, mut file)) = self.writer.take().map(HashWriter::finish) {
            file.set_len(0).and_then(|()| file.rewind()).on_machine(|| "cannot empty a temporary file")?;
            self.writer = Some(HashWriter::new(file));
        }
        self.bar.dec(self.done);
        self.done = 0;
        Ok(())
    }

    /// The digest of all that came; the next attempt, should there be one, starts anew.
    fn digest(&mut self) -> Result<Digest> {
        let finished = self.writer.take().map(HashWriter::finish);
        let (digest, _, file) = finished.ok_or_else(|| Error::new(Kind::Internal, "a download without a file"))?;
        self.writer = Some(HashWriter::new(file));
        if digest != self.blob.digest {
            self.restart()?;
        }
        Ok(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_is_selected_from_an_index() {
        let index: OciImageIndex = serde_json::from_value(serde_json::json!({
            "schemaVersion": 2,
            "manifests": [
                { "mediaType": "m", "digest": "sha256:a", "size": 1,
                  "platform": { "architecture": "arm64", "os": "linux", "variant": "v8" } },
                { "mediaType": "m", "digest": "sha256:b", "size": 1,
                  "platform": { "architecture": "unknown", "os": "unknown" } },
                { "mediaType": "m", "digest": "sha256:c", "size": 1 },
                { "mediaType": "m", "digest": "sha256:d", "size": 1,
                  "platform": { "architecture": "amd64", "os": "windows" } },
            ],
        }))
        .unwrap();
        assert_eq!(select(&index, Platform::LinuxArm64, "a/b:1").unwrap(), "sha256:a");
        let error = select(&index, Platform::LinuxAmd64, "a/b:1").unwrap_err();
        assert_eq!(error.to_string(), "a/b:1 is not for linux/amd64");
        assert_eq!(
            error.hint_text(),
            Some("name an image that has this platform; this one has linux/arm64, windows/amd64")
        );
        assert_eq!(first(&index, "a/b:1").unwrap(), "sha256:a");
    }

    #[test]
    fn an_attestation_is_no_image() {
        let index = |platforms: &[&str]| -> OciImageIndex {
            let entry = |os: &&str| {
                let platform = serde_json::json!({ "architecture": "amd64", "os": os });
                serde_json::json!({ "mediaType": "m", "digest": os, "size": 1, "platform": platform })
            };
            let entries: Vec<_> = platforms.iter().map(entry).collect();
            serde_json::from_value(serde_json::json!({ "schemaVersion": 2, "manifests": entries })).unwrap()
        };
        assert_eq!(first(&index(&["unknown", "linux"]), "a/b:1").unwrap(), "linux");
        let error = first(&index(&["unknown"]), "a/b:1").unwrap_err();
        assert_eq!(error.to_string(), "the index of a/b:1 names no image");
    }
}
