//! Wheels -> the tree of one layer.

use std::sync::Arc;

use super::compile;
use super::tree::{Content, EntryData, Kind, Node, Tree};
use crate::bytecode::{Compiler, PythonSource};
use crate::exclude::Exclude;
use crate::lock::Wheel;
use crate::wheel::{Archive, install};
use crate::{Digest, Result, python};

/// The tree and the wheels that its contents are in.
pub(super) struct Installed {
    pub(super) tree: Tree,
    wheels: Vec<Opened>,
}

struct Opened {
    file: Arc<str>,
    archive: Archive,
    /// By entry number: what RECORD promises.
    sha256: Vec<Option<Digest>>,
}

impl Installed {
    /// What a node's content stands for.
    pub(super) fn entry(&self, archive: usize, entry: usize) -> EntryData<'_> {
        let wheel = &self.wheels[archive];
        EntryData { form: wheel.archive.form(&wheel.archive.entries()[entry]), sha256: wheel.sha256[entry] }
    }

    fn content(&self, archive: usize, entry: usize) -> Result<Vec<u8>> {
        let wheel = &self.wheels[archive];
        wheel.archive.content(&wheel.file, &wheel.archive.entries()[entry])
    }
}

/// Checks and merges the wheels, and compiles their sources.
pub(super) fn install(
    wheels: Vec<(Wheel, Vec<u8>)>,
    exclude: &Exclude,
    compiler: Option<&(dyn Compiler + Sync)>,
) -> Result<Installed> {
    let mut installed = Installed { tree: Tree::default(), wheels: Vec::with_capacity(wheels.len()) };
    for (number, (wheel, bytes)) in wheels.into_iter().enumerate() {
        let archive = Archive::open(&wheel.file, bytes)?;
        let file: Arc<str> = wheel.file.as_str().into();
        let mut sha256 = vec![None; archive.entries().len()];
        let files = install::files(&wheel, &archive, exclude)?;
        for file in &files {
            if let install::Source::Entry(entry, digest) = &file.source {
                sha256[*entry] = Some(*digest);
            }
        }
        installed.wheels.push(Opened { file: file.clone(), archive, sha256 });
        let mut tree = std::mem::take(&mut installed.tree);
        for found in files {
            let content = match found.source {
                install::Source::Entry(entry, _) => Content::Entry { archive: number, entry },
                install::Source::Made(bytes) => Content::Plain(bytes),
            };
            let mode = if found.executable { 0o755 } else { 0o644 };
            let node = Node { mode, id: 0, package: file.clone(), kind: Kind::File(content) };
            tree.add(&found.path, node, |present, node| is_same(&installed, present, node))?;
        }
        installed.tree = tree;
    }
    if let Some(compiler) = compiler {
        for number in 0..installed.wheels.len() {
            let compiled = compile_wheel(&installed, number, compiler)?;
            for (path, node) in compiled {
                installed.tree.add_new(&path, node)?;
            }
        }
    }
    Ok(installed)
}

/// Whether two files are one, byte for byte. It is executable if it is in either.
fn is_same(installed: &Installed, present: &mut Node, node: &Node) -> Result<bool> {
    let content = |node: &Node| match &node.kind {
        Kind::File(Content::Plain(bytes)) => Ok(Some(bytes.clone())),
        Kind::File(Content::Entry { archive, entry }) => installed.content(*archive, *entry).map(Some),
        _ => Ok(None),
    };
    let same = match (content(present)?, content(node)?) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    };
    present.mode |= node.mode;
    Ok(same)
}

/// Compiles the sources that this wheel brought into the tree.
fn compile_wheel(
    installed: &Installed,
    number: usize,
    compiler: &(dyn Compiler + Sync),
) -> Result<Vec<(String, Node)>> {
    let mut sources = Vec::new();
    for (path, node) in installed.tree.iter() {
        let Kind::File(Content::Entry { archive, entry }) = &node.kind else { continue };
        if *archive == number && path.starts_with(python::SITE_PACKAGES) && path.ends_with(".py") {
            sources.push((path, installed.content(*archive, *entry)?));
        }
    }
    let sources: Vec<_> = sources.iter().map(|(path, content)| PythonSource { path, content }).collect();
    compile(&installed.wheels[number].file, &sources, compiler)
}
