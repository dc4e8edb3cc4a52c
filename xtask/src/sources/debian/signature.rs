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
            let key = keys.iter().find(|key| hex(key).eq_ignore_ascii_case(fingerprint)).ok_or_else(|| {
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

/// The lifetime that the newest valid self-signature over a user id gives a primary key, else the
/// one over the key itself: that one often holds nothing but a designated revoker.
fn primary_lifetime(key: &SignedPublicKey) -> u64 {
    let users = key.details.users.iter().flat_map(|user| {
        let valid = |sig: &&Signature| sig.verify_certification(&key.primary_key, Tag::UserId, &user.id).is_ok();
        user.signatures.iter().filter(valid)
    });
    let direct = key.details.direct_signatures.iter().filter(|sig| sig.verify_key(&key.primary_key).is_ok());
    let created = |sig: &&Signature| sig.created().map(Timestamp::as_secs);
    users.max_by_key(created).or_else(|| direct.max_by_key(created)).map_or(0, lifetime)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use pgp::composed::{ArmorOptions, KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder};
    use pgp::packet::{SignatureConfig, Subpacket, SubpacketData};
    use pgp::types::Password;
    use rand08::rngs::OsRng;

    const TEXT: &str = "Suite: stable\nCodename: trixie\n- dashes\n";
    const DAY: u32 = 24 * 3600;

    fn key(subkey: bool) -> SignedSecretKey {
        let mut params = SecretKeyParamsBuilder::default();
        params.key_type(KeyType::Ed25519).can_certify(true).can_sign(!subkey).primary_user_id("Test".into());
        if subkey {
            let sub = SubkeyParamsBuilder::default().key_type(KeyType::Ed25519).can_sign(true).build().unwrap();
            params.subkey(sub);
        }
        params.build().unwrap().generate(OsRng).unwrap()
    }

    /// The key with a self-signature that ends its life a day after it was made.
    fn short_lived(mut key: SignedSecretKey) -> SignedSecretKey {
        let mut config = SignatureConfig::from_key(OsRng, &key.primary_key, SignatureType::CertPositive).unwrap();
        let data = [
            SubpacketData::SignatureCreationTime(Timestamp::from_secs(Timestamp::now().as_secs() + 1)),
            SubpacketData::IssuerFingerprint(key.primary_key.fingerprint()),
            SubpacketData::KeyExpirationTime(pgp::types::Duration::from_secs(DAY)),
        ];
        config.hashed_subpackets = data.into_iter().map(|data| Subpacket::regular(data).unwrap()).collect();
        let user = &key.details.users[0].id;
        let public = key.primary_key.public_key();
        let signed =
            config.sign_certification(&key.primary_key, &public, &Password::empty(), Tag::UserId, user).unwrap();
        key.details.users[0].signatures.push(signed);
        key
    }

    fn keyring(keys: &[&SignedSecretKey]) -> Keyring {
        let public = keys.iter().map(|key| key.to_public_key());
        let (mut text, mut fingerprints) = (String::new(), Vec::new());
        for key in public {
            fingerprints.push(hex(&key));
            text.push_str(&key.to_armored_string(ArmorOptions::default()).unwrap());
        }
        Keyring::parse("keys", &text, &fingerprints).unwrap()
    }

    /// Signed by the subkey, if there is one; the signature lives as long as `lifetime` says.
    fn sign(key: &SignedSecretKey, lifetime: Option<u32>) -> CleartextSignedMessage {
        match key.secret_subkeys.first() {
            Some(subkey) => sign_with(&subkey.key, lifetime),
            None => sign_with(&key.primary_key, lifetime),
        }
    }

    fn sign_with(key: &impl pgp::types::SigningKey, lifetime: Option<u32>) -> CleartextSignedMessage {
        let mut config = SignatureConfig::from_key(OsRng, key, SignatureType::Text).unwrap();
        let data = [
            Some(SubpacketData::SignatureCreationTime(Timestamp::now())),
            Some(SubpacketData::IssuerFingerprint(key.fingerprint())),
            lifetime.map(|secs| SubpacketData::SignatureExpirationTime(pgp::types::Duration::from_secs(secs))),
        ];
        config.hashed_subpackets = data.into_iter().flatten().map(|data| Subpacket::regular(data).unwrap()).collect();
        CleartextSignedMessage::new(TEXT, config, key, &Password::empty()).unwrap()
    }

    fn armored(message: &CleartextSignedMessage) -> String {
        message.to_armored_string(ArmorOptions::default()).unwrap()
    }

    fn check(keyring: &Keyring, message: &str, days_later: u32, expected: std::result::Result<(), &str>) {
        let now = SystemTime::now() + Duration::from_secs(u64::from(days_later * DAY));
        match (keyring.verify("InRelease", message, now), expected) {
            (Ok(text), Ok(())) => assert_eq!(text, TEXT),
            (Err(error), Err(expected)) => {
                assert_eq!(error.kind(), Kind::Input);
                let text = error.lines().join(" | ");
                assert!(text.contains(expected), "{text:?} should contain {expected:?}");
            }
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_good_signature_of_a_trusted_key_passes() {
        let (primary, subkey, stranger) = (key(false), key(true), key(false));
        check(&keyring(&[&primary]), &armored(&sign(&primary, None)), 0, Ok(()));
        check(&keyring(&[&stranger, &subkey]), &armored(&sign(&subkey, None)), 0, Ok(()));
        // Among signatures of unknown keys one good one is enough.
        let both = CleartextSignedMessage::new_many(TEXT, |_| {
            let signatures = [sign(&stranger, None), sign(&subkey, None)];
            Ok(signatures.iter().map(|message| message.signatures()[0].clone()).collect())
        });
        check(&keyring(&[&subkey]), &armored(&both.unwrap()), 0, Ok(()));
    }

    #[test]
    fn anything_else_is_refused() {
        let (known, stranger) = (key(true), key(false));
        let good = armored(&sign(&known, None));
        let trusted = keyring(&[&known]);
        check(&trusted, &armored(&sign(&stranger, None)), 0, Err("an unknown key"));
        check(&trusted, &good.replace("trixie", "sid"), 0, Err("changed after it was signed"));
        check(&trusted, &armored(&sign(&known, Some(DAY))), 2, Err("the signature has expired"));
        check(&trusted, &armored(&sign(&known, Some(DAY))), 0, Ok(()));
        check(&trusted, TEXT, 0, Err("unreadable"));
        check(&trusted, "", 0, Err("unreadable"));
        check(&trusted, &good[..good.len() / 2], 0, Err("unreadable"));
        check(&trusted, &format!("Codename: evil\n\n{good}"), 0, Err("unreadable"));
        check(&trusted, &format!("{good}\nCodename: evil\n"), 0, Err("unreadable"));
        // The subkey of one key under the name of another.
        let mut forged = known.to_public_key();
        forged.primary_key = stranger.to_public_key().primary_key;
        let forged = Keyring(vec![forged]);
        check(&forged, &good, 0, Err("does not belong to it"));
    }

    #[test]
    fn an_expired_key_signs_nothing() {
        let primary = short_lived(key(false));
        let subkey = short_lived(key(true));
        for key in [&primary, &subkey] {
            check(&keyring(&[key]), &armored(&sign(key, None)), 0, Ok(()));
            check(&keyring(&[key]), &armored(&sign(key, None)), 2, Err("the key has expired"));
        }
    }

    #[test]
    fn the_committed_keys_are_those_that_debian_in_names() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("mlflow_server");
        let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
        let inputs = crate::lock::DebianInputs::parse(&read("debian.in")).unwrap();
        let keys = Keyring::parse("keys", &read("debian-archive-keyring.asc"), &inputs.keys).unwrap();
        assert_eq!(keys.0.len(), inputs.keys.len());
        for key in &keys.0 {
            let ends = u64::from(key.primary_key.created_at().as_secs()) + primary_lifetime(key);
            // Debian's archive keys live eight or ten years; without an end the lifetime was not read.
            assert!((seconds(SystemTime::now())..u64::from(u32::MAX)).contains(&ends));
        }
        let missing = ["0".repeat(40)];
        assert!(Keyring::parse("keys", &read("debian-archive-keyring.asc"), &missing).is_err());
        assert!(Keyring::parse("keys", &read("debian-archive-keyring.asc"), &[]).is_err());
    }
}
