//! Expressions, `${{ }}`: what the workflows of this repository use of them
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/expressions>).

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Result, error, hash};

/// What an expression can see.
#[derive(Clone, Debug, Default)]
pub(super) struct Scope {
    /// By name: `github`, `env`, `steps` ...
    pub(super) contexts: Map<String, Value>,
    /// Whether something before has failed.
    pub(super) failed: bool,
    /// The checkout, whose files `hashFiles` reads.
    pub(super) workspace: PathBuf,
}

impl Scope {
    /// Adds a context.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.contexts.insert(name.to_owned(), value.into());
    }

    /// A text with expressions in it. One that is a single expression keeps its type.
    pub(super) fn value(&self, text: &str) -> Result<Value> {
        let parts = split(text)?;
        if let [Part::Expression(expression)] = parts[..] {
            return self.evaluate(expression);
        }
        let mut whole = String::new();
        for part in parts {
            match part {
                Part::Text(text) => whole.push_str(text),
                Part::Expression(expression) => whole.push_str(&to_text(&self.evaluate(expression)?)?),
            }
        }
        Ok(Value::String(whole))
    }

    /// The same, as text.
    pub(super) fn text(&self, text: &str) -> Result<String> {
        to_text(&self.value(text)?)
    }

    /// An `if`. Without a word about the status before it means success.
    pub(super) fn condition(&self, text: &str) -> Result<bool> {
        let expression = match &split(text)?[..] {
            [Part::Expression(expression)] => *expression,
            [Part::Text(text)] => *text,
            _ => return Err(error(format!("`{text}` is always true: it is text with expressions in it"))),
        };
        let tokens = tokens(expression)?;
        let status = ["always", "success", "failure", "cancelled"];
        let asks = tokens.iter().any(|token| matches!(token, Token::Name(name) if status.contains(&name.as_str())));
        let holds = truth(&self.evaluate(expression)?);
        Ok(holds && (asks || !self.failed))
    }

    fn evaluate(&self, expression: &str) -> Result<Value> {
        let inside = |problem: super::Error| error(format!("{problem}, in `{}`", expression.trim()));
        let mut parser = Parser { tokens: tokens(expression).map_err(inside)?, at: 0, scope: self };
        let value = parser.or(true).map_err(inside)?;
        match parser.peek() {
            None => Ok(value),
            Some(token) => Err(inside(error(format!("unexpected {token:?}")))),
        }
    }
}

/// A value as text.
pub(super) fn to_text(value: &Value) -> Result<String> {
    match value {
        Value::Null => Ok(String::new()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Number(value) => Ok(value.to_string()),
        Value::String(value) => Ok(value.clone()),
        Value::Array(_) | Value::Object(_) => Err(error(format!("a list or an object where text is wanted: {value}"))),
    }
}

#[derive(Debug)]
enum Part<'a> {
    Text(&'a str),
    Expression(&'a str),
}

fn split(text: &str) -> Result<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${{") {
        if start > 0 {
            parts.push(Part::Text(&rest[..start]));
        }
        let inner = &rest[start + 3..];
        // No string in these workflows holds the closing braces.
        let end = inner.find("}}").ok_or_else(|| error(format!("no }}}} after ${{{{ in `{text}`")))?;
        parts.push(Part::Expression(&inner[..end]));
        rest = &inner[end + 2..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest));
    }
    Ok(parts)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
}

const SIGNS: &[&str] = &["==", "!=", "&&", "||", "!", "(", ")", "[", "]", ".", ","];

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let take = |accept: fn(char) -> bool| rest.find(|c| !accept(c)).unwrap_or(rest.len());
        let used = if first == '\'' {
            let (value, used) = quoted(rest)?;
            found.push(Token::Text(value));
            used
        } else if first.is_ascii_digit() {
            let used = take(|c| c.is_ascii_digit() || c == '.');
            let number = rest[..used].parse().map_err(|_| error(format!("{} is no number", &rest[..used])))?;
            found.push(Token::Number(number));
            used
        } else if first.is_ascii_alphabetic() || first == '_' {
            let used = take(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
            found.push(Token::Name(rest[..used].to_owned()));
            used
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push(Token::Sign(sign));
            sign.len()
        } else {
            return Err(error(format!("`{first}` is not known here")));
        };
        rest = rest[used..].trim_start();
    }
    Ok(found)
}

/// A text in quotes, in which two quotes mean one, and how long it is.
fn quoted(text: &str) -> Result<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\'' {
            value.push(c);
        } else if chars.next_if(|(_, next)| *next == '\'').is_some() {
            value.push('\'');
        } else {
            return Ok((value, at + 1));
        }
    }
    Err(error("a quote that is not closed"))
}

