//! A database's revision beside the revisions that an image knows.

use serde::{Deserialize, Serialize};

use super::{Revisions, Store};

/// What a store's database holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Which store.
    pub store: Store,
    /// What alembic has noted; one revision, or none where it was never at work.
    pub revisions: Vec<String>,
    /// Whether there is anything in tables that only MLflow has. A start that was cut short leaves empty ones.
    pub holds: bool,
    /// The revision that the MLflow works with which looked.
    pub head: Option<String>,
    /// The database's kind and version.
    pub server: String,
    /// Bytes of the whole database, where it tells.
    pub bytes: Option<u64>,
}

/// What an image's MLflow would make of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict")]
pub enum Verdict {
    /// It works with it.
    Same,
    /// There is nothing of MLflow's in it yet.
    Empty,
    /// It has to be migrated first.
    Behind {
        /// How many migrations that takes; `None` where that is not noted in it.
        migrations: Option<usize>,
    },
    /// A newer MLflow has migrated it: this one knows its revision not.
    Ahead,
    /// It holds what MLflow keeps, and does not say of which revision; or says several.
    Unclear,
}

/// Compares a store's database with what an image knows.
pub fn verdict(found: &Found, known: &Revisions) -> Verdict {
    match found.revisions.as_slice() {
        [revision] if revision == known.head() => Verdict::Same,
        revisions if revisions.iter().any(|revision| !known.knows(revision)) => Verdict::Ahead,
        [revision] => Verdict::Behind { migrations: Some(known.after(revision)) },
        [] if !found.holds => Verdict::Empty,
        // An MLflow of before 3.6 noted nothing about the login; newer ones begin at its first revision.
        [] if found.store == Store::Login => Verdict::Behind { migrations: None },
        _ => Verdict::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_database_is_compared_with_an_image() {
        let parents = [("a", vec![]), ("b", vec!["a"]), ("c", vec!["b"])];
        let owned = |(revision, parents): (&str, Vec<&str>)| {
            (revision.to_owned(), parents.into_iter().map(str::to_owned).collect())
        };
        let known = Revisions::try_from(parents.map(owned).into_iter().collect::<BTreeMap<String, Vec<String>>>());
        let known = known.unwrap();
        let check = |store: Store, revisions: &str, holds: bool, expected: Verdict| {
            let revisions = revisions.split_whitespace().map(str::to_owned).collect();
            let found = Found { store, revisions, holds, head: None, server: String::new(), bytes: None };
            assert_eq!(verdict(&found, &known), expected, "{found:?}");
        };
        let behind = |migrations| Verdict::Behind { migrations };
        check(Store::Tracking, "c", true, Verdict::Same);
        check(Store::Tracking, "b", true, behind(Some(1)));
        check(Store::Tracking, "a", true, behind(Some(2)));
        check(Store::Tracking, "d", true, Verdict::Ahead);
        check(Store::Tracking, "", false, Verdict::Empty);
        check(Store::Tracking, "", true, Verdict::Unclear);
        check(Store::Tracking, "a b", true, Verdict::Unclear);
        check(Store::Tracking, "a d", true, Verdict::Ahead);
        // A migration that died before it made a table.
        check(Store::Tracking, "a", false, behind(Some(2)));
        check(Store::Login, "", true, behind(None));
        check(Store::Login, "", false, Verdict::Empty);
    }

    #[test]
    fn what_a_database_holds_is_read_from_its_line() {
        let line = r#"{"store": "tracking", "revisions": ["c"], "holds": true, "head": "c", "server": "postgresql 15.8", "bytes": 9}"#;
        let found: Found = serde_json::from_str(line).unwrap();
        assert_eq!((found.store, found.bytes), (Store::Tracking, Some(9)));
        let unknown = serde_json::from_str::<Found>(&line.replace("tracking", "other"));
        assert!(unknown.is_err());
    }
}
