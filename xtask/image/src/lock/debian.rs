//! `debian.lock`: the Debian packages of the base layer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Error, Platform, Result};

/// The packages of the base layer, by platform, in the order they are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianLock {
    /// The suite's code name, such as `trixie`.
    pub suite: String,
    /// When the Release file was signed: RFC 3339, UTC. Also the image's `created` time and the
    /// moment at which the Debian archive's snapshots hold all packages.
    pub date: String,
    /// The packages.
    pub package: BTreeMap<Platform, Vec<DebPackage>>,
}

/// One .deb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebPackage {
    /// The package's name.
    pub name: String,
    /// Its Debian version.
    pub version: String,
    /// The .deb's digest, from the signed index.
    pub sha256: Digest,
    /// The .deb's size in bytes.
    pub size: u64,
    /// The path below a mirror's root, `pool/...`.
    pub path: String,
}

impl DebianLock {
    /// Reads the file's text; `subject` names it in errors.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| Error::refused(subject, error))
    }

    /// The packages of one platform.
    pub fn packages(&self, platform: Platform) -> Result<&[DebPackage]> {
        self.package
            .get(&platform)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::refused("debian.lock", format_args!("no packages for {platform}")))
    }
}
