//! The program that asks a database for its schema, and its answer.

use super::answer;
pub use super::verdict::Found;
use crate::error::Result;

/// The program, for where there is an MLflow. As text, so that an image need not have
/// it, be it an older one of ours or someone else's.
const PROGRAM: &str = concat!(include_str!("stores.py"), include_str!("status.py"));

/// Program and arguments.
pub fn command() -> Vec<String> {
    ["python", "-c", PROGRAM].map(str::to_owned).to_vec()
}

/// What an answer's line begins with (`MARK` in the program).
const MARK: &str = "mlflow-server-schema ";

/// Reads the answer from all that was printed.
///
/// # Errors
/// `Remote` for an answer that is none.
pub fn read(lines: &[String]) -> Result<Vec<Found>> {
    answer::read(MARK, lines, "asked the database", |found: &Found| found.store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_from_all_that_was_printed() {
        let line = |store: &str| {
            format!(
                r#"{MARK}{{"store": "{store}", "revisions": ["a"], "holds": true, "head": "a", "server": "sqlite 3", "bytes": null}}"#
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
