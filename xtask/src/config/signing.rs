//! `[image]`: with what an image is signed, and whose signature it must have before it is deployed.

use std::fmt;
use std::path::Path;

use crate::error::Result;

use super::table::Table;

/// The word of `image.sign` for signing without a key.
const KEYLESS: &str = "keyless";
/// The word that takes back what `[image]` says.
const NONE: &str = "none";

/// What of `[image]` is about signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signing {
    /// With what an image is signed after a push; `None`: it is not.
    pub sign: Option<SignWith>,
    /// Whose signature counts.
    pub signer: Option<Signer>,
    /// Whether signatures are written to a transparency log, and looked up there.
    pub transparency_log: bool,
}

/// `image.sign`, `build-image --sign`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignWith {
    /// With a certificate for whoever is logged in: sigstore's way, in GitHub Actions the workflow itself.
    Keyless,
    /// With this key: a file, or cosign's URI of a key that is kept elsewhere, as `gcpkms://...`.
    Key(String),
}

/// Whose signature is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// Who has the private half of this key: a file, or cosign's URI.
    Key(String),
    /// Who was certified as this.
    Identity {
        /// A mail address, or the URI of a workflow.
        identity: Pattern,
        /// Who says so: the URL of an issuer of OpenID Connect.
        issuer: Pattern,
    },
}

/// What a text has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This.
    Exact(String),
    /// What this regular expression (RE2) describes, whole.
    Regexp(String),
}

impl SignWith {
    /// What `text` names; paths are relative to `base`. `None` for `none`.
    pub fn parse(text: &str, base: &Path) -> Option<Self> {
        match text {
            NONE | "" => None,
            KEYLESS => Some(Self::Keyless),
            key => Some(Self::Key(located(key, base))),
        }
    }
}

impl fmt::Display for SignWith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyless => f.write_str("a certificate of sigstore's"),
            Self::Key(key) => write!(f, "the key {key}"),
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => write!(f, "the key {key}"),
            Self::Identity { identity, issuer } => write!(f, "{identity}, by {issuer}"),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Regexp(text) => write!(f, "whoever matches {text}"),
        }
    }
}

/// Whether a key is a file, and no URI of one that is kept elsewhere.
pub fn is_file(key: &str) -> bool {
    !key.contains("://") && !key.starts_with("pkcs11:")
}

fn located(key: &str, base: &Path) -> String {
    if is_file(key) { base.join(key).display().to_string() } else { key.to_owned() }
}

/// Reads the keys; `required`: whether `image.require` names a signature.
pub(super) fn read(root: &Path, table: &mut Table<'_, '_>, required: bool) -> Result<Signing> {
    let sign = table.string("sign", None)?.and_then(|text| SignWith::parse(&text, root));
    let key = table.string("signer-key", None)?;
    let identity = pattern(table, ["signer-identity", "signer-identity-regexp"])?;
    let issuer = pattern(table, ["signer-issuer", "signer-issuer-regexp"])?;
    let transparency_log = table.boolean("transparency-log", true)?;
    let signer = match (key, identity, issuer) {
        (None, None, None) if required => {
            return Err(table.refuse("require", "whose signature is not said").hint(
                "set image.signer-key, or image.signer-identity and image.signer-issuer; deploy.toml shows them",
            ));
        }
        (None, None, None) => None,
        (Some(key), None, None) => Some(Signer::Key(located(&key, root))),
        (None, Some(identity), Some(issuer)) => Some(Signer::Identity { identity, issuer }),
        (Some(_), _, _) => {
            return Err(table.refuse("signer-key", "a key has no identity").hint("leave one of the two out"));
        }
        (None, Some(_), None) => {
            return Err(table
                .refuse("signer-identity", "who vouches for it is not said")
                .hint("set image.signer-issuer too, such as https://token.actions.githubusercontent.com"));
        }
        (None, None, Some(_)) => {
            return Err(table.refuse("signer-issuer", "its users are many").hint("set image.signer-identity too"));
        }
    };
    let keyless = sign == Some(SignWith::Keyless) || matches!(signer, Some(Signer::Identity { .. }));
    if !transparency_log && keyless {
        let why = "a certificate of sigstore's lives for ten minutes, and only the log shows that it was used then";
        return Err(table.refuse("transparency-log", why).hint("sign with a key, or leave the log on"));
    }
    Ok(Signing { sign, signer, transparency_log })
}

