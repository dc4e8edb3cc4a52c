//! Images of one layer for the node, made of files of this machine and pushed without a download.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use flate2::{Compression, GzBuilder};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::error::{Context as _, Result};

const DEADLINE: Duration = Duration::from_secs(60);
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What is in it, besides `/tmp`.
    pub files: Vec<Item>,
    /// What it runs.
    pub entrypoint: Vec<String>,
    /// Variables, as `NAME=value`.
    pub env: Vec<String>,
    /// User and group, such as `65532:65532`; root if empty.
    pub user: String,
}

/// A file of an image.
#[derive(Clone, Debug)]
pub enum Item {
    /// A program of this machine, at this path of the image.
    Program(PathBuf, String),
    /// A text at a path.
    Text(String, String),
    /// A link at a path: target first.
    Link(String, String),
}

impl Image {
    /// A shell and some tools: busybox, with links for `names`.
    pub fn busybox(busybox: PathBuf, names: &[&str]) -> Self {
        let links = names.iter().map(|name| Item::Link("busybox".into(), format!("bin/{name}")));
        let program = std::iter::once(Item::Program(busybox, "bin/busybox".into()));
        Self { files: program.chain(links).collect(), env: vec!["PATH=/bin".into()], ..Self::default() }
    }

    /// Sets what it runs.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Pushes it as `name`, such as `testbed/pause:1`, to a registry such as `127.0.0.1:5050` that
    /// speaks plain HTTP. Gives its digest. The same image has the same digest.
    pub async fn push(&self, registry: &str, name: &str, login: Option<(&str, &str)>) -> Result<String> {
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let tar = self.tar().on_machine(|| format!("cannot pack the image {name}"))?;
        let layer = gzip(&tar).on_machine(|| format!("cannot compress the image {name}"))?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "Env": self.env, "User": self.user, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
        });
        let config = config.to_string().into_bytes();
        let descriptor =
            |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": [descriptor(LAYER, &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let target = Target { client: client()?, base: format!("http://{registry}/v2/{repository}"), login };
        let push = async {
            target.blob(layer).await?;
            target.blob(config).await?;
            target.put(&format!("{}/manifests/{tag}", target.base), MANIFEST, manifest.clone()).await
        };
        push.await.on_machine(|| format!("cannot push {registry}/{name}"))?;
        Ok(digest(&manifest))
    }

    fn tar(&self) -> std::io::Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        let header = |kind: tar::EntryType, mode: u32, size: u64| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(size);
            header
        };
        archive.append_data(&mut header(tar::EntryType::Directory, 0o1777, 0), "tmp/", std::io::empty())?;
        for item in &self.files {
            match item {
                Item::Program(file, path) => {
                    let bytes = std::fs::read(file)?;
                    archive.append_data(
                        &mut header(tar::EntryType::Regular, 0o755, bytes.len() as u64),
                        path,
                        &bytes[..],
                    )?;
                }
                Item::Text(text, path) => {
                    let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
                    archive.append_data(&mut header, path, text.as_bytes())?;
                }
                Item::Link(target, path) => {
                    archive.append_link(&mut header(tar::EntryType::Symlink, 0o777, 0), path, target)?;
                }
            }
        }
        archive.into_inner()
    }
}

/// A client for servers of the testbed: no proxy leads there.
pub(crate) fn client() -> Result<reqwest::Client> {
    // rustls has no default provider in this build: ring is the only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(DEADLINE).build();
    client.on_machine(|| "cannot make an HTTP client")
}

struct Target<'a> {
    client: reqwest::Client,
    base: String,
    login: Option<(&'a str, &'a str)>,
}

type Sent = std::result::Result<reqwest::Response, Box<dyn std::error::Error + Send + Sync>>;

impl Target<'_> {
    async fn send(&self, request: reqwest::RequestBuilder) -> Sent {
        let request = match self.login {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = request.send().await?;
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(format!("the registry answered {status}: {}", response.text().await?.trim()).into()),
        }
    }

    async fn put(&self, url: &str, kind: &str, bytes: Vec<u8>) -> Sent {
        self.send(self.client.put(url).header("Content-Type", kind).body(bytes)).await
    }

    async fn blob(&self, bytes: Vec<u8>) -> Sent {
        let digest = digest(&bytes);
        let begun = self.send(self.client.post(format!("{}/blobs/uploads/", self.base)).body(Vec::new())).await?;
        let location = begun.headers().get("Location").ok_or("the registry gave no upload address")?.to_str()?;
        let mut url = url::Url::parse(&self.base)?.join(location)?;
        url.query_pairs_mut().append_pair("digest", &digest);
        self.put(url.as_str(), "application/octet-stream", bytes).await
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    // No name and no time: the same input gives the same bytes.
    let mut out = GzBuilder::new().write(Vec::new(), Compression::fast());
    out.write_all(bytes)?;
    out.finish()
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
