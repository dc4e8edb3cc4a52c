//! Images that another program built: an archive of `docker save` or in OCI layout becomes blobs in
//! the cache and the same [`BuiltImage`] that the native builder makes, so that outputs, pushes and
//! reports know no difference.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use mlflow_image::lock::{LayerInfo, LayerKind};
use mlflow_image::manifest::{self, Document, Made};
use mlflow_image::plan::Format;
use mlflow_image::{Digest, HashWriter, Platform};
use serde::{Deserialize, Serialize};

use super::draft::{Built, BuiltImage, BuiltLayer};
use crate::cache::{self, Cache};
use crate::error::{Context as _, Error, Kind, Result};

/// The largest JSON document that is read, in bytes (distribution-spec, "Pushing Manifests").
const LARGEST_DOCUMENT: u64 = 4 << 20;
/// How often an index may name another.
const DEEPEST: usize = 4;

/// Puts the only image of an archive into the cache.
pub fn archive(cache: &Cache, file: &Path, platform: Platform) -> Result<BuiltImage> {
    let archive = Archive::unpack(cache, file)?;
    // docker writes an OCI layout beside its own list since version 25, its layers not compressed.
    if archive.members.contains_key("manifest.json") { archive.docker(platform) } else { archive.oci(platform) }
}

/// The image that an earlier run read under this id, if the cache still holds all of it: saving it
/// again would compress it again.
pub fn recall(cache: &Cache, id: &str, platform: Platform) -> Option<BuiltImage> {
    let memory: Memory = serde_json::from_slice(&std::fs::read(memory(cache, id, platform).ok()?).ok()?).ok()?;
    let document = |(media_type, digest): &(String, Digest)| {
        let bytes = std::fs::read(cache.blob(digest).ok()?).ok()?;
        document(media_type, bytes).ok().filter(|document| document.digest == *digest)
    };
    let image = image(platform, document(&memory.manifest)?, document(&memory.config)?).ok()?;
    let holds = |layer: &BuiltLayer| {
        let path = cache.blob(&layer.info.digest);
        path.is_ok_and(|path| mlflow_image::layout::holds(&path, &layer.info.digest, layer.info.size))
    };
    image.layers.iter().all(holds).then_some(image)
}

/// Keeps what [`recall`] needs, and the image's documents.
pub fn remember(cache: &Cache, id: &str, image: &BuiltImage) -> Result<()> {
    for document in [&image.config, &image.manifest] {
        cache::write(&cache.blob(&document.digest)?, &document.bytes)?;
    }
    let named = |document: &Document| (document.media_type.to_owned(), document.digest);
    let kept = Memory { manifest: named(&image.manifest), config: named(&image.config) };
    let text = serde_json::to_vec(&kept).context(Kind::Internal, || "digests are not JSON")?;
    cache::write(&memory(cache, id, image.platform)?, &text)
}

fn memory(cache: &Cache, id: &str, platform: Platform) -> Result<PathBuf> {
    let name = Digest::of(format!("{id} {platform}"));
    Ok(cache.dir("imports")?.join(name.hex()))
}

#[derive(Deserialize, Serialize)]
struct Memory {
    manifest: (String, Digest),
    config: (String, Digest),
}

/// An index over images of several platforms, in the platforms' order.
pub fn index(mut images: Vec<BuiltImage>) -> Built {
    images.sort_by_key(|image| image.platform);
    let index = manifest::index(images.iter().map(|image| (image.platform, &image.manifest)), &BTreeMap::new());
    Built { index, images, downloaded_bytes: 0 }
}

/// An image whose blobs are in the cache already.
pub fn image(platform: Platform, manifest: Document, config: Document) -> Result<BuiltImage> {
    let listed: Manifest = parse("the manifest", &manifest.bytes)?;
    let described: Config = parse("the config", &config.bytes)?;
    described.check(platform, listed.layers.len())?;
    let names = described.layer_names();
    let infos = listed.layers.iter().zip(&described.rootfs.diff_ids).map(|(layer, diff_id)| LayerInfo {
        digest: layer.digest,
        diff_id: *diff_id,
        size: layer.size,
    });
    let layers = infos.zip(names).map(|(info, name)| BuiltLayer { name, kind: LayerKind::Dockerfile, info });
    Ok(BuiltImage { platform, layers: layers.collect(), manifest, config })
}

/// A document of a known media type.
pub fn document(media_type: &str, bytes: Vec<u8>) -> Result<Document> {
    const KNOWN: [&str; 4] = [
        manifest::MANIFEST,
        manifest::CONFIG,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.container.image.v1+json",
    ];
    let known = KNOWN.into_iter().find(|known| *known == media_type);
    let media_type = known.ok_or_else(|| damaged(&format!("the media type {media_type:?} is not understood")))?;
    let digest = Digest::of(&bytes);
    Ok(Document { media_type, bytes, digest })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    platform: Option<DescriptorPlatform>,
}