/// Reads and evaluates in one go. What is not reached (`wanted` is false) is read only.
struct Parser<'a> {
    tokens: Vec<Token>,
    at: usize,
    scope: &'a Scope,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn accept(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Sign(found)) if *found == sign);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.accept(sign) { Ok(()) } else { Err(error(format!("{sign} is missing"))) }
    }

    fn or(&mut self, wanted: bool) -> Result<Value> {
        let mut left = self.and(wanted)?;
        while self.accept("||") {
            let decided = truth(&left);
            let right = self.and(wanted && !decided)?;
            left = if decided { left } else { right };
        }
        Ok(left)
    }

    fn and(&mut self, wanted: bool) -> Result<Value> {
        let mut left = self.comparison(wanted)?;
        while self.accept("&&") {
            let goes_on = truth(&left);
            let right = self.comparison(wanted && goes_on)?;
            left = if goes_on { right } else { left };
        }
        Ok(left)
    }

    fn comparison(&mut self, wanted: bool) -> Result<Value> {
        let left = self.not(wanted)?;
        let same = self.accept("==");
        if !same && !self.accept("!=") {
            return Ok(left);
        }
        let right = self.not(wanted)?;
        Ok(Value::Bool(equal(&left, &right) == same))
    }

    fn not(&mut self, wanted: bool) -> Result<Value> {
        if self.accept("!") {
            return Ok(Value::Bool(!truth(&self.not(wanted)?)));
        }
        let (mut value, mut path) = self.primary(wanted)?;
        loop {
            let key = if self.accept(".") {
                match self.next()? {
                    Token::Name(name) => Value::String(name),
                    other => return Err(error(format!("{other:?} after a dot"))),
                }
            } else if self.accept("[") {
                let key = self.or(wanted)?;
                self.expect("]")?;
                key
            } else {
                return Ok(value);
            };
            if wanted {
                path = format!("{path}.{}", to_text(&key)?);
                value = member(&value, &key).ok_or_else(|| error(format!("there is no {path}")))?;
            }
        }
    }

    fn next(&mut self) -> Result<Token> {
        let token = self.peek().cloned().ok_or_else(|| error("it ends too early"))?;
        self.at += 1;
        Ok(token)
    }

    /// A value, and what it is called in messages.
    fn primary(&mut self, wanted: bool) -> Result<(Value, String)> {
        match self.next()? {
            Token::Text(text) => Ok((Value::String(text), "text".to_owned())),
            Token::Number(number) => Ok((number.into(), "number".to_owned())),
            Token::Sign("(") => {
                let value = self.or(wanted)?;
                self.expect(")")?;
                Ok((value, "(...)".to_owned()))
            }
            Token::Name(name) if self.accept("(") => {
                let mut arguments = Vec::new();
                while !self.accept(")") {
                    if !arguments.is_empty() {
                        self.expect(",")?;
                    }
                    arguments.push(self.or(wanted)?);
                }
                let value = if wanted { self.call(&name, &arguments)? } else { Value::Null };
                Ok((value, format!("{name}(...)")))
            }
            Token::Name(name) => {
                let value = match name.as_str() {
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    "null" => Value::Null,
                    _ if !wanted => Value::Null,
                    context => self.scope.contexts.get(context).cloned().ok_or_else(|| {
                        let known: Vec<_> = self.scope.contexts.keys().map(String::as_str).collect();
                        error(format!("there is no {context} here, but {}", known.join(", ")))
                    })?,
                };
                Ok((value, name))
            }
            other @ Token::Sign(_) => Err(error(format!("unexpected {other:?}"))),
        }
    }

    fn call(&self, name: &str, arguments: &[Value]) -> Result<Value> {
        match (name, arguments) {
            ("always", []) => Ok(Value::Bool(true)),
            ("success", []) => Ok(Value::Bool(!self.scope.failed)),
            ("failure", []) => Ok(Value::Bool(self.scope.failed)),
            // Nobody cancels anything here.
            ("cancelled", []) => Ok(Value::Bool(false)),
            ("fromJSON", [Value::String(text)]) => {
                serde_json::from_str(text).map_err(|problem| error(format!("fromJSON: {problem}: `{text}`")))
            }
            ("hashFiles", [_, ..]) => {
                let patterns: Result<Vec<String>> = arguments.iter().map(to_text).collect();
                Ok(Value::String(hash::files(&self.scope.workspace, &patterns?)?))
            }
            _ => Err(error(format!("{name} with {} arguments is not known here", arguments.len()))),
        }
    }
}

/// Names are compared without regard to case, as GitHub does.
fn member(value: &Value, key: &Value) -> Option<Value> {
    match (value, key) {
        (Value::Object(map), Value::String(key)) => {
            map.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.clone())
        }
        (Value::Array(list), Value::Number(index)) => {
            let index = index.as_f64().filter(|index| index.fract() == 0.0 && *index >= 0.0)?;
            list.iter().enumerate().find(|(at, _)| *at as f64 == index).map(|(_, value)| value.clone())
        }
        _ => None,
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64().is_some_and(|value| value != 0.0),
        Value::String(value) => !value.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left.to_lowercase() == right.to_lowercase(),
        (Value::Null, Value::Null) => true,
        _ => matches!((number(left), number(right)), (Some(left), Some(right)) if left == right),
    }
}

