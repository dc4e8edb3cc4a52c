//! What an attached document says of an image.

use mlflow_image::attestation::{PREDICATE_TYPE, STATEMENT_TYPE};
use mlflow_image::{Digest, attestation, sbom};
use serde_json::Value;

use crate::signing::Bundle;

/// What is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A bill of materials.
    Sbom,
    /// Who built it from what.
    Provenance,
    /// A signature, in a bundle of sigstore's. Whether it is whose it says, cosign tells.
    Signature,
    /// Something that is not looked into.
    Other,
}

/// Which kind a list's entry promises.
pub fn kind(artifact_type: &str) -> Kind {
    match artifact_type {
        sbom::MEDIA_TYPE => Kind::Sbom,
        attestation::MEDIA_TYPE => Kind::Provenance,
        _ => Kind::Other,
    }
}

/// A document that is what it is said to be, in words: a bill's number of packages, a statement's builder.
///
/// # Errors
/// What is wrong with it. `expected` is the bill that the locks of this checkout give, where they are the
/// image's.
pub fn check(kind: Kind, subject: &Digest, bytes: &[u8], expected: Option<&[u8]>) -> Result<String, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is no JSON: {error}"))?;
    match kind {
        Kind::Sbom => bill(subject, &value, expected),
        Kind::Provenance => statement(subject, &value),
        Kind::Signature | Kind::Other => Ok(String::new()),
    }
}

/// A bundle of sigstore's: what kind it is, and what it says, or what is wrong with it.
pub fn bundle(subject: &Digest, bytes: &[u8]) -> (Kind, Result<String, String>) {
    match Bundle::read(bytes) {
        Ok(bundle) if !bundle.is_about(subject) => (Kind::Other, Err("it is about another image".to_owned())),
        Ok(bundle) if bundle.is_signature() => (Kind::Signature, Ok(format!("signature, it says by {}", bundle.by))),
        Ok(bundle) => (Kind::Other, Ok(format!("statement {}, it says by {}", bundle.predicate, bundle.by))),
        Err(why) => (Kind::Other, Err(why)),
    }
}

/// CycloneDX (ECMA-424).
fn bill(subject: &Digest, bill: &Value, expected: Option<&[u8]>) -> Result<String, String> {
    if bill["bomFormat"] != "CycloneDX" {
        return Err("it is not a CycloneDX document".to_owned());
    }
    let packages = purls(bill).ok_or("a component of it has no purl, so that nobody knows what it is")?;
    if let Some(expected) = expected.and_then(|bytes| serde_json::from_slice(bytes).ok()) {
        let locked = purls(&expected).unwrap_or_default();
        let mut differs = locked.iter().filter(|purl| !packages.contains(purl)).map(|purl| format!("without {purl}"));
        let mut more = packages.iter().filter(|purl| !locked.contains(purl)).map(|purl| format!("with {purl}"));
        if let Some(difference) = differs.next().or_else(|| more.next()) {
            return Err(format!("it is {difference}, which the locks of this image say otherwise"));
        }
    }
    let named = bill["metadata"]["component"]["purl"].as_str().and_then(|purl| purl.rsplit_once('@'));
    let named = named.map(|(_, version)| version.split('?').next().unwrap_or_default().replace("%3A", ":"));
    match named.and_then(|named| named.parse::<Digest>().ok()) {
        Some(named) if named != *subject => Err(format!("it describes another image, {}", named.short())),
        _ => Ok(format!("{} packages", packages.len())),
    }
}

/// Each component by name and hash; `None` where one has no name.
fn purls(bill: &Value) -> Option<Vec<String>> {
    let named = |component: &Value| {
        let hash = component["hashes"][0]["content"].as_str().unwrap_or_default();
        Some(format!("{} {hash}", component["purl"].as_str()?).trim_end().to_owned())
    };
    bill["components"].as_array().map_or(Some(Vec::new()), |components| components.iter().map(named).collect())
}