#[derive(Deserialize)]
struct DescriptorPlatform {
    architecture: String,
    os: String,
}

/// As much of a config (image-spec, config.md) as is needed here.
#[derive(Deserialize)]
struct Config {
    architecture: String,
    os: String,
    rootfs: RootFs,
    #[serde(default)]
    history: Vec<Made>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<Digest>,
}

/// `manifest.json` of `docker save`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

impl Config {
    fn check(&self, platform: Platform, layers: usize) -> Result<()> {
        let found = format!("{}/{}", self.os, self.architecture);
        if found != platform.to_string() {
            return Err(Error::new(Kind::Tool, format!("the builder made an image for {found}, not for {platform}"))
                .hint(format!("name a base image that exists for {platform}: --build-arg BASE=...")));
        }
        if self.rootfs.diff_ids.len() != layers {
            return Err(damaged(&format!("{layers} layers, but {} diff_ids", self.rootfs.diff_ids.len())));
        }
        Ok(())
    }

    /// What made each layer, as far as the history tells.
    fn layer_names(&self) -> Vec<String> {
        let made: Vec<&str> =
            self.history.iter().filter(|entry| !entry.empty_layer).map(|entry| entry.created_by.as_str()).collect();
        let count = self.rootfs.diff_ids.len();
        let name = |at: usize| match made.get(at) {
            Some(text) if made.len() == count && !text.trim().is_empty() => short(text),
            _ => format!("layer {}", at + 1),
        };
        (0..count).map(name).collect()
    }
}

