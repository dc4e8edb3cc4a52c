//! Whether an image has the signature of who is named: what cosign is asked, and what its answer means.

use mlflow_image::Digest;
use serde_json::Value;

use crate::commands::Run;
use crate::config::signing::{Signer, Signing};
use crate::error::{Error, Kind, Result};
use crate::process::Said;
use crate::registry::Client;

use super::bundle;
use super::cosign::{self, Cosign, Knows, Session};

/// cosign's exit code for an image without any signature, and for one without a matching one, as it gives
/// them for signatures of its older kind (cosign, "cmd/cosign/errors/exit_codes.go").
const NO_SIGNATURE: i32 = 10;
const NO_MATCH: [i32; 2] = [12, 13];

/// How it begins what it says where bundles are there and none matches.
const NO_MATCHING_BUNDLE: &str = "no matching attestations";

/// What a signature of its older kind calls itself.
const OLDER: &str = "cosign container image signature";

/// What is known of an image's signature.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub enum Verdict {
    /// It is there.
    Signed {
        /// Whose it is, as the environment names them.
        by: String,
    },
    /// There is none at all.
    Unsigned,
    /// There is one, but not by who is named.
    Refused {
        /// Who is named.
        by: String,
        /// What cosign says.
        why: String,
    },
}

/// Asks whether the image `digest` of the client's repository has the signature that is required.
///
/// # Errors
/// `Tool` where cosign is not installed, or cannot tell: a key that cannot be read, a log that does not
/// answer.
pub async fn check(run: &Run, signing: &Signing, client: &Client, digest: &Digest) -> Result<Verdict> {
    let Some(signer) = &signing.signer else {
        return Err(Error::new(Kind::Internal, "a signature is asked for, but not whose"));
    };
    let session = Cosign::find(run).await?.open(run, client).await?;
    ask(&session, signer, signing.transparency_log, client, digest).await
}

/// The same in a session that is open.
pub async fn ask(
    session: &Session,
    signer: &Signer,
    transparency_log: bool,
    client: &Client,
    digest: &Digest,
) -> Result<Verdict> {
    let args = arguments(signer, transparency_log, cosign::at_registry(client.reference(), digest));
    judge(&session.hear(&args, Knows::Nothing).await?, signer, digest)
}

fn arguments(signer: &Signer, transparency_log: bool, at: Vec<String>) -> Vec<String> {
    let mut args = vec!["verify".to_owned(), "--output=json".to_owned()];
    args.extend(cosign::of(signer));
    if !transparency_log {
        args.push("--insecure-ignore-tlog=true".to_owned());
    }
    args.extend(at);
    args
}

fn judge(said: &Said, signer: &Signer, digest: &Digest) -> Result<Verdict> {
    let why = cosign::complaint(said);
    let by = signer.to_string();
    match said.status.code() {
        Some(0) => Ok(if names(&said.stdout, digest) { Verdict::Signed { by } } else { Verdict::Unsigned }),
        Some(NO_SIGNATURE) => Ok(Verdict::Unsigned),
        Some(code) if NO_MATCH.contains(&code) => Ok(Verdict::Refused { by, why }),
        _ if why.starts_with(NO_MATCHING_BUNDLE) => Ok(Verdict::Refused { by, why }),
        _ => Err(Error::new(Kind::Tool, format!("cosign cannot tell whether {} is signed", digest.short()))
            .source(why)
            .hint(format!(
                "it is asked for {by}; without a way to the transparency log of sigstore set \
                image.transparency-log = false, for a key"
            ))),
    }
}

/// Whether the answer has a signature of the image. cosign lets any statement of the signer's pass, such as
/// one about a scan for vulnerabilities.
fn names(answer: &[u8], digest: &Digest) -> bool {
    let list: Value = serde_json::from_slice(answer).unwrap_or_default();
    let is_ours = |entry: &Value| {
        let critical = &entry["critical"];
        let is_signature = [bundle::SIGNATURE, OLDER].iter().any(|kind| critical["type"] == *kind);
        is_signature && critical["image"]["docker-manifest-digest"] == digest.to_string()
    };
    list.as_array().is_some_and(|list| list.iter().any(is_ours))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use serde_json::json;

    use super::*;
    use crate::config::signing::Pattern;

    #[test]
    fn cosign_is_asked_for_one_signer_of_one_digest() {
        let at = vec!["r/a@sha256:1".to_owned()];
        let key = Signer::Key("k.pub".to_owned());
        let exact = |text: &str| Pattern::Exact(text.to_owned());
        let person = Signer::Identity { identity: exact("a@b"), issuer: exact("https://i") };
        for (signer, log, expected) in [
            (&key, true, "verify --output=json --key=k.pub r/a@sha256:1"),
            (&key, false, "verify --output=json --key=k.pub --insecure-ignore-tlog=true r/a@sha256:1"),
            (
                &person,
                true,
                "verify --output=json --certificate-identity=a@b --certificate-oidc-issuer=https://i r/a@sha256:1",
            ),
        ] {
            assert_eq!(arguments(signer, log, at.clone()).join(" "), expected);
        }
    }

    #[test]
    fn only_a_signature_of_this_image_counts() {
        let (digest, other) = (Digest::of("image"), Digest::of("other"));
        let signer = Signer::Key("k.pub".to_owned());
        let entry = |kind: &str, digest: &Digest| json!({ "critical": { "type": kind, "image": { "docker-manifest-digest": digest } } });
        let by = "the key k.pub".to_owned();
        let check = |code: i32, stdout: &str, stderr: &str, expected: Result<Verdict, &str>| {
            let status = std::process::ExitStatus::from_raw(code << 8);
            let said = Said { status, stdout: stdout.as_bytes().to_vec(), stderr: stderr.as_bytes().to_vec() };
            match (judge(&said, &signer, &digest), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => {
                    assert_eq!(error.kind(), Kind::Tool);
                    assert!(error.lines().join(": ").contains(expected), "{error}");
                }
                (found, _) => panic!("{found:?}"),
            }
        };
        let signed = |entries: &[Value]| format!("\n{}\n", json!(entries));
        let (ours, older) = (entry(bundle::SIGNATURE, &digest), entry(OLDER, &digest));
        let scan = entry("https://cosign.sigstore.dev/attestation/vuln/v1", &digest);
        check(0, &signed(&[scan.clone(), ours]), "", Ok(Verdict::Signed { by: by.clone() }));
        check(0, &signed(&[older]), "", Ok(Verdict::Signed { by: by.clone() }));
        check(0, &signed(&[scan]), "", Ok(Verdict::Unsigned));
        check(0, &signed(&[entry(bundle::SIGNATURE, &other)]), "", Ok(Verdict::Unsigned));
        check(0, "error decoding the payload", "", Ok(Verdict::Unsigned));
        let said = |why: &str| format!("Error: {why}\nerror during command execution: {why}\n");
        check(10, "", &said("no signatures found"), Ok(Verdict::Unsigned));
        let why = "no matching attestations: failed to verify signature".to_owned();
        check(1, "", &said(&why), Ok(Verdict::Refused { by: by.clone(), why }));
        let why = "no matching signatures: invalid signature".to_owned();
        check(12, "", &said(&why), Ok(Verdict::Refused { by, why }));
        check(1, "", &said("loading public key: open k.pub: no such file"), Err("open k.pub: no such file"));
    }
}
