//! Python bytecode (.pyc) for the files of a layer.

use crate::{Digest, Result};

/// One Python source to compile.
#[derive(Clone, Debug)]
pub struct PythonSource<'a> {
    /// The path in the image, without a leading slash; becomes `co_filename` (with the slash).
    pub path: &'a str,
    /// The source text.
    pub content: &'a [u8],
}

/// The bytes of a .pyc file.
pub type Pyc = Vec<u8>;

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

/// What marks a kept list of .pyc files, and its version.
const MAGIC: &[u8; 8] = b"pycs\0\0\0\x01";

/// The list as one file, for keeping: magic; for each .pyc its length plus one (zero for none) and
/// its bytes; the SHA-256 of it all.
pub fn encode(list: &[Option<Pyc>]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    for pyc in list {
        let length = pyc.as_ref().map_or(0, |pyc| pyc.len() as u64 + 1);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(pyc.as_deref().unwrap_or_default());
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
    while let Some((length, after)) = rest.split_first_chunk() {
        let Some(length) = u64::from_le_bytes(*length).checked_sub(1) else {
            list.push(None);
            rest = after;
            continue;
        };
        let (pyc, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
        list.push(Some(pyc.to_vec()));
        rest = after;
    }
    rest.is_empty().then_some(list)
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
        for list in [vec![], vec![None], vec![Some(b"one".to_vec()), None, Some(Vec::new())]] {
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
