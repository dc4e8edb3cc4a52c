//! What people write: `requirements.in`, `overrides.txt` and `debian.in`. Their digests go into
//! the locks; comments and spaces don't count.

use std::fmt;
use std::str::FromStr;

use mlflow_image::Digest;
use mlflow_image::lock::{MAIN_ARCHIVE, normalize};
use mlflow_image::packages::is_package_name;

use crate::error::{Error, Kind, Result};
use crate::sources::debian::Suite;

/// The requirements, below the repository's root.
pub const REQUIREMENTS_IN: &str = "mlflow_server/requirements.in";
/// What is dropped of MLflow's own dependencies, below the repository's root.
pub const OVERRIDES: &str = "mlflow_server/overrides.txt";
/// The Debian packages, below the repository's root.
pub const DEBIAN_IN: &str = "mlflow_server/debian.in";

/// Which dependencies are locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Set {
    /// What the server uses: MLflow's dependencies without those of overrides.txt.
    #[default]
    Server,
    /// All of MLflow's own dependencies.
    Full,
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Full => "full",
        })
    }
}

impl FromStr for Set {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "server" => Ok(Self::Server),
            "full" => Ok(Self::Full),
            other => {
                Err(Error::new(Kind::Input, format!("requirements.lock: set {other:?} is neither server nor full")))
            }
        }
    }
}

/// The texts of `requirements.in` and `overrides.txt`.
#[derive(Clone, Debug)]
pub struct PythonInputs {
    /// What the server is made of.
    pub requirements: String,
    /// Distributions that MLflow asks for and the server does not need.
    pub overrides: String,
}

impl PythonInputs {
    /// Digest of what the set is resolved from.
    pub fn digest(&self, set: Set) -> Digest {
        let mut text = format!("set {set}\n{}", meaning(&self.requirements));
        if set == Set::Server {
            text.push_str("overrides\n");
            text.push_str(&meaning(&self.overrides));
        }
        Digest::of(text)
    }

    /// The normalized names that `requirements.in` lists.
    pub fn names(&self) -> Vec<String> {
        names(&self.requirements)
    }

    /// The normalized names that `overrides.txt` drops.
    pub fn dropped(&self) -> Vec<String> {
        names(&self.overrides)
    }
}

/// The words of each line, without comments and empty lines.
fn meaning(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        // In requirements files a `#` begins a comment at the start of a line or after a space.
        let line = if line.trim_start().starts_with('#') { "" } else { line.split(" #").next().unwrap_or("") };
        let words: Vec<&str> = line.split_whitespace().collect();
        if !words.is_empty() {
            out.push_str(&words.join(" "));
            out.push('\n');
        }
    }
    out
}

/// The name at the start of each requirement: it ends where extras, a version or a marker begin.
fn names(text: &str) -> Vec<String> {
    let meaning = meaning(text);
    let lines = meaning.lines().filter(|line| !line.starts_with('-'));
    lines
        .map(|line| {
            let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c))).unwrap_or(line.len());
            normalize(&line[..end])
        })
        .collect()
}

/// `debian.in`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebianInputs {
    /// The suites to resolve from; the first is the release.
    pub suites: Vec<Suite>,
    /// Fingerprints of the keys that sign them.
    pub keys: Vec<String>,
    /// The packages, sorted.
    pub packages: Vec<String>,
    /// Dependencies that are left out on purpose.
    pub without: Vec<String>,
    /// Digest of all of it.
    pub digest: Option<Digest>,
}

