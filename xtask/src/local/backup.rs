//! Copies of the database, made while no server runs. SQLite's write-ahead log belongs to it: a
//! server that was killed leaves one behind (sqlite.org, "Write-Ahead Logging").

use std::fs;
use std::io;
use std::path::Path;

use mlflow_image::Digest;

use crate::cache;
use crate::error::{Context as _, Result};

use super::{rootfs, server};

/// How many are kept.
const KEEP: usize = 3;
/// The database and what belongs to it.
const FILES: [&str; 2] = ["mlflow.db", "mlflow.db-wal"];

/// Copies the database below `dir` as `name`, whole or not at all, and removes the oldest copies.
pub fn create(data: &Path, dir: &Path, name: &str) -> Result<()> {
    let named = || format!("cannot back up {}", server::database(data).display());
    cache::create_dir(dir)?;
    let partial = tempfile::Builder::new().prefix(".part-").tempdir_in(dir).on_machine(named)?;
    for file in FILES {
        copy(&data.join(file), &partial.path().join(file)).on_machine(named)?;
    }
    let target = dir.join(name);
    remove(&target).on_machine(named)?;
    fs::rename(partial.keep(), &target).on_machine(named)?;
    let mut all: Vec<_> = fs::read_dir(dir).on_machine(named)?.flatten().map(|entry| entry.path()).collect();
    all.sort();
    let old = all.len().saturating_sub(KEEP);
    for path in all.iter().take(old).filter(|path| **path != target) {
        remove(path).on_machine(named)?;
    }
    Ok(())
}

/// Puts the copy `name` back. The database that it replaces is kept as `NAME.replaced`. Can be
/// repeated after a crash.
pub fn restore(data: &Path, dir: &Path, name: &str) -> Result<()> {
    let named = || format!("cannot restore the database from {}", dir.join(name).display());
    let replaced = dir.join(format!("{name}.replaced"));
    cache::create_dir(&replaced)?;
    for file in FILES {
        copy(&data.join(file), &replaced.join(file)).on_machine(named)?;
    }
    let (database, partial) = (server::database(data), data.join(".mlflow.db.part"));
    copy(&dir.join(name).join(FILES[0]), &partial).on_machine(named)?;
    // The log of the replaced database must not be applied to the restored one.
    for file in ["mlflow.db-wal", "mlflow.db-shm"] {
        remove(&data.join(file)).on_machine(named)?;
    }
    fs::rename(&partial, &database).on_machine(named)?;
    let log = data.join(FILES[1]);
    copy(&dir.join(name).join(FILES[1]), &log).on_machine(named)?;
    if rootfs::is_root() {
        use std::os::unix::fs::MetadataExt as _;
        let owner = data.metadata().on_machine(named)?;
        for path in [&database, &log].into_iter().filter(|path| path.exists()) {
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).on_machine(named)?;
        }
    }
    Ok(())
}

/// Whether the database is no longer the one of the copy `name`.
pub fn differs(data: &Path, dir: &Path, name: &str) -> Result<bool> {
    let digest = |path: &Path| match fs::File::open(path) {
        // A log without content says nothing.
        Ok(file) => file.metadata().and_then(|meta| match meta.len() {
            0 => Ok(None),
            _ => Digest::of_reader(file).map(Some),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    for file in FILES {
        let named = || format!("cannot compare {} with its backup", data.join(file).display());
        if digest(&data.join(file)).on_machine(named)? != digest(&dir.join(name).join(file)).on_machine(named)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    match fs::copy(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !from.exists() => remove(to),
        Err(error) => Err(error),
        Ok(_) => fs::File::open(to)?.sync_all(),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_comes_back_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let (data, backups) = (dir.path().join("data"), dir.path().join("backup"));
        fs::create_dir(&data).unwrap();
        let write = |db: &str, log: Option<&str>| {
            fs::write(data.join("mlflow.db"), db).unwrap();
            match log {
                Some(log) => fs::write(data.join("mlflow.db-wal"), log).unwrap(),
                None => remove(&data.join("mlflow.db-wal")).unwrap(),
            }
        };
        let read = |file: &str| fs::read_to_string(data.join(file)).ok();
        for (log, later) in [(None, None), (Some("log"), None), (None, Some("later")), (Some("log"), Some("later"))] {
            write("one", log);
            create(&data, &backups, "b").unwrap();
            assert!(!differs(&data, &backups, "b").unwrap());
            write("two", later);
            fs::write(data.join("mlflow.db-shm"), "index").unwrap();
            assert!(differs(&data, &backups, "b").unwrap());
            restore(&data, &backups, "b").unwrap();
            restore(&data, &backups, "b").unwrap();
            assert_eq!((read("mlflow.db").as_deref(), read("mlflow.db-wal").as_deref()), (Some("one"), log));
            assert_eq!(read("mlflow.db-shm"), None);
            assert!(!differs(&data, &backups, "b").unwrap());
        }
    }

    #[test]
    fn three_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (data, backups) = (dir.path().join("data"), dir.path().join("backup"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("mlflow.db"), "x").unwrap();
        for name in ["1", "2", "3", "4", "5"] {
            create(&data, &backups, name).unwrap();
        }
        let mut kept: Vec<_> = fs::read_dir(&backups).unwrap().map(|e| e.unwrap().file_name()).collect();
        kept.sort();
        assert_eq!(kept, ["3", "4", "5"]);
    }
}
