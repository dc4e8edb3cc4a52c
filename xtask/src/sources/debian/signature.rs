//! Signatures of Debian's indices: cleartext-signed messages (RFC 9580, section 7) by pinned keys.

use std::time::SystemTime;

use pgp::composed::{CleartextSignedMessage, Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails as _, Tag, Timestamp, VerifyingKey};

use crate::error::{Context as _, Error, Kind, Result};

/// How far a signer's clock may be ahead of ours, in seconds.
const CLOCK_SKEW: u64 = 24 * 3600;
/// What begins each key of a keyring.
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// The keys whose signatures count.
#[derive(Debug)]
pub struct Keyring(Vec<SignedPublicKey>);

impl Keyring {
    /// Reads armored keys and keeps those with the given fingerprints; one that is missing is an
    /// error, so that a swapped keyring cannot pass unseen.
    pub fn parse(subject: &str, text: &str, fingerprints: &[String]) -> Result<Self> {
        let mut keys = Vec::new();
        for block in text.split(ARMOR).skip(1) {
            let block = format!("{ARMOR}{block}");
            let (key, _) = SignedPublicKey::from_string(&block)
                .context(Kind::Input, || format!("{subject} holds an unreadable key"))?;
            keys.push(key);
        }
        let mut pinned = Vec::new();
        for fingerprint in fingerprints {
            let key = keys.iter().find(|key| hex(*key).eq_ignore_ascii_case(fingerprint)).ok_or_else(|| {
                Error::new(Kind::Input, format!("{subject} does not hold the key {fingerprint}"))
                    .hint("compare the keys in debian.in with the keyring of Debian's debian-archive-keyring package")
            })?;
            pinned.push(key.clone());
        }
        if pinned.is_empty() {
            return Err(Error::new(Kind::Input, format!("{subject}: no key is trusted")).hint("list keys in debian.in"));
        }
        Ok(Self(pinned))
    }

    /// The text that a trusted key signed; `subject` names the message in errors. One good
    /// signature is enough: Debian signs with the keys of several releases.
    pub fn verify(&self, subject: &str, message: &str, now: SystemTime) -> Result<String> {
        let refused = |cause: String| {
            Error::new(Kind::Input, format!("{subject} is not signed by a key that is trusted"))
                .source(cause)
                .hint("use another --debian-mirror; if Debian changed its keys, update them in mlflow_server/")
        };
        let (message, _) =
            CleartextSignedMessage::from_string(message).map_err(|error| refused(format!("unreadable: {error}")))?;
        let text = message.signed_text();
        let mut reasons = Vec::new();
        for signature in message.signatures() {
            match self.check(signature, &text, now) {
                Ok(()) => return Ok(text.replace("\r\n", "\n")),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(refused(if reasons.is_empty() { "there is no signature".to_owned() } else { reasons.join("; ") }))
    }

    fn check(&self, signature: &Signature, text: &str, now: SystemTime) -> std::result::Result<(), String> {
        if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
            return Err("a signature of another type".to_owned());
        }
        match signature.hash_alg() {
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => {}
            other => return Err(format!("a signature over {other:?}")),
        }
        let now = seconds(now);
        let created = signature.created().map(|at| u64::from(at.as_secs())).ok_or("a signature without a date")?;
        if created > now + CLOCK_SKEW {
            return Err("a signature from the future".to_owned());
        }
        let lifetime = signature.signature_expiration_time().map_or(0, |lifetime| u64::from(lifetime.as_secs()));
        if lifetime != 0 && created + lifetime < now {
            return Err("the signature has expired".to_owned());
        }
        let mut reason = format!("an unknown key: {:?}", signature.issuer_fingerprint());
        for key in &self.0 {
            let outcome = match signing_key(key, signature) {
                None => continue,
                Some(Signer::Primary) => alive(&key.primary_key, primary_lifetime(key), now)
                    .and_then(|()| verify(signature, &key.primary_key, text)),
                Some(Signer::Subkey(subkey)) => alive(&key.primary_key, primary_lifetime(key), now)
                    .and_then(|()| bound(key, subkey))
                    .and_then(|lifetime| alive(&subkey.key, lifetime, now))
                    .and_then(|()| verify(signature, &subkey.key, text)),
            };
            match outcome {
                Ok(()) => return Ok(()),
                Err(problem) => reason = format!("key {}: {problem}", hex(key)),
            }
        }
        Err(reason)
    }
}

enum Signer<'k> {
    Primary,
    Subkey(&'k SignedPublicSubKey),
}

/// The part of `key` that the signature names as its maker.
fn signing_key<'k>(key: &'k SignedPublicKey, signature: &Signature) -> Option<Signer<'k>> {
    let named = |id: pgp::types::KeyId, fingerprint: pgp::types::Fingerprint| {
        signature.issuer_fingerprint().contains(&&fingerprint) || signature.issuer_key_id().contains(&&id)
    };
    if named(key.primary_key.legacy_key_id(), key.primary_key.fingerprint()) {
        return Some(Signer::Primary);
    }
    let subkey = key.public_subkeys.iter().find(|sub| named(sub.key.legacy_key_id(), sub.key.fingerprint()))?;
    Some(Signer::Subkey(subkey))
}

