//! The literals that a Python module gives to names, read without running it: all that alembic's
//! migrations say about themselves.

use std::collections::BTreeMap;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// `None`.
    None,
    /// A string without escapes.
    Text(String),
    /// A tuple or a list of strings.
    List(Vec<String>),
}

/// What the module's own statements, not those of its blocks, give to `names`. As in Python, the last
/// counts.
///
/// # Errors
/// What is no literal of these kinds, or no Python, in a few words with its line.
pub fn assignments<'n>(source: &str, names: &[&'n str]) -> Result<BTreeMap<&'n str, Literal>, String> {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut scanner = Scanner { source, at: 0 };
    let mut found = BTreeMap::new();
    while scanner.peek().is_some() {
        let name = scanner.word();
        if let Some(name) = names.iter().find(|known| **known == name)
            && scanner.is_assigned()?
        {
            found.insert(*name, scanner.value()?);
        }
        scanner.statement()?;
    }
    Ok(found)
}

struct Scanner<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Scanner<'s> {
    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn advance(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    fn wrong(&self, what: &str) -> String {
        format!("line {}: {what}", self.source[..self.at].matches('\n').count() + 1)
    }

    /// Letters, digits and underscores from here on; none is the empty word.
    fn word(&mut self) -> &'s str {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn comment(&mut self) {
        self.at += self.rest().find('\n').unwrap_or(self.rest().len());
    }

    /// Spaces and continued lines; in brackets also line breaks and comments.
    fn blank(&mut self, in_brackets: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r' | '\u{c}') => self.advance(),
                Some('\n') if in_brackets => self.advance(),
                Some('#') if in_brackets => self.comment(),
                Some('\\') if self.rest().starts_with("\\\n") => self.at += 2,
                Some('\\') if self.rest().starts_with("\\\r\n") => self.at += 3,
                _ => return,
            }
        }
    }

    /// Whether the name before is given a value here; then the scanner is before the value.
    fn is_assigned(&mut self) -> Result<bool, String> {
        self.blank(false);
        if self.peek() == Some(':') {
            let mut depth = 0_u32;
            while let Some(next) = self.peek() {
                if depth == 0 && matches!(next, '=' | '\n' | '#' | ';') {
                    break;
                }
                self.token(&mut depth)?;
            }
        }
        if self.peek() != Some('=') || self.rest().starts_with("==") {
            return Ok(false);
        }
        self.advance();
        Ok(true)
    }

    fn value(&mut self) -> Result<Literal, String> {
        self.blank(false);
        let literal = match self.peek() {
            Some('(') => self.list(')')?,
            Some('[') => self.list(']')?,
            Some('"' | '\'') => Literal::Text(self.text()?),
            _ if self.word() == "None" => Literal::None,
            _ => return Err(self.wrong("the value is no literal")),
        };
        self.blank(false);
        match self.peek() {
            None | Some('\n' | '#' | ';') => Ok(literal),
            Some(_) => Err(self.wrong("the value is no literal")),
        }
    }

    fn list(&mut self, end: char) -> Result<Literal, String> {
        self.advance();
        let (mut items, mut commas) = (Vec::new(), 0);
        loop {
            self.blank(true);
            match self.peek() {
                Some(c) if c == end => break,
                Some('"' | '\'') if items.len() == commas => items.push(self.text()?),
                Some(',') if items.len() == commas + 1 => {
                    commas += 1;
                    self.advance();
                }
                _ => return Err(self.wrong("the value is no list of strings")),
            }
        }
        self.advance();
        // Parentheses alone make no tuple.
        match (end, items.as_slice(), commas) {
            (')', [one], 0) => Ok(Literal::Text(one.clone())),
            _ => Ok(Literal::List(items)),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let start = self.at;
        let quotes = self.string()?;
        let text = &self.source[start + quotes..self.at - quotes];
        match text.contains('\\') {
            true => Err(self.wrong("the string has escapes")),
            false => Ok(text.to_owned()),
        }
    }

    /// Goes past a string literal, without its prefix; how many quotes it has at each end.
    fn string(&mut self) -> Result<usize, String> {
        let quote = &self.rest()[..1];
        let triple = quote.repeat(3);
        let (end, long) = if self.rest().starts_with(&triple) { (triple.as_str(), true) } else { (quote, false) };
        let begun = self.at;
        self.at += end.len();
        while !self.rest().starts_with(end) {
            match self.peek() {
                Some('\\') => {
                    self.advance();
                    self.advance();
                }
                None => {
                    self.at = begun;
                    return Err(self.wrong("a string has no end"));
                }
                Some('\n') if !long => return Err(self.wrong("a string has no end")),
                Some(_) => self.advance(),
            }
        }
        self.at += end.len();
        Ok(end.len())
    }

    /// Goes past one token of any kind.
    fn token(&mut self, depth: &mut u32) -> Result<(), String> {
        match self.peek() {
            Some('"' | '\'') => drop(self.string()?),
            Some('#') => self.comment(),
            Some('(' | '[' | '{') => {
                *depth += 1;
                self.advance();
            }
            Some(')' | ']' | '}') => {
                *depth = depth.checked_sub(1).ok_or_else(|| self.wrong("a bracket closes nothing"))?;
                self.advance();
            }
            Some('\\') => {
                self.advance();
                self.blank_after_backslash();
            }
            _ => self.advance(),
        }
        Ok(())
    }

    fn blank_after_backslash(&mut self) {
        if self.peek() == Some('\r') {
            self.advance();
        }
        self.advance();
    }

    /// Goes to where the next statement that stands by itself may begin.
    fn statement(&mut self) -> Result<(), String> {
        let mut depth = 0;
        while let Some(next) = self.peek() {
            let ends = depth == 0 && next == '\n';
            self.token(&mut depth)?;
            if ends {
                return Ok(());
            }
        }
        match depth {
            0 => Ok(()),
            _ => Err(self.wrong("a bracket is not closed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: Result<&str, &str>) {
        let text = |literal: &Literal| match literal {
            Literal::None => "None".to_owned(),
            Literal::Text(text) => text.clone(),
            Literal::List(items) => format!("[{}]", items.join(" ")),
        };
        match (assignments(source, &["a", "b"]), expected) {
            (Ok(found), Ok(expected)) => {
                let found: Vec<String> = found.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
                assert_eq!(found.join(" "), expected, "{source}");
            }
            (Err(error), Err(expected)) => assert_eq!(error, expected, "{source}"),
            (found, _) => panic!("{source}: {found:?}"),
        }
    }

    #[test]
    fn literals_are_read() {
        check("", Ok(""));
        check("a = \"1\"\nb = None\n", Ok("a=1 b=None"));
        check("a='1'", Ok("a=1"));
        check("a = ('1', '2')\nb = [\"3\"]", Ok("a=[1 2] b=[3]"));
        check("a = ('1',)\nb = ('1')", Ok("a=[1] b=1"));
        check("a = ()", Ok("a=[]"));
        check("a = (\n    '1',  # first\n    '2',\n)\nb = None", Ok("a=[1 2] b=None"));
        check("a: str = '1'\nb: Union[str, None, \"x=y\"] = None  # none\n", Ok("a=1 b=None"));
        check("a = \\\n  '1'\r\nb = '2'\r\n", Ok("a=1 b=2"));
        check("\u{feff}a = '''1'''", Ok("a=1"));
        check("a = '1'; x = 2", Ok("a=1"));
        check("a = '1'\na = '2'", Ok("a=2"));
    }

    #[test]
    fn what_only_looks_like_it_is_left_alone() {
        check("\"\"\"text\n\na = '1'\nb = '2'\n\"\"\"\na = '3'\n", Ok("a=3"));
        check("'''it''s \\''' a'''\na = '1'", Ok("a=1"));
        check("# a = '1'\nx = '# no comment'\na = '2'", Ok("a=2"));
        check("if x:\n    a = '1'\ndef f():\n    b = '2'\n", Ok(""));
        check("f(\na = '1'\n)\n", Ok(""));
        check("x = {\n'y': [\n(1)]}\na = '1'", Ok("a=1"));
        check("ab = '1'\na_b = '2'\nx.a = '3'\n", Ok(""));
        check("a == '1'\na += '2'\na: str\n", Ok(""));
        check("x = r'\\' + \"\\\"\"\na = '1'", Err("line 1: a string has no end"));
        check("x = 'ü'  # ü\na = '1'", Ok("a=1"));
    }

    #[test]
    fn what_must_be_run_to_be_known_is_refused() {
        check("a = f()", Err("line 1: the value is no literal"));
        check("\na = 'x' + y", Err("line 2: the value is no literal"));
        check("a = 'x' 'y'", Err("line 1: the value is no literal"));
        check("a = f'x'", Err("line 1: the value is no literal"));
        check("a = ('x', y)", Err("line 1: the value is no list of strings"));
        check("a = ('x' 'y')", Err("line 1: the value is no list of strings"));
        check("a = (,)", Err("line 1: the value is no list of strings"));
        check("a = '\\x31'", Err("line 1: the string has escapes"));
        check("a = '1\n", Err("line 1: a string has no end"));
        check("x = 1\n\"\"\"y\n", Err("line 2: a string has no end"));
        check("x = (1\n", Err("line 2: a bracket is not closed"));
        check("x = 1)\n", Err("line 1: a bracket closes nothing"));
    }
}
