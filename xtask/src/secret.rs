//! A text that never reaches a log.

use std::fmt;

/// Characters of a password: without those that connection strings give a meaning to.
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Its length: 6 bits each.
const LENGTH: usize = 32;

/// A password or token. `Debug` and `Display` hide it; [`Secret::expose`] is where to look for
/// everything that reads it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// One that nobody can guess, and that no connection string has to escape.
    pub fn random() -> Self {
        let pick = |_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())]);
        Self((0..LENGTH).map(pick).collect())
    }

    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_secret_is_not_printed() {
        let secret = super::Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {secret}"), "<secret> <secret>");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_random_one_is_long_and_no_uri_has_to_escape_it() {
        let (one, other) = (super::Secret::random(), super::Secret::random());
        assert!(one != other);
        assert_eq!(one.expose().len(), super::LENGTH);
        let encoded: String = url::form_urlencoded::byte_serialize(one.expose().as_bytes()).collect();
        assert_eq!(encoded, one.expose());
        assert_eq!(super::ALPHABET.len(), 64);
    }
}
