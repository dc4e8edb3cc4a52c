//! Raw deflate streams (RFC 1951): making them, and inflating them with every check.

use std::io;

use flate2::{Decompress, FlushDecompress, Status};
use libdeflater::{CompressionLvl, Compressor};

/// libdeflate's level for what this crate compresses itself.
const LEVEL: i32 = 6;

/// No deflate stream expands further (RFC 1951: 258 bytes from 2 bits).
const MOST_EXPANSION: u64 = 1032;

/// A deflate stream and what it must inflate to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deflated<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) crc32: u32,
    pub(crate) size: u64,
}

/// Why a stream was not passed on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The stream is not what it claims to be.
    Bad(String),
    /// Writing failed.
    Io(io::Error),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Compresses with libdeflate, whose output depends on its version only, not on the CPU.
pub(crate) fn compress(bytes: &[u8]) -> Vec<u8> {
    let level = CompressionLvl::new(LEVEL).expect("the level is one of libdeflate's");
    let mut compressor = Compressor::new(level);
    let mut out = vec![0; compressor.deflate_compress_bound(bytes.len())];
    let length = compressor.deflate_compress(bytes, &mut out).expect("the buffer has libdeflate's own bound");
    out.truncate(length);
    out
}

/// Inflates in pieces. Refuses a stream that gives another size or CRC-32 than promised, ends
/// early, or leaves compressed bytes over: behind a spliced member these would be read as the next.
pub(crate) fn inflate(file: &Deflated<'_>, mut sink: impl FnMut(&[u8]) -> Result<(), Fault>) -> Result<(), Fault> {
    if file.size > (file.data.len() as u64).saturating_mul(MOST_EXPANSION) {
        return Err(Fault::Bad(format!("{} bytes cannot inflate to {}", file.data.len(), file.size)));
    }
    let mut inflater = Decompress::new(false);
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let rest = &file.data[read as usize..];
        let status = inflater
            .decompress(rest, &mut buffer, FlushDecompress::None)
            .map_err(|_| Fault::Bad("its compressed data is corrupt".to_owned()))?;
        let fresh = &buffer[..(inflater.total_out() - written) as usize];
        if inflater.total_out() > file.size {
            return Err(Fault::Bad(format!("it inflates to more than the {} bytes that the archive says", file.size)));
        }
        crc.update(fresh);
        sink(fresh)?;
        match status {
            Status::StreamEnd => break,
            _ if inflater.total_in() == read && fresh.is_empty() => {
                return Err(Fault::Bad("its compressed data ends early".to_owned()));
            }
            _ => {}
        }
    }
    if inflater.total_in() != file.data.len() as u64 {
        return Err(Fault::Bad("bytes are left over behind its compressed data".to_owned()));
    }
    if inflater.total_out() != file.size {
        let found = inflater.total_out();
        return Err(Fault::Bad(format!("it inflates to {found} bytes, the archive says {}", file.size)));
    }
    if crc.finalize() != file.crc32 {
        return Err(Fault::Bad("its CRC-32 does not match".to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &Deflated<'_>, expected: Result<&[u8], &str>) {
        let mut out = Vec::new();
        let found = inflate(file, |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        match (found, expected) {
            (Ok(()), Ok(expected)) => assert_eq!(out, expected),
            (Err(Fault::Bad(problem)), Err(expected)) => assert!(problem.contains(expected), "{problem}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_stream_is_what_it_claims_or_is_refused() {
        let content: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        let data = compress(&content);
        let (crc32, size) = (crc32fast::hash(&content), content.len() as u64);
        let whole = Deflated { data: &data, crc32, size };
        check(&whole, Ok(&content));
        check(&Deflated { data: &compress(b""), crc32: 0, size: 0 }, Ok(b""));
        check(&Deflated { crc32: crc32 ^ 1, ..whole }, Err("CRC-32"));
        check(&Deflated { size: size + 1, ..whole }, Err("the archive says"));
        check(&Deflated { size: size - 1, ..whole }, Err("more than"));
        check(&Deflated { data: &data[..data.len() - 1], ..whole }, Err("ends early"));
        check(&Deflated { data: &[], crc32: 0, size: 0 }, Err("ends early"));
        check(&Deflated { data: &[0xff; 9], crc32: 0, size: 9 }, Err("corrupt"));
        check(&Deflated { data: &data[..10], crc32, size: 20_000 }, Err("cannot inflate"));
        let trailing = [data.as_slice(), b"\x1f\x8b"].concat();
        check(&Deflated { data: &trailing, ..whole }, Err("left over"));
    }
}
