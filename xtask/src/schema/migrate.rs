//! The program that brings databases to the revisions that an image's MLflow works with, and its answer.

use serde::{Deserialize, Serialize};

use super::answer;
use super::verdict::Found;
use crate::error::Result;

/// The program. As text, so that an image need not have it.
const PROGRAM: &str = concat!(include_str!("stores.py"), include_str!("migrate.py"));

/// What an answer's line begins with (`MARK` in the program).
const MARK: &str = "mlflow-server-migration ";

/// What was done with a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// What its database holds now.
    #[serde(flatten)]
    pub found: Found,
    /// The revisions that were noted before.
    pub before: Vec<String>,
    /// What was done.
    pub did: Did,
}

/// What was done with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Did {
    /// It was as it should be.
    Nothing,
    /// It was empty.
    Made,
    /// It was behind.
    Migrated,
    /// It is behind, and that was not asked for; or there is no way from where it is.
    Left,
}

/// Program and arguments. What is empty is made; what holds something is changed only if `migrate` says so.
pub fn command(migrate: bool) -> Vec<String> {
    let command = ["python", "-c", PROGRAM].into_iter().chain(migrate.then_some("--migrate"));
    command.map(str::to_owned).collect()
}

/// Reads the answer from all that was printed.
///
/// # Errors
/// `Remote` for an answer that is none.
pub fn read(lines: &[String]) -> Result<Vec<Brought>> {
    answer::read(MARK, lines, "was to bring the database to its schema", |brought: &Brought| brought.found.store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_prints_what_is_read() {
        assert!(PROGRAM.contains(&format!("MARK = {:?}", MARK.trim_end())), "MARK");
        for (did, name) in
            [(Did::Nothing, "nothing"), (Did::Made, "made"), (Did::Migrated, "migrated"), (Did::Left, "left")]
        {
            assert!(PROGRAM.contains(&format!("did = {name:?}")), "{name}");
            assert_eq!(serde_json::to_value(did).unwrap(), name);
        }
    }

    #[test]
    fn the_program_reaches_python_as_it_is() {
        // Kubernetes puts variables in for `$(NAME)` in a command, and makes one of two dollar signs.
        assert!(!PROGRAM.contains('$'));
    }
}
