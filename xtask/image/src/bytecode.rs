//! Python bytecode (.pyc) for the files of a layer.

use crate::layer::deflate;
use crate::{Digest, Result};

/// One Python source to compile.
#[derive(Clone, Debug)]
pub struct PythonSource<'a> {
    /// The path in the image, without a leading slash; becomes `co_filename` (with the slash).
    pub path: &'a str,
    /// The source text.
    pub content: &'a [u8],
}

/// Compiles sources with the image's own interpreter. The work happens outside of this crate,
/// which starts no programs.
pub trait Compiler {
    /// The interpreter's identity; part of every layer's key.
    fn identity(&self) -> &str;

    /// Compiles `sources`, which belong to one package, in one process and in the order given.
    /// Gives each .pyc, `None` where a source does not compile (templates, test data). `key` is a
    /// digest over all paths and contents: together with `identity` it names the result, which may
    /// thus be kept.
    fn compile(&self, key: &Digest, sources: &[PythonSource<'_>]) -> Result<Vec<Option<Pyc>>>;
}

/// A .pyc file, compressed as it will be in the layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pyc {
    /// A raw deflate stream (RFC 1951).
    pub deflated: Vec<u8>,
    /// The CRC-32 of the file.
    pub crc32: u32,
    /// The file's size in bytes.
    pub size: u64,
}

impl Pyc {
    /// Compresses a .pyc file.
    pub fn new(file: &[u8]) -> Self {
        Self { deflated: deflate::compress(file), crc32: crc32fast::hash(file), size: file.len() as u64 }
    }
}

/// What marks a kept list of .pyc files, and its version.
const MAGIC: &[u8; 8] = b"pycs\0\0\0\x01";

/// The list as one file, for keeping: magic; for each .pyc its length compressed plus one (zero for
/// none), CRC-32, size and content; the SHA-256 of it all.
pub fn encode(list: &[Option<Pyc>]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for pyc in list {
        let Some(pyc) = pyc else {
            out.extend_from_slice(&0_u64.to_le_bytes());
            continue;
        };
        out.extend_from_slice(&(pyc.deflated.len() as u64 + 1).to_le_bytes());
        out.extend_from_slice(&pyc.crc32.to_le_bytes());
        out.extend_from_slice(&pyc.size.to_le_bytes());
        out.extend_from_slice(&pyc.deflated);
    }
    let digest = Digest::of(&out);
    out.extend_from_slice(digest.bytes());
    out
}

/// The list that [`encode`] wrote; `None` if the file is damaged.
pub fn decode(bytes: &[u8]) -> Option<Vec<Option<Pyc>>> {
    let (body, digest) = bytes.split_last_chunk::<32>()?;
    if Digest::of(body).bytes() != digest {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    let mut list = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(take(&mut rest)?);
        let Some(length) = length.checked_sub(1) else {
            list.push(None);
            continue;
        };
        let crc32 = u32::from_le_bytes(take(&mut rest)?);
        let size = u64::from_le_bytes(take(&mut rest)?);
        let (deflated, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        list.push(Some(Pyc { deflated: deflated.to_vec(), crc32, size }));
        rest = after;
    }
    Some(list)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

/// The key of a package's sources.
pub(crate) fn key(sources: &[PythonSource<'_>]) -> Digest {
    let mut text = String::new();
    for source in sources {
        // The length keeps two lists from giving one text.
        text.push_str(&format!("{} {} {}\n", source.path.len(), source.path, Digest::of(source.content)));
    }
    Digest::of(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_list_is_read_back_and_a_damaged_one_is_not() {
        for list in [vec![], vec![None], vec![Some(Pyc::new(b"one")), None, Some(Pyc::new(&[]))]] {
            let bytes = encode(&list);
            assert_eq!(decode(&bytes), Some(list));
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                assert_eq!(decode(&damaged), None, "byte {at}");
                assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
            }
        }
    }

    #[test]
    fn a_key_depends_on_paths_contents_and_order() {
        let source = |path, content: &'static str| PythonSource { path, content: content.as_bytes() };
        let one = key(&[source("a.py", "1"), source("b.py", "2")]);
        assert_eq!(one, key(&[source("a.py", "1"), source("b.py", "2")]));
        for other in [
            vec![source("b.py", "2"), source("a.py", "1")],
            vec![source("a.py", "1")],
            vec![source("a.py", "1"), source("b.py", "3")],
            vec![source("a.py", "1"), source("c.py", "2")],
        ] {
            assert_ne!(one, key(&other));
        }
    }
}
