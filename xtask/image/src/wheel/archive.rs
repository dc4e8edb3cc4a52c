//! A wheel's zip directory, with every check that keeps two readers from seeing two archives.

use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use crate::layer::deflate::{self, Deflated, Fault};
use crate::layer::tree::Form;
use crate::{Error, Result, path};

/// The largest file that a wheel may hold, in bytes.
const LARGEST_FILE: u64 = 2 << 30;
/// The most that all files of a wheel may hold together, in bytes.
const LARGEST_WHEEL: u64 = 8 << 30;
/// How many times its own size a wheel may inflate to, once that is more than [`BOMB_FROM`].
const MOST_EXPANSION: u64 = 100;
/// Below this, a small wheel of zeros is no harm.
const BOMB_FROM: u64 = 64 << 20;
/// The most files that a wheel may hold.
const MOST_FILES: usize = 200_000;

/// APPNOTE.TXT, section 4.4.4: general purpose bits.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const DATA_DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

/// A wheel in memory and the files in it.
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One file of the zip; folders are left out.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) executable: bool,
    pub(crate) size: u64,
    crc32: u32,
    stored: bool,
    data: Range<usize>,
}

impl Archive {
    /// Reads the directory; `subject` names the wheel in errors.
    pub(crate) fn open(subject: &str, bytes: Vec<u8>) -> Result<Self> {
        let entries = read(&bytes).map_err(|problem| Error::refused(subject, problem))?;
        Ok(Self { bytes, entries })
    }

    /// The files, in the zip's order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// A file as it lies in the zip.
    pub(crate) fn form(&self, entry: &Entry) -> Form<'_> {
        let data = &self.bytes[entry.data.clone()];
        if entry.stored {
            Form::Stored { data, crc32: entry.crc32 }
        } else {
            Form::Deflated(Deflated { data, crc32: entry.crc32, size: entry.size })
        }
    }

    /// A file's content, checked.
    pub(crate) fn content(&self, subject: &str, entry: &Entry) -> Result<Vec<u8>> {
        let refused = |problem: &str| Error::refused(subject, format_args!("{}: {problem}", entry.path));
        match self.form(entry) {
            Form::Stored { data, crc32 } if crc32fast::hash(data) == crc32 => Ok(data.to_vec()),
            Form::Stored { .. } => Err(refused("its CRC-32 does not match")),
            Form::Deflated(file) => {
                let mut content = Vec::new();
                let done = deflate::inflate(&file, |bytes| {
                    content.extend_from_slice(bytes);
                    Ok(())
                });
                match done {
                    Ok(()) => Ok(content),
                    Err(Fault::Bad(problem)) => Err(refused(&problem)),
                    Err(Fault::Io(error)) => Err(Error::io(subject, error)),
                }
            }
        }
    }
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut zip = ZipArchive::new(Cursor::new(bytes)).map_err(|error| format!("not a zip archive: {error}"))?;
    if zip.len() > MOST_FILES {
        return Err(format!("{} files, more than {MOST_FILES}", zip.len()));
    }
    if zip.offset() != 0 {
        return Err("bytes in front of the zip archive".to_owned());
    }
    let mut entries = Vec::with_capacity(zip.len());
    let mut taken: Vec<(Range<usize>, String)> = Vec::with_capacity(zip.len());
    for number in 0..zip.len() {
        let found = zip.by_index_data(number).map_err(|error| format!("entry {number}: {error}"))?;
        let Ok(name) = std::str::from_utf8(found.name_raw()) else {
            return Err(format!("{:?}: a name that is not UTF-8", String::from_utf8_lossy(found.name_raw())));
        };
        let directory = Directory {
            name,
            header: found.header_start(),
            packed: found.compressed_size(),
            size: found.size(),
            crc32: found.crc32(),
            method: found.compression(),
            mode: found.external_attributes() >> 16,
        };
        let (entry, range) = check(bytes, &directory).map_err(|problem| format!("{name}: {problem}"))?;
        taken.push((range, name.to_owned()));
        entries.extend(entry);
    }
    taken.sort_by_key(|(range, _)| (range.start, range.end));
    if let Some(pair) = taken.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
        return Err(format!("{}: overlaps {} in the zip archive", pair[1].1, pair[0].1));
    }
    let start = zip.central_directory_start();
    if let Some((_, name)) = taken.last().filter(|(range, _)| range.end as u64 > start) {
        return Err(format!("{name}: overlaps the zip archive's directory"));
    }
    let total: u64 = entries.iter().map(|entry| entry.size).sum();
    if total > LARGEST_WHEEL || (total > BOMB_FROM && total / MOST_EXPANSION > bytes.len() as u64) {
        return Err(format!("{} bytes inflate to {total}: a zip bomb", bytes.len()));
    }
    // Duplicate names, files that the directory does not list, and what else readers disagree on.
    zip.validate_header_consistency().map_err(|error| match duplicate(bytes) {
        Some(name) => format!("{name}: twice in the zip archive"),
        None => error.to_string(),
    })?;
    Ok(entries)
}

