//! `image.lock`: which wheels and which layers an image consists of, so that its manifest digest
//! is known before anything is downloaded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Platform, Result};

/// Derived from the other locks: `build-image` and `lock` rewrite it, `--locked` forbids that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageLock {
    /// The version of the layer layout that the digests were made with.
    pub layout: u32,
    /// The wheel of each requirement, by platform, in the order of requirements.lock.
    #[serde(default)]
    pub wheel: BTreeMap<Platform, Vec<Wheel>>,
    /// The layers, by platform, lowest first. Our own files' layer is not locked: it is always built.
    #[serde(default)]
    pub layer: BTreeMap<Platform, Vec<LockedLayer>>,
}

/// One wheel of a platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// The distribution's normalized name (PEP 503).
    pub name: String,
    /// Its version.
    pub version: String,
    /// The wheel's file name (PEP 427).
    pub file: String,
    /// The wheel's digest; one of the requirement's hashes.
    pub sha256: Digest,
    /// The wheel's size in bytes.
    pub size: u64,
}

/// What a layer is made of; decides how readers of reports group it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerKind {
    /// Debian packages.
    Base,
    /// One large wheel with its bytecode.
    Wheel,
    /// A bucket of small wheels with their bytecode.
    Wheels,
    /// Our own files.
    Own,
}

/// What identifies a finished layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerInfo {
    /// Digest of the compressed blob.
    pub digest: Digest,
    /// Digest of the uncompressed tar (image-spec, config.md, "Layer DiffID").
    pub diff_id: Digest,
    /// Bytes of the compressed blob.
    pub size: u64,
}

/// A layer whose result is known for its inputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockedLayer {
    /// For people: `base`, a wheel's name, or `wheels-3`.
    pub name: String,
    /// What it is made of.
    pub kind: LayerKind,
    /// Digest over everything that the layer's bytes depend on. Another key means: build again.
    pub key: Digest,
    /// The result.
    #[serde(flatten)]
    pub info: LayerInfo,
}

impl ImageLock {
    /// Reads the file's text; `subject` names it in errors.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| Error::refused(subject, error))
    }

    /// The result for a layer with this key, if it is known.
    pub fn layer(&self, platform: Platform, key: &Digest) -> Option<LayerInfo> {
        self.layer.get(&platform)?.iter().find(|layer| layer.key == *key).map(|layer| layer.info)
    }
}
