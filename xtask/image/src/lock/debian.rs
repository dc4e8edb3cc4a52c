//! `debian.lock`: the Debian packages of the base layer.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::quoted;
use crate::packages::{is_package_name, is_pool_path};
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
    /// Digest of the `debian.in` that this was resolved from.
    pub inputs: Digest,
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
    /// The path below the archive's root, `pool/...`.
    pub path: String,
    /// The archive: `debian`, or `debian-security`, which mirrors serve beside it.
    #[serde(default = "main_archive")]
    pub archive: String,
}

/// The archive that a package belongs to when the lock names none.
pub const MAIN_ARCHIVE: &str = "debian";

fn main_archive() -> String {
    MAIN_ARCHIVE.to_owned()
}

impl DebianLock {
    /// Reads the file's text; `subject` names it in errors.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        let lock: Self = toml::from_str(text).map_err(|error| Error::refused(subject, error))?;
        for (platform, packages) in &lock.package {
            for (at, package) in packages.iter().enumerate() {
                let refused =
                    |problem: &str| Error::refused(subject, format_args!("{platform}: {:?} {problem}", package.name));
                if !is_package_name(&package.name) {
                    return Err(refused("is not a package name"));
                }
                if packages[..at].iter().any(|other| other.name == package.name) {
                    return Err(refused("is listed twice"));
                }
                if !is_pool_path(&package.path) || !is_package_name(&package.archive) {
                    return Err(refused("has a path that leaves the archive"));
                }
            }
        }
        Ok(lock)
    }

    /// The file's text: one line a package, so that a diff shows what moved.
    pub fn to_text(&self) -> String {
        let mut out = String::from("# Written by `cargo xtask lock` from debian.in. Do not edit.\n");
        let _ = writeln!(out, "suite = {}", quoted(&self.suite));
        let _ = writeln!(out, "date = {}", quoted(&self.date));
        let _ = writeln!(out, "inputs = \"{}\"\n\n[package]", self.inputs);
        for (platform, packages) in &self.package {
            let _ = writeln!(out, "\"{platform}\" = [");
            for package in packages {
                let (name, version, path) = (quoted(&package.name), quoted(&package.version), quoted(&package.path));
                let archive = match package.archive.as_str() {
                    MAIN_ARCHIVE => String::new(),
                    other => format!(", archive = {}", quoted(other)),
                };
                let (size, sha256) = (package.size, package.sha256);
                let _ = writeln!(
                    out,
                    "  {{ name = {name}, version = {version}, size = {size}, sha256 = \"{sha256}\", path = {path}{archive} }},"
                );
            }
            out.push_str("]\n");
        }
        out
    }

    /// The packages of one platform.
    pub fn packages(&self, platform: Platform) -> Result<&[DebPackage]> {
        self.package
            .get(&platform)
            .map(Vec::as_slice)
            .ok_or_else(|| Error::refused("debian.lock", format_args!("no packages for {platform}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> DebianLock {
        let package = |name: &str, archive: &str| DebPackage {
            name: name.to_owned(),
            version: "1:2.0~rc1-1".to_owned(),
            sha256: Digest::of(name),
            size: 12,
            path: format!("pool/main/{name}.deb"),
            archive: archive.to_owned(),
        };
        DebianLock {
            suite: "trixie".to_owned(),
            date: "2026-11-21T09:15:44Z".to_owned(),
            inputs: Digest::of("in"),
            package: Platform::ALL
                .map(|platform| (platform, vec![package("libc6", "debian"), package("zlib1g", "debian-security")]))
                .into(),
        }
    }

    #[test]
    fn a_lock_is_read_as_it_is_written() {
        let text = lock().to_text();
        assert_eq!(DebianLock::parse("debian.lock", &text).unwrap(), lock(), "{text}");
        assert_eq!(text.lines().count(), 4 + 2 + 2 * 4);
    }

    #[test]
    fn what_could_leave_the_archive_or_is_ambiguous_is_refused() {
        let text = lock().to_text();
        let rows = [
            (text.replace("pool/main/libc6.deb", "../x"), "leaves the archive"),
            (text.replace("pool/main/libc6.deb", "/x"), "leaves the archive"),
            (text.replace("debian-security", "../x"), "leaves the archive"),
            (text.replace("zlib1g", "libc6"), "listed twice"),
            (text.replace("name = \"libc6\"", "name = \"Lib C\""), "not a package name"),
            (text.replace("linux/amd64", "linux/s390x"), "linux/s390x"),
            (text.replace("suite =", "sweet ="), "sweet"),
        ];
        for (text, expected) in rows {
            let error = DebianLock::parse("debian.lock", &text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
