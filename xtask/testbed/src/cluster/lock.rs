//! One `up` or `down` at a time.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::{Context as _, Error, Kind, Result};

/// A lock on a testbed; the kernel releases it when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Whether somebody has the lock, or died with it.
    pub(crate) fn exists(root: &Path) -> bool {
        path(root).exists()
    }

    /// Takes the lock of the testbed in `root`, or says at once who has it.
    pub(crate) fn take(root: &Path) -> Result<Self> {
        let path = path(root);
        loop {
            let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let mut file = open.on_machine(|| format!("cannot open {}", path.display()))?;
            match fs4::FileExt::try_lock(&file) {
                Ok(()) => {}
                Err(fs4::TryLockError::WouldBlock) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    let by = if holder.is_empty() { String::new() } else { format!(" (process {})", holder.trim()) };
                    let message = format!("another run is at work on the testbed{by}");
                    return Err(
                        Error::new(Kind::Locked, message).hint("wait for it to end, then run the same command again")
                    );
                }
                Err(fs4::TryLockError::Error(error)) => {
                    return Err(error).on_machine(|| format!("cannot lock {}", path.display()));
                }
            }
            // The last holder removes the file: a lock on a file that nobody else can find is none.
            let ours = file.metadata().on_machine(|| "cannot read the lock's state")?.ino();
            if std::fs::metadata(&path).is_ok_and(|found| found.ino() == ours) {
                let _ = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
                return Ok(Self { file, path });
            }
        }
    }
}

/// Beside the folder, which is removed while the lock is held.
fn path(root: &Path) -> PathBuf {
    root.with_extension("lock")
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while it is held; who waits for it sees that and makes a new one.
        let _ = std::fs::remove_file(&self.path);
        let _ = fs4::FileExt::unlock(&self.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let held = Lock::take(&root).unwrap();
        let refused = Lock::take(&root).unwrap_err();
        assert_eq!(refused.kind, Kind::Locked);
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        drop(Lock::take(&root).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
