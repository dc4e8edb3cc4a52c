//! cosign itself: found, logged in, called. A login goes to it in a folder of docker's that nobody else can
//! read and that is gone afterwards; the password of a key by the environment.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlflow_image::Digest;
use serde::Deserialize;

use crate::commands::Run;
use crate::config::signing::{Pattern, Signer};
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program, Said};
use crate::registry::{Client, Reference, Secret};

/// The oldest cosign that attaches bundles as referrers by itself.
const LEAST: u32 = 3;

/// How to get it.
const GET: &str = "install cosign 3 (https://docs.sigstore.dev/cosign/system_config/installation/, or \
    `go install github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3`)";

/// How long a question may take that touches nothing but this machine.
const QUESTION: Duration = Duration::from_secs(30);

/// How long it may take to sign or to verify: registry, transparency log and key service are asked, each by
/// its own patience.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The variable that holds the password of a key's file.
pub const PASSWORD: &str = "COSIGN_PASSWORD";

/// A cosign that fits.
#[derive(Clone, Debug)]
pub struct Cosign {
    /// Where it is.
    pub program: PathBuf,
    /// As it says it: `v3.1.3`.
    pub version: String,
}

/// cosign with the login of one repository.
pub struct Session {
    program: PathBuf,
    folder: tempfile::TempDir,
    run: Run,
}

/// What a call may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows {
    /// The password of the key.
    Password,
    /// Nothing that is secret, beside the login.
    Nothing,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

impl Cosign {
    /// Finds cosign.
    ///
    /// # Errors
    /// `Tool` when it is not installed or too old.
    pub async fn find(run: &Run) -> Result<Self> {
        let program = process::require("cosign", GET)?;
        let asked = Program::new(&program).args(["version", "--json"]);
        let answer = asked.ask(&run.cancel, QUESTION).await.map_err(|error| error.hint(GET))?;
        let unreadable = || "cosign does not tell its version".to_owned();
        let version: Version = serde_json::from_slice(&answer).context(Kind::Tool, unreadable)?;
        let version = version.git_version;
        if is_too_old(&version) {
            let message = format!("{} is cosign {version}, older than {LEAST}", program.display());
            return Err(Error::new(Kind::Tool, message).hint(GET));
        }
        Ok(Self { program, version })
    }

    /// Hands it the login that the client has for its registry.
    ///
    /// # Errors
    /// `Auth` when there is no token any more; `Machine` where it cannot be written.
    pub async fn open(self, run: &Run, client: &Client) -> Result<Session> {
        let folder = tempfile::Builder::new().prefix("xtask-cosign-").tempdir();
        let folder = folder.on_machine(|| "cannot make a temporary folder")?;
        keep(&folder.path().join("config.json"), &client.docker_config().await?)?;
        Ok(Session { program: self.program, folder, run: run.clone() })
    }
}

impl Session {
    /// A file of this session's: `name`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A call, with what is known to it.
    pub fn call(&self, args: &[String], knows: Knows) -> Program {
        let mut program = Program::new(&self.program).args(args).clear_env().env("DOCKER_CONFIG", self.folder.path());
        for (name, value) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| keeps(name, knows)) {
                program = program.env(name, value);
            }
        }
        program
    }

    /// What it answers, well or badly.
    ///
    /// # Errors
    /// `Tool` where it does not end in time.
    pub async fn hear(&self, args: &[String], knows: Knows) -> Result<Said> {
        self.call(args, knows).hear(&self.run.cancel, PATIENCE).await
    }
}

/// The flags of each call that asks a registry, with the image by digest at the end.
pub fn at_registry(reference: &Reference, digest: &Digest) -> Vec<String> {
    let image = reference.with_digest(*digest).to_string();
    let plain = reference.is_loopback().then(|| "--allow-http-registry".to_owned());
    let timeout = format!("--timeout={}s", PATIENCE.as_secs() - 5);
    plain.into_iter().chain([timeout, image]).collect()
}

/// The flags that say whose signature is meant.
pub fn of(signer: &Signer) -> Vec<String> {
    let flag = |name: &str, pattern: &Pattern| match pattern {
        Pattern::Exact(text) => format!("--{name}={text}"),
        // It would find it anywhere in the text.
        Pattern::Regexp(text) => format!("--{name}-regexp=^(?:{text})$"),
    };
    match signer {
        Signer::Key(key) => vec![format!("--key={key}")],
        Signer::Identity { identity, issuer } => {
            vec![flag("certificate-identity", identity), flag("certificate-oidc-issuer", issuer)]
        }
    }
}

