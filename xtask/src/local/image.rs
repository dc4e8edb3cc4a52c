//! An image as it lies on this machine: manifest and config read, the layers' blobs known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlflow_image::manifest::{self, Document};
use mlflow_image::unpack::Layer;
use mlflow_image::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Kind, Result};

/// The label that names the version of what is inside (image-spec, annotations.md).
const VERSION: &str = "org.opencontainers.image.version";
/// docker's own media types, of before the specification.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// How deep indexes may nest.
const MAX_DEPTH: u32 = 4;
/// Manifests and configs are small; a larger one is refused (image-spec allows registries 4 MiB).
const MAX_JSON: u64 = 4 << 20;

/// An image of this machine's platform.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's digest.
    pub digest: Digest,
    /// Its layers, lowest first.
    pub layers: Vec<Layer>,
    /// How to run it.
    pub config: Config,
    /// The manifest itself.
    pub manifest: Document,
    /// The configuration itself.
    pub config_file: Document,
}

/// What the image says about running it (image-spec, config.md, "config").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// `user`, `uid`, `user:group`.
    pub user: String,
    /// `NAME=value`.
    #[serde(deserialize_with = "null")]
    pub env: Vec<String>,
    /// The first part of the command line.
    #[serde(deserialize_with = "null")]
    pub entrypoint: Vec<String>,
    /// The second part.
    #[serde(deserialize_with = "null")]
    pub cmd: Vec<String>,
    /// The folder to start in.
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "null")]
    pub labels: BTreeMap<String, String>,
}

impl Config {
    /// The version that the image says it holds.
    pub fn version(&self) -> Option<&str> {
        self.labels.get(VERSION).map(String::as_str)
    }
}

/// Some builders write `null` for what is empty.
fn null<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
    platform: Option<DescriptorPlatform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct DescriptorPlatform {
    os: String,
    architecture: String,
}

/// An index or a manifest: which one is told by its members, as some layouts leave the media type out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct ConfigFile {
    architecture: String,
    os: String,
    config: Option<Config>,
    rootfs: Rootfs,
}

#[derive(Deserialize)]
struct Rootfs {
    diff_ids: Vec<Digest>,
}

/// The image in an OCI layout (image-spec, image-layout.md): the one tagged `latest`, or the only one.
pub fn from_layout(dir: &Path, platform: Platform) -> Result<Image> {
    let path = dir.join("index.json");
    let text = std::fs::read(&path).map_err(|error| {
        Error::new(Kind::Input, format!("{} is no OCI layout", dir.display())).source(format!("index.json: {error}"))
    })?;
    let index: Listing = parse(&path.display().to_string(), &text)?;
    let blob = |digest: &Digest| Ok(dir.join("blobs/sha256").join(digest.hex()));
    choose(&dir.display().to_string(), index, platform, &blob, 0)
}

/// The image whose manifest or index has the digest `root`; `blob` tells where content is.
pub fn read(root: &Digest, platform: Platform, blob: &dyn Fn(&Digest) -> Result<PathBuf>) -> Result<Image> {
    from_digest(root, platform, blob, 0)
}

fn from_digest(
    digest: &Digest,
    platform: Platform,
    blob: &dyn Fn(&Digest) -> Result<PathBuf>,
    depth: u32,
) -> Result<Image> {
    let subject = format!("manifest {}", digest.short());
    let manifest = content(&subject, digest, blob)?;
    let document: Listing = parse(&subject, &manifest)?;
    if document.manifests.is_some() {
        return choose(&subject, document, platform, blob, depth + 1);
    }
    let (Some(config), Some(layers)) = (document.config, document.layers) else {
        return Err(Error::new(Kind::Input, format!("{subject} is neither an image nor an index")));
    };
    let subject = format!("config {}", config.digest.short());
    let config_bytes = content(&subject, &config.digest, blob)?;
    let file: ConfigFile = parse(&subject, &config_bytes)?;
    if (file.os.as_str(), file.architecture.as_str()) != ("linux", platform.architecture()) {
        let found = format!("{}/{}", file.os, file.architecture);
        return Err(Error::new(Kind::Input, format!("the image is for {found}, this machine needs {platform}")));
    }
    if layers.len() != file.rootfs.diff_ids.len() {
        let (layers, ids) = (layers.len(), file.rootfs.diff_ids.len());
        return Err(Error::new(Kind::Input, format!("{subject} names {ids} layers, its manifest {layers}")));
    }
    let layers = layers
        .iter()
        .zip(file.rootfs.diff_ids)
        .map(|(layer, diff_id)| Ok(Layer { blob: blob(&layer.digest)?, digest: layer.digest, diff_id }))
        .collect::<Result<_>>()?;
    let docker = document.media_type.as_deref() == Some(DOCKER_MANIFEST);
    let (manifest_type, config_type) =
        if docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (manifest::MANIFEST, manifest::CONFIG) };
    Ok(Image {
        digest: *digest,
        layers,
        config: file.config.unwrap_or_default(),
        manifest: Document { media_type: manifest_type, bytes: manifest, digest: *digest },
        config_file: Document { media_type: config_type, bytes: config_bytes, digest: config.digest },
    })
}

