//! Whether what is known of an image is what an environment requires.

use std::collections::BTreeSet;

use crate::config::Requirement;
use crate::error::{Error, Kind, Result};
use crate::signing::Verdict;

use super::document;
use super::evidence::{Attached, Evidence};

impl Requirement {
    fn kind(self) -> document::Kind {
        match self {
            Self::Sbom => document::Kind::Sbom,
            Self::Provenance => document::Kind::Provenance,
            Self::Signature => document::Kind::Signature,
        }
    }

    fn object(self) -> &'static str {
        match self {
            Self::Sbom => "bill of materials",
            Self::Provenance => "provenance",
            Self::Signature => "signature",
        }
    }
}

/// Refuses an image that lacks what is required.
///
/// # Errors
/// `Input` where a required document is not what it is said to be, or the signature is another's; `Image` where one
/// is missing.
pub fn judge(required: &BTreeSet<Requirement>, evidence: &Evidence) -> Result<()> {
    for requirement in required {
        if *requirement == Requirement::Signature {
            judge_signature(evidence)?;
            continue;
        }
        let of_kind = |found: &&Attached| found.kind == requirement.kind();
        let mut found = evidence.attached.iter().filter(of_kind);
        if let Some((wrong, why)) = found.clone().find_map(|found| found.problem().map(|why| (found, why))) {
            return Err(false_document(evidence, wrong, why));
        }
        if !found.any(|found| found.to == evidence.digest) {
            let message = format!("{} has no {}, which is required", evidence.image, requirement.object());
            return Err(Error::new(Kind::Image, message).hint(format!(
                "push it with `cargo xtask build-image --push` under a tag that it does not have yet, which attaches \
                 what is missing; or take {:?} out of image.require in deploy.toml",
                requirement.name()
            )));
        }
    }
    Ok(())
}

fn judge_signature(evidence: &Evidence) -> Result<()> {
    let image = &evidence.image;
    match &evidence.signature {
        Some(Verdict::Signed { .. }) => Ok(()),
        Some(Verdict::Refused { by, why }) => {
            let is_signature =
                |found: &&Attached| found.kind == document::Kind::Signature && found.to == evidence.digest;
            let mut causes: Vec<&str> =
                evidence.attached.iter().filter(is_signature).filter_map(|found| found.said.as_deref().ok()).collect();
            causes.push(why);
            Err(Error::new(Kind::Input, format!("{image} is signed, but not by {by}")).source(causes.join("; ")).hint(
                "find out who signed it; sign it with `cargo xtask build-image --push --sign`, or correct \
                 image.signer-... in deploy.toml",
            ))
        }
        Some(Verdict::Unsigned) | None => {
            let message = format!("{image} has no signature, which is required");
            Err(Error::new(Kind::Image, message).hint(
                "sign it: image.sign in deploy.toml, or `cargo xtask build-image --push --sign`, does so after a push; \
                 or take \"signature\" out of image.require",
            ))
        }
    }
}

/// Refuses an image with any document that is not what it is said to be.
///
/// # Errors
/// `Input`, as above.
pub fn judge_all(evidence: &Evidence) -> Result<()> {
    match evidence.attached.iter().find_map(|found| found.problem().map(|why| (found, why))) {
        Some((wrong, why)) => Err(false_document(evidence, wrong, why)),
        None => Ok(()),
    }
}

fn false_document(evidence: &Evidence, wrong: &Attached, why: &str) -> Error {
    let message =
        format!("{} ({}), attached to {}, is not to be believed", wrong.digest.short(), wrong.what, evidence.image);
    Error::new(Kind::Input, message)
        .source(why.to_owned())
        .hint("find out who attached it, delete it from the registry, and push the image again under a new tag")
}

#[cfg(test)]
mod tests {
    use mlflow_image::Digest;

    use super::super::evidence::Attached;
    use super::*;
    use crate::registry::Reference;

