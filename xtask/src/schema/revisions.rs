//! A store's revisions and how they follow each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::python::{self, Literal};
use crate::error::{Error, Kind, Result};

/// The longest revision that alembic's table takes.
const LONGEST: usize = 32;

/// The revisions that an image's MLflow knows for one store: all lead to one head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Vec<String>>", into = "BTreeMap<String, Vec<String>>")]
pub struct Revisions {
    head: String,
    /// Each revision with those that it follows.
    parents: BTreeMap<String, Vec<String>>,
}

impl Revisions {
    /// Reads the migrations' sources, by file name.
    ///
    /// # Errors
    /// `Input`, naming the file, for a source that does not tell its place; and for revisions that do
    /// not lead to one head.
    pub fn read(files: &BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let mut parents: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, content) in files {
            let refuse = |why: String| Error::new(Kind::Input, format!("{name} is no migration")).source(why);
            let (revision, follows) = migration(content).map_err(refuse)?;
            if parents.insert(revision.clone(), follows).is_some() {
                return Err(refuse(format!("another file is revision {revision}, too")));
            }
        }
        Self::try_from(parents).map_err(|why| Error::new(Kind::Input, why))
    }

    /// The newest.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Whether it is one of them.
    pub fn knows(&self, revision: &str) -> bool {
        self.parents.contains_key(revision)
    }

    /// How many come after a revision, on the way to the head.
    pub fn after(&self, revision: &str) -> usize {
        self.count() - self.ancestry(revision).len()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.parents.len()
    }
}

impl From<Revisions> for BTreeMap<String, Vec<String>> {
    fn from(revisions: Revisions) -> Self {
        revisions.parents
    }
}

impl TryFrom<BTreeMap<String, Vec<String>>> for Revisions {
    type Error = String;

    fn try_from(parents: BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let followed: BTreeSet<&String> = parents.values().flatten().collect();
        if let Some(missing) = followed.iter().find(|revision| !parents.contains_key(**revision)) {
            return Err(format!("a migration follows revision {missing}, which is not there"));
        }
        let heads: Vec<&String> = parents.keys().filter(|revision| !followed.contains(revision)).collect();
        let head = match heads.as_slice() {
            [head] => (*head).clone(),
            [] if parents.is_empty() => return Err("there are no migrations".to_owned()),
            [] => return Err("the migrations follow each other in a circle".to_owned()),
            [one, two, ..] => return Err(format!("the migrations have several heads, {one} and {two} among them")),
        };
        let revisions = Self { head, parents };
        match revisions.ancestry(&revisions.head).len() == revisions.count() {
            true => Ok(revisions),
            false => Err("some of the migrations follow each other in a circle".to_owned()),
        }
    }
}

impl Revisions {
    /// A revision and all that come before it.
    fn ancestry<'a>(&'a self, revision: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![revision];
        while let Some(next) = todo.pop() {
            if seen.insert(next) {
                todo.extend(self.parents.get(next).into_iter().flatten().map(String::as_str));
            }
        }
        seen
    }
}

