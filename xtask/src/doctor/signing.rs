//! What signing the image and verifying its signature need of this machine.

use std::path::Path;

use crate::commands::Run;
use crate::config::signing::{SignWith, Signer, is_file};
use crate::config::{Config, Requirement};
use crate::error::Result;
use crate::signing::{Cosign, PASSWORD};

use super::{Check, asked};

/// Looks at cosign and at the files of keys, where the environment signs or asks for a signature.
pub(super) async fn of(run: &Run, config: &Config) -> Vec<Check> {
    let signing = &config.image.signing;
    let verifies = config.image.require.contains(&Requirement::Signature);
    if signing.sign.is_none() && !verifies {
        return Vec::new();
    }
    let mut checks = vec![asked("cosign", cosign(run)).await];
    if let Some(SignWith::Key(key)) = &signing.sign {
        checks.extend(private(key, std::env::var_os(PASSWORD).is_some()));
    }
    if let Some(Signer::Key(key)) = signing.signer.as_ref().filter(|_| verifies) {
        checks.extend(public(key));
    }
    checks
}

async fn cosign(run: &Run) -> Result<Check> {
    let cosign = Cosign::find(run).await?;
    Ok(Check::ok("cosign", format!("{} ({})", cosign.version, cosign.program.display())))
}

/// The key that signs, if it is a file; others are asked for when they are used.
fn private(key: &str, has_password: bool) -> Option<Check> {
    let name = "signing key";
    is_file(key).then(|| match (Path::new(key).is_file(), has_password) {
        (true, true) => Check::ok(name, key),
        (true, false) => Check::warning(
            name,
            format!("{key}; its password is not set"),
            format!("set {PASSWORD} before what signs, or to nothing for a key without one"),
        ),
        (false, _) => Check::missing(
            name,
            format!("there is no {key}"),
            "make it with `cosign generate-key-pair`, or set image.sign in deploy.toml",
        ),
    })
}

fn public(key: &str) -> Option<Check> {
    let name = "signer's key";
    is_file(key).then(|| match Path::new(key).is_file() {
        true => Check::ok(name, key),
        false => Check::missing(
            name,
            format!("there is no {key}"),
            "get the public half of the key that signs (`cosign public-key --key KEY`), or set image.signer-key",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn only_keys_that_are_files_can_be_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path().to_str().unwrap();
        for (key, has_password, signs, verifies) in [
            (file, true, Some(State::Ok), Some(State::Ok)),
            (file, false, Some(State::Warning), Some(State::Ok)),
            ("/does/not/exist", true, Some(State::Missing), Some(State::Missing)),
            ("gcpkms://projects/p", false, None, None),
        ] {
            assert_eq!(private(key, has_password).map(|check| check.state), signs, "{key}");
            assert_eq!(public(key).map(|check| check.state), verifies, "{key}");
        }
    }
}