/// What it died of, in one line: the last that it said, without its own preface.
pub fn complaint(said: &Said) -> String {
    let text = String::from_utf8_lossy(&said.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    last.rsplit_once("error during command execution: ").map_or(last, |(_, why)| why).to_owned()
}

/// Whether a variable is passed on. Each of cosign's flags can be set by one that begins with COSIGN_, so that
/// a forgotten one could make a verification say yes to everything.
fn keeps(name: &str, knows: Knows) -> bool {
    match name {
        PASSWORD => knows == Knows::Password,
        "DOCKER_CONFIG" | "DOCKER_AUTH_CONFIG" | "REGISTRY_AUTH_FILE" => false,
        name => !name.starts_with("COSIGN_") || name.starts_with("COSIGN_PKCS11_"),
    }
}

fn is_too_old(version: &str) -> bool {
    let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    // A build of one's own has no number.
    major.is_some_and(|major| major < LEAST)
}

/// Writes what only this user may read.
fn keep(path: &Path, content: &Secret) -> Result<()> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(content.expose().as_bytes()))
        .on_machine(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn no_variable_changes_what_is_verified() {
        for (name, signing, verifying) in [
            ("HOME", true, true),
            ("TUF_ROOT", true, true),
            ("GOOGLE_APPLICATION_CREDENTIALS", true, true),
            ("COSIGN_PASSWORD", true, false),
            ("COSIGN_PKCS11_PIN", true, true),
            ("COSIGN_INSECURE_IGNORE_TLOG", false, false),
            ("COSIGN_CHECK_CLAIMS", false, false),
            ("COSIGN_REPOSITORY", false, false),
            ("DOCKER_CONFIG", false, false),
            ("DOCKER_AUTH_CONFIG", false, false),
        ] {
            assert_eq!((keeps(name, Knows::Password), keeps(name, Knows::Nothing)), (signing, verifying), "{name}");
        }
    }

    #[test]
    fn only_this_machine_is_asked_without_tls_and_always_for_a_digest() {
        let digest = Digest::of("image");
        for (reference, plain) in [("127.0.0.1:5000/a:1", true), ("localhost/a", true), ("r.example.com/a:1", false)] {
            let args = at_registry(&reference.parse().unwrap(), &digest);
            assert_eq!(args.contains(&"--allow-http-registry".to_owned()), plain, "{reference}");
            let image = args.last().unwrap();
            assert!(image.ends_with(&format!("/a@{digest}")), "{image}");
        }
    }

    #[test]
    fn a_signer_is_named_as_cosign_asks_for_it() {
        let identity = |identity, issuer| Signer::Identity { identity, issuer };
        let (exact, regexp) =
            (|text: &str| Pattern::Exact(text.to_owned()), |text: &str| Pattern::Regexp(text.to_owned()));
        for (signer, expected) in [
            (Signer::Key("/a/b.pub".to_owned()), "--key=/a/b.pub"),
            (
                identity(exact("a@b"), exact("https://i")),
                "--certificate-identity=a@b --certificate-oidc-issuer=https://i",
            ),
            (
                identity(regexp("a|b"), regexp(".*")),
                "--certificate-identity-regexp=^(?:a|b)$ --certificate-oidc-issuer-regexp=^(?:.*)$",
            ),
        ] {
            assert_eq!(of(&signer).join(" "), expected);
        }
    }

    #[test]
    fn what_cosign_dies_of_is_its_last_word() {
        for (stderr, expected) in [
            (
                "WARNING: x\nError: no signatures found\nerror during command execution: no signatures found\n",
                "no signatures found",
            ),
            ("2026/11/28 10:00:00 error during command execution: signing [a]: b\n\n", "signing [a]: b"),
            ("panic: x", "panic: x"),
            ("", ""),
        ] {
            let status = std::process::ExitStatus::from_raw(256);
            let said = Said { status, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() };
            assert_eq!(complaint(&said), expected);
        }
    }

    #[test]
    fn three_is_enough() {
        for (version, old) in
            [("v3.0.2", false), ("v3.1.3", false), ("v4.0.0", false), ("v2.6.1", true), ("devel", false)]
        {
            assert_eq!(is_too_old(version), old, "{version}");
        }
    }
}
