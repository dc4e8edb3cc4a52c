//! `requirements.lock`: pinned distributions with the hashes of the wheels of all platforms, in
//! pip's requirements format (`name==version --hash=sha256:...`).

use std::fmt::Write as _;

use crate::{Digest, Error, Result};

/// The pinned distributions, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirements(pub Vec<Requirement>);

/// One pinned distribution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The normalized name (PEP 503).
    pub name: String,
    /// The exact version.
    pub version: String,
    /// The hashes of its acceptable wheels; never empty.
    pub hashes: Vec<Digest>,
}

/// What the lock's leading comment records about its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The set of dependencies: `server` or `full`.
    pub set: String,
    /// Digest of what the set was resolved from.
    pub inputs: Digest,
}

impl Header {
    /// Reads the `# set:` and `# inputs:` lines; refuses a lock without them.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        let field = |name: &str| {
            let lines = text.lines().take_while(|line| line.starts_with('#'));
            let mut values = lines.filter_map(|line| line[1..].trim().strip_prefix(name)?.strip_prefix(':'));
            let value = values.next().map(str::trim).filter(|value| !value.is_empty());
            value.ok_or_else(|| Error::refused(subject, format_args!("the leading comment has no `# {name}:` line")))
        };
        Ok(Self { set: field("set")?.to_owned(), inputs: field("inputs")?.parse()? })
    }
}

impl Requirements {
    /// The file's text, as pip and uv read it with `--require-hashes --no-deps`. Written in the
    /// order of the requirements.
    pub fn to_text(&self, header: &Header) -> String {
        let mut out = String::from("# Written by `cargo xtask lock` from requirements.in. Do not edit.\n");
        let _ = writeln!(out, "# The wheels for linux/amd64 and linux/arm64; install with --no-deps.");
        let _ = writeln!(out, "# set: {}\n# inputs: {}", header.set, header.inputs);
        for Requirement { name, version, hashes } in &self.0 {
            let _ = write!(out, "{name}=={version}");
            for hash in hashes {
                let _ = write!(out, " \\\n    --hash={hash}");
            }
            out.push('\n');
        }
        out
    }

    /// Reads the file's text; `subject` names it in errors. Anything but pinned and hashed
    /// requirements (options, URLs, markers, unpinned names) is refused.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        let mut found: Vec<Requirement> = Vec::new();
        for line in logical_lines(text) {
            let requirement = parse_line(&line).map_err(|problem| Error::refused(subject, problem))?;
            if found.iter().any(|other| other.name == requirement.name) {
                return Err(Error::refused(subject, format_args!("{} is listed twice", requirement.name)));
            }
            found.push(requirement);
        }
        Ok(Self(found))
    }
}

fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text.lines() {
        let line = line.trim();
        let line = if line.starts_with('#') { "" } else { line.split(" #").next().unwrap_or("") };
        match line.strip_suffix('\\') {
            Some(more) => current.push_str(more),
            None => {
                current.push_str(line);
                lines.push(std::mem::take(&mut current));
            }
        }
    }
    lines.push(current);
    lines.retain(|line| !line.trim().is_empty());
    lines
}

fn parse_line(line: &str) -> std::result::Result<Requirement, String> {
    let mut words = line.split_whitespace();
    let pin = words.next().unwrap_or_default();
    let (name, version) = pin.split_once("==").ok_or_else(|| format!("{pin:?} is not pinned with =="))?;
    let well_formed =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._+!".contains(&b));
    if !well_formed(name) || !well_formed(version) {
        return Err(format!("{pin:?} is not name==version"));
    }
    let mut hashes = Vec::new();
    for word in words {
        let digest = word.strip_prefix("--hash=").ok_or_else(|| format!("{name}: {word:?} is not a --hash"))?;
        hashes.push(digest.parse().map_err(|error| format!("{name}: {error}"))?);
    }
    if hashes.is_empty() {
        return Err(format!("{name} has no --hash"));
    }
    Ok(Requirement { name: normalize(name), version: version.to_owned(), hashes })
}

/// PEP 503: lower case, runs of `-_.` become one `-`.
pub fn normalize(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: std::result::Result<&[(&str, &str, usize)], &str>) {
        match (Requirements::parse("requirements.lock", text), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<_> =
                    found.0.iter().map(|r| (r.name.as_str(), r.version.as_str(), r.hashes.len())).collect();
                assert_eq!(found, expected, "{text}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn pinned_and_hashed_lines_are_read_and_all_else_is_refused() {
        let hash = Digest::of("x");
        check("", Ok(&[]));
        check("# only a comment\n\n", Ok(&[]));
        check(
            &format!("Flask_WTF==1.3.0 \\\n    --hash={hash} \\\n    --hash={}\n    # via x\n", Digest::of("y")),
            Ok(&[("flask-wtf", "1.3.0", 2)]),
        );
        check("six==1.17.0", Err("six has no --hash"));
        check("six>=1.17.0", Err("not pinned"));
        check("--index-url https://example.com", Err("not pinned"));
        check(&format!("six==1.17.0 --hash={hash}\nSIX==1.16.0 --hash={hash}"), Err("six is listed twice"));
        check("six==1.17.0 --hash=md5:00", Err("six: digest"));
        check(&format!("six==1.17.0 ; python_version>'3' --hash={hash}"), Err("is not a --hash"));
    }

    #[test]
    fn a_lock_is_read_as_it_is_written() {
        let requirement = |name: &str, hashes: &[&str]| Requirement {
            name: name.to_owned(),
            version: "1.0+local".to_owned(),
            hashes: hashes.iter().map(Digest::of).collect(),
        };
        let lock = Requirements(vec![requirement("flask-wtf", &["a"]), requirement("numpy", &["b", "c"])]);
        let header = Header { set: "server".to_owned(), inputs: Digest::of("in") };
        let text = lock.to_text(&header);
        assert_eq!(Requirements::parse("requirements.lock", &text).unwrap(), lock, "{text}");
        assert_eq!(Header::parse("requirements.lock", &text).unwrap(), header);
    }

    #[test]
    fn a_lock_without_its_origin_is_refused() {
        for (text, expected) in [
            ("", "no `# set:` line"),
            ("# set: full\n", "no `# inputs:` line"),
            ("six==1\n# set: full\n# inputs: x\n", "no `# set:` line"),
            ("# set: full\n# inputs: x\n", "digest \"x\""),
        ] {
            let error = Header::parse("requirements.lock", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
