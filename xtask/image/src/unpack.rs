//! The layers of an image -> a root folder (OCI image-spec, layer.md).
//!
//! A layer is input from elsewhere: whatever its entries say, nothing outside of the root folder
//! is read, written, linked to or removed. Symbolic links are kept as text; where a path leads
//! through one, it is resolved as if the root folder were `/`. Device nodes and pipes are left
//! out, setuid and setgid bits are dropped. The caller gives an empty folder that nobody else
//! writes to, and throws it away when this fails.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use tar::EntryType;

use crate::{Digest, Error, HashWriter, Result};

/// The prefix of names that hide a file of a lower layer (layer.md, "Whiteouts").
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// Hides everything that lower layers have in its folder (layer.md, "Opaque Whiteout").
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Symbolic links followed in one path before it counts as a loop, as in Linux (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// One layer of an image, lowest first.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The blob: a tar, plain or compressed with gzip (any number of members) or zstd.
    pub blob: PathBuf,
    /// The blob's digest, verified while it is read.
    pub digest: Digest,
    /// The digest of the tar inside, verified too.
    pub diff_id: Digest,
}

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Give files the owners that the layers name; only root can.
    pub owners: bool,
    /// Refuse an image that unpacks to more bytes.
    pub max_bytes: u64,
    /// Refuse an image with more entries.
    pub max_entries: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { owners: false, max_bytes: 64 << 30, max_entries: 4 << 20 }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries of all layers.
    pub entries: u64,
    /// Bytes of file content written.
    pub bytes: u64,
    /// Device nodes and pipes that were left out.
    pub skipped: u64,
}

/// Applies `layers` in order to the empty folder `root`.
pub fn unpack(layers: &[Layer], root: &Path, options: &Options) -> Result<Stats> {
    let mut tree = Tree {
        root: root.to_path_buf(),
        options: *options,
        stats: Stats::default(),
        dirs: BTreeMap::new(),
        parent: None,
    };
    for layer in layers {
        tree.apply(layer)?;
    }
    tree.finish()?;
    Ok(tree.stats)
}

/// Removes a folder that [`unpack`] made, also when it holds folders that deny writing.
pub fn remove(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            make_writable(root)?;
            fs::remove_dir_all(root)
        }
        result => result,
    }
}

