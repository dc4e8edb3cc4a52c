//! Debian's archive indices: `Release`, `Packages`, versions and dependencies. Text in, data out;
//! whoever calls this has verified signatures and hashes.

mod control;
mod relation;
mod release;
mod version;

pub use control::{Stanza, stanzas};
pub use relation::{Alternative, Relation, parse_relations};
pub use release::{IndexFile, Release};
pub use version::Version;

use crate::{Digest, Error, Result};

/// A binary package as a `Packages` index describes it (Debian Policy, 5.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package<'a> {
    /// The package's name.
    pub name: &'a str,
    /// Its version.
    pub version: Version<'a>,
    /// `Depends` and `Pre-Depends`: all must hold.
    pub depends: Vec<Relation<'a>>,
    /// What it stands for besides its own name, with the version if one is given.
    pub provides: Vec<Alternative<'a>>,
    /// The .deb's path below the archive's root.
    pub filename: &'a str,
    /// The .deb's size in bytes.
    pub size: u64,
    /// The .deb's digest.
    pub sha256: Digest,
}

impl<'a> Package<'a> {
    /// Reads one stanza of `Packages`. Paths that could leave the archive's root are refused.
    pub fn read(subject: &str, stanza: &Stanza<'a>) -> Result<Self> {
        let name = stanza.get("Package").unwrap_or_default();
        if !is_package_name(name) {
            return Err(Error::refused(subject, format_args!("{name:?} is not a package name")));
        }
        let refused = |problem: String| Error::refused(subject, format_args!("{name}: {problem}"));
        let need = |field: &str| stanza.get(field).ok_or_else(|| refused(format!("has no {field}")));

        let version = Version::parse(need("Version")?).map_err(&refused)?;
        let filename = need("Filename")?;
        if !is_pool_path(filename) {
            return Err(refused(format!("Filename {filename:?} is not a path below the archive")));
        }
        let size = need("Size")?;
        let size = size.parse().map_err(|_| refused(format!("Size {size:?} is not a number")))?;
        let sha256 = need("SHA256")?;
        let sha256 =
            Digest::from_hex(sha256).ok_or_else(|| refused(format!("SHA256 {sha256:?} is not 64 hex digits")))?;
        let mut depends = Vec::new();
        for field in ["Pre-Depends", "Depends"] {
            depends.extend(parse_relations(stanza.get(field).unwrap_or_default()).map_err(&refused)?);
        }
        let provides = parse_relations(stanza.get("Provides").unwrap_or_default()).map_err(&refused)?;
        let provides = provides.into_iter().flat_map(|relation| relation.0).collect();
        Ok(Self { name, version, depends, provides, filename, size, sha256 })
    }
}

/// A relative path without `.`, `..` or anything that a URL would understand differently.
pub fn is_pool_path(path: &str) -> bool {
    path.split('/').all(|segment| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+-._~:%=@".contains(&b);
        !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
    })
}

/// Debian Policy, 5.6.1: at least two of `a-z0-9+-.`, beginning with a letter or digit.
pub fn is_package_name(name: &str) -> bool {
    name.len() >= 2
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stanza: &str, expected: std::result::Result<&str, &str>) {
        let stanza = stanzas("Packages", stanza).next().unwrap().unwrap();
        match (Package::read("Packages", &stanza), expected) {
            (Ok(package), Ok(expected)) => {
                let shown = format!("{} {} {} {}", package.name, package.version, package.filename, package.size);
                assert_eq!(shown, expected);
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{stanza:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_package_is_read_whole_or_refused_by_name() {
        let hash = Digest::of("x").hex();
        let fields = |filename: &str, size: &str, hash: &str, version: &str| {
            format!("Package: libc6\nVersion: {version}\nFilename: {filename}\nSize: {size}\nSHA256: {hash}\n")
        };
        check(&fields("pool/main/c.deb", "12", &hash, "2.41-12"), Ok("libc6 2.41-12 pool/main/c.deb 12"));
        check(&fields("/etc/passwd", "12", &hash, "1"), Err("libc6: Filename \"/etc/passwd\""));
        check(&fields("pool/../../x", "12", &hash, "1"), Err("Filename"));
        check(&fields("pool/a b", "12", &hash, "1"), Err("Filename"));
        check(&fields("pool/x", "-1", &hash, "1"), Err("Size \"-1\""));
        check(&fields("pool/x", "1", "00", "1"), Err("SHA256"));
        check(&fields("pool/x", "1", &hash, "x:1"), Err("libc6: version"));
        check("Package: ../x\n", Err("is not a package name"));
        check("Package: libc6\n", Err("libc6: has no Version"));
    }
}
