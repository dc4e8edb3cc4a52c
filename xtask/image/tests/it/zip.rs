//! Zip archives with any mistake one may want: the reader under test must find it.

use flate2::{Compression, write::DeflateEncoder};
use std::io::Write as _;

/// One entry; the fields that are `None` are what an honest archive has.
#[derive(Clone, Default)]
pub struct Entry {
    pub name: Vec<u8>,
    pub content: Vec<u8>,
    /// 0 is stored, 8 is deflate.
    pub method: u16,
    pub flags: u16,
    /// The Unix mode with the file type.
    pub mode: u32,
    pub local_name: Option<Vec<u8>>,
    pub crc32: Option<u32>,
    pub size: Option<u32>,
    /// Bytes behind the deflate stream, counted as compressed.
    pub trailing: Vec<u8>,
    /// Whether CRC-32 and sizes follow the data.
    pub descriptor: Option<Descriptor>,
    /// Start of another entry that this one shares.
    pub same_place_as: Option<usize>,
}

/// The forms of a data descriptor.
#[derive(Clone, Copy, PartialEq)]
pub enum Descriptor {
    Signed,
    Unsigned,
    Wrong,
}

impl Entry {
    pub fn new(name: &str, content: impl AsRef<[u8]>) -> Self {
        let flags = if name.is_ascii() { 0 } else { 1 << 11 };
        let (name, content) = (name.as_bytes().to_vec(), content.as_ref().to_vec());
        Self { name, content, method: 8, flags, mode: 0o100_644, ..Self::default() }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// The archive.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut out, mut directory, mut starts) = (Vec::new(), Vec::new(), Vec::new());
    for entry in entries {
        let mut data = match entry.method {
            8 => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
                encoder.write_all(&entry.content).unwrap();
                encoder.finish().unwrap()
            }
            _ => entry.content.clone(),
        };
        data.extend_from_slice(&entry.trailing);
        let crc = entry.crc32.unwrap_or_else(|| crc32fast::hash(&entry.content));
        let size = entry.size.unwrap_or(entry.content.len() as u32);
        let flags = entry.flags | if entry.descriptor.is_some() { 1 << 3 } else { 0 };
        let numbers = |out: &mut Vec<u8>, crc: u32, packed: u32, size: u32| {
            for number in [crc, packed, size] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        };
        let start = entry.same_place_as.map_or(out.len(), |other: usize| starts[other]);
        starts.push(start);
        if entry.same_place_as.is_none() {
            let name = entry.local_name.as_ref().unwrap_or(&entry.name);
            out.extend_from_slice(b"PK\x03\x04\x14\0");
            for word in [flags, entry.method, 0, 0x21] {
                out.extend_from_slice(&word.to_le_bytes());
            }
            match entry.descriptor {
                Some(_) => numbers(&mut out, 0, 0, 0),
                None => numbers(&mut out, crc, data.len() as u32, size),
            }
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(&[0, 0]);
            out.extend_from_slice(name);
            out.extend_from_slice(&data);
            match entry.descriptor {
                Some(Descriptor::Signed) => {
                    out.extend_from_slice(b"PK\x07\x08");
                    numbers(&mut out, crc, data.len() as u32, size);
                }
                Some(Descriptor::Unsigned) => numbers(&mut out, crc, data.len() as u32, size),
                Some(Descriptor::Wrong) => numbers(&mut out, crc ^ 1, data.len() as u32, size),
                None => {}
            }
        }
        directory.extend_from_slice(b"PK\x01\x02\x14\x03\x14\0");
        for word in [flags, entry.method, 0, 0x21] {
            directory.extend_from_slice(&word.to_le_bytes());
        }
        numbers(&mut directory, crc, data.len() as u32, size);
        directory.extend_from_slice(&(entry.name.len() as u16).to_le_bytes());
        directory.extend_from_slice(&[0; 8]);
        directory.extend_from_slice(&(entry.mode << 16).to_le_bytes());
        directory.extend_from_slice(&(start as u32).to_le_bytes());
        directory.extend_from_slice(&entry.name);
    }
    let start = out.len() as u32;
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
    }
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}
