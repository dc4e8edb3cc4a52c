//! `Release`, the body of `InRelease`: what a suite's signature covers.

use super::stanzas;
use crate::{Digest, Error, Result};

/// A suite's index of indices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release<'a> {
    /// `stable`, `stable-security`.
    pub suite: &'a str,
    /// `trixie`, `trixie-security`.
    pub codename: &'a str,
    /// When it was signed, as written: `Sat, 21 Nov 2026 09:15:44 UTC`.
    pub date: &'a str,
    /// Until when it may be trusted, as written.
    pub valid_until: Option<&'a str>,
    /// Whether indices can be fetched by their digest, which is safe while a mirror changes.
    pub by_hash: bool,
    /// The indices, in the order of the file.
    pub files: Vec<IndexFile<'a>>,
}

/// One index that a Release vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexFile<'a> {
    /// The path below the suite's folder.
    pub path: &'a str,
    /// Bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

impl<'a> Release<'a> {
    /// Reads the text whose signature was verified; `subject` names it in errors.
    pub fn parse(subject: &str, text: &'a str) -> Result<Self> {
        let mut all = stanzas(subject, text);
        let stanza = all.next().ok_or_else(|| Error::refused(subject, "is empty"))??;
        if all.next().is_some() {
            return Err(Error::refused(subject, "has more than one stanza"));
        }
        let need =
            |field: &str| stanza.get(field).ok_or_else(|| Error::refused(subject, format_args!("has no {field}")));
        let files = need("SHA256")?.lines().filter(|line| !line.trim().is_empty()).map(|line| {
            index_file(line).ok_or_else(|| Error::refused(subject, format_args!("SHA256: {line:?} is not an entry")))
        });
        Ok(Self {
            suite: need("Suite")?,
            codename: need("Codename")?,
            date: need("Date")?,
            valid_until: stanza.get("Valid-Until"),
            by_hash: stanza.get("Acquire-By-Hash") == Some("yes"),
            files: files.collect::<Result<_>>()?,
        })
    }

    /// The index with this path.
    pub fn file(&self, path: &str) -> Option<&IndexFile<'a>> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn index_file(line: &str) -> Option<IndexFile<'_>> {
    let mut words = line.split_ascii_whitespace();
    let sha256 = Digest::from_hex(words.next()?)?;
    let size = words.next()?.parse().ok()?;
    let path = words.next()?;
    words.next().is_none().then_some(IndexFile { path, size, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_indices() {
        let hash = Digest::of("x");
        let text = format!(
            "Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2026 09:15:44 UTC\nAcquire-By-Hash: yes\n\
             MD5Sum:\n 00 1 main/binary-amd64/Packages.xz\nSHA256:\n {} 12 main/binary-amd64/Packages.xz\n {} 0 main/x\n",
            hash.hex(),
            hash.hex()
        );
        let release = Release::parse("InRelease", &text).unwrap();
        assert_eq!((release.suite, release.codename, release.by_hash), ("stable", "trixie", true));
        assert_eq!(release.valid_until, None);
        let file = release.file("main/binary-amd64/Packages.xz").unwrap();
        assert_eq!((file.size, file.sha256), (12, hash));
        assert_eq!(release.file("main/binary-i386/Packages.xz"), None);
    }

    #[test]
    fn what_is_no_release_is_refused() {
        for (text, expected) in [
            ("", "is empty"),
            ("Suite: a\n\nSuite: b\n", "more than one stanza"),
            ("Suite: a\nCodename: a\nDate: x\n", "has no SHA256"),
            ("Suite: a\nCodename: a\nDate: x\nSHA256:\n 00 1 x\n", "is not an entry"),
            ("garbage", "is not a field"),
        ] {
            let error = Release::parse("InRelease", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