/// What the zip's central directory says of a file (APPNOTE.TXT, section 4.3.12).
struct Directory<'a> {
    name: &'a str,
    header: u64,
    packed: u64,
    size: u64,
    crc32: u32,
    method: CompressionMethod,
    mode: u32,
}

/// Checks a file against its local header (section 4.3.7). Gives the file, if it is not a folder,
/// and the bytes of the archive that it takes.
fn check(bytes: &[u8], directory: &Directory<'_>) -> Result<(Option<Entry>, Range<usize>), String> {
    let Directory { name, .. } = directory;
    let start = usize::try_from(directory.header).unwrap_or(usize::MAX);
    let header = slice(bytes, start, 30)?;
    if header[..4] != *b"PK\x03\x04" {
        return Err("no local header".to_owned());
    }
    let word = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (flags, method) = (word(6), word(8));
    let (name_length, extra_length) = (usize::from(word(26)), usize::from(word(28)));
    if slice(bytes, start + 30, name_length)? != name.as_bytes() {
        return Err("its local header has another name".to_owned());
    }
    if flags & ENCRYPTED != 0 {
        return Err("is encrypted".to_owned());
    }
    if !name.is_ascii() && flags & UTF8 == 0 {
        return Err("its name is neither ASCII nor marked as UTF-8".to_owned());
    }
    let stored = match directory.method {
        CompressionMethod::Stored if method == 0 => true,
        CompressionMethod::Deflated if method == 8 => false,
        CompressionMethod::Stored | CompressionMethod::Deflated => {
            return Err("its local header has another compression".to_owned());
        }
        other => return Err(format!("compressed by an unknown method ({other})")),
    };
    if stored && directory.packed != directory.size {
        return Err("stored, but with two sizes".to_owned());
    }
    let data_start = start + 30 + name_length + extra_length;
    let packed = usize::try_from(directory.packed).map_err(|_| "too large".to_owned())?;
    slice(bytes, data_start, packed)?;
    let data = data_start..data_start + packed;
    let mut end = data.end;
    if flags & DATA_DESCRIPTOR != 0 {
        end += descriptor(&bytes[data.end..], directory).ok_or("its data descriptor does not match")?;
    } else {
        let differs = |local: u32, central: u64| local != u32::MAX && u64::from(local) != central;
        if long(14) != directory.crc32 || differs(long(18), directory.packed) || differs(long(22), directory.size) {
            return Err("its local header has another size or CRC-32".to_owned());
        }
    }
    let range = start..end;
    if let Some(folder) = name.strip_suffix('/') {
        path::check(folder)?;
        if directory.size != 0 {
            return Err("a folder with content".to_owned());
        }
        return Ok((None, range));
    }
    path::check(name)?;
    // S_IFMT; archives made on systems without modes have none.
    match directory.mode & 0o170_000 {
        0 | 0o100_000 => {}
        0o120_000 => return Err("a symbolic link".to_owned()),
        _ => return Err("neither a file nor a folder".to_owned()),
    }
    if directory.size > LARGEST_FILE {
        return Err(format!("inflates to {} bytes, more than {LARGEST_FILE}", directory.size));
    }
    let entry = Entry {
        path: (*name).to_owned(),
        executable: directory.mode & 0o111 != 0,
        size: directory.size,
        crc32: directory.crc32,
        stored,
        data,
    };
    Ok((Some(entry), range))
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8], String> {
    let end = start.checked_add(length).ok_or("too large")?;
    bytes.get(start..end).ok_or_else(|| "lies outside of the zip archive".to_owned())
}

/// The length of the data descriptor at the beginning of `bytes` (section 4.3.9): with or without
/// a signature, with sizes of 4 or 8 bytes. `None`: none of these forms says what the directory says.
fn descriptor(bytes: &[u8], directory: &Directory<'_>) -> Option<usize> {
    let mut forms = Vec::with_capacity(4);
    for signature in [&b"PK\x07\x08"[..], b""] {
        let start = [signature, &directory.crc32.to_le_bytes()].concat();
        forms.push([start.as_slice(), &directory.packed.to_le_bytes(), &directory.size.to_le_bytes()].concat());
        if let (Ok(packed), Ok(size)) = (u32::try_from(directory.packed), u32::try_from(directory.size)) {
            forms.push([start.as_slice(), &packed.to_le_bytes(), &size.to_le_bytes()].concat());
        }
    }
    forms.iter().find(|form| bytes.starts_with(form)).map(Vec::len)
}

/// The first name that the central directory lists twice.
fn duplicate(bytes: &[u8]) -> Option<String> {
    let zip = ZipArchive::new(Cursor::new(bytes)).ok().filter(ZipArchive::has_duplicate_names)?;
    let mut at = usize::try_from(zip.central_directory_start()).ok()?;
    let mut names = std::collections::HashSet::new();
    while let Some(header) = bytes.get(at..at + 46).filter(|header| header.starts_with(b"PK\x01\x02")) {
        let length = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let name = bytes.get(at + 46..at + 46 + length(28))?;
        if !names.insert(name) {
            return Some(String::from_utf8_lossy(name).into_owned());
        }
        at += 46 + length(28) + length(30) + length(32);
    }
    None
}
