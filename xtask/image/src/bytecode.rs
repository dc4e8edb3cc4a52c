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

/// The key of a package's sources.
pub(crate) fn key(sources: &[PythonSource<'_>]) -> Digest {
    let mut text = String::new();
    for source in sources {
        // The length keeps two lists from giving one text.
        text.push_str(&format!("{} {} {}\n", source.path.len(), source.path, Digest::of(source.content)));
    }
    Digest::of(text)
}