fn verify(signature: &Signature, key: &impl VerifyingKey, text: &str) -> std::result::Result<(), String> {
    signature.verify(key, text.as_bytes()).map_err(|_| "the text was changed after it was signed".to_owned())
}

/// Whether a key's lifetime (seconds since its creation, 0: for ever) includes `now`.
fn alive(key: &impl VerifyingKey, lifetime: u64, now: u64) -> std::result::Result<(), String> {
    let created = u64::from(key.created_at().as_secs());
    if lifetime != 0 && created + lifetime < now { Err("the key has expired".to_owned()) } else { Ok(()) }
}

/// The lifetime that the newest valid self-signature of a primary key gives it.
fn primary_lifetime(key: &SignedPublicKey) -> u64 {
    let own = key.details.users.iter().flat_map(|user| {
        let valid = |sig: &&Signature| sig.verify_certification(&key.primary_key, Tag::UserId, &user.id).is_ok();
        user.signatures.iter().filter(valid)
    });
    let direct = key.details.direct_signatures.iter().filter(|sig| sig.verify_key(&key.primary_key).is_ok());
    own.chain(direct).max_by_key(|sig| sig.created().map(Timestamp::as_secs)).map_or(0, lifetime)
}

/// The subkey's lifetime, if the primary key certifies it for signing and has not revoked it
/// (RFC 9580, section 10.1.5).
fn bound(key: &SignedPublicKey, subkey: &SignedPublicSubKey) -> std::result::Result<u64, String> {
    let valid = |sig: &&Signature| sig.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok();
    let (revocations, bindings): (Vec<_>, Vec<_>) =
        subkey.signatures.iter().filter(valid).partition(|sig| sig.typ() == Some(SignatureType::SubkeyRevocation));
    if !revocations.is_empty() {
        return Err("the subkey is revoked".to_owned());
    }
    let newest = bindings.into_iter().max_by_key(|sig| sig.created().map(Timestamp::as_secs));
    let newest = newest.ok_or("the subkey does not belong to it")?;
    let back = newest
        .embedded_signature()
        .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, &key.primary_key).is_ok());
    if !newest.key_flags().sign() || !back {
        return Err("the subkey is not for signing".to_owned());
    }
    Ok(lifetime(newest))
}

fn lifetime(signature: &Signature) -> u64 {
    signature.key_expiration_time().map_or(0, |lifetime| u64::from(lifetime.as_secs()))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn hex(key: &SignedPublicKey) -> String {
    key.fingerprint().as_bytes().iter().map(|byte| format!("{byte:02X}")).collect()
}
