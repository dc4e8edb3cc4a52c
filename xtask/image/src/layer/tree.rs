//! The files of one layer, and the rules that hold for them whatever they come from.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::deflate::{Deflated, Fault};
use super::{codec::Blob, tar};
use crate::lock::LayerInfo;
use crate::{Digest, Error, Result, path};

/// What is in a layer, by path. A parent always comes before its children.
#[derive(Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Lower-case path -> path.
    folded: HashMap<String, String>,
}

/// One entry.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    /// Both user and group.
    pub(crate) id: u32,
    /// The package that it comes from, for errors.
    pub(crate) package: Arc<str>,
    pub(crate) kind: Kind,
}

#[derive(Clone)]
pub(crate) enum Kind {
    Dir,
    File(Content),
    Symlink(String),
}

/// Where a file's bytes are.
#[derive(Clone)]
pub(crate) enum Content {
    /// Here.
    Plain(Vec<u8>),
    /// In an archive that the writer has: archive and entry number.
    Entry { archive: usize, entry: usize },
}

impl Tree {
    /// Adds an entry and its parents. The path must have been checked. An entry that is there
    /// already is handed to `merge`, which says whether the two are one.
    pub(crate) fn add(
        &mut self,
        path: &str,
        node: Node,
        merge: impl FnOnce(&mut Node, &Node) -> Result<bool>,
    ) -> Result<()> {
        for parent in path::parents(path) {
            if !self.nodes.contains_key(parent) {
                self.insert(parent, Node { mode: 0o755, id: 0, kind: Kind::Dir, package: node.package.clone() })?;
            } else if let Some(other) = self.nodes.get(parent).filter(|other| !matches!(other.kind, Kind::Dir)) {
                let problem = format_args!("{path}: {parent} is not a folder in {}", other.package);
                return Err(Error::refused(&node.package, problem));
            }
        }
        let Some(present) = self.nodes.get_mut(path) else { return self.insert(path, node) };
        let same = match (&present.kind, &node.kind) {
            (Kind::Dir, Kind::Dir) => true,
            (Kind::Symlink(one), Kind::Symlink(other)) => one == other,
            (Kind::File(_), Kind::File(_)) => merge(present, &node)?,
            _ => false,
        };
        if same {
            return Ok(());
        }
        let problem = format_args!("{path}: differs from the one in {}", present.package);
        Err(Error::refused(&node.package, problem))
    }

    /// Adds what no other package may have.
    pub(crate) fn add_new(&mut self, path: &str, node: Node) -> Result<()> {
        self.add(path, node, |_, _| Ok(false))
    }

    /// Adds an entry, or replaces one of the same kind.
    pub(crate) fn set(&mut self, path: &str, node: Node) -> Result<()> {
        match self.nodes.get_mut(path) {
            Some(present) if std::mem::discriminant(&present.kind) == std::mem::discriminant(&node.kind) => {
                *present = node;
                Ok(())
            }
            _ => self.add_new(path, node),
        }
    }

    fn insert(&mut self, path: &str, node: Node) -> Result<()> {
        let folded = path.to_lowercase();
        if let Some(other) = self.folded.get(&folded) {
            let package = self.nodes.get(other).map_or("", |node| &node.package);
            let problem = format_args!("{path}: differs only in case from {other} of {package}");
            return Err(Error::refused(&node.package, problem));
        }
        self.folded.insert(folded, path.to_owned());
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    /// All entries, sorted by path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// One entry.
    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Writes the tree as a tar into `blob`: sorted by path, bytecode behind everything else because
    /// it compresses best among its like. `entry` gives what [`Content::Entry`] stands for.
    pub(super) fn write<'a>(
        &self,
        mut blob: Blob<'_>,
        entry: impl Fn(usize, usize) -> EntryData<'a>,
    ) -> Result<LayerInfo> {
        let (bytecode, others): (Vec<_>, Vec<_>) = self.iter().partition(|(path, _)| path.ends_with(".pyc"));
        for (path, node) in others.into_iter().chain(bytecode) {
            let named = |fault: Fault| match fault {
                Fault::Bad(problem) => Error::refused(&node.package, format_args!("{path}: {problem}")),
                Fault::Io(error) => Error::io("cannot write the layer", error),
            };
            write_node(&mut blob, path, node, &entry).map_err(named)?;
        }
        blob.plain(&tar::END).and_then(|()| blob.finish()).map_err(|error| Error::io("cannot write the layer", error))
    }
}