/// What values of two types are compared as.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Null => Some(0.0),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Number(value) => value.as_f64(),
        Value::String(text) if text.trim().is_empty() => Some(0.0),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(failed: bool) -> Scope {
        let contexts = json!({
            "vars": { "SET": "yes", "EMPTY": "", "OBJECT": r#"{"list":[{"name":"a"},7]}"# },
            "github": { "event_name": "push", "event": { "number": 7 }, "flag": true },
            "steps": { "plan": { "outcome": "failure", "outputs": { "code": "12" } } },
            "needs": { "first-job": { "outputs": { "list": "[]" } } },
            "matrix": {},
        });
        let Value::Object(contexts) = contexts else { unreachable!() };
        Scope { contexts, failed, ..Scope::default() }
    }

    #[test]
    fn values() {
        for (text, expected) in [
            ("plain", json!("plain")),
            ("", json!("")),
            ("${{ vars.SET }}", json!("yes")),
            ("${{vars.set}}", json!("yes")),
            ("a ${{ vars.SET }} b${{ github.event.number }}", json!("a yes b7")),
            ("${{ github.event.number }}", json!(7)),
            ("${{ github.flag }}", json!(true)),
            ("x${{ vars.EMPTY }}", json!("x")),
            ("${{ 'it''s' }}", json!("it's")),
            ("${{ vars['SET'] }}", json!("yes")),
            ("${{ needs.first-job.outputs.list }}", json!("[]")),
            ("${{ fromJSON(vars.OBJECT).list[0].name }}", json!("a")),
            ("${{ fromJSON(vars.OBJECT).list[1] }}", json!(7)),
            ("${{ vars.EMPTY || 'other' }}", json!("other")),
            ("${{ vars.SET || vars.NOT_REACHED }}", json!("yes")),
            ("${{ vars.EMPTY && vars.NOT_REACHED }}", json!("")),
            ("${{ vars.EMPTY && f(vars.NOT_REACHED)[x].y }}", json!("")),
            ("${{ vars.SET && 'then' || 'else' }}", json!("then")),
            ("${{ !(vars.SET == 'YES') }}", json!(false)),
            ("${{ vars.EMPTY == 0 }}", json!(true)),
            ("${{ steps.plan.outputs.code == 12 }}", json!(true)),
            ("${{ null == false }}", json!(true)),
            ("${{ fromJSON(vars.OBJECT) == fromJSON(vars.OBJECT) }}", json!(false)),
        ] {
            assert_eq!(scope(false).value(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for (text, says) in [
            ("${{ vars.OTHER }}", "there is no vars.OTHER"),
            ("${{ steps.plan.outputs.other }}", "there is no steps.plan.outputs.other"),
            ("${{ matrix.environment == '' }}", "there is no matrix.environment"),
            ("${{ secrets.TOKEN }}", "there is no secrets here"),
            ("${{ fromJSON(vars.OBJECT).list[2] }}", "there is no fromJSON(...).list.2"),
            ("${{ fromJSON(vars.SET) }}", "fromJSON: "),
            ("${{ format('a') }}", "format with 1 arguments is not known"),
            ("${{ github.event.*.x }}", "`*` is not known"),
            ("${{ 1 < 2 }}", "`<` is not known"),
            ("${{ vars.SET", "no }}"),
            ("${{ 'open }}", "not closed"),
            ("${{ vars.SET vars.SET }}", "unexpected"),
            ("${{ (vars.SET }}", ") is missing"),
            ("${{ }}", "ends too early"),
            ("a ${{ github.event }}", "an object where text is wanted"),
        ] {
            let said = scope(false).value(text).expect_err(text).to_string();
            assert!(said.contains(says), "{text}: {said}");
        }
    }

    #[test]
    fn conditions_mean_success_unless_they_ask() {
        for (text, fine, failed) in [
            ("vars.SET != ''", true, false),
            ("vars.EMPTY != ''", false, false),
            ("${{ vars.SET }}", true, false),
            ("always()", true, true),
            ("failure()", false, true),
            ("success()", true, false),
            ("${{ !cancelled() && steps.plan.outcome != 'skipped' }}", true, true),
            ("failure() && vars.EMPTY", false, false),
            ("github.event_name == 'schedule' || github.event_name == 'push'", true, false),
        ] {
            assert_eq!(scope(false).condition(text), Ok(fine), "{text}");
            assert_eq!(scope(true).condition(text), Ok(failed), "{text}");
        }
        assert!(scope(false).condition("${{ vars.EMPTY }} != ''").is_err());
    }
}