impl DebianInputs {
    /// Reads the file: `suite NAME [ARCHIVE]`, `key FINGERPRINT`, `without PACKAGE`, or a
    /// package's name on a line of its own; `#` begins a comment.
    pub fn parse(text: &str) -> Result<Self> {
        let text = meaning(text);
        let mut inputs = Self { digest: Some(Digest::of(&text)), ..Self::default() };
        for line in text.lines() {
            let refused = |problem: &str| {
                Err(Error::new(Kind::Input, format!("debian.in: {line:?} {problem}"))
                    .hint("a line is `suite NAME [ARCHIVE]`, `key FINGERPRINT`, `without PACKAGE` or a package's name"))
            };
            let words: Vec<&str> = line.split(' ').collect();
            match *words.as_slice() {
                ["suite", name, ref archive @ ..] if archive.len() <= 1 => {
                    let archive = archive.first().copied().unwrap_or(MAIN_ARCHIVE);
                    if !is_package_name(name) || !is_package_name(archive) {
                        return refused("is no suite");
                    }
                    inputs.suites.push(Suite { name: name.to_owned(), archive: archive.to_owned() });
                }
                ["key", fingerprint] => {
                    if fingerprint.len() != 40 || !fingerprint.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return refused("has no fingerprint of 40 hex digits");
                    }
                    inputs.keys.push(fingerprint.to_owned());
                }
                ["without", name] if is_package_name(name) => inputs.without.push(name.to_owned()),
                [name] if is_package_name(name) => {
                    if inputs.packages.iter().any(|other| other == name) {
                        return refused("is listed twice");
                    }
                    inputs.packages.push(name.to_owned());
                }
                _ => return refused("is not understood"),
            }
        }
        if inputs.suites.is_empty() || inputs.packages.is_empty() {
            return Err(Error::new(Kind::Input, "debian.in names no suite or no package"));
        }
        if let Some(name) = inputs.without.iter().find(|name| inputs.packages.contains(name)) {
            return Err(Error::new(Kind::Input, format!("debian.in both lists {name} and does without it")));
        }
        inputs.packages.sort();
        Ok(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(requirements: &str, overrides: &str) -> PythonInputs {
        PythonInputs { requirements: requirements.to_owned(), overrides: overrides.to_owned() }
    }

    #[test]
    fn comments_and_spaces_do_not_count() {
        let digest = |requirements, overrides, set| python(requirements, overrides).digest(set);
        let base = digest("mlflow\nsix >= 1\n", "scipy ; x\n", Set::Server);
        assert_eq!(digest("# why\n\n mlflow\nsix  >= 1  # reason\n", "scipy ; x", Set::Server), base);
        assert_ne!(digest("mlflow\nsix >= 2\n", "scipy ; x\n", Set::Server), base);
        assert_ne!(digest("mlflow\nsix >= 1\n", "", Set::Server), base);
        assert_ne!(digest("mlflow\nsix >= 1\n", "scipy ; x\n", Set::Full), base);
        assert_eq!(digest("mlflow", "a", Set::Full), digest("mlflow", "b", Set::Full));
    }

    #[test]
    fn names_end_where_extras_versions_and_markers_begin() {
        let text = "mlflow\npsycopg[binary]\nFlask_WTF<2 # login\nsix ; python_version<'3'\n-c x.txt\na==1\n";
        assert_eq!(python(text, "").names(), ["mlflow", "psycopg", "flask-wtf", "six", "a"]);
    }

    fn check(text: &str, expected: std::result::Result<&str, &str>) {
        match (DebianInputs::parse(text), expected) {
            (Ok(found), Ok(expected)) => {
                let suites = found.suites.iter().map(|suite| format!("{}@{}", suite.name, suite.archive));
                let shown = format!(
                    "{} | {} | {}",
                    suites.collect::<Vec<_>>().join(" "),
                    found.packages.join(" "),
                    found.without.join(" ")
                );
                assert_eq!(shown, expected, "{text}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn debian_in_is_read() {
        check(
            "suite trixie # main\nsuite trixie-security debian-security\n\nzlib1g\nlibc6\nwithout debconf # no shell",
            Ok("trixie@debian trixie-security@debian-security | libc6 zlib1g | debconf"),
        );
        check("", Err("no suite or no package"));
        check("suite trixie", Err("no suite or no package"));
        check("suite ../x\nlibc6", Err("is no suite"));
        check("suite a b c\nlibc6", Err("is not understood"));
        check("suite trixie\nlibc6\nlibc6", Err("listed twice"));
        check("suite trixie\nlibc6\nwithout libc6", Err("both lists libc6"));
        check("suite trixie\nLibC", Err("is not understood"));
        check("suite trixie\nkey 1234\nlibc6", Err("no fingerprint"));
    }
}
