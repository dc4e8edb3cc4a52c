//! Debian versions and their order (Debian Policy, 5.6.12).

use std::cmp::Ordering;
use std::fmt;

/// `[epoch:]upstream[-revision]`. Ordered as dpkg orders them; equal where dpkg says so.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    text: &'a str,
    epoch: u32,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Version<'a> {
    /// Reads a version; the error says what is wrong with it.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let wrong = || format!("version {text:?} is not [epoch:]upstream[-revision]");
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().map_err(|_| wrong())?, rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        let allowed = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b".+~-:".contains(&b));
        if upstream.is_empty() || !allowed(upstream) || !allowed(revision) {
            return Err(wrong());
        }
        Ok(Self { text, epoch, upstream, revision })
    }
}

impl fmt::Display for Version<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.epoch
            .cmp(&other.epoch)
            .then_with(|| compare(self.upstream, other.upstream))
            .then_with(|| compare(self.revision, other.revision))
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version<'_> {}

/// Alternates between a non-digit and a digit part, as the policy describes it.
fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (a_text, b_text) = (take(&mut a, |b| !b.is_ascii_digit()), take(&mut b, |b| !b.is_ascii_digit()));
        let text = (0..a_text.len().max(b_text.len()))
            .map(|at| weight(a_text.get(at)).cmp(&weight(b_text.get(at))))
            .find(|order| order.is_ne());
        if let Some(order) = text {
            return order;
        }
        let (a_number, b_number) = (number(take(&mut a, u8::is_ascii_digit)), number(take(&mut b, u8::is_ascii_digit)));
        // Without leading zeros the longer number is the larger; numbers may exceed any integer.
        let order = a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(b_number));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn take<'a>(rest: &mut &'a [u8], belongs: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|b| !belongs(b)).unwrap_or(rest.len());
    let (taken, more) = rest.split_at(end);
    *rest = more;
    taken
}

fn number(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

/// `~` sorts before the end, letters before all else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None => 0,
        Some(b) if b.is_ascii_alphabetic() => i32::from(*b),
        Some(b) => i32::from(*b) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let rows = [
            ("1.0", "1.0", Ordering::Equal),
            ("1.0", "1.00", Ordering::Equal),
            ("1.0", "1.0-0", Ordering::Equal),
            ("0:1.0", "1.0", Ordering::Equal),
            ("1:0.1", "9.9", Ordering::Greater),
            ("1.9", "1.10", Ordering::Less),
            ("1.0~rc1", "1.0", Ordering::Less),
            ("1.0~~", "1.0~", Ordering::Less),
            ("1.0a", "1.0", Ordering::Greater),
            ("1.0a", "1.0+", Ordering::Less),
            ("1.0.1", "1.0+b1", Ordering::Greater),
            ("1.0-1", "1.0-2", Ordering::Less),
            ("1.0-1+b1", "1.0-1", Ordering::Greater),
            ("2.41-12+deb13u5", "2.41-12", Ordering::Greater),
            ("3.5.9-1~deb13u1", "3.5.9-1", Ordering::Less),
            ("1:1.3.dfsg+really1.3.1-1+b1", "1:1.3.dfsg+really1.3.1-1", Ordering::Greater),
            ("1.0-99999999999999999999999", "1.0-100000000000000000000000", Ordering::Less),
            ("2026a-0", "2026f-0", Ordering::Less),
        ];
        for (a, b, expected) in rows {
            let (parsed_a, parsed_b) = (Version::parse(a).unwrap(), Version::parse(b).unwrap());
            assert_eq!(parsed_a.cmp(&parsed_b), expected, "{a} {b}");
            assert_eq!(parsed_b.cmp(&parsed_a), expected.reverse(), "{b} {a}");
        }
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "-1", "a:1", ":1", "1 0", "1:", "99999999999:1", "1_0", "é"] {
            assert!(Version::parse(text).is_err(), "{text:?}");
        }
    }
}
