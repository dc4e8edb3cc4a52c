//! Bytes that look random and are the same each time, however many, of which few are in memory.

use std::io::{self, Read};

use bytes::Bytes;
use futures::stream::{self, Stream};

/// Bytes at a time.
const BLOCK: usize = 1 << 20;

/// So many bytes.
#[derive(Clone, Debug)]
pub struct Noise {
    state: u64,
    left: u64,
}

impl Noise {
    /// The first `length` bytes.
    pub fn new(length: u64) -> Self {
        Self { state: 0, left: length }
    }

    /// The same as a request's body.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> {
        stream::unfold(self, |mut noise| async move {
            let mut block = vec![0; BLOCK];
            match noise.read(&mut block) {
                Ok(0) => None,
                Ok(length) => {
                    block.truncate(length);
                    Some((Ok(block.into()), noise))
                }
                Err(error) => Some((Err(error), noise)),
            }
        })
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Read for Noise {
    /// Fills the buffer, which takes whole words: what does not fit of the last one is thrown away.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for word in buffer[..length].chunks_mut(8) {
            let bytes = self.next().to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
        self.left -= length as u64;
        Ok(length)
    }
}
