//! Tar headers (POSIX.1-2017, pax): ustar where it fits, pax records where it does not.

use tar::{EntryType, Header};

/// The size of a tar block.
pub(super) const BLOCK: usize = 512;

/// What a tar entry is.
pub(super) enum Entry<'a> {
    Dir,
    File { size: u64 },
    Symlink { target: &'a str },
}

/// The blocks that come before an entry's content. Owner and group are numbers only and the
/// modification time is 0, so that the same tree always gives the same bytes.
pub(super) fn header(path: &str, entry: &Entry<'_>, mode: u32, id: u32) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_mode(mode);
    header.set_uid(u64::from(id));
    header.set_gid(u64::from(id));
    header.set_mtime(0);
    let mut pax = Vec::new();
    let path = match entry {
        Entry::Dir => format!("{path}/"),
        _ => path.to_owned(),
    };
    if !path.is_ascii() || header.set_path(&path).is_err() {
        record(&mut pax, "path", &path);
        set_name(&mut header, &path);
    }
    match entry {
        Entry::Dir => header.set_entry_type(EntryType::Directory),
        Entry::File { size } => {
            header.set_entry_type(EntryType::Regular);
            // The octal field of 11 digits; beyond it the number is in the pax record alone.
            if *size < 1 << 33 {
                header.set_size(*size);
            } else {
                record(&mut pax, "size", &size.to_string());
                header.set_size(0);
            }
        }
        Entry::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            if !target.is_ascii() || header.set_link_name_literal(target.as_bytes()).is_err() {
                record(&mut pax, "linkpath", target);
            }
        }
    }
    if !matches!(entry, Entry::File { .. }) {
        header.set_size(0);
    }
    header.set_cksum();
    let mut blocks = Vec::with_capacity(BLOCK);
    if !pax.is_empty() {
        let mut extension = Header::new_ustar();
        extension.set_mode(0o644);
        extension.set_uid(0);
        extension.set_gid(0);
        extension.set_mtime(0);
        extension.set_entry_type(EntryType::XHeader);
        extension.set_size(pax.len() as u64);
        set_name(&mut extension, "pax");
        extension.set_cksum();
        blocks.extend_from_slice(extension.as_bytes());
        let padding = padding(pax.len() as u64);
        blocks.append(&mut pax);
        blocks.resize(blocks.len() + padding, 0);
    }
    blocks.extend_from_slice(header.as_bytes());
    blocks
}

/// How many zero bytes follow a content of `size` bytes.
pub(super) fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// The two zero blocks at the end.
pub(super) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// A name for readers that know no pax: the beginning of the path, in ASCII.
fn set_name(header: &mut Header, path: &str) {
    let name: Vec<u8> = path.chars().map(|c| if c.is_ascii() { c as u8 } else { b'_' }).take(99).collect();
    header.as_mut_bytes()[..100].fill(0);
    header.as_mut_bytes()[..name.len()].copy_from_slice(&name);
}

/// Adds `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(pax: &mut Vec<u8>, key: &str, value: &str) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn check(path: &str, content: &[u8], blocks: usize) {
        let mut bytes = header(path, &Entry::File { size: content.len() as u64 }, 0o644, 0);
        assert_eq!(bytes.len(), blocks * BLOCK, "{path}");
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len() + padding(content.len() as u64), 0);
        bytes.extend_from_slice(&END);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().unwrap();
        let mut entry = entries.next().unwrap().unwrap();
        assert_eq!(entry.path_bytes(), path.as_bytes());
        assert_eq!(entry.header().mtime().unwrap(), 0);
        let mut read = Vec::new();
        entry.read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
        assert!(entries.next().is_none());
    }

    #[test]
    fn every_length_of_a_path_is_read_back() {
        for length in 1..700 {
            let path: String = "abcdefghijklmnopqrstuvwxyz/".chars().cycle().take(length).collect();
            let path = path.trim_end_matches('/');
            let pax = header(path, &Entry::File { size: 1 }, 0o644, 0).len() > BLOCK;
            check(path, b"x", if pax { 3 + usize::from(path.len() > 502) } else { 1 });
            assert!(!pax || path.len() > 100, "{length}: ustar holds a hundred bytes");
        }
    }

    #[test]
    fn a_name_that_ustar_cannot_hold_has_a_pax_record() {
        check("plain", b"", 1);
        check("ü", b"123", 3);
        check(&"n".repeat(101), &[7; 512], 3);
        check(&format!("{}/{}", "d".repeat(150), "f".repeat(99)), b"", 1);
    }

    #[test]
    fn a_pax_length_counts_itself() {
        for length in [1, 80, 88, 89, 90, 91, 980, 985, 990, 995] {
            let mut pax = Vec::new();
            record(&mut pax, "path", &"p".repeat(length));
            let told: usize = std::str::from_utf8(&pax).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, pax.len());
        }
    }

    #[test]
    fn folders_and_links_keep_their_kind() {
        for (entry, kind) in [(Entry::Dir, EntryType::Directory), (Entry::Symlink { target: "b" }, EntryType::Symlink)]
        {
            let bytes = header("a", &entry, 0o777, 65532);
            let found = Header::from_byte_slice(&bytes);
            assert_eq!(found.entry_type(), kind);
            assert_eq!((found.uid().unwrap(), found.gid().unwrap(), found.size().unwrap()), (65532, 65532, 0));
        }
        let long = "t/".repeat(80);
        let bytes = header("a", &Entry::Symlink { target: &long }, 0o777, 0);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.link_name_bytes().unwrap(), long.as_bytes());
    }
}
