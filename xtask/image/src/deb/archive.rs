//! A .deb: an ar archive of two compressed tars (deb(5)).

use std::io::{Cursor, Read};

use crate::layer::tree::Kind;
use crate::{Error, Result, path};

/// The most that a package may unpack to, in bytes.
const LARGEST: u64 = 2 << 30;
/// How many times its own size a package may unpack to, once that is more than [`BOMB_FROM`].
const MOST_EXPANSION: u64 = 100;
/// Below this, a small package of zeros is no harm.
const BOMB_FROM: u64 = 64 << 20;
/// The most entries of a package.
const MOST_ENTRIES: usize = 200_000;

/// A package's description and files.
pub(super) struct Deb {
    /// The text of the file `control`.
    pub(super) control: String,
    pub(super) entries: Vec<Entry>,
}

/// One entry of the package's data.
pub(super) struct Entry {
    /// Relative to the root.
    pub(super) path: String,
    pub(super) mode: u32,
    pub(super) kind: Data,
}

pub(super) enum Data {
    Dir,
    File(Vec<u8>),
    /// The target as the package has it.
    Symlink(String),
    /// The path of another file of the package.
    Hardlink(String),
}

impl Deb {
    /// Reads a package; files that `keep` does not want are not held in memory.
    pub(super) fn read(subject: &str, bytes: &[u8], keep: impl Fn(&str) -> bool) -> Result<Self> {
        read(bytes, keep).map_err(|problem| Error::refused(subject, problem))
    }
}

fn read(bytes: &[u8], keep: impl Fn(&str) -> bool) -> Result<Deb, String> {
    let broken = |error: std::io::Error| format!("not a Debian package: {error}");
    let mut archive = ar::Archive::new(Cursor::new(bytes));
    let (mut control, mut entries) = (None, None);
    let mut members = 0;
    while let Some(member) = archive.next_entry() {
        let mut member = member.map_err(broken)?;
        let name = String::from_utf8_lossy(member.header().identifier()).trim_end_matches('/').to_owned();
        members += 1;
        match name.as_str() {
            "debian-binary" => {
                let mut version = String::new();
                (&mut member).take(16).read_to_string(&mut version).map_err(broken)?;
                if members != 1 || !version.starts_with("2.") {
                    return Err(format!("its format {version:?} is not 2"));
                }
            }
            _ if members == 1 => return Err("does not begin with debian-binary".to_owned()),
            name if name.starts_with("control.tar") => {
                let once = control.replace(read_control(name, &mut member, bytes.len())?).is_none();
                once.then_some(()).ok_or_else(|| format!("{name}: twice"))?;
            }
            name if name.starts_with("data.tar") => {
                let once = entries.replace(read_data(name, &mut member, bytes.len(), &keep)?).is_none();
                once.then_some(()).ok_or_else(|| format!("{name}: twice"))?;
            }
            // deb(5): members whose names begin with an underscore are to be ignored.
            name if name.starts_with('_') => {}
            name => return Err(format!("{name}: an unknown member")),
        }
    }
    Ok(Deb { control: control.ok_or("has no control.tar")?, entries: entries.ok_or("has no data.tar")? })
}

/// Decompresses by the member's suffix.
fn decompressed<'a>(name: &str, member: impl Read + 'a, packed: usize) -> Result<Box<dyn Read + 'a>, String> {
    let broken = |error: std::io::Error| format!("{name}: {error}");
    let reader: Box<dyn Read + 'a> = match name.rsplit_once(".tar").map(|(_, suffix)| suffix) {
        Some("") => Box::new(member),
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(member)),
        Some(".xz") => Box::new(liblzma::read::XzDecoder::new_multi_decoder(member)),
        Some(".zst") => Box::new(zstd::stream::read::Decoder::new(member).map_err(broken)?),
        _ => return Err(format!("{name}: an unknown compression")),
    };
    let limit = (packed as u64).saturating_mul(MOST_EXPANSION).clamp(BOMB_FROM, LARGEST);
    Ok(Box::new(Limited { reader, left: limit }))
}

/// Fails, instead of ending as `Take` does, when more than so many bytes come.
struct Limited<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| std::io::Error::other("unpacks to far more than its size: a decompression bomb"))?;
        Ok(read)
    }
}

fn read_control(name: &str, member: impl Read, packed: usize) -> Result<String, String> {
    let broken = |error: std::io::Error| format!("{name}: {error}");
    let mut archive = tar::Archive::new(decompressed(name, member, packed)?);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if matches!(&*entry.path_bytes(), b"./control" | b"control") {
            let mut text = String::new();
            (&mut entry).take(1 << 20).read_to_string(&mut text).map_err(broken)?;
            return Ok(text);
        }
    }
    Err(format!("{name}: has no file control"))
}

fn read_data(name: &str, member: impl Read, packed: usize, keep: impl Fn(&str) -> bool) -> Result<Vec<Entry>, String> {
    let broken = |error: std::io::Error| format!("{name}: {error}");
    let mut archive = tar::Archive::new(decompressed(name, member, packed)?);
    let mut entries = Vec::new();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let raw = String::from_utf8(entry.path_bytes().into_owned())
            .map_err(|error| format!("{:?}: a name that is not UTF-8", String::from_utf8_lossy(error.as_bytes())))?;
        let relative = raw.strip_prefix("./").unwrap_or(&raw);
        let is_dir = entry.header().entry_type().is_dir();
        let relative = if is_dir { relative.strip_suffix('/').unwrap_or(relative) } else { relative };
        if is_dir && matches!(relative, "" | ".") {
            continue;
        }
        path::check(relative).map_err(|problem| format!("{raw}: {problem}"))?;
        let link = |entry: &tar::Entry<'_, _>| -> Result<String, String> {
            let target = entry.link_name_bytes().ok_or_else(|| format!("{raw}: a link to nowhere"))?;
            String::from_utf8(target.into_owned()).map_err(|_| format!("{raw}: a link that is not UTF-8"))
        };
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => Data::Dir,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                if !keep(relative) {
                    continue;
                }
                // Not by the header's size: a hostile one would reserve all memory.
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(|error| format!("{raw}: {error}"))?;
                Data::File(content)
            }
            tar::EntryType::Symlink => Data::Symlink(link(&entry)?),
            tar::EntryType::Link => {
                let target = link(&entry)?;
                let target = target.strip_prefix("./").unwrap_or(&target);
                path::check(target).map_err(|problem| format!("{raw}: a link to {target:?}: {problem}"))?;
                Data::Hardlink(target.to_owned())
            }
            tar::EntryType::Char | tar::EntryType::Block => return Err(format!("{raw}: a device node")),
            other => return Err(format!("{raw}: an entry of the kind {other:?}")),
        };
        if !keep(relative) && !matches!(kind, Data::Dir) {
            continue;
        }
        if entries.len() == MOST_ENTRIES {
            return Err(format!("more than {MOST_ENTRIES} entries"));
        }
        let mode = entry.header().mode().map_err(|error| format!("{raw}: {error}"))?;
        entries.push(Entry { path: relative.to_owned(), mode, kind });
    }
    Ok(entries)
}

impl Data {
    /// As a layer holds it, if it is not a hard link; `link` makes the target of a symbolic one.
    pub(super) fn into_kind(self, link: impl FnOnce(String) -> Result<String>) -> Result<Option<Kind>> {
        Ok(match self {
            Self::Dir => Some(Kind::Dir),
            Self::File(content) => Some(Kind::File(crate::layer::tree::Content::Plain(content))),
            Self::Symlink(target) => Some(Kind::Symlink(link(target)?)),
            Self::Hardlink(_) => None,
        })
    }
}