/// An archive's entry as it is in the archive.
pub(crate) struct EntryData<'a> {
    pub(crate) form: Form<'a>,
    /// What the archive's own index of hashes says.
    pub(crate) sha256: Option<Digest>,
}

pub(crate) enum Form<'a> {
    Stored { data: &'a [u8], crc32: u32 },
    Deflated(Deflated<'a>),
}

impl Form<'_> {
    /// The size of the content.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Form::Stored { data, .. } => data.len() as u64,
            Form::Deflated(file) => file.size,
        }
    }
}

fn write_node<'a>(
    blob: &mut Blob<'_>,
    path: &str,
    node: &Node,
    entry: impl Fn(usize, usize) -> EntryData<'a>,
) -> std::result::Result<(), Fault> {
    let mut header =
        |entry: tar::Entry<'_>| -> io::Result<()> { blob.plain(&tar::header(path, &entry, node.mode, node.id)) };
    let size = match &node.kind {
        Kind::Dir => {
            header(tar::Entry::Dir)?;
            0
        }
        Kind::Symlink(target) => {
            header(tar::Entry::Symlink { target })?;
            0
        }
        Kind::File(Content::Plain(bytes)) => {
            header(tar::Entry::File { size: bytes.len() as u64 })?;
            blob.plain(bytes)?;
            bytes.len() as u64
        }
        Kind::File(Content::Entry { archive, entry: number }) => {
            let entry = entry(*archive, *number);
            let size = entry.form.size();
            header(tar::Entry::File { size })?;
            let mut hash = entry.sha256.map(|expected| (expected, crate::HashWriter::new(io::sink())));
            let mut seen = |bytes: &[u8]| {
                if let Some((_, hash)) = &mut hash {
                    // A sink takes everything.
                    let _ = io::Write::write_all(hash, bytes);
                }
            };
            match &entry.form {
                Form::Deflated(file) => blob.deflated(file, &mut seen)?,
                Form::Stored { data, crc32 } => {
                    seen(data);
                    if crc32fast::hash(data) != *crc32 {
                        return Err(Fault::Bad("its CRC-32 does not match".to_owned()));
                    }
                    blob.plain(data)?;
                }
            }
            if let Some((expected, hash)) = hash
                && hash.finish().0 != expected
            {
                return Err(Fault::Bad("its SHA-256 is not the one in RECORD".to_owned()));
            }
            size
        }
    };
    Ok(blob.plain(&[0; tar::BLOCK][..tar::padding(size)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(package: &str, kind: Kind) -> Node {
        Node { mode: 0o644, id: 0, package: package.into(), kind }
    }

    fn file(package: &str) -> Node {
        node(package, Kind::File(Content::Plain(Vec::new())))
    }

    #[test]
    fn what_two_packages_may_not_do() {
        let check = |path: &str, second: Node, expected: &str| {
            let mut tree = Tree::default();
            tree.add_new("a/file", file("one")).unwrap();
            tree.add_new("a/link", node("one", Kind::Symlink("file".to_owned()))).unwrap();
            match tree.add_new(path, second) {
                Ok(()) => assert_eq!(expected, ""),
                Err(error) => assert_eq!(error.to_string(), expected),
            }
        };
        check("a/other", file("two"), "");
        check("a", node("two", Kind::Dir), "");
        check("a/link", node("two", Kind::Symlink("file".to_owned())), "");
        check("a/file", file("two"), "two: a/file: differs from the one in one");
        check("a", file("two"), "two: a: differs from the one in one");
        check("a/FILE", file("two"), "two: a/FILE: differs only in case from a/file of one");
        check("A/other", file("two"), "two: A: differs only in case from a of one");
        check("a/link/x", file("two"), "two: a/link/x: a/link is not a folder in one");
        check("a/file/x", file("two"), "two: a/file/x: a/file is not a folder in one");
        check("a/link", node("two", Kind::Symlink("x".to_owned())), "two: a/link: differs from the one in one");
    }
}
