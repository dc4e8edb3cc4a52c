//! The program that dumps, reads and restores: its text, its arguments, its answers.

use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::report;

/// The program: `python -c PROGRAM`, where there is an MLflow. As text, so that an image need not have it. Its
/// parts share one namespace.
pub const PROGRAM: &str = concat!(
    include_str!("program/databases.py"),
    include_str!("program/places.py"),
    include_str!("program/archive.py"),
    include_str!("program/take.py"),
    include_str!("program/restore.py"),
    include_str!("program/drill.py"),
    include_str!("program/main.py"),
);

/// What an answer's line begins with (`MARK` in the program).
const MARK: &str = "mlflow-server-backup ";

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub struct Wish<'a> {
    /// `take`, `list`, `verify`, `restore` or `drill`.
    pub action: &'static str,
    /// Where backups lie.
    pub to: &'a str,
    /// What the pod's /tmp may hold, as a Kubernetes quantity.
    pub scratch: &'a str,
    /// Which backup; the newest without.
    pub id: Option<&'a str>,
    /// Why one is taken.
    pub reason: Option<&'a str>,
    /// Which image the server runs.
    pub image: Option<&'a str>,
    /// Of how many all older ones are deleted.
    pub keep: Option<usize>,
    /// What starts the server.
    pub server: &'a [String],
}

impl Wish<'_> {
    /// Program and arguments.
    pub fn command(&self) -> Vec<String> {
        let mut command = ["python", "-c", PROGRAM, self.action, "--to", self.to].map(str::to_owned).to_vec();
        let keep = self.keep.map(|keep| keep.to_string());
        for (name, value) in [
            ("--scratch", Some(self.scratch)),
            ("--id", self.id),
            ("--reason", self.reason),
            ("--image", self.image),
            ("--keep", keep.as_deref()),
        ] {
            // As one word: a reason may begin with a dash.
            command.extend(value.map(|value| format!("{name}={}", escape(value))));
        }
        if !self.server.is_empty() {
            command.push("--server".to_owned());
            command.extend(self.server.iter().cloned());
        }
        command
    }
}

/// Kubernetes puts variables in for `$(NAME)` in a command, and makes one of two dollar signs.
fn escape(text: &str) -> String {
    text.replace('$', "$$")
}

/// Whether it can be a backup's id: it becomes part of names in a store.
pub fn is_id(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=64).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(good)
}

/// What the program says when it does not do what it should.
#[derive(Debug, serde::Deserialize)]
struct Refusal {
    failure: Failure,
}

#[derive(Debug, serde::Deserialize)]
struct Failure {
    code: String,
    message: String,
    hint: Option<String>,
}

/// Reads the answer from all that was printed. `what` completes "cannot ...".
///
/// # Errors
/// The program's own refusal; `Remote` for an answer that is none.
pub fn read<T: DeserializeOwned>(what: &str, lines: &[String]) -> Result<T> {
    let answers: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(MARK)).collect();
    if let [answer] = answers[..] {
        if let Ok(Refusal { failure }) = serde_json::from_str(answer) {
            return Err(refused(what, failure));
        }
        if let Ok(answer) = serde_json::from_str(answer) {
            return Ok(answer);
        }
    }
    let last = lines.last().map_or("nothing", String::as_str);
    Err(Error::new(Kind::Remote, format!("cannot {what}: the pod printed no good answer"))
        .source(format!("it printed: {}", report::shorten(200, last)))
        .hint("run the same command again"))
}

