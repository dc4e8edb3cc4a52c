//! Pushing a whole image: nothing that is there already, children before what names them, and the
//! tag last, so that no tag ever points at an incomplete image.

use std::collections::HashMap;
use std::path::PathBuf;

use futures::{StreamExt as _, TryStreamExt as _};
use mlflow_image::Digest;

use crate::error::{Error, Kind, Result};

use super::{Blob, Client};

/// Layers that are sent at once.
const PARALLEL_UPLOADS: usize = 4;

/// A manifest or index, with what must be there before it.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Its media type.
    pub media_type: String,
    /// Its bytes; their SHA-256 is its name.
    pub bytes: Vec<u8>,
    /// The config and layers that it names. Empty for an index.
    pub blobs: Vec<Blob>,
}

impl Manifest {
    /// Its digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the root manifest.
    pub digest: Digest,
    /// Layers and configs that were sent.
    pub sent_blobs: usize,
    /// Bytes that were sent, failed attempts and manifests included.
    pub sent_bytes: u64,
    /// Whether the tag was created or moved.
    pub tag_moved: bool,
}

impl Client {
    /// Pushes `manifests`, children first and the root last, and points `tag` at the root.
    ///
    /// `files` is asked once for the files of the blobs that the registry lacks, and not at all when
    /// it lacks none; it may build or download them. With a registry that has everything, the whole
    /// push is one question.
    pub async fn push<F>(
        &self,
        manifests: &[Manifest],
        tag: Option<&str>,
        files: impl FnOnce(Vec<Blob>) -> F,
    ) -> Result<Pushed>
    where
        F: Future<Output = Result<HashMap<Digest, PathBuf>>>,
    {
        let begun = self.sent_bytes();
        let root = manifests
            .last()
            .ok_or_else(|| Error::new(Kind::Internal, "an image without a manifest is to be pushed"))?;
        let digest = root.digest();
        let pushed =
            |sent_blobs, tag_moved| Pushed { digest, sent_blobs, sent_bytes: self.sent_bytes() - begun, tag_moved };
        let tagged = match tag {
            Some(tag) => self.has_manifest(tag).await?,
            None => None,
        };
        if tagged == Some(digest) {
            return Ok(pushed(0, false));
        }
        let by_digest = digest.to_string();
        let mut sent_blobs = 0;
        let absent = self.has_manifest(&by_digest).await?.is_none();
        if absent {
            sent_blobs = self.push_parts(manifests, files).await?;
        }
        if absent || tag.is_some() {
            self.put_manifest(tag.unwrap_or(&by_digest), &root.media_type, &root.bytes).await?;
        }
        Ok(pushed(sent_blobs, tag.is_some()))
    }

    /// All that the root names.
    async fn push_parts<F>(&self, manifests: &[Manifest], files: impl FnOnce(Vec<Blob>) -> F) -> Result<usize>
    where
        F: Future<Output = Result<HashMap<Digest, PathBuf>>>,
    {
        let blobs: Vec<Blob> = manifests.iter().flat_map(|manifest| manifest.blobs.iter().copied()).collect();
        let missing = self.missing_blobs(&blobs).await?;
        if !missing.is_empty() {
            let files = files(missing.clone()).await?;
            self.upload_all(&missing, &files).await?;
        }
        for manifest in manifests.iter().rev().skip(1).rev() {
            self.put_manifest(&manifest.digest().to_string(), &manifest.media_type, &manifest.bytes).await?;
        }
        Ok(missing.len())
    }

    /// Uploads blobs side by side, the largest first.
    pub async fn upload_all(&self, blobs: &[Blob], files: &HashMap<Digest, PathBuf>) -> Result<()> {
        let mut order = Vec::new();
        for blob in blobs {
            let file = files.get(&blob.digest).ok_or_else(|| {
                Error::new(Kind::Internal, format!("layer {} is to be pushed, but there is no file of it", blob.digest))
            })?;
            order.push((*blob, file.clone()));
        }
        order.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size));
        let total = blobs.iter().map(|blob| blob.size).sum();
        let bar = self.transport.run().ui.bytes(format!("Pushing {}", self.reference()), total);
        let uploads = futures::stream::iter(order.into_iter().map(|(blob, file)| {
            let bar = bar.clone();
            async move { self.upload(&blob, &file, &bar).await }
        }));
        let result = uploads.buffer_unordered(PARALLEL_UPLOADS).try_collect::<Vec<()>>().await.map(drop);
        // Also after a failure: what arrived need not be sent again, nor to another repository.
        self.mounts.save();
        result
    }
}
