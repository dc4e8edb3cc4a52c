//! `.dockerignore` as docker reads it, which is not as git reads `.gitignore`: patterns are anchored
//! at the context's root, `**` crosses folders, the last pattern that matches a path or a folder
//! above it decides, and an exception brings back what lies in an excluded folder.
//!
//! <https://docs.docker.com/build/concepts/context/#dockerignore-files>

use crate::error::{Error, Kind, Result};

/// The patterns of a file, in its order.
#[derive(Clone, Debug, Default)]
pub struct DockerIgnore(Vec<Pattern>);

#[derive(Clone, Debug)]
struct Pattern {
    /// `!`: what matches is not left out after all.
    exception: bool,
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`
    One,
    /// `*`: any characters of one segment.
    Star,
    /// `**` before something: nothing, or whole segments with the slash behind them.
    Depth,
    /// `**` at the end: anything.
    All,
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl DockerIgnore {
    /// Reads the file's text; `subject` names it in errors.
    pub fn parse(subject: &str, text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            // Only a line that begins with it is a comment.
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let pattern = Pattern::parse(line.trim()).map_err(|problem| {
                Error::new(Kind::Input, format!("{subject}, line {}: {:?}: {problem}", number + 1, line.trim()))
            })?;
            patterns.push(pattern);
        }
        Ok(Self(patterns))
    }

    /// Whether `path`, relative to the context and with slashes, is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let mut excluded = false;
        for pattern in &self.0 {
            // A pattern that could change nothing is not asked.
            if pattern.exception == excluded && pattern.matches_it_or_a_parent(path) {
                excluded = !pattern.exception;
            }
        }
        excluded
    }
}

impl Pattern {
    fn parse(text: &str) -> std::result::Result<Self, &'static str> {
        let (exception, text) = match text.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, text),
        };
        if text.is_empty() {
            return Err("an exception without a pattern");
        }
        let text = clean(text);
        let text = if text.len() > 1 { text.strip_prefix('/').unwrap_or(&text) } else { &text };
        Ok(Self { exception, tokens: tokens(text)? })
    }

    fn matches_it_or_a_parent(&self, path: &str) -> bool {
        let parents = path.char_indices().filter(|(_, c)| *c == '/').map(|(at, _)| &path[..at]);
        parents.chain([path]).any(|path| self.matches(path))
    }

    /// Walks all ways through the pattern at once, so that no pattern takes exponential time.
    fn matches(&self, path: &str) -> bool {
        let tokens = &self.tokens;
        // `at[i]`: token i is next. `in_depth[i]`: the `**` at i has taken part of a segment.
        let (mut at, mut in_depth) = (vec![false; tokens.len() + 1], vec![false; tokens.len() + 1]);
        at[0] = true;
        self.skip_empty(&mut at);
        for c in path.chars() {
            let (mut next, mut next_in_depth) = (vec![false; at.len()], vec![false; at.len()]);
            for (i, token) in tokens.iter().enumerate() {
                if *token == Token::Depth && (at[i] || in_depth[i]) {
                    next_in_depth[i] = true;
                    next[i + 1] |= c == '/';
                }
                if !at[i] {
                    continue;
                }
                match token {
                    Token::Char(wanted) => next[i + 1] |= *wanted == c,
                    Token::One => next[i + 1] |= c != '/',
                    Token::Star => next[i] |= c != '/',
                    Token::All => next[i] = true,
                    Token::Class { negated, ranges } => {
                        let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                        next[i + 1] |= inside != *negated;
                    }
                    Token::Depth => {}
                }
            }
            (at, in_depth) = (next, next_in_depth);
            self.skip_empty(&mut at);
        }
        at[tokens.len()]
    }

    fn skip_empty(&self, at: &mut [bool]) {
        for (i, token) in self.tokens.iter().enumerate() {
            at[i + 1] |= at[i] && matches!(token, Token::Star | Token::All | Token::Depth);
        }
    }
}

/// The shortest path with the same meaning, as Go's `path.Clean` makes it.
fn clean(text: &str) -> String {
    let rooted = text.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => drop(kept.pop()),
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    match (rooted, kept.is_empty()) {
        (true, _) => format!("/{}", kept.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => kept.join("/"),
    }
}

fn tokens(text: &str) -> std::result::Result<Vec<Token>, &'static str> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let token = match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_none() { Token::All } else { Token::Depth }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '[' => class(&mut chars)?,
            '\\' => Token::Char(chars.next().ok_or("a backslash at the end")?),
            c => Token::Char(c),
        };
        found.push(token);
    }
    Ok(found)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> std::result::Result<Token, &'static str> {
    const OPEN: &str = "a [ without its ]";
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next().ok_or(OPEN)? {
        '\\' => chars.next().ok_or(OPEN),
        '-' => Err("a - in [] without its ends"),
        c => Ok(c),
    };
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        if chars.peek() == Some(&']') {
            return Err("an empty []");
        }
        let low = one(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { one(chars)? } else { low };
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_match_decides() {
        let check = |patterns: &str, path: &str, excluded: bool| {
            let ignore = DockerIgnore::parse(".dockerignore", patterns).unwrap();
            assert_eq!(ignore.excludes(path), excluded, "{patterns:?}: {path}");
        };
        // Anchored at the root, unlike in a .gitignore.
        check("a", "a", true);
        check("a", "b/a", false);
        check("a", "a/b/c", true);
        check("/a/", "a/b", true);
        check("./a/../b", "b", true);
        // Within one segment.
        check("*", "a/b", true);
        check("*.md", "README.md", true);
        check("*.md", "docs/README.md", false);
        check("*/*.md", "docs/README.md", true);
        check("*/*.md", "a/docs/README.md", false);
        check("te?p", "temp", true);
        check("te?p", "te/p", false);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a-c]x", "dx", true);
        // Across segments.
        check("**/*.pyc", "x.pyc", true);
        check("**/*.pyc", "a/b/x.pyc", true);
        check("**/x", "a/x/b", true);
        check("**/x", "ax", false);
        check("**x", "ax", false);
        check("**x", "a/bx", false);
        check("**x", "a/x", true);
        check("a/**", "a", false);
        check("a/**", "a/b/c", true);
        check("a/**/b", "a/b", true);
        check("a/**/b", "a/x/y/b", true);
        check("a/**/b", "a/xb", false);
        check("a/**/b", "xa/b", false);
        check("a**", "ab/c", true);
        check("**", "a/b", true);
        // Characters that mean something elsewhere.
        check("a.c", "abc", false);
        check("a\\*b", "a*b", true);
        check("a\\*b", "axb", false);
        check("a+(b)|{c}$", "a+(b)|{c}$", true);
        // Exceptions and their order.
        check("*\n!a", "a/b", false);
        check("*\n!a", "b", true);
        check("!a\n*", "a", true);
        check("*\n!a\na/b", "a/b/c", true);
        check("*\n!a\n**/*.pyc", "a/b.pyc", true);
        check("a/b\n!a/b/c", "a/b/c", false);
        check("!a", "a", false);
        check("*\n! a ", "a", false);
        // Comments and empty lines.
        check("# a\n\n  b  \r\n", "b", true);
        check("#a", "#a", false);
        check(" #a", "#a", true);
        check("\u{feff}a", "a", true);
        check("", "a", false);
    }

    #[test]
    fn what_docker_refuses_is_refused_with_its_line() {
        for (text, expected) in [
            ("a\n!", "line 2: \"!\": an exception without"),
            ("[", "a [ without"),
            ("[]a", "an empty []"),
            ("[-]", "without its ends"),
            ("a\\", "a backslash at the end"),
        ] {
            let error = DockerIgnore::parse(".dockerignore", text).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let ignore = DockerIgnore::parse(".dockerignore", &format!("{}z", "**/*a*".repeat(20))).unwrap();
        assert!(!ignore.excludes(&"a/".repeat(100)));
    }
}
