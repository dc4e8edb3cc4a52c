//! `mlflow_server/exclude`: folders below site-packages that the server never reads.

use crate::{Digest, Error, Result, path};

/// Path patterns below site-packages, one a line; `*` stands for any characters of one segment.
/// A pattern names a file or a folder with all that is in it.
#[derive(Clone, Debug, Default)]
pub struct Exclude(Vec<Vec<String>>);

impl Exclude {
    /// Reads the file's text; `#` starts a comment. Refuses absolute paths, `..` and `**`.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let pattern = line.split('#').next().unwrap_or_default().trim();
            if pattern.is_empty() {
                continue;
            }
            let refused =
                |problem: String| Error::refused(subject, format_args!("line {}: {pattern:?}: {problem}", number + 1));
            let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
            path::check(pattern).map_err(refused)?;
            if pattern.contains("**") {
                return Err(refused("** is not known; name each folder".to_owned()));
            }
            patterns.push(pattern.split('/').map(str::to_owned).collect());
        }
        patterns.sort();
        patterns.dedup();
        Ok(Self(patterns))
    }

    /// Whether the file `path`, relative to site-packages, is left out.
    pub fn matches(&self, path: &str) -> bool {
        self.0.iter().any(|pattern| {
            let mut parts = path.split('/');
            pattern.iter().all(|wanted| parts.next().is_some_and(|part| segment_matches(wanted, part)))
        })
    }

    /// A digest over the patterns; part of the key of wheel layers.
    pub fn digest(&self) -> Digest {
        let lines: Vec<String> = self.0.iter().map(|pattern| pattern.join("/")).collect();
        Digest::of(lines.join("\n"))
    }
}

/// Whether `text` is `pattern` with each `*` replaced by something.
fn segment_matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_a_folder_and_all_below_it() {
        let exclude =
            Exclude::parse("exclude", "# tests\nnumpy/*/tests\npandas/tests/ # large\n\nx/*_t*.py\n").unwrap();
        for (path, expected) in [
            ("numpy/core/tests/test_x.py", true),
            ("numpy/core/tests/data/a.csv", true),
            ("numpy/tests/test_x.py", false),
            ("numpy/a/b/tests/x.py", false),
            ("numpy/core/tests.py", false),
            ("pandas/tests/x.py", true),
            ("pandas/tests2/x.py", false),
            ("other/pandas/tests/x.py", false),
            ("x/a_test.py", true),
            ("x/_t.py", true),
            ("x/at.py", false),
            ("numpy", false),
        ] {
            assert_eq!(exclude.matches(path), expected, "{path}");
        }
        assert!(!Exclude::default().matches("a"));
    }

    #[test]
    fn a_pattern_stays_below_site_packages() {
        for (text, expected) in [
            ("/etc", "line 1: \"/etc\": an absolute path"),
            ("a\n../b", "line 2: \"../b\": a path that leaves"),
            ("a/**/b", "** is not known"),
            ("a//b", "empty part"),
        ] {
            let error = Exclude::parse("exclude", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn the_digest_depends_on_the_patterns_and_not_on_comments_or_order() {
        let digest = |text| Exclude::parse("exclude", text).unwrap().digest();
        assert_eq!(digest("a/b\nc"), digest("# x\nc\na/b/\na/b\n"));
        assert_ne!(digest("a/b\nc"), digest("a/b"));
        assert_ne!(digest("a/b"), digest("a\nb"));
    }
}
