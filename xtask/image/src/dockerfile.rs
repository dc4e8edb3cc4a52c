//! The image's metadata, read from the last stage of a Dockerfile, which is its only source: what
//! docker and the native builder make of it must be the same. What cannot be understood exactly is
//! an error that names the line.
//!
//! Syntax: <https://docs.docker.com/reference/dockerfile/>.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, Result};

/// What the instructions ENV, USER, WORKDIR, EXPOSE, ENTRYPOINT, CMD, LABEL and STOPSIGNAL say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Variables in the order in which they are first set.
    pub env: Vec<(String, String)>,
    /// `user` or `user:group`, by name or number.
    pub user: Option<String>,
    /// The absolute folder that the process starts in.
    pub workdir: Option<String>,
    /// `port/protocol`.
    pub ports: BTreeSet<String>,
    /// The program.
    pub entrypoint: Vec<String>,
    /// Its default arguments.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The signal that stops the process.
    pub stop_signal: Option<String>,
}

impl Metadata {
    /// Reads a Dockerfile's text; `subject` names it in errors. Refuses instructions in the last
    /// stage that the native builder could not follow (RUN, VOLUME, ...), and variables.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        let refused =
            |(line, problem): (usize, String)| Error::refused(subject, format_args!("line {line}: {problem}"));
        let all = instructions(text).map_err(refused)?;
        let last = all.iter().rposition(|instruction| instruction.name == "FROM");
        let last = last.ok_or_else(|| Error::refused(subject, "no FROM"))?;
        let mut metadata = Self::default();
        for instruction in &all[last + 1..] {
            metadata.apply(instruction).map_err(|problem| refused((instruction.line, problem)))?;
        }
        Ok(metadata)
    }

    fn apply(&mut self, instruction: &Instruction) -> std::result::Result<(), String> {
        let rest = instruction.rest.as_str();
        match instruction.name.as_str() {
            "COPY" => {}
            "ENV" => {
                for (name, value) in pairs(rest)? {
                    let well_formed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
                    if !name.bytes().all(well_formed) || name.starts_with(|c: char| c.is_ascii_digit()) {
                        return Err(format!("{name:?} is not a variable's name"));
                    }
                    match self.env.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, old)) => *old = value,
                        None => self.env.push((name, value)),
                    }
                }
            }
            "LABEL" => self.labels.extend(pairs(rest)?),
            "USER" => self.user = Some(one_word(rest)?),
            "STOPSIGNAL" => self.stop_signal = Some(one_word(rest)?),
            "WORKDIR" => match one_word(rest)? {
                dir if dir.starts_with('/') => self.workdir = Some(dir),
                dir => return Err(format!("WORKDIR {dir:?} is not absolute")),
            },
            "EXPOSE" => {
                for word in words(rest)? {
                    self.ports.insert(port(&word)?);
                }
            }
            "ENTRYPOINT" => self.entrypoint = exec_form(rest)?,
            "CMD" => self.cmd = exec_form(rest)?,
            other => return Err(format!("the native builder cannot follow {other} in the last stage")),
        }
        Ok(())
    }
}

/// One instruction: its first line's number, its name in upper case, and the rest with
/// continuation lines joined.
struct Instruction {
    line: usize,
    name: String,
    rest: String,
}

fn instructions(text: &str) -> std::result::Result<Vec<Instruction>, (usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (line, content) in (1..).zip(text.lines()) {
        let trimmed = content.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            let comment = trimmed.trim_start_matches('#').replace(' ', "").to_ascii_lowercase();
            if comment.starts_with("escape=") && comment != "escape=\\" {
                return Err((line, "another escape character is not understood".to_owned()));
            }
            continue;
        }
        let (first, mut whole) = open.take().unwrap_or((line, String::new()));
        match trimmed.strip_suffix('\\') {
            Some(part) => {
                whole.push_str(part);
                open = Some((first, whole));
            }
            None => {
                whole.push_str(trimmed);
                found.push(instruction(first, &whole)?);
            }
        }
    }
    match open {
        None => Ok(found),
        Some((line, _)) => Err((line, "the last line ends with a backslash".to_owned())),
    }
}

fn instruction(line: usize, whole: &str) -> std::result::Result<Instruction, (usize, String)> {
    let (name, rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
    let (name, rest) = (name.to_ascii_uppercase(), rest.trim().to_owned());
    if rest.is_empty() {
        return Err((line, format!("{name} without arguments")));
    }
    if ["RUN", "COPY", "ADD"].contains(&name.as_str()) && rest.split_whitespace().any(|word| word.starts_with("<<")) {
        return Err((line, "here-documents are not understood".to_owned()));
    }
    Ok(Instruction { line, name, rest })
}

/// `key=value key="a value"`; the old form `key value` is refused.
fn pairs(text: &str) -> std::result::Result<Vec<(String, String)>, String> {
    let words = words(text)?;
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) | None => Err(format!("{word:?} is not key=value")),
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        })
        .collect()
}

