//! Where downloads, blobs and unpacked images are kept, and how files get there: written whole to
//! a temporary name and renamed, so that a crash or a second run never leaves half a file.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use mlflow_image::Digest;

use crate::error::{Context as _, Error, Kind, Result};

/// The folder's name below the user's cache and data folders.
pub const NAME: &str = "mlflow-on-kubernetes";

/// The user's cache: everything below it can be deleted at any time.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// `$XDG_CACHE_HOME/mlflow-on-kubernetes`, else the XDG default below HOME.
    pub fn open() -> Result<Self> {
        Self::at(cache_dir()?)
    }

    /// A cache in a folder of the caller's.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        create_dir(&root)?;
        Ok(Self { root })
    }

    /// A folder of the cache, created if needed.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        create_dir(&dir)?;
        Ok(dir)
    }

    /// Where a wheel, .deb or other download with this SHA-256 is kept.
    pub fn download(&self, digest: &Digest) -> Result<PathBuf> {
        Ok(self.dir("downloads")?.join(digest.hex()))
    }

    /// Where a layer, config or manifest with this digest is kept.
    pub fn blob(&self, digest: &Digest) -> Result<PathBuf> {
        Ok(self.dir("blobs")?.join(digest.hex()))
    }
}

/// The user's cache folder of this program, whether it is there or not.
pub fn cache_dir() -> Result<PathBuf> {
    Ok(strategy()?.cache_dir().join(NAME))
}

/// The user's data folder of this program: what `down` and upgrades keep.
pub fn data_dir() -> Result<PathBuf> {
    Ok(strategy()?.data_dir().join(NAME))
}

fn strategy() -> Result<etcetera::base_strategy::Xdg> {
    etcetera::base_strategy::Xdg::new().context(Kind::Machine, || "this user has no home folder: set HOME")
}

/// Creates a folder and its parents.
pub fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).on_machine(|| format!("cannot create {}", dir.display()))
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, bytes, set_default_mode)
}

/// Writes a file whole or not at all, for nobody's eyes but this user's.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, bytes, |_, _| Ok(()))
}

fn write_with(path: &Path, bytes: &[u8], set_mode: impl FnOnce(&File, &Path) -> Result<()>) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    create_dir(parent)?;
    let named = || format!("cannot write {}", path.display());
    let mut file = tempfile::Builder::new().prefix(".part-").tempfile_in(parent).on_machine(named)?;
    file.write_all(bytes).on_machine(named)?;
    set_mode(file.as_file(), path)?;
    file.persist(path).map_err(|error| error.error).on_machine(named)?;
    Ok(())
}

/// Temporary files are made with mode 0600; a kept file is readable as the user's umask says.
pub fn set_default_mode(file: &File, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
        .on_machine(|| format!("cannot set the mode of {}", path.display()))
}

/// An exclusive lock on `path`, held until dropped and released by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock or says at once who holds it.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        if let Some(parent) = path.parent() {
            create_dir(parent)?;
        }
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .on_machine(|| format!("cannot open {}", path.display()))?;
        match fs4::FileExt::try_lock(&file) {
            Ok(()) => {}
            Err(fs4::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(path).unwrap_or_default();
                let holder = holder.trim();
                let by = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                return Err(Error::new(Kind::Locked, format!("another run is at work on {what}{by}"))
                    .hint("wait for it to end, then run the same command again"));
            }
            Err(fs4::TryLockError::Error(error)) => {
                return Err(error).on_machine(|| format!("cannot lock {}", path.display()));
            }
        }
        // The holder's id is a courtesy to the one who waits.
        let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = Lock::take(&path, "environment local").unwrap();
        let refused = Lock::take(&path, "environment local").unwrap_err();
        assert_eq!(refused.kind(), Kind::Locked);
        assert!(refused.to_string().contains(&std::process::id().to_string()));
        drop(held);
        Lock::take(&path, "environment local").unwrap();
    }

    #[test]
    fn a_file_is_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
