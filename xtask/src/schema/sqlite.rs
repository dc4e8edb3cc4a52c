//! What a SQLite file tells of its schema, read without SQLite and without a lock
//! (<https://sqlite.org/fileformat2.html>, from which the names are). Nothing is written.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::verdict::Found;
use super::{Store, TRACKING_TABLES};
use crate::error::{Context as _, Error, Kind, Result};

/// How often a file that is being written is read again, and the time between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// The table in which alembic notes the tracking store's revision.
const VERSIONS: &str = "alembic_version";

/// The first bytes of every such file.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Bytes before the first page's own header.
const HEADER: usize = 100;

/// Looks into the tracking store's database. One that does not exist is empty.
///
/// # Errors
/// `Machine` while a write is under way, or was cut off; `Input` for a file that is no database.
pub fn look(path: &Path) -> Result<Found> {
    for attempt in 1.. {
        match try_look(path) {
            Err(Fault::Busy(why)) if attempt == ATTEMPTS => {
                let message = format!("{} cannot be read: {why}", path.display());
                return Err(Error::new(Kind::Machine, message)
                    .hint("stop the server with cargo xtask down, then run the same command again"));
            }
            Err(Fault::Busy(_)) => std::thread::sleep(PAUSE),
            Err(Fault::Damaged(why)) => {
                return Err(Error::new(Kind::Input, format!("{} is no SQLite database", path.display())).source(why));
            }
            Err(Fault::Io(error)) => return Err(error).on_machine(|| format!("cannot read {}", path.display())),
            Ok(found) => return Ok(found),
        }
    }
    unreachable!("the last attempt returns")
}

enum Fault {
    /// What is there is not whole now.
    Busy(String),
    Damaged(&'static str),
    Io(std::io::Error),
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early"),
            _ => Self::Io(error),
        }
    }
}

