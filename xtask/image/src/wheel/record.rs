//! RECORD: which files a distribution installed, with their hashes (PyPA specifications,
//! "Recording installed projects"; the encoding is RFC 4180's CSV).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::Digest;

/// A file's hash and size, `None` where RECORD leaves them open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) sha256: Option<Digest>,
    pub(super) size: Option<u64>,
}

/// The rows by path.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Row>, String> {
    let mut rows = BTreeMap::new();
    for fields in csv(text)? {
        let [path, hash, size] = <[String; 3]>::try_from(fields).map_err(|fields| {
            format!("RECORD: {:?} has {} fields, not 3", fields.first().map_or("", String::as_str), fields.len())
        })?;
        let sha256 = match hash.split_once('=') {
            None if hash.is_empty() => None,
            Some(("sha256", value)) => Some(decode(value).ok_or_else(|| format!("RECORD: {path}: bad hash {hash:?}"))?),
            // The specification demands sha256 or better; nobody writes another.
            _ => return Err(format!("RECORD: {path}: a hash other than sha256: {hash:?}")),
        };
        let size = match size.as_str() {
            "" => None,
            size => Some(size.parse().map_err(|_| format!("RECORD: {path}: bad size {size:?}"))?),
        };
        if rows.insert(path.clone(), Row { sha256, size }).is_some() {
            return Err(format!("RECORD: {path} is listed twice"));
        }
    }
    Ok(rows)
}

/// The text of a RECORD with these rows.
pub(super) fn write(rows: &BTreeMap<String, Row>) -> String {
    let mut text = String::new();
    for (path, row) in rows {
        if path.contains(['"', ',', '\n', '\r']) {
            text.push_str(&format!("\"{}\"", path.replace('"', "\"\"")));
        } else {
            text.push_str(path);
        }
        text.push(',');
        if let Some(sha256) = &row.sha256 {
            text.push_str("sha256=");
            URL_SAFE_NO_PAD.encode_string(sha256.bytes(), &mut text);
        }
        text.push(',');
        if let Some(size) = row.size {
            text.push_str(&size.to_string());
        }
        text.push('\n');
    }
    text
}

fn decode(value: &str) -> Option<Digest> {
    let bytes = URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).ok()?;
    Some(Digest::from_bytes(bytes.try_into().ok()?))
}

/// Lines of fields. Empty lines are left out.
fn csv(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut lines, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            c if quoted => field.push(c),
            '"' if field.is_empty() => quoted = true,
            ',' => fields.push(std::mem::take(&mut field)),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                if !fields.is_empty() || !field.is_empty() {
                    fields.push(std::mem::take(&mut field));
                    lines.push(std::mem::take(&mut fields));
                }
            }
            c => field.push(c),
        }
    }
    if quoted {
        return Err("RECORD: a quote is not closed".to_owned());
    }
    if !fields.is_empty() || !field.is_empty() {
        fields.push(field);
        lines.push(fields);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_are_written() {
        let row = Row { sha256: Some(Digest::of("x")), size: Some(1) };
        let rows: BTreeMap<_, _> = ["a.py", "b,c.py", "d \"e\".py", "ü/f.py"]
            .into_iter()
            .map(|path| (path.to_owned(), row.clone()))
            .chain([("p-1.dist-info/RECORD".to_owned(), Row::default())])
            .collect();
        assert_eq!(parse(&write(&rows)).unwrap(), rows);
        assert_eq!(parse(&write(&rows).replace('\n', "\r\n")).unwrap(), rows);
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for (text, expected) in [
            ("a.py,sha256=x,1", "bad hash"),
            ("a.py,md5=aaaa,1", "other than sha256"),
            ("a.py,,x", "bad size"),
            ("a.py,,\na.py,,", "listed twice"),
            ("a.py,", "2 fields"),
            ("\"a.py,,", "not closed"),
        ] {
            assert!(parse(text).unwrap_err().contains(expected), "{text}");
        }
    }
}