fn make_writable(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// The root folder while layers are applied. Paths are relative to it and free of links.
struct Tree {
    root: PathBuf,
    options: Options,
    stats: Stats,
    /// Modes and owners that folders get when all layers are in: until then all are writable.
    dirs: BTreeMap<PathBuf, (u32, Owner)>,
    /// The last parent that was resolved; most entries follow one of the same folder.
    parent: Option<(Vec<OsString>, PathBuf)>,
}

type Owner = Option<(u32, u32)>;

impl Tree {
    fn apply(&mut self, layer: &Layer) -> Result<()> {
        let subject = format!("layer {}", layer.digest.short());
        let file = File::open(&layer.blob).map_err(|error| Error::io(&subject, error))?;
        let mut blob = BufReader::with_capacity(1 << 18, HashReader::new(file));
        let mut tar = decompress(&mut blob).map_err(|error| unreadable(&subject, error))?;
        let mut archive = tar::Archive::new(HashReader::new(&mut tar));
        let mut own = HashSet::new();
        for entry in archive.entries().map_err(|error| unreadable(&subject, error))? {
            let mut entry = entry.map_err(|error| unreadable(&subject, error))?;
            self.stats.entries += 1;
            if self.stats.entries > self.options.max_entries {
                return Err(Error::refused(&subject, format_args!("more than {} entries", self.options.max_entries)));
            }
            let subject = format!("{subject}: {}", String::from_utf8_lossy(&entry.path_bytes()));
            self.entry(&subject, &mut entry, &mut own)?;
        }
        let mut tar_hash = archive.into_inner();
        io::copy(&mut tar_hash, &mut io::sink()).map_err(|error| unreadable(&subject, error))?;
        let diff_id = tar_hash.finish();
        drop(tar);
        io::copy(&mut blob, &mut io::sink()).map_err(|error| unreadable(&subject, error))?;
        let digest = blob.into_inner().finish();
        for (what, expected, found) in [("digest", layer.digest, digest), ("diff_id", layer.diff_id, diff_id)] {
            if expected != found {
                return Err(Error::refused(&subject, format_args!("its {what} is {found}, not {expected}")));
            }
        }
        Ok(())
    }

    fn entry<R: Read>(
        &mut self,
        subject: &str,
        entry: &mut tar::Entry<'_, R>,
        own: &mut HashSet<PathBuf>,
    ) -> Result<()> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let parts = components(subject, &entry.path_bytes())?;
        let header = entry.header();
        let mode = header.mode().map_err(|error| unreadable(subject, error))?;
        let owner = match self.options.owners {
            true => Some((number(subject, header.uid())?, number(subject, header.gid())?)),
            false => None,
        };
        let Some((name, parents)) = parts.split_last() else {
            if kind == EntryType::Directory {
                self.dirs.insert(PathBuf::new(), (mode, owner));
                return Ok(());
            }
            return Err(Error::refused(subject, "replaces the root folder"));
        };
        let parent = self.parent(subject, parents)?;
        if name.as_bytes().starts_with(WHITEOUT) {
            return self.whiteout(subject, &parent, name, own);
        }
        let path = parent.join(name);
        match kind {
            EntryType::Directory => self.make_dir(subject, &path, mode, owner)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_room(subject, &path)?;
                self.write_file(subject, &path, entry, mode, owner)?;
            }
            EntryType::Symlink => {
                let target = link_target(subject, entry)?;
                self.make_room(subject, &path)?;
                let full = self.root.join(&path);
                std::os::unix::fs::symlink(&target, &full).map_err(|error| Error::io(subject, error))?;
                if let Some((uid, gid)) = owner {
                    std::os::unix::fs::lchown(&full, Some(uid), Some(gid))
                        .map_err(|error| Error::io(subject, error))?;
                }
                self.parent = None;
            }
            EntryType::Link => {
                let target = components(subject, link_target(subject, entry)?.as_os_str().as_bytes())?;
                self.hard_link(subject, &target, &path)?;
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.stats.skipped += 1;
                return Ok(());
            }
            other => {
                return Err(Error::refused(subject, format_args!("unknown tar entry type {:?}", other.as_byte())));
            }
        }
        own.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn make_dir(&mut self, subject: &str, path: &Path, mode: u32, owner: Owner) -> Result<()> {
        match self.look(subject, path)? {
            Some(meta) if meta.is_dir() => {}
            found => {
                if found.is_some() {
                    self.remove(subject, path)?;
                }
                fs::create_dir(self.root.join(path)).map_err(|error| Error::io(subject, error))?;
            }
        }
        self.dirs.insert(path.to_path_buf(), (mode, owner));
        Ok(())
    }

    fn write_file(
        &mut self,
        subject: &str,
        path: &Path,
        entry: &mut tar::Entry<'_, impl Read>,
        mode: u32,
        owner: Owner,
    ) -> Result<()> {
        let mtime = entry.header().mtime().map_err(|error| unreadable(subject, error))?;
        let on_disk = |error| Error::io(subject, error);
        let mut file =
            File::options().write(true).create_new(true).mode(0o600).open(self.root.join(path)).map_err(on_disk)?;
        let mut buffer = [0; 1 << 16];
        loop {
            let n = entry.read(&mut buffer).map_err(|error| unreadable(subject, error))?;
            if n == 0 {
                break;
            }
            self.stats.bytes += n as u64;
            if self.stats.bytes > self.options.max_bytes {
                return Err(Error::refused(
                    subject,
                    format_args!("the image unpacks to more than {} bytes", self.options.max_bytes),
                ));
            }
            file.write_all(&buffer[..n]).map_err(on_disk)?;
        }
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(on_disk)?;
        }
        file.set_permissions(fs::Permissions::from_mode(mode & 0o777)).map_err(on_disk)?;
        if let Some(time) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(mtime)) {
            // A time that the file system cannot store is no reason to refuse the file.
            let _ = file.set_modified(time);
        }
        Ok(())
    }

    fn hard_link(&mut self, subject: &str, target: &[OsString], path: &Path) -> Result<()> {
        let missing = || Error::refused(subject, "hard link to a file that is not in the image");
        let (name, parents) = target.split_last().ok_or_else(missing)?;
        let source = self.walk(subject, parents, false)?.ok_or_else(missing)?.join(name);
        if source == path {
            return Err(Error::refused(subject, "hard link to itself"));
        }
        match self.look(subject, &source)? {
            Some(meta) if meta.is_file() || meta.is_symlink() => {}
            Some(_) => return Err(Error::refused(subject, "hard link to a folder")),
            None => return Err(missing()),
        }
        if source.starts_with(path) {
            return Err(Error::refused(subject, "hard link that replaces its own target"));
        }
        self.make_room(subject, path)?;
        fs::hard_link(self.root.join(&source), self.root.join(path)).map_err(|error| Error::io(subject, error))?;
        self.parent = None;
        Ok(())
    }

    fn whiteout(&mut self, subject: &str, parent: &Path, name: &OsStr, own: &HashSet<PathBuf>) -> Result<()> {
        self.parent = None;
        if name.as_bytes() == OPAQUE {
            for child in self.children(subject, parent)? {
                self.hide(subject, &child, own)?;
            }
            return Ok(());
        }
        if name.as_bytes().starts_with(b".wh..wh.") {
            // What aufs kept for itself.
            return Ok(());
        }
        let hidden = &name.as_bytes()[WHITEOUT.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(Error::refused(subject, "whiteout of no file"));
        }
        self.hide(subject, &parent.join(OsStr::from_bytes(hidden)), own)
    }

    /// Removes what lower layers have at `path`, but not what this layer (`own`) put there.
    fn hide(&mut self, subject: &str, path: &Path, own: &HashSet<PathBuf>) -> Result<()> {
        let Some(meta) = self.look(subject, path)? else { return Ok(()) };
        if !own.contains(path) {
            return self.remove(subject, path);
        }
        if meta.is_dir() {
            for child in self.children(subject, path)? {
                self.hide(subject, &child, own)?;
            }
        }
        Ok(())
    }

    fn children(&self, subject: &str, path: &Path) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.root.join(path)).and_then(|dir| dir.collect::<io::Result<Vec<_>>>());
        let entries = entries.map_err(|error| Error::io(subject, error))?;
        Ok(entries.into_iter().map(|entry| path.join(entry.file_name())).collect())
    }

    fn make_room(&mut self, subject: &str, path: &Path) -> Result<()> {
        match self.look(subject, path)? {
            Some(_) => self.remove(subject, path),
            None => Ok(()),
        }
    }

    fn remove(&mut self, subject: &str, path: &Path) -> Result<()> {
        self.parent = None;
        let full = self.root.join(path);
        let removed = match self.look(subject, path)? {
            Some(meta) if meta.is_dir() => fs::remove_dir_all(full),
            Some(_) => fs::remove_file(full),
            None => Ok(()),
        };
        // A folder that is gone must not get its mode later: a link may stand there by then.
        self.dirs.retain(|dir, _| !dir.starts_with(path));
        removed.map_err(|error| Error::io(subject, error))
    }

    fn look(&self, subject: &str, path: &Path) -> Result<Option<Metadata>> {
        match fs::symlink_metadata(self.root.join(path)) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(subject, error)),
        }
    }

    /// The folder that `parts` leads to, made if it is missing.
    fn parent(&mut self, subject: &str, parts: &[OsString]) -> Result<PathBuf> {
        if let Some((known, path)) = &self.parent
            && known == parts
        {
            return Ok(path.clone());
        }
        let path = self.walk(subject, parts, true)?.unwrap_or_default();
        self.parent = Some((parts.to_vec(), path.clone()));
        Ok(path)
    }

    /// Resolves folders one by one as if the root folder were `/`: links restart at it when they
    /// are absolute, and `..` stops at it.
    fn walk(&mut self, subject: &str, parts: &[OsString], create: bool) -> Result<Option<PathBuf>> {
        let mut todo: VecDeque<OsString> = parts.iter().cloned().collect();
        let mut path = PathBuf::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                path.pop();
                continue;
            }
            let next = path.join(&part);
            match self.look(subject, &next)? {
                Some(meta) if meta.is_dir() => path = next,
                Some(meta) if meta.is_symlink() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Error::refused(subject, "its folder is a loop of symbolic links"));
                    }
                    let target = fs::read_link(self.root.join(&next)).map_err(|error| Error::io(subject, error))?;
                    if target.is_absolute() {
                        path = PathBuf::new();
                    }
                    for component in target.components().rev() {
                        match component {
                            Component::Normal(name) => todo.push_front(name.to_owned()),
                            Component::ParentDir => todo.push_front("..".into()),
                            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
                        }
                    }
                }
                Some(_) => return Err(Error::refused(subject, "its folder is a file")),
                None if create => {
                    fs::create_dir(self.root.join(&next)).map_err(|error| Error::io(subject, error))?;
                    let owner = self.options.owners.then_some((0, 0));
                    self.dirs.insert(next.clone(), (0o755, owner));
                    path = next;
                }
                None => return Ok(None),
            }
        }
        Ok(Some(path))
    }

    fn finish(&self) -> Result<()> {
        // Deepest first: a folder that loses its write or search bit needs no more visits.
        for (path, (mode, owner)) in self.dirs.iter().rev() {
            let full = self.root.join(path);
            let set = || {
                if let Some((uid, gid)) = owner {
                    std::os::unix::fs::lchown(&full, Some(*uid), Some(*gid))?;
                }
                fs::set_permissions(&full, fs::Permissions::from_mode(mode & 0o1777))
            };
            set().map_err(|error| Error::io(path.display(), error))?;
        }
        Ok(())
    }
}