fn refused(what: &str, failure: Failure) -> Error {
    let Failure { code, message, hint } = failure;
    let (kind, own) = match code.as_str() {
        "image" => (Kind::Image, None),
        "empty" | "missing" | "damaged" | "server" => (Kind::Check, None),
        "forbidden" => (Kind::Forbidden, None),
        "locked" => (Kind::Locked, None),
        "taken" | "moved" | "room" => (Kind::Refused, None),
        "database" => (Kind::Remote, Some("cargo xtask doctor and cargo xtask logs tell whether the database answers")),
        _ => (Kind::Remote, Some("run the same command again; if it stays, look at the store that backup.to names")),
    };
    let error = Error::new(kind, format!("cannot {what}")).source(message);
    match hint.or(own.map(str::to_owned)) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::backup::{Restored, Taken};

    #[test]
    fn the_program_reaches_python_as_it_is() {
        // Kubernetes puts variables in for `$(NAME)` in a command, and makes one of two dollar signs.
        assert!(!PROGRAM.contains('$'));
        // Linux takes no longer argument (MAX_ARG_STRLEN).
        assert!(PROGRAM.len() < 128 << 10, "{}", PROGRAM.len());
        assert!(PROGRAM.contains(&format!("MARK = {:?}", MARK.trim_end())), "MARK");
    }

    #[test]
    fn the_programs_parts_have_no_name_twice() {
        let name = |line: &'static str| {
            let word = line.strip_prefix("def ").or_else(|| line.strip_prefix("class ")).unwrap_or(line);
            let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
            let defines = word.len() < line.len() || line[end..].starts_with(" = ");
            (defines && end > 0).then(|| &word[..end])
        };
        let mut seen = BTreeSet::new();
        let names = PROGRAM.lines().filter_map(name);
        let twice: Vec<&str> = names.filter(|name| !seen.insert(*name)).collect();
        assert_eq!(twice, Vec::<&str>::new());
        assert!(seen.len() > 50, "{seen:?}");
    }

    #[test]
    fn a_wish_is_arguments() {
        let wish = Wish { action: "take", to: "gs://b/x", scratch: "2Gi", keep: Some(3), ..Wish::default() };
        let wish = Wish { id: Some("i"), reason: Some("-- $(A)"), ..wish };
        let command = wish.command();
        let expected = ["take", "--to", "gs://b/x", "--scratch=2Gi", "--id=i", "--reason=-- $$(A)", "--keep=3"];
        assert_eq!(
            (&command[..2], &command[3..]),
            (&["python".to_owned(), "-c".to_owned()][..], &expected.map(str::to_owned)[..])
        );
        let server = ["mlflow".to_owned(), "server".to_owned()];
        let command = Wish { action: "drill", server: &server, ..Wish::default() }.command();
        assert_eq!(command[command.len() - 3..], ["--server", "mlflow", "server"].map(str::to_owned));
    }

    #[test]
    fn ids_are_parts_of_names() {
        for (text, expected) in
            [("20261128T050000Z-0a1b2c", true), ("", false), ("a/b", false), ("..", false), ("-a", false)]
        {
            assert_eq!(is_id(text), expected, "{text}");
        }
    }

    #[test]
    fn an_answer_is_read_from_all_that_was_printed() {
        let dump = r#"{"file": "f", "stores": {"tracking": "a"}, "schema": "public", "tables": {"runs": 1}, "rows": 1, "bytes": 9, "sha256": "00"}"#;
        let backup = format!(
            r#"{{"format": 1, "id": "i", "taken": "t", "reason": "r", "image": "m", "databases": [{dump}], "server": "s"}}"#
        );
        let lines = |answer: &str| vec!["reading".to_owned(), format!("{MARK}{answer}"), "more".to_owned()];
        let taken: Taken = read("x", &lines(&format!(r#"{{"backup": {backup}, "pruned": ["h"]}}"#))).unwrap();
        assert_eq!((taken.backup.bytes(), taken.pruned.len()), (Some(9), 1));
        let restored: Restored = read("x", &lines(&format!(r#"{{"restored": {backup}, "seconds": 1.5}}"#))).unwrap();
        assert_eq!((restored.backup, restored.seconds), (taken.backup, 1.5));
    }

    #[test]
    fn a_refusal_has_a_kind_and_a_hint() {
        let check = |code: &str, kind: Kind, hint: &str| {
            let text = format!(r#"{MARK}{{"failure": {{"code": "{code}", "message": "why", "hint": null}}}}"#);
            let error = read::<Taken>("back it up", &[text]).unwrap_err();
            assert_eq!((error.kind(), error.lines()), (kind, vec!["cannot back it up".to_owned(), "why".to_owned()]));
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{code}");
        };
        check("image", Kind::Image, "");
        check("damaged", Kind::Check, "");
        check("forbidden", Kind::Forbidden, "");
        check("locked", Kind::Locked, "");
        check("room", Kind::Refused, "");
        check("database", Kind::Remote, "doctor");
        check("of another version", Kind::Remote, "backup.to");
        for lines in [&[][..], &["words".to_owned()], &[format!("{MARK}{{")], &[format!(" {MARK}{{}}")]] {
            assert_eq!(read::<Taken>("x", lines).unwrap_err().kind(), Kind::Remote, "{lines:?}");
        }
    }
}
