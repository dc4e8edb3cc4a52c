//! `image.lock`: which wheels and which layers an image consists of, so that its manifest digest
//! is known before anything is downloaded.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{normalize, quoted};
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
    /// What another builder made of the Dockerfile; in no lock.
    Dockerfile,
}

impl LayerKind {
    /// The kind as locks and reports write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Wheel => "wheel",
            Self::Wheels => "wheels",
            Self::Own => "own",
            Self::Dockerfile => "dockerfile",
        }
    }
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
    /// For people: `base`, a wheel's name, or `pure-3`.
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
        let lock: Self = toml::from_str(text).map_err(|error| Error::refused(subject, error))?;
        for (platform, wheels) in &lock.wheel {
            for (at, wheel) in wheels.iter().enumerate() {
                let refused =
                    |problem: &str| Error::refused(subject, format_args!("{platform}: {:?} {problem}", wheel.name));
                if wheel.name.is_empty() || normalize(&wheel.name) != wheel.name {
                    return Err(refused("is not a normalized name"));
                }
                if !wheel.file.ends_with(".whl") || wheel.file.contains(['/', '\\', '\0']) {
                    return Err(refused("has no wheel's file name"));
                }
                if wheels[..at].iter().any(|other| other.name == wheel.name) {
                    return Err(refused("is listed twice"));
                }
            }
        }
        Ok(lock)
    }

    /// The file's text: one line a wheel and a layer, so that a diff shows what moved.
    pub fn to_text(&self) -> String {
        let mut out = String::from("# Written by `cargo xtask lock` and `build-image`. Do not edit.\n");
        let _ = writeln!(out, "layout = {}\n\n[wheel]", self.layout);
        for (platform, wheels) in &self.wheel {
            let _ = writeln!(out, "\"{platform}\" = [");
            for Wheel { name, version, file, sha256, size } in wheels {
                let (name, version, file) = (quoted(name), quoted(version), quoted(file));
                let _ = writeln!(
                    out,
                    "  {{ name = {name}, version = {version}, size = {size}, sha256 = \"{sha256}\", file = {file} }},"
                );
            }
            out.push_str("]\n");
        }
        out.push_str("\n[layer]\n");
        for (platform, layers) in &self.layer {
            let _ = writeln!(out, "\"{platform}\" = [");
            for LockedLayer { name, kind, key, info: LayerInfo { digest, diff_id, size } } in layers {
                let (name, kind) = (quoted(name), kind.name());
                let _ = writeln!(
                    out,
                    "  {{ name = {name}, kind = \"{kind}\", size = {size}, digest = \"{digest}\", diff_id = \"{diff_id}\", key = \"{key}\" }},"
                );
            }
            out.push_str("]\n");
        }
        out
    }

    /// The result for a layer with this key, if it is known.
    pub fn layer(&self, platform: Platform, key: &Digest) -> Option<LayerInfo> {
        self.layer.get(&platform)?.iter().find(|layer| layer.key == *key).map(|layer| layer.info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> ImageLock {
        let wheel = |name: &str| Wheel {
            name: name.to_owned(),
            version: "1.0".to_owned(),
            file: format!("{name}-1.0-py3-none-any.whl"),
            sha256: Digest::of(name),
            size: 12,
        };
        let layer = |name: &str, kind| LockedLayer {
            name: name.to_owned(),
            kind,
            key: Digest::of("key"),
            info: LayerInfo { digest: Digest::of("blob"), diff_id: Digest::of("tar"), size: 34 },
        };
        ImageLock {
            layout: 7,
            wheel: Platform::ALL.map(|platform| (platform, vec![wheel("six"), wheel("zipp")])).into(),
            layer: [
                (Platform::LinuxAmd64, vec![layer("base", LayerKind::Base), layer("wheels-0", LayerKind::Wheels)]),
                (Platform::LinuxArm64, vec![layer("six", LayerKind::Wheel), layer("own", LayerKind::Own)]),
            ]
            .into(),
        }
    }

    #[test]
    fn a_lock_is_read_as_it_is_written() {
        for lock in [lock(), ImageLock::default()] {
            let text = lock.to_text();
            assert_eq!(ImageLock::parse("image.lock", &text).unwrap(), lock, "{text}");
        }
    }

    #[test]
    fn what_is_ambiguous_or_no_file_name_is_refused() {
        let text = lock().to_text();
        for (text, expected) in [
            (text.replace("zipp", "six"), "listed twice"),
            (text.replace("six-1.0-py3-none-any.whl", "../six.whl"), "no wheel's file name"),
            (text.replace("six-1.0-py3-none-any.whl", "six.tar.gz"), "no wheel's file name"),
            (text.replace("name = \"six\", version", "name = \"Six\", version"), "not a normalized name"),
        ] {
            let error = ImageLock::parse("image.lock", &text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
