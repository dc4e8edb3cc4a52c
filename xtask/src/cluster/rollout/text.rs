//! Text from the cluster, made fit to be shown.

/// A line without control characters (a log may hold terminal escapes) and without passwords.
pub fn clean(line: &str) -> String {
    mask(&plain(line))
}

/// Without escape sequences and other control characters; a tab becomes a space.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            // CSI: parameters until a byte of 0x40..=0x7e.
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                while chars.next().is_some_and(|next| !('\u{40}'..='\u{7e}').contains(&next)) {}
            }
            '\t' => out.push(' '),
            _ if char.is_control() => {}
            // They reorder what stands after them.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            _ => out.push(char),
        }
    }
    out
}

/// `scheme://user:password@host` without the password, and `password=...` without its value.
fn mask(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|char: char| char.is_whitespace() || "/'\"<>".contains(char)).unwrap_or(after.len());
        let authority = &after[..end];
        match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => {
                let name = user.split(':').next().unwrap_or_default();
                out.push_str(&format!("{name}:***@"));
                rest = &after[user.len() + 1..];
            }
            _ => rest = after,
        }
    }
    out.push_str(rest);
    mask_words(&out)
}

fn mask_words(line: &str) -> String {
    let mut out = line.to_owned();
    for key in ["password=", "PASSWORD=", "passwd="] {
        let mut from = 0;
        while let Some(found) = out[from..].find(key) {
            let start = from + found + key.len();
            let end = out[start..].find(|c: char| c.is_whitespace() || "&;,'\"".contains(c));
            let end = end.map_or(out.len(), |length| start + length);
            out.replace_range(start..end, "***");
            from = start + 3;
        }
    }
    out
}

/// At most so many characters, the cut marked.
pub fn short(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            format!("{kept}…")
        }
    }
}

/// A duration as a person reads it: `8 s`, `4 min`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 9.95 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_is_harmless() {
        let check = |line: &str, expected: &str| assert_eq!(clean(line), expected, "{line:?}");
        check("plain text: a=b", "plain text: a=b");
        check("\u{1b}[31;1mred\u{1b}[0m\u{7}", "red");
        check("a\tb\r", "a b");
        check("safe \u{202e}txt", "safe txt");
        check("\u{1b}[", "");
        check(
            "at postgresql://u:s3cret@10.0.0.1:5432/db?x=1 failed",
            "at postgresql://u:***@10.0.0.1:5432/db?x=1 failed",
        );
        check("'postgresql://u:p@ss@h/db'", "'postgresql://u:***@h/db'");
        check("two http://a:b@c and ftp://d:e@f", "two http://a:***@c and ftp://d:***@f");
        check("see https://example.test/a@b:c", "see https://example.test/a@b:c");
        check("user@host://", "user@host://");
        check("host=a password=abc dbname=x", "host=a password=*** dbname=x");
        check("password=a&password=b", "password=***&password=***");
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(short("abcdef", 6), "abcdef");
        assert_eq!(short("abcdefg", 6), "abcde…");
        assert_eq!(short("äöü", 2), "ä…");
    }
}
