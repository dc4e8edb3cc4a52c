//! Python bytecode (.pyc) for the files of a layer.

use crate::Result;

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

    /// Compiles `sources`, which belong to one package whose digest is `package`, in one process
    /// and in the order given. Gives the bytes of each .pyc, `None` where a source does not compile
    /// (templates, test data). `package` may serve as a cache key together with `identity`.
    fn compile(&self, package: &crate::Digest, sources: &[PythonSource<'_>]) -> Result<Vec<Option<Vec<u8>>>>;
}