/// One of a text and a regular expression.
fn pattern(table: &mut Table<'_, '_>, [exact, regexp]: [&str; 2]) -> Result<Option<Pattern>> {
    match (table.string(exact, None)?, table.string(regexp, None)?) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(Pattern::Exact(text))),
        (None, Some(text)) => Ok(Some(Pattern::Regexp(text))),
        (Some(_), Some(_)) => Err(table.refuse(regexp, format!("{exact} is set too")).hint("leave one of the two out")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::resolve;
    use super::*;

    /// The settings of one line more in `[image]`, or the mistake.
    fn check(lines: &str, expected: std::result::Result<Signing, &str>) {
        let text = format!("[image]\n{lines}");
        let found = resolve(Path::new("/repo"), "local", &text, &|_| None, &|_| Ok(None));
        match (found.map(|config| config.image.signing), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{lines}"),
            (Err(error), Err(expected)) => {
                let text = format!("{} | {}", error.lines().join(" | "), error.hint_text().unwrap_or(""));
                assert!(text.contains(expected), "{text:?} should contain {expected:?}");
            }
            (found, expected) => panic!("{lines}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn signatures_are_made_with_and_asked_of_keys_or_identities() {
        let nothing = Signing { sign: None, signer: None, transparency_log: true };
        let key = |text: &str| Some(Signer::Key(text.to_owned()));
        let with = |text: &str| Some(SignWith::Key(text.to_owned()));
        check("", Ok(nothing.clone()));
        check("sign = \"none\"", Ok(nothing.clone()));
        check("sign = \"keyless\"", Ok(Signing { sign: Some(SignWith::Keyless), ..nothing.clone() }));
        check("sign = \"a/b.key\"", Ok(Signing { sign: with("/repo/a/b.key"), ..nothing.clone() }));
        let kms = "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k";
        check(&format!("sign = \"{kms}\""), Ok(Signing { sign: with(kms), ..nothing.clone() }));
        check(
            "require = [\"signature\"]\nsigner-key = \"b.pub\"\ntransparency-log = false",
            Ok(Signing { signer: key("/repo/b.pub"), transparency_log: false, ..nothing.clone() }),
        );
        check(&format!("signer-key = \"{kms}\""), Ok(Signing { signer: key(kms), ..nothing.clone() }));
        let (exact, regexp) =
            (|text: &str| Pattern::Exact(text.to_owned()), |text: &str| Pattern::Regexp(text.to_owned()));
        let signer = Some(Signer::Identity { identity: exact("a@b"), issuer: regexp("https://i.*") });
        check("signer-identity = \"a@b\"\nsigner-issuer-regexp = \"https://i.*\"", Ok(Signing { signer, ..nothing }));
    }

    #[test]
    fn what_would_prove_nothing_is_refused() {
        check("require = [\"signature\"]", Err("image.require: whose signature is not said | set image.signer-key"));
        check("signer-identity = \"a@b\"", Err("image.signer-identity: who vouches for it"));
        check("signer-issuer = \"https://i\"", Err("image.signer-issuer: its users are many"));
        let identity = "signer-identity = \"a@b\"\nsigner-issuer = \"https://i\"\n";
        check(&format!("{identity}signer-key = \"k\""), Err("image.signer-key: a key has no identity"));
        check(&format!("{identity}signer-identity-regexp = \"^a$\""), Err("signer-identity is set too"));
        check(&format!("{identity}transparency-log = false"), Err("image.transparency-log: a certificate"));
        check("sign = \"keyless\"\ntransparency-log = false", Err("image.transparency-log: a certificate"));
    }
}
