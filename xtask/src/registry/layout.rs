//! Reading an OCI image layout (image-spec, image-layout.md), to push what it holds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mlflow_image::Digest;
use oci_distribution::manifest::{OciDescriptor, OciImageIndex, OciManifest};

use crate::error::{Context as _, Error, Kind, Result};

use super::{Blob, Manifest};

/// The annotation that names a manifest in a layout's index.
const NAME: &str = "org.opencontainers.image.ref.name";
/// How deep indices may lie within each other.
const DEEPEST: usize = 4;
/// The largest manifest that is read (distribution-spec, "Pushing Manifests").
const LARGEST_MANIFEST: u64 = 4 << 20;

/// An image of a layout, ready to be pushed.
pub struct Layout {
    /// Children first, the root last.
    pub manifests: Vec<Manifest>,
    dir: PathBuf,
}

impl Layout {
    /// Reads the image that the layout's index calls `name`, or its only image.
    pub fn read(dir: &Path, name: Option<&str>) -> Result<Self> {
        let path = dir.join("index.json");
        let text = std::fs::read(&path).context(Kind::Input, || format!("{} is not an OCI layout", dir.display()))?;
        let index: OciImageIndex =
            serde_json::from_slice(&text).context(Kind::Input, || format!("{} is damaged", path.display()))?;
        let named = |entry: &&oci_distribution::manifest::ImageIndexEntry| {
            let found = entry.annotations.as_ref().and_then(|annotations| annotations.get(NAME));
            name.is_none_or(|name| found.is_some_and(|found| found == name))
        };
        let mut entries = index.manifests.iter().filter(named);
        let (root, more) = (entries.next(), entries.next());
        let (Some(root), None) = (root, more) else {
            let names: Vec<&str> = index
                .manifests
                .iter()
                .filter_map(|entry| entry.annotations.as_ref()?.get(NAME).map(String::as_str))
                .collect();
            let what = name.map_or_else(|| "exactly one image".to_owned(), |name| format!("one image named {name:?}"));
            return Err(Error::new(Kind::Input, format!("{} does not hold {what}", dir.display()))
                .hint(format!("choose one with --name; it holds: {}", names.join(", "))));
        };
        let mut layout = Self { manifests: Vec::new(), dir: dir.to_path_buf() };
        layout.add(&root.digest, &root.media_type, 0)?;
        Ok(layout)
    }

    /// The files of `blobs`.
    pub fn files(&self, blobs: &[Blob]) -> HashMap<Digest, PathBuf> {
        blobs.iter().map(|blob| (blob.digest, self.path(&blob.digest))).collect()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    fn add(&mut self, digest: &str, media_type: &str, depth: usize) -> Result<()> {
        let digest: Digest = digest.parse()?;
        let path = self.path(&digest);
        let damaged = || format!("{} is damaged", path.display());
        let refuse = |why: &str| Error::new(Kind::Input, damaged()).source(why.to_owned());
        let size = path.metadata().context(Kind::Input, damaged)?.len();
        if size > LARGEST_MANIFEST {
            return Err(refuse("a manifest may have 4 MiB"));
        }
        let bytes = std::fs::read(&path).context(Kind::Input, damaged)?;
        if Digest::of(&bytes) != digest {
            return Err(refuse("its content has another digest"));
        }
        let blobs = match serde_json::from_slice::<OciManifest>(&bytes).context(Kind::Input, damaged)? {
            OciManifest::Image(image) => {
                std::iter::once(&image.config).chain(&image.layers).map(blob).collect::<Result<_>>()?
            }
            OciManifest::ImageIndex(_) if depth == DEEPEST => return Err(refuse("indices lie too deep")),
            OciManifest::ImageIndex(index) => {
                for entry in &index.manifests {
                    self.add(&entry.digest, &entry.media_type, depth + 1)?;
                }
                Vec::new()
            }
        };
        let manifest = Manifest { media_type: media_type.to_owned(), bytes, blobs };
        if !self.manifests.iter().any(|seen| seen.bytes == manifest.bytes) {
            self.manifests.push(manifest);
        }
        Ok(())
    }
}

/// A descriptor's blob.
pub(super) fn blob(descriptor: &OciDescriptor) -> Result<Blob> {
    let size = u64::try_from(descriptor.size)
        .map_err(|_| Error::new(Kind::Input, format!("{} has a negative size", descriptor.digest)))?;
    Ok(Blob { digest: descriptor.digest.parse()?, size })
}