    fn attached(kind: document::Kind, to: &str, said: Result<&str, &str>) -> Attached {
        let what = match kind {
            document::Kind::Sbom => "a/sbom",
            document::Kind::Provenance => "a/provenance",
            document::Kind::Signature => "a/signature",
            document::Kind::Other => "a/other",
        };
        Attached {
            digest: Digest::of(what),
            to: Digest::of(to),
            what: what.to_owned(),
            kind,
            said: said.map(str::to_owned).map_err(str::to_owned),
        }
    }

    #[test]
    fn what_is_required_is_there_and_true() {
        use document::Kind::{Other, Provenance, Sbom};
        let image: Reference = "r.example.com/a:1".parse().unwrap();
        let check = |required: &[Requirement], attached: Vec<Attached>, expected: Option<(Kind, &str)>| {
            let (image, digest) = (image.with_digest(Digest::of("index")), Digest::of("index"));
            let evidence = Evidence { image, digest, manifests: 3, is_ours: false, attached, signature: None };
            let found = judge(&required.iter().copied().collect(), &evidence).err();
            let found = found.map(|error| (error.kind(), error.lines().join(": ")));
            match (&found, expected) {
                (None, None) => {}
                (Some((kind, text)), Some((expected, part))) => {
                    assert_eq!(*kind, expected, "{text}");
                    assert!(text.contains(part), "{text}");
                }
                _ => panic!("{found:?}, expected {expected:?}"),
            }
        };
        let (good, bad) = (Ok("x"), Err("it is about another image"));
        let both = [Requirement::Sbom, Requirement::Provenance];
        check(&[], vec![], None);
        check(&[], vec![attached(Sbom, "index", bad)], None);
        check(&both, vec![attached(Sbom, "index", good), attached(Provenance, "index", good)], None);
        check(&both, vec![attached(Sbom, "index", good)], Some((Kind::Image, "has no provenance")));
        check(&both, vec![attached(Other, "index", good)], Some((Kind::Image, "has no bill of materials")));
        // A platform's own is not one of the image.
        check(&both, vec![attached(Sbom, "amd64", good)], Some((Kind::Image, "has no bill of materials")));
        let forged = vec![attached(Sbom, "index", good), attached(Sbom, "index", bad)];
        check(&both, forged.clone(), Some((Kind::Input, "it is about another image")));
        check(&[Requirement::Provenance], forged, Some((Kind::Image, "has no provenance")));
        // What is attached as a signature is none before cosign has said so.
        let claimed = vec![attached(document::Kind::Signature, "index", Ok("signature, it says by me"))];
        check(&[Requirement::Signature], claimed, Some((Kind::Image, "has no signature")));
    }

    #[test]
    fn a_signature_is_of_whom_it_is_required() {
        let image: Reference = "r.example.com/a:1".parse().unwrap();
        let check = |signature: Verdict, expected: Option<(Kind, &str)>| {
            let (image, digest) = (image.with_digest(Digest::of("index")), Digest::of("index"));
            let attached = vec![
                attached(document::Kind::Signature, "index", Ok("signature, it says by somebody")),
                attached(document::Kind::Signature, "amd64", Ok("signature, it says by nobody")),
            ];
            let signature = Some(signature);
            let evidence = Evidence { image, digest, manifests: 3, is_ours: false, attached, signature };
            let found = judge(&BTreeSet::from([Requirement::Signature]), &evidence).err();
            let found = found.map(|error| (error.kind(), error.lines().join(": ")));
            let found = found.as_ref().map(|(kind, text)| (*kind, text.split_once(' ').map_or("", |(_, rest)| rest)));
            assert_eq!(found, expected);
        };
        let by = || "the key k.pub".to_owned();
        check(Verdict::Signed { by: by() }, None);
        check(Verdict::Unsigned, Some((Kind::Image, "has no signature, which is required")));
        let refused = Verdict::Refused { by: by(), why: "no match".to_owned() };
        let why = "is signed, but not by the key k.pub: signature, it says by somebody; no match";
        check(refused, Some((Kind::Input, why)));
    }
}
