//! The registry that a bench pushes to: a real one, with nothing in it, and a counter in front.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;

use mlflow_image::{Digest, Platform};

use super::wire::Counter;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program};

const START: Duration = Duration::from_secs(20);

/// The repository that all builders push to, each in a registry of its own.
const REPOSITORY: &str = "bench/mlflow";
const TAG: &str = "latest";

/// A running registry; ends when dropped. Its storage is a folder of the caller's.
pub struct Registry {
    upstream: SocketAddr,
    counter: Counter,
    _child: tokio::process::Child,
}

/// What a registry answers about a pushed image.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of what the tag points at.
    pub digest: Digest,
    /// Compressed bytes of config and layers of one platform.
    pub size: u64,
    /// The layers' digests.
    pub layers: Vec<Digest>,
}

/// Finds the registry's program: `docker-registry` on Debian, `registry` where it was built from its source.
pub fn program() -> Result<PathBuf> {
    process::find(&["docker-registry", "registry"]).ok_or_else(|| {
        Error::new(Kind::Tool, "docker-registry is not installed")
            .hint("Debian, Ubuntu: apt-get install docker-registry; elsewhere: go install github.com/distribution/distribution/v3/cmd/registry@latest")
    })
}

impl Registry {
    /// Starts an empty registry in `dir`.
    pub async fn start(run: &Run, program: &Path, dir: &Path) -> Result<Self> {
        crate::cache::create_dir(dir)?;
        let upstream = free_address()?;
        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": dir.join("blobs") } },
            "http": { "addr": upstream.to_string() },
        });
        let path = dir.join("config.yml");
        crate::cache::write(&path, config.to_string().as_bytes())?;
        let log = dir.join("log");
        let out = std::fs::File::create(&log).on_machine(|| format!("cannot write {}", log.display()))?;
        let err = out.try_clone().on_machine(|| "cannot duplicate a file handle")?;
        let mut command = Program::new(program).arg("serve").arg(&path).into_std()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        // Its own group, so that Ctrl-C does not end it before those who use it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Error::new(Kind::Tool, "cannot start the registry").source(error))?;
        let begun = Instant::now();
        loop {
            if tokio::net::TcpStream::connect(upstream).await.is_ok() {
                break;
            }
            let ended = child.try_wait().on_machine(|| "cannot wait for the registry")?;
            if ended.is_some() || begun.elapsed() > START {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                return Err(Error::new(Kind::Tool, "the registry did not start").source(said));
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
                () = run.cancel.cancelled() => return Err(Error::new(Kind::Interrupted, "interrupted")),
            }
        }
        Ok(Self { upstream, counter: Counter::start(upstream).await?, _child: child })
    }

    /// `host:port/path`, through the counter.
    pub fn repository(&self) -> String {
        format!("{}/{REPOSITORY}", self.counter.address())
    }

    /// The tag to push.
    pub fn tag(&self) -> &'static str {
        TAG
    }

    /// Bytes of request bodies since the last call.
    pub fn take_pushed_bytes(&self) -> u64 {
        self.counter.take()
    }

    /// Reads back what the tag points at, past the counter.
    pub async fn image(&self, platform: Platform) -> Result<Image> {
        let (digest, bytes) = self.manifest(TAG).await?;
        let index: Manifest = parse(&bytes)?;
        let found = index.manifests.iter().find(|entry| {
            entry.platform.as_ref().is_some_and(|one| one.os == "linux" && one.architecture == platform.architecture())
        });
        let manifest = match found {
            Some(entry) => parse(&self.manifest(&entry.digest.to_string()).await?.1)?,
            None => index,
        };
        let config = manifest
            .config
            .ok_or_else(|| Error::new(Kind::Remote, format!("the pushed image has no manifest for {platform}")))?;
        let size = config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
        Ok(Image { digest, size, layers: manifest.layers.iter().map(|layer| layer.digest).collect() })
    }

    async fn manifest(&self, reference: &str) -> Result<(Digest, Vec<u8>)> {
        let url = format!("http://{}/v2/{REPOSITORY}/manifests/{reference}", self.upstream);
        let accept = [
            "application/vnd.oci.image.index.v1+json",
            "application/vnd.oci.image.manifest.v1+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
            "application/vnd.docker.distribution.manifest.v2+json",
        ];
        let said = || format!("the registry does not show {reference}");
        let client = reqwest::Client::builder().no_proxy().build().context(Kind::Internal, || "no HTTP client")?;
        let answer = client.get(url).header("accept", accept.join(", ")).send().await.context(Kind::Remote, said)?;
        let answer = answer.error_for_status().context(Kind::Remote, said)?;
        let bytes = answer.bytes().await.context(Kind::Remote, said)?.to_vec();
        Ok((Digest::of(&bytes), bytes))
    }
}

/// The fields of manifests and indices (image-spec, manifest.md, image-index.md) that matter here.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    size: u64,
    platform: Option<OciPlatform>,
}

#[derive(Deserialize)]
struct OciPlatform {
    os: String,
    architecture: String,
}

fn parse(bytes: &[u8]) -> Result<Manifest> {
    serde_json::from_slice(bytes).context(Kind::Remote, || "the registry's manifest is not readable")
}

fn free_address() -> Result<SocketAddr> {
    let named = || "cannot find a free loopback port";
    TcpListener::bind("127.0.0.1:0").on_machine(named)?.local_addr().on_machine(named)
}
