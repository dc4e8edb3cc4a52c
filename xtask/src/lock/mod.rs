//! Refreshing and checking the locks in `mlflow_server/`: what was asked for (`requirements.in`,
//! `overrides.txt`, `debian.in`) -> what is pinned (`requirements.lock`, `debian.lock`,
//! `image.lock`). Resolving Python is uv's work, and so is knowing where packages are.

mod check;
pub mod debian;
mod inputs;
mod moved;
pub mod python;

use std::path::{Path, PathBuf};

use mlflow_image::Digest;
use mlflow_image::lock::{DebianLock, Header, ImageLock, Requirements};

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::sources::Mirrors;
use crate::sources::debian::Keyring;

pub use check::problems;
pub use inputs::{DebianInputs, PythonInputs, Set};
pub use moved::{LockName, Moved, moved_debs, moved_requirements};

/// The Python lock, below the repository's root.
pub const REQUIREMENTS_LOCK: &str = "mlflow_server/requirements.lock";
/// The Debian lock, below the repository's root.
pub const DEBIAN_LOCK: &str = "mlflow_server/debian.lock";
/// The image lock, below the repository's root.
pub const IMAGE_LOCK: &str = "mlflow_server/image.lock";
/// The keys that sign Debian's archive, below the repository's root.
const KEYRING: &str = "mlflow_server/debian-archive-keyring.asc";

/// What is pinned now. A lock that does not exist yet is `None`.
#[derive(Debug, Default)]
pub struct Locks {
    /// `requirements.lock` with its header.
    pub requirements: Option<(Header, Requirements)>,
    /// `debian.lock`.
    pub debian: Option<DebianLock>,
    /// `image.lock`.
    pub image: Option<ImageLock>,
}

/// What is asked for.
#[derive(Debug)]
pub struct Inputs {
    /// `requirements.in` and `overrides.txt`.
    pub python: PythonInputs,
    /// `debian.in`.
    pub debian: DebianInputs,
}

impl Inputs {
    /// Reads the files below the repository's root.
    pub fn load(root: &Path) -> Result<Self> {
        let python = PythonInputs {
            requirements: read(root, inputs::REQUIREMENTS_IN)?,
            overrides: read(root, inputs::OVERRIDES)?,
        };
        Ok(Self { python, debian: DebianInputs::parse(&read(root, inputs::DEBIAN_IN)?)? })
    }
}

impl Locks {
    /// Reads the files below the repository's root.
    pub fn load(root: &Path) -> Result<Self> {
        let requirements = match read_optional(root, REQUIREMENTS_LOCK)? {
            Some(text) => {
                Some((Header::parse(REQUIREMENTS_LOCK, &text)?, Requirements::parse(REQUIREMENTS_LOCK, &text)?))
            }
            None => None,
        };
        let debian = read_optional(root, DEBIAN_LOCK)?.map(|text| DebianLock::parse(DEBIAN_LOCK, &text)).transpose()?;
        let image = read_optional(root, IMAGE_LOCK)?.map(|text| ImageLock::parse(IMAGE_LOCK, &text)).transpose()?;
        Ok(Self { requirements, debian, image })
    }

    /// Writes those files whose text differs; gives their paths below the root.
    pub fn write(&self, root: &Path) -> Result<Vec<&'static str>> {
        let mut written = Vec::new();
        let texts = [
            (REQUIREMENTS_LOCK, self.requirements.as_ref().map(|(header, pins)| pins.to_text(header))),
            (DEBIAN_LOCK, self.debian.as_ref().map(DebianLock::to_text)),
            (IMAGE_LOCK, self.image.as_ref().map(ImageLock::to_text)),
        ];
        for (path, text) in texts {
            let Some(text) = text else { continue };
            if read_optional(root, path)?.as_deref() != Some(&text) {
                cache::write(&root.join(path), text.as_bytes())?;
                written.push(path);
            }
        }
        Ok(written)
    }
}

/// Resolves the Debian packages again and rewrites `debian.lock`; gives the new lock and what
/// moved. For builds that find a locked version on no server.
pub async fn refresh_debian(
    run: &Run,
    cache: &Cache,
    root: &Path,
    mirrors: &Mirrors,
) -> Result<(DebianLock, Vec<Moved>)> {
    let _held = hold(cache, root)?;
    let inputs = DebianInputs::parse(&read(root, inputs::DEBIAN_IN)?)?;
    let old = read_optional(root, DEBIAN_LOCK)?.map(|text| DebianLock::parse(DEBIAN_LOCK, &text)).transpose()?;
    let lock = debian::resolve(run, cache, mirrors, &keyring(root, &inputs)?, &inputs, old.as_ref()).await?;
    let moved = moved_debs(old.as_ref(), &lock);
    cache::write(&root.join(DEBIAN_LOCK), lock.to_text().as_bytes())?;
    Ok((lock, moved))
}

/// Held while the locks of a checkout are rewritten.
pub fn hold(cache: &Cache, root: &Path) -> Result<cache::Lock> {
    let name = Digest::of(root.as_os_str().as_encoded_bytes()).hex();
    cache::Lock::take(&cache.dir("locks")?.join(name), "the locks of this checkout")
}

/// The pinned keys of Debian's archive.
pub fn keyring(root: &Path, inputs: &DebianInputs) -> Result<Keyring> {
    Keyring::parse(KEYRING, &read(root, KEYRING)?, &inputs.keys)
}

fn read(root: &Path, path: &str) -> Result<String> {
    read_optional(root, path)?.ok_or_else(|| {
        Error::new(Kind::Input, format!("{path} does not exist"))
            .hint("restore it with git, it is part of the repository")
    })
}

fn read_optional(root: &Path, path: &str) -> Result<Option<String>> {
    let file: PathBuf = root.join(path);
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).on_machine(|| format!("cannot read {path}")),
    }
}