/// An in-toto statement with SLSA provenance.
fn statement(subject: &Digest, statement: &Value) -> Result<String, String> {
    if statement["_type"] != STATEMENT_TYPE {
        return Err("it is not an in-toto statement v1".to_owned());
    }
    if statement["predicateType"] != PREDICATE_TYPE {
        return Err(format!("its predicate is not SLSA provenance v1 but {}", statement["predicateType"]));
    }
    let hex = subject.hex();
    let names = |entry: &Value| entry["digest"]["sha256"] == hex.as_str();
    if !statement["subject"].as_array().is_some_and(|subjects| subjects.iter().any(names)) {
        return Err("it is about another image".to_owned());
    }
    let builder = statement["predicate"]["runDetails"]["builder"]["id"].as_str();
    builder.map(|builder| format!("built by {builder}")).ok_or_else(|| "it names no builder".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, hash: &str) -> Value {
        json!({ "purl": name, "hashes": [{ "alg": "SHA-256", "content": hash }] })
    }

    #[test]
    fn a_bill_is_of_this_image_and_holds_what_the_locks_do() {
        let subject = Digest::of("image");
        let bill = |image: &str, packages: &[Value]| {
            let component = json!({ "purl": format!("pkg:oci/mlflow@{}", image.replace(':', "%3A")) });
            json!({ "bomFormat": "CycloneDX", "metadata": { "component": component }, "components": packages })
        };
        let (a, b, changed) =
            (package("pkg:pypi/a@1", "01"), package("pkg:pypi/b@1", "02"), package("pkg:pypi/b@1", "03"));
        let (ours, other) = (subject.to_string(), Digest::of("other").to_string());
        let locked = bill(&ours, &[a.clone(), b.clone()]).to_string();
        let check = |bill: Value, locked: Option<&str>, expected: Result<&str, &str>| {
            let found = check(Kind::Sbom, &subject, bill.to_string().as_bytes(), locked.map(str::as_bytes));
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                _ => panic!("{found:?}, expected {expected:?}"),
            }
        };
        let both = [a.clone(), b.clone()];
        check(bill(&ours, &both), Some(&locked), Ok("2 packages"));
        check(bill(&ours, &both), None, Ok("2 packages"));
        check(bill(&other, &both), None, Err("it describes another image"));
        check(bill(&ours, std::slice::from_ref(&a)), Some(&locked), Err("without pkg:pypi/b@1 02"));
        check(bill(&ours, &[a.clone(), b, package("x", "")]), Some(&locked), Err("with x,"));
        check(bill(&ours, &[a, changed]), Some(&locked), Err("without pkg:pypi/b@1 02"));
        check(bill(&ours, &[json!({})]), None, Err("no purl"));
        // What others write names the image in another way.
        check(json!({ "bomFormat": "CycloneDX", "metadata": {} }), None, Ok("0 packages"));
        check(json!({ "spdxVersion": "SPDX-2.3" }), None, Err("not a CycloneDX document"));
    }

    #[test]
    fn a_statement_is_about_this_image() {
        let subject = Digest::of("image");
        let good = json!({
            "_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE,
            "subject": [{ "digest": { "sha256": subject.hex() } }],
            "predicate": { "runDetails": { "builder": { "id": "urn:x" } } },
        });
        let check = |pointer: &str, value: Value, expected: Result<&str, &str>| {
            let mut statement = good.clone();
            *statement.pointer_mut(pointer).unwrap() = value;
            let found = check(Kind::Provenance, &subject, statement.to_string().as_bytes(), None);
            match (&found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
                _ => panic!("{pointer}: {found:?}, expected {expected:?}"),
            }
        };
        check("/_type", json!(STATEMENT_TYPE), Ok("built by urn:x"));
        check("/_type", json!("https://in-toto.io/Statement/v0.1"), Err("not an in-toto statement v1"));
        check("/predicateType", json!("https://slsa.dev/provenance/v0.2"), Err("not SLSA provenance v1"));
        check("/subject/0/digest/sha256", json!(Digest::of("other").hex()), Err("about another image"));
        check("/subject", json!([]), Err("about another image"));
        check("/predicate/runDetails/builder", json!({}), Err("names no builder"));
    }

    #[test]
    fn what_is_no_json_says_nothing() {
        let found = check(Kind::Sbom, &Digest::of("image"), b"<html>", None);
        assert!(found.as_ref().is_err_and(|why| why.starts_with("it is no JSON")), "{found:?}");
    }
}
