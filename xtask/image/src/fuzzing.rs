//! What the fuzz targets call: whole inputs through the private parts. Only in fuzzing builds.

use std::io;

use crate::exclude::Exclude;
use crate::layer;
use crate::lock::{DebPackage, Wheel};
use crate::plan::Format;
use crate::{Digest, Result};

/// Reads, installs and writes a wheel of the distribution `p`.
pub fn wheel(bytes: &[u8]) -> Result<()> {
    let wheel = Wheel {
        name: "p".to_owned(),
        version: "1".to_owned(),
        file: "p-1-py3-none-any.whl".to_owned(),
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    layer::write_wheels(vec![(wheel, bytes.to_vec())], &Exclude::default(), None, Format::Splice, &mut io::sink())?;
    Ok(())
}

/// Reads a Debian package into a base layer.
pub fn deb(bytes: &[u8]) -> Result<()> {
    let package = DebPackage {
        name: "p".to_owned(),
        version: "1".to_owned(),
        sha256: Digest::of(bytes),
        size: bytes.len() as u64,
        archive: "debian".to_owned(),
        path: "pool/p.deb".to_owned(),
    };
    layer::write_debs(vec![Ok((package, bytes.to_vec()))], None, Format::Splice, &mut io::sink())?;
    Ok(())
}