fn components(subject: &str, path: &[u8]) -> Result<Vec<OsString>> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            return Err(Error::refused(subject, "its path leaves the root with \"..\""));
        }
        if part.contains(&0) {
            return Err(Error::refused(subject, "its path holds a NUL byte"));
        }
        parts.push(OsString::from_vec(part.to_vec()));
    }
    Ok(parts)
}

fn link_target(subject: &str, entry: &tar::Entry<'_, impl Read>) -> Result<PathBuf> {
    match entry.link_name_bytes() {
        Some(target) if !target.is_empty() && !target.contains(&0) => Ok(OsStr::from_bytes(&target).into()),
        _ => Err(Error::refused(subject, "a link without a target")),
    }
}

fn number(subject: &str, value: io::Result<u64>) -> Result<u32> {
    let value = value.map_err(|error| unreadable(subject, error))?;
    u32::try_from(value).map_err(|_| Error::refused(subject, format_args!("owner {value} is out of range")))
}

/// An error while reading a layer: what the operating system says is this machine's, all else the layer's.
pub(crate) fn unreadable(subject: &str, error: io::Error) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io(subject, error);
    }
    Error::refused(subject, format_args!("not a valid layer: {error}"))
}

/// By content, as container engines do: media types are not always right.
pub(crate) fn decompress<'a, R: io::BufRead>(blob: &'a mut R) -> io::Result<Box<dyn Read + 'a>> {
    let start = blob.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(blob)?),
        _ => Box::new(blob),
    })
}

/// Hashes what is read through it.
pub(crate) struct HashReader<R> {
    inner: R,
    hash: HashWriter<io::Sink>,
}

impl<R: Read> HashReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, hash: HashWriter::new(io::sink()) }
    }

    pub(crate) fn finish(self) -> Digest {
        self.hash.finish().0
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.write_all(&buf[..n])?;
        Ok(n)
    }
}

#[cfg(test)]
mod tests;
