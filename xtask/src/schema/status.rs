//! The program that asks a database for its schema, and its answer.

use super::Store;
pub use super::verdict::Found;
use crate::error::{Context as _, Error, Kind, Result};

/// The program: `python -c PROGRAM`, where there is an MLflow. As text, so that an image need not have
/// it, be it an older one of ours or someone else's.
pub const PROGRAM: &str = include_str!("status.py");

/// What an answer's line begins with (`MARK` in the program).
const MARK: &str = "mlflow-server-schema ";

/// Reads the answer from all that was printed.
///
/// # Errors
/// `Remote` for an answer that is none.
pub fn read(lines: &[String]) -> Result<Vec<Found>> {
    let odd = || "the pod that asked the database printed no good answer";
    let found = lines.iter().filter_map(|line| line.strip_prefix(MARK)).map(serde_json::from_str::<Found>);
    let found: Vec<Found> = found.collect::<std::result::Result<_, _>>().context(Kind::Remote, odd)?;
    let of = |store: Store| found.iter().filter(|found| found.store == store).count();
    match (of(Store::Tracking), of(Store::Login)) {
        (1, 0 | 1) => Ok(found),
        _ => {
            let last = lines.last().map_or("nothing", String::as_str);
            Err(Error::new(Kind::Remote, odd()).source(format!("it printed: {}", crate::report::shorten(200, last))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_from_all_that_was_printed() {
        let line = |store: &str| {
            format!(
                r#"{MARK}{{"store": "{store}", "revisions": ["a"], "tables": true, "head": "a", "server": "sqlite 3", "bytes": null}}"#
            )
        };
        let check = |lines: &[&str], expected: Option<usize>| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(read(&lines).ok().map(|found| found.len()), expected, "{lines:?}");
        };
        let (tracking, login) = (line("tracking"), line("login"));
        check(&["INFO alembic: words", &tracking], Some(1));
        check(&[&tracking, &login, "more words"], Some(2));
        check(&[], None);
        check(&["words"], None);
        check(&[&login], None);
        check(&[&tracking, &tracking], None);
        check(&[&tracking[..60]], None);
        check(&[&format!(" {tracking}")], None);
    }

    #[test]
    fn the_program_prints_what_is_read() {
        assert!(PROGRAM.contains(&format!("MARK = {:?}", MARK.trim_end())), "MARK");
    }
}