fn choose(
    subject: &str,
    index: Listing,
    platform: Platform,
    blob: &dyn Fn(&Digest) -> Result<PathBuf>,
    depth: u32,
) -> Result<Image> {
    if depth > MAX_DEPTH {
        return Err(Error::new(Kind::Input, format!("{subject}: indexes are nested too deep")));
    }
    let manifests = index.manifests.unwrap_or_default();
    let fits = |entry: &&Descriptor| {
        entry.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == platform.architecture())
    };
    let fitting: Vec<&Descriptor> = manifests.iter().filter(fits).collect();
    let tagged = |entry: &&&Descriptor| {
        entry.annotations.get("org.opencontainers.image.ref.name").is_some_and(|name| name == "latest")
    };
    match (fitting.iter().find(tagged), fitting.as_slice()) {
        (Some(entry), _) | (None, [entry]) => from_digest(&entry.digest, platform, blob, depth),
        (None, []) => Err(Error::new(Kind::Input, format!("{subject} holds no image for {platform}"))),
        (None, [_, ..]) => {
            Err(Error::new(Kind::Input, format!("{subject} holds several images")).hint("tag the one to run `latest`"))
        }
    }
}

fn content(subject: &str, digest: &Digest, blob: &dyn Fn(&Digest) -> Result<PathBuf>) -> Result<Vec<u8>> {
    let path = blob(digest)?;
    let meta = path.metadata().context(Kind::Input, || format!("{subject} is missing"))?;
    if meta.len() > MAX_JSON {
        return Err(Error::new(Kind::Input, format!("{subject} is larger than {MAX_JSON} bytes")));
    }
    let bytes = std::fs::read(&path).on_machine(|| format!("cannot read {}", path.display()))?;
    if Digest::of(&bytes) != *digest {
        return Err(Error::new(Kind::Input, format!("{subject} does not have the digest it is named by"))
            .hint(format!("remove {} and run the same command again", path.display())));
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(subject: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).context(Kind::Input, || format!("{subject} is damaged"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Layout(tempfile::TempDir);

    impl Layout {
        fn new() -> Self {
            let layout = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir_all(layout.0.path().join("blobs/sha256")).unwrap();
            layout
        }

        fn put(&self, value: &Value) -> Value {
            let bytes = serde_json::to_vec(value).unwrap();
            let digest = Digest::of(&bytes);
            std::fs::write(self.0.path().join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
            json!({ "digest": digest, "size": bytes.len() })
        }

        fn image(&self, architecture: &str, layers: usize) -> Value {
            let ids: Vec<Digest> = (0..layers).map(|i| Digest::of(i.to_string())).collect();
            let config = self.put(&json!({
                "architecture": architecture, "os": "linux", "rootfs": { "diff_ids": ids },
                "config": { "User": "7", "Env": null, "Cmd": ["x"], "Labels": { VERSION: "1.2" } },
            }));
            let layers: Vec<Value> = ids.iter().map(|digest| json!({ "digest": digest })).collect();
            self.put(&json!({ "config": config, "layers": layers }))
        }

        fn index(&self, manifests: Value) {
            std::fs::write(self.0.path().join("index.json"), json!({ "manifests": manifests }).to_string()).unwrap();
        }
    }

    fn check(layout: &Layout, expected: std::result::Result<usize, &str>) {
        match (from_layout(layout.0.path(), Platform::LinuxAmd64), expected) {
            (Ok(image), Ok(layers)) => {
                assert_eq!(image.layers.len(), layers);
                assert_eq!((image.config.user.as_str(), image.config.version()), ("7", Some("1.2")));
            }
            (Err(error), Err(text)) => assert!(error.lines().join(" | ").contains(text), "{:?}", error.lines()),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
        descriptor[key] = value;
        descriptor
    }

    #[test]
    fn the_image_of_this_platform_is_found() {
        let layout = Layout::new();
        check(&layout, Err("is no OCI layout"));
        let (amd, arm) = (layout.image("amd64", 2), layout.image("arm64", 1));
        layout.index(json!([amd]));
        check(&layout, Ok(2));
        layout.index(json!([arm]));
        check(&layout, Err("the image is for linux/arm64"));
        let platform = |name: &str| json!({ "os": "linux", "architecture": name });
        let both =
            json!([with(amd.clone(), "platform", platform("amd64")), with(arm.clone(), "platform", platform("arm64"))]);
        layout.index(both.clone());
        check(&layout, Ok(2));
        let nested = layout.put(&json!({ "manifests": both }));
        layout.index(json!([nested]));
        check(&layout, Ok(2));
        layout.index(json!([with(arm.clone(), "platform", platform("arm64"))]));
        check(&layout, Err("holds no image for linux/amd64"));
        layout.index(json!([]));
        check(&layout, Err("holds no image"));
    }

    #[test]
    fn of_several_the_one_tagged_latest_is_run() {
        let layout = Layout::new();
        let (one, two) = (layout.image("amd64", 1), layout.image("amd64", 2));
        layout.index(json!([one, two]));
        check(&layout, Err("holds several images"));
        let tag = json!({ "org.opencontainers.image.ref.name": "latest" });
        layout.index(json!([one, with(two, "annotations", tag)]));
        check(&layout, Ok(2));
    }

    #[test]
    fn damage_is_named() {
        let layout = Layout::new();
        let image = layout.image("amd64", 1);
        layout.index(json!([image]));
        let digest: Digest = image["digest"].as_str().unwrap().parse().unwrap();
        std::fs::write(layout.0.path().join("blobs/sha256").join(digest.hex()), "{}").unwrap();
        check(&layout, Err("does not have the digest"));
        std::fs::remove_file(layout.0.path().join("blobs/sha256").join(digest.hex())).unwrap();
        check(&layout, Err("is missing"));
        std::fs::write(layout.0.path().join("index.json"), "[1").unwrap();
        check(&layout, Err("is damaged"));
        let odd = layout.put(&json!({ "mediaType": "x" }));
        layout.index(json!([odd]));
        check(&layout, Err("neither an image nor an index"));
    }
}
