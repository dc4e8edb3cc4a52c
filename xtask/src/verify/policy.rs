//! Whether what is known of an image is what an environment requires.

use std::collections::BTreeSet;

use crate::config::Requirement;
use crate::error::{Error, Kind, Result};

use super::document;
use super::evidence::{Attached, Evidence};

impl Requirement {
    fn kind(self) -> document::Kind {
        match self {
            Self::Sbom => document::Kind::Sbom,
            Self::Provenance => document::Kind::Provenance,
        }
    }

    fn object(self) -> &'static str {
        match self {
            Self::Sbom => "bill of materials",
            Self::Provenance => "provenance",
        }
    }
}

/// Refuses an image that lacks what is required.
///
/// # Errors
/// `Input` where a required document is not what it is said to be; `Image` where one is missing.
pub fn judge(required: &BTreeSet<Requirement>, evidence: &Evidence) -> Result<()> {
    for requirement in required {
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
            let evidence = Evidence { image, digest, manifests: 3, is_ours: false, attached };
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
    }
}
