//! The files by which steps speak to the runner: GITHUB_OUTPUT and GITHUB_ENV
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>).

use super::{Result, error};

/// The names and values in a file, in order.
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (equals, heredoc) = (line.find('='), line.find("<<"));
        let (name, value) = match (equals, heredoc) {
            (Some(at), None) => (&line[..at], line[at + 1..].to_owned()),
            (Some(at), Some(other)) if at < other => (&line[..at], line[at + 1..].to_owned()),
            (_, Some(at)) => (&line[..at], block(&line[at + 2..], &mut lines)?),
            (None, None) => return Err(error(format!("neither NAME=VALUE nor NAME<<DELIMITER: {line}"))),
        };
        if name.is_empty() {
            return Err(error(format!("a value without a name: {line}")));
        }
        found.push((name.to_owned(), value));
    }
    Ok(found)
}

/// The lines up to the delimiter.
fn block<'a>(delimiter: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<String> {
    if delimiter.is_empty() {
        return Err(error("<< without a delimiter"));
    }
    let mut value = Vec::new();
    for line in lines {
        if line == delimiter {
            return Ok(value.join("\n"));
        }
        value.push(line);
    }
    Err(error(format!("the delimiter {delimiter} does not come again")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        for (text, expected) in [
            ("", &[][..]),
            ("a=1\n", &[("a", "1")]),
            ("a=1\n\nb=2", &[("a", "1"), ("b", "2")]),
            ("a=", &[("a", "")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a=x<<y", &[("a", "x<<y")]),
            ("a= spaces \n", &[("a", " spaces ")]),
            ("a<<END\none\ntwo=2\n\nEND\nb=3\n", &[("a", "one\ntwo=2\n"), ("b", "3")]),
            ("a<<E=F\nx\nE=F\n", &[("a", "x")]),
            ("a<<END\nEND\n", &[("a", "")]),
            ("a<<END\n END\nEND\n", &[("a", " END")]),
        ] {
            let found = parse(text).expect(text);
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_the_runner_would_refuse() {
        for (text, says) in [
            ("a", "neither"),
            ("=1", "without a name"),
            ("a<<END\nx\n", "END does not come again"),
            ("a<<\nx\n", "without a delimiter"),
        ] {
            let said = parse(text).expect_err(text).to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