/// A line of a history for people.
fn short(created_by: &str) -> String {
    let text = created_by.strip_prefix("/bin/sh -c ").unwrap_or(created_by);
    let text = text.strip_prefix("#(nop)").unwrap_or(text);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// The members of an archive as files of a temporary folder.
struct Archive {
    cache: Cache,
    folder: tempfile::TempDir,
    members: HashMap<String, Member>,
}

#[derive(Clone)]
struct Member {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

impl Archive {
    fn unpack(cache: &Cache, file: &Path) -> Result<Self> {
        let named = || format!("cannot read {}", file.display());
        let folder = tempfile::tempdir_in(cache.dir("blobs")?).on_machine(|| "cannot write to the cache")?;
        let mut members: HashMap<String, Member> = HashMap::new();
        let mut links = Vec::new();
        let mut tar = tar::Archive::new(File::open(file).on_machine(named)?);
        for (number, entry) in tar.entries().on_machine(named)?.enumerate() {
            let mut entry = entry.on_machine(named)?;
            let name = plain(&entry.path().on_machine(named)?);
            if let Some(target) = entry.link_name().on_machine(named)? {
                // docker before version 25 links a layer that it has written already.
                let beside = Path::new(&name).parent().unwrap_or(Path::new(""));
                let target = match entry.header().entry_type() {
                    tar::EntryType::Symlink => plain(&beside.join(&target)),
                    _ => plain(&target),
                };
                links.push((name, target));
            } else if entry.header().entry_type().is_file() {
                let path = folder.path().join(number.to_string());
                let out = File::create(&path).on_machine(|| format!("cannot write {}", path.display()))?;
                let mut out = HashWriter::new(out);
                io::copy(&mut entry, &mut out).on_machine(|| format!("cannot write {}", path.display()))?;
                let (digest, size, _) = out.finish();
                members.insert(name, Member { path, digest, size });
            }
        }
        for (name, target) in links {
            if let Some(member) = members.get(&target).cloned() {
                members.insert(name, member);
            }
        }
        Ok(Self { cache: cache.clone(), folder, members })
    }

    fn oci(&self, platform: Platform) -> Result<BuiltImage> {
        let mut text = self.text("index.json")?;
        for _ in 0..DEEPEST {
            let index: Index = parse("index.json", &text)?;
            let wanted = |descriptor: &&Descriptor| {
                descriptor
                    .platform
                    .as_ref()
                    .is_none_or(|found| format!("{}/{}", found.os, found.architecture) == platform.to_string())
            };
            let mut fitting = index.manifests.iter().filter(wanted);
            let (Some(descriptor), None) = (fitting.next(), fitting.next()) else {
                return Err(damaged(&format!("not exactly one image for {platform}")));
            };
            text = self.blob_text(descriptor)?;
            if descriptor.media_type != manifest::INDEX {
                let listed: Manifest = parse("the manifest", &text)?;
                let config = document(&listed.config.media_type, self.blob_text(&listed.config)?)?;
                let built = image(platform, document(&descriptor.media_type, text)?, config)?;
                for layer in &built.layers {
                    self.keep(self.blob(&layer.info.digest, layer.info.size)?)?;
                }
                return Ok(built);
            }
        }
        Err(damaged("indices lie too deep"))
    }

    fn docker(&self, platform: Platform) -> Result<BuiltImage> {
        let saved: Vec<Saved> = parse("manifest.json", &self.text("manifest.json")?)?;
        let [saved] = saved.as_slice() else { return Err(damaged("not exactly one image")) };
        let config = document(manifest::CONFIG, self.text(&saved.config)?)?;
        let described: Config = parse("the config", &config.bytes)?;
        described.check(platform, saved.layers.len())?;
        let layers = std::thread::scope(|scope| {
            let works: Vec<_> = saved
                .layers
                .iter()
                .zip(&described.rootfs.diff_ids)
                .map(|(name, diff_id)| scope.spawn(|| self.docker_layer(name, *diff_id)))
                .collect();
            let join = |work: std::thread::ScopedJoinHandle<'_, Result<LayerInfo>>| match work.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            works.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        let listed: Vec<_> =
            layers.iter().map(|info| manifest::Layer { created_by: String::new(), info: *info }).collect();
        let manifest = manifest::manifest(&config, &listed, Format::Gzip, &BTreeMap::new());
        image(platform, manifest, config)
    }

    /// A layer of `docker save`, compressed where docker has not done so.
    fn docker_layer(&self, name: &str, diff_id: Digest) -> Result<LayerInfo> {
        let member = self.member(name)?;
        let mut start = [0; 2];
        let mut file = File::open(&member.path).on_machine(|| "cannot read the cache")?;
        let is_gzip = file.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b];
        if is_gzip {
            self.keep(member)?;
            return Ok(LayerInfo { digest: member.digest, diff_id, size: member.size });
        }
        if member.digest != diff_id {
            return Err(damaged(&format!("{name} is {}, not {diff_id}", member.digest)));
        }
        let named = || format!("cannot compress {name}");
        let path = self.folder.path().join(format!("{}.gz", diff_id.hex()));
        let out = HashWriter::new(io::BufWriter::new(File::create(&path).on_machine(named)?));
        let mut out = GzBuilder::new().mtime(0).write(out, Compression::default());
        let mut file = File::open(&member.path).on_machine(named)?;
        io::copy(&mut file, &mut out).on_machine(named)?;
        let mut out = out.finish().on_machine(named)?;
        out.flush().on_machine(named)?;
        let (digest, size, _) = out.finish();
        self.keep(&Member { path, digest, size })?;
        Ok(LayerInfo { digest, diff_id, size })
    }

    fn member(&self, name: &str) -> Result<&Member> {
        self.members.get(&plain(Path::new(name))).ok_or_else(|| damaged(&format!("{name} is missing")))
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<&Member> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let member = self.member(&name)?;
        if member.digest != *digest || member.size != size {
            return Err(damaged(&format!("{name} is {} of {} bytes", member.digest, member.size)));
        }
        Ok(member)
    }

    fn blob_text(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        self.blob(&descriptor.digest, descriptor.size)?;
        self.text(&format!("blobs/sha256/{}", descriptor.digest.hex()))
    }

    fn text(&self, name: &str) -> Result<Vec<u8>> {
        let member = self.member(name)?;
        if member.size > LARGEST_DOCUMENT {
            return Err(damaged(&format!("{name} has {} bytes", member.size)));
        }
        std::fs::read(&member.path).on_machine(|| "cannot read the cache")
    }

    /// Moves a layer to its place in the cache.
    fn keep(&self, member: &Member) -> Result<()> {
        let path = self.cache.blob(&member.digest)?;
        if mlflow_image::layout::holds(&path, &member.digest, member.size) {
            return Ok(());
        }
        let named = || format!("cannot write {}", path.display());
        cache::set_default_mode(&File::open(&member.path).on_machine(named)?, &path)?;
        std::fs::rename(&member.path, &path).on_machine(named)
    }
}

/// A member's name without `.` and, as far as possible, `..`.
fn plain(path: &Path) -> String {
    let mut kept: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(part) => kept.push(part.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(kept.pop()),
            _ => {}
        }
    }
    kept.join("/")
}

fn parse<T: for<'a> Deserialize<'a>>(what: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| damaged(&format!("{what}: {error}")))
}

fn damaged(why: &str) -> Error {
    Error::new(Kind::Tool, "the builder's image cannot be read").source(why.to_owned())
}
