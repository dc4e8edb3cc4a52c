//! What a SQLite file tells of its schema. It is opened to be read; nothing is written, and a file that
//! is not there is not made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::verdict::Found;
use super::{Store, TRACKING_TABLES};
use crate::error::{Context as _, Error, Kind, Result};

/// How long a write that is under way is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// The table in which alembic notes the tracking store's revision.
const VERSIONS: &str = "alembic_version";

/// Looks into the tracking store's database. One that does not exist is empty.
///
/// # Errors
/// `Machine` while a write is under way, or was cut off; `Input` for a file that is no database.
pub fn look(path: &Path) -> Result<Found> {
    let bytes = match path.metadata() {
        Ok(meta) => meta.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error).on_machine(|| format!("cannot read {}", path.display())),
    };
    let mut found = Found {
        store: Store::Tracking,
        revisions: Vec::new(),
        holds: false,
        head: None,
        server: format!("sqlite {}", rusqlite::version()),
        bytes: Some(bytes),
    };
    if bytes == 0 {
        return Ok(found);
    }
    // To read what is in it, SQLite would have to write beside it.
    if besides(path, "-wal").metadata().is_ok_and(|meta| meta.len() > 0) {
        return Err(busy(path, "its newest changes are not in it yet"));
    }
    read(path, &mut found).map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::new(Kind::Input, format!("{} is no SQLite database", path.display())).source(error)
        }
        // A journal that nobody works on would have to be played back.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::ReadOnly) => {
            busy(path, "a write is under way, or was cut off")
        }
        _ => Error::new(Kind::Machine, format!("cannot read {}", path.display())).source(error),
    })?;
    Ok(found)
}

fn read(path: &Path, found: &mut Found) -> rusqlite::Result<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    // What is seen is of one moment.
    let moment = connection.transaction()?;
    let has = |table: &str| moment.table_exists(None, table);
    for table in TRACKING_TABLES {
        found.holds |=
            has(table)? && moment.query_row(&format!("SELECT EXISTS (SELECT 1 FROM {table})"), [], |row| row.get(0))?;
    }
    if has(VERSIONS)? {
        let mut rows = moment.prepare(&format!("SELECT version_num FROM {VERSIONS}"))?;
        found.revisions = rows.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    }
    Ok(())
}

fn busy(path: &Path, why: &str) -> Error {
    Error::new(Kind::Machine, format!("{} cannot be read: {why}", path.display()))
        .hint("stop the server with cargo xtask down, then run the same command again")
}

fn besides(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of every such file (<https://sqlite.org/fileformat2.html>).
    const MAGIC: &[u8] = b"SQLite format 3\0";

    /// Random bytes behind a good beginning end in an error, never in a panic or without end.
    #[test]
    fn garbage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        assert_eq!(look(&path).unwrap().bytes, Some(0));
        std::fs::write(&path, "text").unwrap();
        assert_eq!(look(&path).unwrap_err().kind(), Kind::Input);
        for seed in 0..2_000_u64 {
            let digest = |n: u64| *mlflow_image::Digest::of(format!("{seed} {n}")).bytes();
            let mut bytes: Vec<u8> = (0..64).flat_map(digest).collect();
            bytes[..16].copy_from_slice(MAGIC);
            bytes[16..18].copy_from_slice(&[2, 0]);
            bytes[20] = 0;
            bytes[56..60].copy_from_slice(&[0, 0, 0, 1]);
            bytes[100] = [0x0d, 0x05][(seed % 2) as usize];
            bytes[103] = 0;
            std::fs::write(&path, &bytes).unwrap();
            if let Err(error) = look(&path) {
                assert_eq!(error.kind(), Kind::Input, "{seed}: {:?}", error.lines());
            }
        }
        std::fs::write(dir.path().join("x.db-wal"), "w").unwrap();
        assert_eq!(look(&path).unwrap_err().kind(), Kind::Machine);
    }
}