fn one_word(text: &str) -> std::result::Result<String, String> {
    let mut words = words(text)?;
    match (words.pop(), words.is_empty()) {
        (Some(word), true) if !word.is_empty() => Ok(word),
        _ => Err(format!("{text:?} is not one word")),
    }
}

fn port(word: &str) -> std::result::Result<String, String> {
    let (number, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    match number.parse::<u16>() {
        Ok(number) if number > 0 && ["tcp", "udp", "sctp"].contains(&protocol) => Ok(format!("{number}/{protocol}")),
        _ => Err(format!("{word:?} is not a port")),
    }
}

fn exec_form(text: &str) -> std::result::Result<Vec<String>, String> {
    serde_json::from_str(text)
        .map_err(|_| format!("{text:?} is not a JSON list of strings; there is no shell in the image"))
}

/// Splits at white space as the Dockerfile's shell-like lexer does: single quotes keep everything,
/// double quotes know `\"`, `\\` and `\$`, elsewhere a backslash keeps the next character.
fn words(text: &str) -> std::result::Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('\\', None) => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("a backslash at the end".to_owned()),
            },
            ('\\', Some('"')) => {
                let escaped = chars.next_if(|next| ['"', '\\', '$'].contains(next));
                word.get_or_insert_default().push(escaped.unwrap_or('\\'));
            }
            ('$', None | Some('"')) => return Err(format!("variables are not understood: {text:?}")),
            (c, None) if c.is_whitespace() => found.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is not closed: {text:?}"));
    }
    found.extend(word);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: std::result::Result<Metadata, &str>) {
        let text = if text.contains("FROM") { text.to_owned() } else { format!("FROM a\n{text}") };
        match (Metadata::parse("Dockerfile", &text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}: {expected}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        }
    }

    fn env(pairs: &[(&str, &str)]) -> std::result::Result<Metadata, &'static str> {
        let env = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Metadata { env, ..Metadata::default() })
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn the_last_stage_counts() {
        let text =
            "ARG B=x\nFROM $B AS build\nRUN make\nENV A=1\nVOLUME /x\nFROM y\nCOPY --from=build /a /a\nuser 7:8\n";
        check(text, Ok(Metadata { user: Some("7:8".to_owned()), ..Metadata::default() }));
    }

    #[test]
    fn variables_keep_their_order_and_the_last_value() {
        check("ENV A=1 B=2\nENV A=3", env(&[("A", "3"), ("B", "2")]));
        check("ENV A=1 \\\n    # why\n\n    B=2", env(&[("A", "1"), ("B", "2")]));
        check(
            r#"ENV A="x y" B='$c' C=a\ b D="\"\\\$\n" E="#,
            env(&[("A", "x y"), ("B", "$c"), ("C", "a b"), ("D", "\"\\$\\n"), ("E", "")]),
        );
        check("ENV A=a=b", env(&[("A", "a=b")]));
    }

    #[test]
    fn every_instruction_has_its_field() {
        check(
            "WORKDIR /tmp\nEXPOSE 5000 5001/udp\nENTRYPOINT [\"mlflow\"]\nCMD [\"server\", \"-h\"]\nLABEL a.b=\"c d\"\nSTOPSIGNAL SIGTERM",
            Ok(Metadata {
                workdir: Some("/tmp".to_owned()),
                ports: ["5000/tcp".to_owned(), "5001/udp".to_owned()].into(),
                entrypoint: list(&["mlflow"]),
                cmd: list(&["server", "-h"]),
                labels: [("a.b".to_owned(), "c d".to_owned())].into(),
                stop_signal: Some("SIGTERM".to_owned()),
                ..Metadata::default()
            }),
        );
    }

    #[test]
    fn what_is_not_understood_names_the_line() {
        check("FROM", Err("line 1: FROM without arguments"));
        check("ARG FROM=1", Err("no FROM"));
        check("RUN pip install x", Err("line 2: the native builder cannot follow RUN"));
        check("USER a\nHEALTHCHECK CMD x", Err("line 3: the native builder cannot follow HEALTHCHECK"));
        check("ENV A 1", Err("line 2: \"A\" is not key=value"));
        check("ENV 1A=1", Err("is not a variable's name"));
        check("ENV A=$B", Err("variables are not understood"));
        check("ENV A=\"${B}\"", Err("variables are not understood"));
        check("ENV A=\"1", Err("a quote is not closed"));
        check("ENV \\\nA=1 \\\nB", Err("line 2: \"B\""));
        check("ENV A=1 \\", Err("line 2: the last line ends"));
        check("CMD mlflow server", Err("line 2: \"mlflow server\" is not a JSON list"));
        check("ENTRYPOINT ['mlflow']", Err("is not a JSON list"));
        check("WORKDIR tmp", Err("WORKDIR \"tmp\" is not absolute"));
        check("EXPOSE 70000", Err("\"70000\" is not a port"));
        check("EXPOSE 5000-5010", Err("is not a port"));
        check("USER a b", Err("is not one word"));
        check("# escape=`\nFROM a", Err("line 1: another escape"));
        check("COPY <<EOF /a\nx\nEOF", Err("here-documents"));
    }
}
