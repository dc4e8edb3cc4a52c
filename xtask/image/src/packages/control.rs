//! The control format: stanzas of `Field: value` lines (Debian Policy, 5.1).

use crate::{Error, Result};

/// One stanza; borrowed from the text. Field names are compared without case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stanza<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Stanza<'a> {
    /// A field's value, trimmed; the lines of a multi-line value are separated as in the text.
    pub fn get(&self, field: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(field)).map(|(_, value)| *value)
    }
}

/// Splits `text` into stanzas; `subject` names it in errors. Ends after the first error.
pub fn stanzas<'a>(subject: &str, text: &'a str) -> impl Iterator<Item = Result<Stanza<'a>>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r']);
        if rest.is_empty() {
            return None;
        }
        let end = rest.find("\n\n").unwrap_or(rest.len());
        let (stanza, more) = rest.split_at(end);
        rest = more;
        Some(read(stanza).map_err(|problem| {
            rest = "";
            Error::refused(subject, problem)
        }))
    })
}

fn read(text: &str) -> std::result::Result<Stanza<'_>, String> {
    let mut fields: Vec<(&str, &str)> = Vec::new();
    let mut start = 0;
    while start < text.len() {
        // A field ends where a line begins that is no continuation.
        let mut end = start;
        loop {
            end = text[end..].find('\n').map_or(text.len(), |at| end + at + 1);
            if !text[end..].starts_with([' ', '\t']) {
                break;
            }
        }
        let field = &text[start..end];
        start = end;
        if field.starts_with('#') || field.trim().is_empty() {
            continue;
        }
        let (name, value) = field.split_once(':').ok_or_else(|| format!("{:?} is not a field", field.trim_end()))?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("{name:?} is not a field's name"));
        }
        if fields.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(format!("{name} occurs twice in a stanza"));
        }
        fields.push((name, value.trim()));
    }
    Ok(Stanza(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: std::result::Result<&[&[(&str, &str)]], &str>) {
        match (stanzas("Packages", text).collect::<Result<Vec<_>>>(), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<_> = found.iter().map(|stanza| stanza.0.as_slice()).collect();
                assert_eq!(found, expected, "{text:?}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{text:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn stanzas_are_separated_by_empty_lines() {
        check("", Ok(&[]));
        check("\n\n\n", Ok(&[]));
        check("A: 1\nB:2", Ok(&[&[("A", "1"), ("B", "2")]]));
        check("A: 1\n\n\nA: 2\n", Ok(&[&[("A", "1")], &[("A", "2")]]));
        check("A: 1\n 2\n\t3\nB: 4\n", Ok(&[&[("A", "1\n 2\n\t3"), ("B", "4")]]));
        check("A:\n 2\n", Ok(&[&[("A", "2")]]));
        check("# comment\nA: 1: 2\n", Ok(&[&[("A", "1: 2")]]));
        check("A\n", Err("\"A\" is not a field"));
        check("A b: 1\n", Err("not a field's name"));
        check(": 1\n", Err("not a field's name"));
        check("A: 1\na: 2\n", Err("a occurs twice"));
    }

    #[test]
    fn a_field_is_found_without_case() {
        let stanza = stanzas("Packages", "SHA256: x\n").next().unwrap().unwrap();
        assert_eq!(stanza.get("sha256"), Some("x"));
        assert_eq!(stanza.get("sha"), None);
    }
}
