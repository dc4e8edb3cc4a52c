//! A bundle of sigstore's (protobuf-specs, "sigstore_bundle.proto"), in which cosign attaches signatures and
//! other signed statements: what it says, and who is said to have signed it. Whether that is true, cosign tells.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlflow_image::Digest;
use serde_json::Value;
use x509_parser::asn1_rs::{Utf8String, oid};
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// What the media types of all versions begin with.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle";

/// The predicate of a statement that is nothing but a signature of an image (cosign, "pkg/types").
pub const SIGNATURE: &str = "https://sigstore.dev/cosign/sign/v1";

/// The issuer of the signer's login, in a certificate of Fulcio's (fulcio, "oid-info.md").
const ISSUER: Oid<'static> = oid!(1.3.6.1.4.1.57264.1.8);

/// A statement of somebody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// What kind of statement it is, as a URI.
    pub predicate: String,
    /// SHA-256 of what it is about, in hex.
    subjects: Vec<String>,
    /// Who is said to have signed it.
    pub by: String,
}

/// Whether something attached is a bundle.
pub fn is_bundle(artifact_type: &str) -> bool {
    artifact_type.starts_with(MEDIA_TYPE)
}

impl Bundle {
    /// Reads one.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let bundle: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
        let payload = decode(&bundle["dsseEnvelope"]["payload"]).ok_or("it holds no statement")?;
        let statement: Value =
            serde_json::from_slice(&payload).map_err(|error| format!("its statement is no JSON: {error}"))?;
        let subjects = statement["subject"].as_array().into_iter().flatten();
        Ok(Self {
            predicate: statement["predicateType"].as_str().unwrap_or_default().to_owned(),
            subjects: subjects.filter_map(|subject| Some(subject["digest"]["sha256"].as_str()?.to_owned())).collect(),
            by: signer(&bundle["verificationMaterial"])?,
        })
    }

    /// Whether it is a signature, and no other statement.
    pub fn is_signature(&self) -> bool {
        self.predicate == SIGNATURE
    }

    /// Whether it is about `image`.
    pub fn is_about(&self, image: &Digest) -> bool {
        self.subjects.contains(&image.hex())
    }
}

fn decode(text: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(text.as_str()?).ok()
}

/// The key by its fingerprint, or whom the certificate names.
fn signer(material: &Value) -> Result<String, String> {
    let chain = &material["x509CertificateChain"]["certificates"][0]["rawBytes"];
    match decode(&material["certificate"]["rawBytes"]).or_else(|| decode(chain)) {
        Some(certificate) => identity(&certificate),
        None => key(&material["publicKey"]["hint"]),
    }
}

/// How a key is named: by the SHA-256 of its public half (DER), in hex.
pub fn key_name(fingerprint: &str) -> String {
    format!("a key with the fingerprint {fingerprint}")
}

/// cosign's hint is the SHA-256 of the key (DER) in Base64, as `openssl pkey -pubin -outform DER | sha256sum`
/// has it in hex. Others choose their own.
fn key(hint: &Value) -> Result<String, String> {
    let hint = hint.as_str().ok_or("it does not say by whom it is signed")?;
    let fingerprint: Option<[u8; 32]> = STANDARD.decode(hint).ok().and_then(|bytes| bytes.try_into().ok());
    Ok(match fingerprint {
        Some(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            key_name(&hex)
        }
        None => format!("a key called {hint:?}"),
    })
}

fn identity(der: &[u8]) -> Result<String, String> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("its certificate cannot be read: {error}"))?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let name = names.and_then(|names| {
        names.value.general_names.iter().find_map(|name| match name {
            GeneralName::RFC822Name(name) | GeneralName::URI(name) | GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
    });
    let issuer = certificate.get_extension_unique(&ISSUER).ok().flatten();
    let issuer = issuer.and_then(|issuer| Some(Utf8String::from_der(issuer.value).ok()?.1.string()));
    Ok(match (name, issuer) {
        (Some(name), Some(issuer)) => format!("{name}, by {issuer}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => "a certificate without a name".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair, SanType};
    use serde_json::json;

    use super::*;

    fn bundle(digest: &Digest, predicate: &str, material: &Value) -> Value {
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1", "predicateType": predicate, "predicate": {},
            "subject": [{ "digest": { "sha256": digest.hex() } }],
        });
        let payload = STANDARD.encode(statement.to_string());
        json!({ "dsseEnvelope": { "payload": payload }, "verificationMaterial": material })
    }

    fn certificate(name: &str, issuer: &str) -> String {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
        // DER: a UTF8String shorter than 128 bytes.
        let value = [&[0x0c, u8::try_from(issuer.len()).unwrap()], issuer.as_bytes()].concat();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, 8], value)];
        STANDARD.encode(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn a_bundle_says_of_what_and_by_whom_it_is() {
        let (image, other) = (Digest::of("image"), Digest::of("other"));
        let workflow = "https://github.com/o/r/.github/workflows/deploy.yml@refs/heads/main";
        let raw = json!({ "rawBytes": certificate(workflow, "https://token.actions.githubusercontent.com") });
        let named = format!("{workflow}, by https://token.actions.githubusercontent.com");
        let hint = STANDARD.encode([0xab; 32]);
        let fingerprint = format!("a key with the fingerprint {}", "ab".repeat(32));
        for (material, by) in [
            (json!({ "certificate": raw }), &*named),
            (json!({ "x509CertificateChain": { "certificates": [raw] } }), &named),
            (json!({ "publicKey": { "hint": hint } }), &fingerprint),
            (json!({ "publicKey": { "hint": "mine" } }), "a key called \"mine\""),
        ] {
            let found = Bundle::read(bundle(&image, SIGNATURE, &material).to_string().as_bytes()).unwrap();
            assert_eq!(found.by, by);
            assert_eq!((found.is_signature(), found.is_about(&image), found.is_about(&other)), (true, true, false));
        }
        let scan = bundle(&image, "https://x/scan", &json!({ "publicKey": { "hint": "mine" } }));
        assert!(!Bundle::read(scan.to_string().as_bytes()).unwrap().is_signature());
    }

    #[test]
    fn what_is_no_bundle_is_named() {
        let image = Digest::of("image");
        let broken = json!({ "certificate": { "rawBytes": STANDARD.encode("x") } });
        for (bytes, expected) in [
            ("<html>".to_owned(), "it is no JSON"),
            (json!({ "messageSignature": {} }).to_string(), "it holds no statement"),
            (json!({ "dsseEnvelope": { "payload": STANDARD.encode("x") } }).to_string(), "its statement is no JSON"),
            (bundle(&image, SIGNATURE, &json!({})).to_string(), "by whom it is signed"),
            (bundle(&image, SIGNATURE, &broken).to_string(), "its certificate cannot be read"),
        ] {
            let found = Bundle::read(bytes.as_bytes());
            assert!(found.as_ref().is_err_and(|why| why.contains(expected)), "{found:?}");
        }
        assert!(is_bundle("application/vnd.dev.sigstore.bundle.v0.3+json"));
        assert!(is_bundle("application/vnd.dev.sigstore.bundle+json;version=0.2"));
        assert!(!is_bundle("application/vnd.in-toto+json"));
    }
}