fn try_look(path: &Path) -> Result<Found, Fault> {
    let mut found = Found {
        store: Store::Tracking,
        revisions: Vec::new(),
        tables: false,
        head: None,
        server: "sqlite".to_owned(),
        bytes: Some(0),
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        opened => opened?,
    };
    // A transaction is in them until it is committed, or taken over into the file.
    for (suffix, why) in
        [("-journal", "a write is under way, or was cut off"), ("-wal", "its newest changes are not in it yet")]
    {
        if besides(path, suffix).metadata().is_ok_and(|meta| meta.len() > 0) {
            return Err(Fault::Busy(why.to_owned()));
        }
    }
    let bytes = file.metadata()?.len();
    if bytes == 0 {
        return Ok(found);
    }
    let database = Database::open(&file)?;
    found.bytes = Some(bytes);
    found.server = database.version();
    database.each_row(1, &mut |row| {
        let (kind, name) = (row.text(0)?, row.text(1)?);
        if kind == "table" {
            found.tables |= TRACKING_TABLES.contains(&name.as_str());
            if name == VERSIONS {
                let root = u32::try_from(row.integer(3)?).map_err(|_| Fault::Damaged("a table is nowhere"))?;
                database.each_row(root, &mut |row| {
                    found.revisions.push(row.text(0)?);
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    match Database::open(&file)?.changes == database.changes {
        true => Ok(found),
        false => Err(Fault::Busy("it is changed while it is read".to_owned())),
    }
}

fn besides(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

struct Database<'f> {
    file: &'f File,
    page_size: usize,
    /// The part of a page that is used.
    usable: usize,
    pages: u32,
    /// Grows with each transaction.
    changes: u32,
    writer: u32,
}

impl<'f> Database<'f> {
    fn open(file: &'f File) -> Result<Self, Fault> {
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        if !header.starts_with(MAGIC) {
            return Err(Fault::Damaged("it does not begin as one"));
        }
        let page_size = match be16(&header, 16)? {
            1 => 65_536,
            size => size,
        };
        let usable = page_size - usize::from(header[20]).min(page_size);
        if !page_size.is_power_of_two() || usable < 480 {
            return Err(Fault::Damaged("its page size is none"));
        }
        // 1 is UTF-8; 0 stands in a file without tables.
        if be32(&header, 56)? > 1 {
            return Err(Fault::Damaged("its text is not UTF-8"));
        }
        let pages = file.metadata()?.len() / page_size as u64;
        let pages = u32::try_from(pages).unwrap_or(u32::MAX);
        Ok(Self { file, page_size, usable, pages, changes: be32(&header, 24)?, writer: be32(&header, 96)? })
    }

    /// `sqlite 3.40.1`: what wrote it last.
    fn version(&self) -> String {
        format!("sqlite {}.{}.{}", self.writer / 1_000_000, self.writer / 1_000 % 1_000, self.writer % 1_000)
    }

    /// Visits the rows of the table whose tree begins at a page.
    fn each_row(&self, root: u32, visit: &mut dyn FnMut(&Row<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
        let (mut todo, mut seen) = (vec![root], 0);
        let mut page = vec![0; self.page_size];
        while let Some(number) = todo.pop() {
            seen += 1;
            if number == 0 || number > self.pages || seen > self.pages {
                return Err(Fault::Damaged("its pages do not fit together"));
            }
            self.file.read_exact_at(&mut page, u64::from(number - 1) * self.page_size as u64)?;
            let start = if number == 1 { HEADER } else { 0 };
            let (is_leaf, cells) = match page[start] {
                0x0d => (true, start + 8),
                0x05 => (false, start + 12),
                _ => return Err(Fault::Damaged("a page is of no table")),
            };
            if !is_leaf {
                todo.push(be32(&page, start + 8)?);
            }
            for cell in 0..be16(&page, start + 3)? {
                let at = be16(&page, cells + 2 * cell)?;
                if is_leaf {
                    visit(&self.row(&page, at)?)?;
                } else {
                    todo.push(be32(&page, at)?);
                }
            }
        }
        Ok(())
    }

    /// The part of a cell's row that is on its page: what overflows is not needed.
    fn row<'p>(&self, page: &'p [u8], at: usize) -> Result<Row<'p>, Fault> {
        let (size, at) = varint(page, at)?;
        let (_, at) = varint(page, at)?;
        let size = usize::try_from(size).map_err(|_| Fault::Damaged("a row is too large"))?;
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        let local = match size <= most {
            true => size,
            false => {
                let fitting = least + (size - least) % (self.usable - 4);
                if fitting <= most { fitting } else { least }
            }
        };
        let end = at.checked_add(local).ok_or(Fault::Damaged("a row has no end"))?;
        page.get(at..end).map(Row).ok_or(Fault::Damaged("a row has no end"))
    }
}

/// A record: its columns' types, then their values.
struct Row<'p>(&'p [u8]);

impl Row<'_> {
    /// A column's type and value; a NULL where the row ends before it.
    fn column(&self, wanted: usize) -> Result<(u64, &[u8]), Fault> {
        let (header, mut at) = varint(self.0, 0)?;
        let header = usize::try_from(header).map_err(|_| Fault::Damaged("a row has no columns"))?;
        let mut value = header;
        let mut column = 0;
        while at < header {
            let (kind, next) = varint(self.0, at)?;
            let size = match kind {
                0 | 8 | 9 => 0,
                1..=4 => kind as usize,
                5 => 6,
                6 | 7 => 8,
                10 | 11 => return Err(Fault::Damaged("a column is of no type")),
                _ => usize::try_from((kind - 12) / 2).map_err(|_| Fault::Damaged("a column is too large"))?,
            };
            let end = value.checked_add(size).ok_or(Fault::Damaged("a column is too large"))?;
            if column == wanted {
                return Ok((kind, self.0.get(value..end).ok_or(Fault::Damaged("a column has no end"))?));
            }
            (column, value, at) = (column + 1, end, next);
        }
        Ok((0, &[]))
    }

    fn text(&self, column: usize) -> Result<String, Fault> {
        match self.column(column)? {
            (kind, bytes) if kind >= 13 && kind % 2 == 1 => {
                String::from_utf8(bytes.to_vec()).map_err(|_| Fault::Damaged("a text is not UTF-8"))
            }
            _ => Err(Fault::Damaged("a column is no text")),
        }
    }

    fn integer(&self, column: usize) -> Result<u64, Fault> {
        match self.column(column)? {
            (8, _) => Ok(0),
            (9, _) => Ok(1),
            (1..=6, bytes) => Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))),
            _ => Err(Fault::Damaged("a column is no number")),
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Result<usize, Fault> {
    let two = bytes.get(at..at + 2).ok_or(Fault::Damaged("a page is cut off"))?;
    Ok(usize::from(two[0]) << 8 | usize::from(two[1]))
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, Fault> {
    let four = bytes.get(at..at + 4).ok_or(Fault::Damaged("a page is cut off"))?;
    Ok(four.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// A number of one to nine bytes, and where it ends.
fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), Fault> {
    let mut number = 0_u64;
    for (n, byte) in bytes.iter().skip(at).take(9).enumerate() {
        if n == 8 {
            return Ok((number << 8 | u64::from(*byte), at + 9));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((number, at + n + 1));
        }
    }
    Err(Fault::Damaged("a number has no end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_to_nine_bytes() {
        for (bytes, expected) in [
            (&[0x00][..], Some((0, 1))),
            (&[0x7f], Some((127, 1))),
            (&[0x81, 0x00], Some((128, 2))),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Some((u64::MAX, 9))),
            (&[0x81], None),
            (&[], None),
        ] {
            assert_eq!(varint(bytes, 0).ok(), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_row_gives_its_columns() {
        // NULL, the number 258, the text "ab", the number 1.
        let row = Row(&[5, 0, 2, 17, 9, 1, 2, b'a', b'b']);
        assert_eq!(row.integer(1).ok(), Some(258));
        assert_eq!(row.text(2).ok().as_deref(), Some("ab"));
        assert_eq!(row.integer(3).ok(), Some(1));
        assert!(row.text(0).is_err() && row.text(1).is_err() && row.integer(4).is_err());
        assert!(Row(&[3, 17, 17, b'a']).text(0).is_err() && Row(&[]).text(0).is_err());
    }

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
