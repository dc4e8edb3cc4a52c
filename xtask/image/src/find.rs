//! Single files of a layer, read without unpacking it (OCI image-spec, layer.md).
//!
//! A layer is input from elsewhere: nothing is written, and what is held in memory is bounded.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use tar::EntryType;

use crate::unpack::{HashReader, OPAQUE, WHITEOUT, decompress, unreadable};
use crate::{Digest, Error, Result};

/// How much is read before a layer is refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of the layer.
    pub entries: u64,
    /// Bytes of its tar.
    pub bytes: u64,
    /// Bytes of one file that is looked for.
    pub file: u64,
    /// Files that are looked for, and files that are hidden.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 4 << 20, bytes: 64 << 30, file: 1 << 20, files: 100_000 }
    }
}

/// What a layer says about the files that are looked for. Paths have no leading slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File {
        /// Its path.
        path: String,
        /// Its content.
        content: Vec<u8>,
    },
    /// A file or folder of the layers below that is hidden.
    Hidden {
        /// Its path.
        path: String,
    },
    /// A folder whose content in the layers below is hidden.
    Emptied {
        /// Its path; empty for the root.
        path: String,
    },
}

/// Looks for files in the layer `blob`, whose digest is verified. Files are named where `wanted` says
/// so of their path; everything that hides files is named, wanted or not, once for each path.
///
/// # Errors
/// For a layer that is no tar or has another digest, for one beyond the limits, and for a wanted
/// path that is a link: what it leads to may be in another layer.
pub fn find(blob: &Path, digest: &Digest, limits: &Limits, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<Found>> {
    let subject = format!("layer {}", digest.short());
    let file = File::open(blob).map_err(|error| Error::io(&subject, error))?;
    let mut blob = BufReader::with_capacity(1 << 18, HashReader::new(file));
    let mut found = Vec::new();
    {
        let tar = decompress(&mut blob).map_err(|error| unreadable(&subject, error))?;
        let mut tar = tar.take(limits.bytes);
        let mut archive = tar::Archive::new(&mut tar);
        let mut entries = 0;
        for entry in archive.entries().map_err(|error| unreadable(&subject, error))? {
            let mut entry = entry.map_err(|error| unreadable(&subject, error))?;
            entries += 1;
            if entries > limits.entries {
                return Err(Error::refused(&subject, format_args!("more than {} entries", limits.entries)));
            }
            if entry.header().entry_type() == EntryType::XGlobalHeader {
                continue;
            }
            // Whatever is looked for has a name of text.
            let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
            let path = plain(&path);
            if let Some(item) = item(&subject, path, &mut entry, limits, wanted)? {
                found.push(item);
            }
            if found.len() > limits.files {
                return Err(Error::refused(&subject, format_args!("more than {} files", limits.files)));
            }
        }
        // A tar ends before its padding does.
        io::copy(&mut tar, &mut io::sink()).map_err(|error| unreadable(&subject, error))?;
        if tar.limit() == 0 {
            return Err(Error::refused(&subject, format_args!("more than {} bytes", limits.bytes)));
        }
    }
    io::copy(&mut blob, &mut io::sink()).map_err(|error| unreadable(&subject, error))?;
    let content = blob.into_inner().finish();
    if content != *digest {
        return Err(Error::refused(&subject, format_args!("its digest is {content}, not {digest}")));
    }
    Ok(found)
}

fn item(
    subject: &str,
    path: String,
    entry: &mut tar::Entry<'_, impl Read>,
    limits: &Limits,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Option<Found>> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
    if name.as_bytes() == OPAQUE {
        return Ok(Some(Found::Emptied { path: folder.to_owned() }));
    }
    if name.as_bytes().starts_with(WHITEOUT) {
        let name = &name[WHITEOUT.len()..];
        let path = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        return Ok(Some(Found::Hidden { path }));
    }
    if !wanted(&path) {
        return Ok(None);
    }
    match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
        EntryType::Directory => return Ok(None),
        _ => return Err(Error::refused(subject, format_args!("{path} is no plain file"))),
    }
    if entry.size() > limits.file {
        return Err(Error::refused(subject, format_args!("{path} has more than {} bytes", limits.file)));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(|error| unreadable(subject, error))?;
    Ok(Some(Found::File { path, content }))
}

/// A path without empty parts and dots. What would lead upwards names nothing.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") { String::new() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A tar of `NAME=CONTENT`, `NAME/` for a folder, `NAME->TARGET` for a link.
    fn tar(items: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_gnu();
            let (name, content) = item.split_once('=').unwrap_or((item, ""));
            let (name, target) = name.split_once("->").unwrap_or((name, ""));
            header.set_entry_type(match (name.ends_with('/'), target) {
                (true, _) => EntryType::Directory,
                (false, "") => EntryType::Regular,
                _ => EntryType::Symlink,
            });
            if !target.is_empty() {
                header.set_link_name(target).unwrap();
            }
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn look(bytes: &[u8], digest: &Digest, limits: &Limits) -> std::result::Result<String, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let found = find(file.path(), digest, limits, &|path| path.starts_with("a/") && path.ends_with(".py"));
        let words = |item: Found| match item {
            Found::File { path, content } => format!("{path}={}", String::from_utf8_lossy(&content)),
            Found::Hidden { path } => format!("-{path}"),
            Found::Emptied { path } => format!("-{path}/*"),
        };
        found.map(|found| found.into_iter().map(words).collect::<Vec<_>>().join(" ")).map_err(|error| error.to_string())
    }

    fn check(items: &[&str], limits: &Limits, expected: std::result::Result<&str, &str>) {
        let plain = tar(items);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        for bytes in [gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap(), plain] {
            match (look(&bytes, &Digest::of(&bytes), limits), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{items:?}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{items:?}: {error}"),
                (found, _) => panic!("{items:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn files_are_found_by_their_paths() {
        let limits = Limits::default();
        check(&[], &limits, Ok(""));
        check(&["a/", "a/x.py=1", "a/x.txt=2", "b/y.py=3", "a/b/z.py=4"], &limits, Ok("a/x.py=1 a/b/z.py=4"));
        check(&["./a/x.py=1", "/a//./y.py=2"], &limits, Ok("a/x.py=1 a/y.py=2"));
        check(&["b/../a/x.py=1", "a/../a/y.py=1"], &limits, Ok(""));
        check(&["a/.wh.x.py", "c/.wh.d", ".wh.e", "a/.wh..wh..opq"], &limits, Ok("-a/x.py -c/d -e -a/*"));
        check(&["a/x.py->../b/x.py"], &limits, Err("a/x.py is no plain file"));
    }

    #[test]
    fn a_layer_has_limits() {
        let check = |limits: Limits, expected| check(&["a/x.py=12", "a/y.py=3", "b=4"], &limits, expected);
        let default = Limits::default();
        check(Limits { entries: 2, ..default }, Err("more than 2 entries"));
        check(Limits { file: 1, ..default }, Err("a/x.py has more than 1 bytes"));
        check(Limits { files: 1, ..default }, Err("more than 1 files"));
        check(Limits { bytes: 4096, ..default }, Err("more than 4096 bytes"));
        check(Limits { entries: 3, file: 2, files: 2, bytes: 4097 }, Ok("a/x.py=12 a/y.py=3"));
    }

    #[test]
    fn damage_is_named() {
        let bytes = tar(&["a/x.py=1"]);
        let limits = Limits::default();
        let other = Digest::of("other");
        assert!(look(&bytes, &other, &limits).unwrap_err().contains("its digest is"));
        let cut = &bytes[..600];
        assert!(look(cut, &Digest::of(cut), &limits).unwrap_err().contains("not a valid layer"));
        let text =
            b"no tar at all, but some text that is longer than one block of a tar is, which is 512 bytes".repeat(9);
        assert!(look(&text, &Digest::of(&text), &limits).unwrap_err().contains("not a valid layer"));
    }
}
