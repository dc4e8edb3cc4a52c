//! Wheels of different layers must not disagree: whichever layer is on top would silently win.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::exclude::Exclude;
use crate::lock::Wheel;
use crate::wheel::{Archive, install};
use crate::{Digest, Error, Result, layer};

/// Refuses wheels that install different files in one place, or files whose paths differ only in
/// case, with the names of both. Reads directories and RECORDs only: that the contents are what
/// RECORD says is checked when their layer is built. Identical files may be in several wheels.
///
/// Needed once for each list of wheels, before what was built of it is written into a lock: a layer
/// is built alone and does not see the others.
pub fn check(wheels: &[Wheel], exclude: &Exclude, file: &dyn Fn(&Digest) -> PathBuf) -> Result<()> {
    let mut places: HashMap<String, (String, Digest, &str)> = HashMap::new();
    for wheel in wheels {
        let bytes = layer::read(&wheel.file, &file(&wheel.sha256), &wheel.sha256, wheel.size)?;
        let archive = Archive::open(&wheel.file, bytes)?;
        for found in install::files(wheel, &archive, exclude)? {
            let digest = match &found.source {
                install::Source::Entry(_, sha256) => *sha256,
                install::Source::Made(bytes) => Digest::of(bytes),
            };
            let path = found.path;
            let Some((present, other, owner)) = places.get(&path.to_lowercase()) else {
                places.insert(path.to_lowercase(), (path, digest, &wheel.file));
                continue;
            };
            if *present != path {
                let problem = format_args!("{path}: differs only in case from {present} of {owner}");
                return Err(Error::refused(&wheel.file, problem));
            }
            if *other != digest {
                return Err(Error::refused(&wheel.file, format_args!("{path}: differs from the one in {owner}")));
            }
        }
    }
    Ok(())
}