/// A migration's revision, and those that it follows.
fn migration(content: &[u8]) -> Result<(String, Vec<String>), String> {
    let source = std::str::from_utf8(content).map_err(|_| "it is not UTF-8".to_owned())?;
    let mut found = python::assignments(source, &["revision", "down_revision"])?;
    let revision = match found.remove("revision") {
        Some(Literal::Text(revision)) => revision,
        Some(_) => return Err("its revision is no string".to_owned()),
        None => return Err("it sets no revision".to_owned()),
    };
    let follows = match found.remove("down_revision") {
        Some(Literal::None) => Vec::new(),
        Some(Literal::Text(one)) => vec![one],
        Some(Literal::List(several)) => several,
        None => return Err("it sets no down_revision".to_owned()),
    };
    // What else there is in a name is a syntax of alembic's.
    let plain = |revision: &str| {
        (1..=LONGEST).contains(&revision.len()) && revision.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    };
    match std::iter::once(&revision).chain(&follows).find(|revision| !plain(revision)) {
        Some(odd) => Err(format!("{odd:?} cannot be a revision")),
        None => Ok((revision, follows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Migrations as `REVISION<PARENT,PARENT`.
    pub fn revisions(text: &str) -> Result<Revisions, String> {
        let one = |text: &str| {
            let (revision, parents) = text.split_once('<').unwrap_or((text, ""));
            let parents = parents.split(',').filter(|parent| !parent.is_empty()).map(str::to_owned).collect();
            (revision.to_owned(), parents)
        };
        Revisions::try_from(text.split_whitespace().map(one).collect::<BTreeMap<String, Vec<String>>>())
    }

    #[test]
    fn the_head_is_what_nothing_follows() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = revisions(text);
            let found = found.as_ref().map(Revisions::head).map_err(String::as_str);
            assert_eq!(found, expected, "{text}");
        };
        check("a", Ok("a"));
        check("c<b b<a a", Ok("c"));
        check("d<b,c c<a b<a a", Ok("d"));
        check("c<a,b a b", Ok("c"));
        check("", Err("there are no migrations"));
        check("b<a", Err("a migration follows revision a, which is not there"));
        check("a b", Err("the migrations have several heads, a and b among them"));
        check("b<a c<a a", Err("the migrations have several heads, b and c among them"));
        check("a<b b<a", Err("the migrations follow each other in a circle"));
        check("a<a b", Err("some of the migrations follow each other in a circle"));
    }

    #[test]
    fn migrations_are_counted_from_a_revision_to_the_head() {
        let known = revisions("e<d d<b,c c<a b<a a").unwrap();
        for (revision, expected) in [("e", 0), ("d", 1), ("c", 3), ("a", 4)] {
            assert!(known.knows(revision));
            assert_eq!(known.after(revision), expected, "{revision}");
        }
        assert!(!known.knows("f"));
    }

    #[test]
    fn a_migration_tells_its_place() {
        let check = |source: &str, expected: Result<&str, &str>| {
            let found = migration(source.as_bytes()).map(|(revision, follows)| format!("{revision}<{follows:?}"));
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{source}");
        };
        check("revision = 'b1'\ndown_revision = 'a1'\nbranch_labels = None\n", Ok("b1<[\"a1\"]"));
        check("revision = 'a'\ndown_revision = None", Ok("a<[]"));
        check("revision = 'c'\ndown_revision = ('a', 'b')", Ok("c<[\"a\", \"b\"]"));
        check("down_revision = None", Err("it sets no revision"));
        check("revision = None\ndown_revision = None", Err("its revision is no string"));
        check("revision = 'a'", Err("it sets no down_revision"));
        check("revision = 'a'\ndown_revision = DOWN", Err("line 2: the value is no literal"));
        check("revision = 'a-1'\ndown_revision = None", Err("\"a-1\" cannot be a revision"));
        check("revision = 'a'\ndown_revision = ''", Err("\"\" cannot be a revision"));
        assert_eq!(migration(b"\xff"), Err("it is not UTF-8".to_owned()));
    }

    #[test]
    fn a_file_that_is_no_migration_is_named() {
        let files = |files: &[(&str, &str)]| {
            files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
        };
        let good = "revision = 'a'\ndown_revision = None";
        let check = |given: &[(&str, &str)], expected: &[&str]| {
            assert_eq!(Revisions::read(&files(given)).unwrap_err().lines(), expected);
        };
        check(&[("a.py", good), ("b.py", "x = 1")], &["b.py is no migration", "it sets no revision"]);
        check(&[("a.py", good), ("b.py", good)], &["b.py is no migration", "another file is revision a, too"]);
        check(&[], &["there are no migrations"]);
    }

    #[test]
    fn what_was_kept_is_checked_when_it_is_read() {
        let kept = serde_json::to_string(&revisions("b<a a").unwrap()).unwrap();
        assert_eq!(kept, r#"{"a":[],"b":["a"]}"#);
        assert_eq!(serde_json::from_str::<Revisions>(&kept).unwrap().head(), "b");
        assert!(serde_json::from_str::<Revisions>(r#"{"b":["a"]}"#).is_err());
    }
}
