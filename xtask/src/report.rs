//! What a command answers. The same value is printed for people and, with `--json`, for scripts.

use std::io;

/// A command's answer.
pub trait Report: serde::Serialize {
    /// Writes the answer for a person, without a trailing empty line.
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()>;
}

/// Bytes as a person reads them: decimal units, as registries and disks are sold.
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

/// A message of at most so many characters, without line breaks.
pub fn shorten(most: usize, text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line,
    }
}

/// Seconds rounded to milliseconds, for JSON.
pub fn seconds(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}

/// The time as RFC 3339 in UTC, to the second.
pub fn now() -> String {
    let now = time::OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_decimal() {
        for (n, text) in
            [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (188_000_000, "188.0 MB"), (2_500_000_000, "2.50 GB")]
        {
            assert_eq!(super::bytes(n), text);
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        for (text, expected) in [("", ""), ("a\n  b", "a b"), ("üüü", "üüü"), ("üüüü", "üüü ...")] {
            assert_eq!(super::shorten(3, text), expected, "{text}");
        }
    }
}
