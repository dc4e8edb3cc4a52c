//! An unpacked image as a list of everything that the image decides.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mlflow_image::Digest;

/// Path -> type, mode, owner, and a file's time, size and content or a link's target.
///
/// Left out is what readers may choose: the root folder itself, the times of folders and links.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads the tree below `root`.
    pub fn read(root: &Path) -> Self {
        let mut entries = BTreeMap::new();
        read(root, "", &mut entries);
        Self(entries)
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// A digest over all of it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.iter().map(|(path, what)| format!("{path} {what}\n")).collect::<String>())
    }

    /// Panics with the first differences.
    pub fn assert_same(&self, name: &str, other: &Self, other_name: &str) {
        if self == other {
            return;
        }
        let paths = self.0.keys().chain(other.0.keys()).collect::<std::collections::BTreeSet<_>>();
        let differing = paths.into_iter().filter(|path| self.0.get(*path) != other.0.get(*path));
        let shown: Vec<_> =
            differing.take(10).map(|path| format!("{path}: {:?}, {:?}", self.0.get(path), other.0.get(path))).collect();
        panic!("{name} ({}) and {other_name} ({}) differ:\n{}", self.len(), other.len(), shown.join("\n"));
    }
}

fn read(dir: &Path, prefix: &str, entries: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.expect("an entry");
        let path = entry.path();
        let name = format!("{prefix}/{}", entry.file_name().to_str().expect("a UTF-8 name"));
        let meta = fs::symlink_metadata(&path).expect("metadata");
        let what = if meta.is_symlink() {
            format!("link -> {}", fs::read_link(&path).expect("a target").display())
        } else if meta.is_dir() {
            read(&path, &name, entries);
            "folder".to_owned()
        } else {
            assert!(meta.is_file(), "{name} is neither file, folder nor link");
            let content = Digest::of(fs::read(&path).expect("content"));
            format!("file {} {} {content}", meta.mtime(), meta.len())
        };
        entries.insert(name, format!("{:o} {}:{} {what}", meta.mode() & 0o7777, meta.uid(), meta.gid()));
    }
}
