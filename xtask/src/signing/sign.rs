//! Signing what was pushed, unless it is signed already.

use std::fmt;
use std::time::{Duration, Instant};

use mlflow_image::Digest;
use x509_parser::pem::parse_x509_pem;

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::config::Config;
use crate::config::signing::{Pattern, SignWith, Signer, Signing, is_file};
use crate::error::{Error, Kind, Result};
use crate::registry::{Access, Client, CredentialSource, Reference};
use crate::report;

use super::bundle::{Bundle, is_bundle, key_name};
use super::check::{self, Verdict};
use super::cosign::{self, Cosign, Knows, PASSWORD, PATIENCE, Session};

/// The issuer of the certificates of GitHub's workflows.
const GITHUB: &str = "https://token.actions.githubusercontent.com";

/// How long somebody may take to log in with a browser, beside what cosign itself takes.
const LOGIN: Duration = Duration::from_secs(300);

/// A signature that an image has.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Signed {
    /// Whose it is, as the signature itself says.
    pub by: String,
    /// Whether it was made now; otherwise it was there.
    pub made: bool,
    /// How long that took.
    pub seconds: f64,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.made {
            true => write!(f, "signed       by {} ({:.1} s)", self.by, self.seconds),
            false => write!(f, "signed       by {}, already", self.by),
        }
    }
}

/// Signs an image that was pushed to the repository of `reference`, if the environment says with what.
///
/// # Errors
/// As [`sign`].
pub async fn after_push(
    run: &Run,
    config: &Config,
    cache: &Cache,
    reference: &Reference,
    digest: &Digest,
    login: CredentialSource,
) -> Result<Option<Signed>> {
    let Some(with) = &config.image.signing.sign else { return Ok(None) };
    let client = Client::connect(run, cache, reference, Access::Push, login)?;
    sign(run, &config.image.signing, with, &client, digest).await.map(Some)
}

/// Signs the image `digest` of the client's repository, unless it has that signature.
///
/// # Errors
/// `Tool` where cosign is not installed, or fails; `Auth` for a wrong password, or a workflow that may not
/// ask for a token; `Input` for a key that is not there.
async fn sign(run: &Run, signing: &Signing, with: &SignWith, client: &Client, digest: &Digest) -> Result<Signed> {
    let begun = Instant::now();
    ready(signing, with)?;
    let session = Cosign::find(run).await?.open(run, client).await?;
    run.ui.step("Signing", format!("{} with {with}", client.reference().with_digest(*digest)));
    let before = signatures(client, digest).await?;
    let wish = Wish { run, session: &session, signing, with, client, digest };
    if !before.is_empty()
        && let Some(by) = wish.stands().await?
    {
        return Ok(Signed { by, made: false, seconds: report::seconds(begun.elapsed()) });
    }
    wish.make().await?;
    let after = signatures(client, digest).await?;
    let new = after.into_iter().find(|(found, _)| !before.iter().any(|(old, _)| old == found));
    let Some((_, by)) = new else {
        let message = format!("cosign has signed, but {} does not list the signature", client.reference().registry());
        return Err(Error::new(Kind::Remote, message).hint("run the same command again"));
    };
    Ok(Signed { by, made: true, seconds: report::seconds(begun.elapsed()) })
}

/// What cosign would say late, or in words of its own.
fn ready(signing: &Signing, with: &SignWith) -> Result<()> {
    let variable = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match with {
        SignWith::Keyless if !signing.transparency_log => {
            Err(Error::new(Kind::Config, "signing without a key needs the transparency log")
                .hint("sign with a key, or take transparency-log = false out of deploy.toml"))
        }
        SignWith::Keyless if lacks_token(&variable) => Err(Error::new(
            Kind::Auth,
            "this workflow may not ask GitHub for a token, which signing without a key needs",
        )
        .hint("add `id-token: write` to the permissions of the job")),
        SignWith::Key(key) if is_file(key) && !std::path::Path::new(key).is_file() => {
            Err(Error::new(Kind::Input, format!("there is no key {key} to sign with"))
                .hint("make one with `cosign generate-key-pair`, or name another with --sign or image.sign"))
        }
        _ => Ok(()),
    }
}

/// A workflow would wait for somebody with a browser.
fn lacks_token(variable: &dyn Fn(&str) -> bool) -> bool {
    variable("GITHUB_ACTIONS") && !variable("ACTIONS_ID_TOKEN_REQUEST_URL") && !variable("SIGSTORE_ID_TOKEN")
}

/// The signatures that are attached to the image, each with who is said to have made it.
async fn signatures(client: &Client, digest: &Digest) -> Result<Vec<(Digest, String)>> {
    let mut found = Vec::new();
    for referrer in client.referrers(digest).await? {
        if !referrer.artifact_type.as_deref().is_some_and(is_bundle) {
            continue;
        }
        // What cannot be read is no signature; `verify-image` tells.
        let Ok(document) = client.attached(&referrer).await? else { continue };
        if let Ok(bundle) = Bundle::read(&document.bytes)
            && bundle.is_signature()
            && bundle.is_about(digest)
        {
            found.push((referrer.digest, bundle.by));
        }
    }
    Ok(found)
}

/// What is to be signed, with what, and by which cosign.
struct Wish<'a> {
    run: &'a Run,
    session: &'a Session,
    signing: &'a Signing,
    with: &'a SignWith,
    client: &'a Client,
    digest: &'a Digest,
}

impl Wish<'_> {
    /// Whose signature the image has, if it is the one that would be made. Where that cannot be told it is made.
    async fn stands(&self) -> Result<Option<String>> {
        let Self { run, session, signing, with, client, digest } = *self;
        let (signer, by) = match with {
            SignWith::Key(key) => public_half(session, key).await?,
            SignWith::Keyless => match oneself(signing, &|name| std::env::var(name).ok()) {
                Some(signer) => {
                    let by = signer.to_string();
                    (signer, by)
                }
                None => return Ok(None),
            },
        };
        match check::ask(session, &signer, signing.transparency_log, client, digest).await {
            Ok(Verdict::Signed { .. }) => Ok(Some(by)),
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Ok(_) => Ok(None),
            Err(error) => {
                run.ui
                    .warn(format!("it is not known whether the image is signed already: {}", error.lines().join(": ")));
                Ok(None)
            }
        }
    }

    async fn make(&self) -> Result<()> {
        let Self { run, session, signing, with, client, digest } = *self;
        let services = match signing.transparency_log {
            true => Vec::new(),
            false => without_services(session).await?,
        };
        let args = arguments(with, services, cosign::at_registry(client.reference(), digest));
        let call = session.call(&args, Knows::Password);
        if is_for_people(with, &|name| std::env::var_os(name).is_some()) {
            // cosign opens a browser, or says on stderr where to log in.
            let signed = tokio::time::timeout(PATIENCE + LOGIN, call.attend(&run.cancel)).await;
            return signed.unwrap_or_else(|_| Err(Error::new(Kind::Tool, "nobody has logged in to sign")));
        }
        let said = call.hear(&run.cancel, PATIENCE).await?;
        match (said.status.success(), with) {
            (true, _) => Ok(()),
            (false, SignWith::Key(key)) => Err(unsigned(key, &cosign::complaint(&said))),
            (false, SignWith::Keyless) => {
                Err(Error::new(Kind::Tool, "cosign cannot sign").source(cosign::complaint(&said)))
            }
        }
    }
}

/// Who signs without a key, as far as that is known before: whom the environment requires, or this workflow.
fn oneself(signing: &Signing, variable: &dyn Fn(&str) -> Option<String>) -> Option<Signer> {
    match &signing.signer {
        Some(signer @ Signer::Identity { .. }) => Some(signer.clone()),
        _ => {
            let (server, workflow) = (variable("GITHUB_SERVER_URL")?, variable("GITHUB_WORKFLOW_REF")?);
            let identity = Pattern::Exact(format!("{server}/{workflow}"));
            Some(Signer::Identity { identity, issuer: Pattern::Exact(GITHUB.to_owned()) })
        }
    }
}

/// The public half of a key in a file, and as a signature names it.
async fn public_half(session: &Session, key: &str) -> Result<(Signer, String)> {
    let said = session.hear(&["public-key".to_owned(), format!("--key={key}")], Knows::Password).await?;
    if !said.status.success() {
        return Err(unsigned(key, &format!("reading key: {}", cosign::complaint(&said))));
    }
    let (_, pem) = parse_x509_pem(&said.stdout).map_err(|error| {
        Error::new(Kind::Tool, format!("cosign gives no public half of {key}")).source(error.to_string())
    })?;
    let file = session.file("key.pub");
    cache::write_private(&file, &said.stdout)?;
    Ok((Signer::Key(file.display().to_string()), key_name(&Digest::of(pem.contents).hex())))
}

fn arguments(with: &SignWith, services: Vec<String>, at: Vec<String>) -> Vec<String> {
    // Who signs without a key is asked nothing more than to log in: they have asked for a public log.
    let mut args = vec!["sign".to_owned(), "--yes".to_owned()];
    if let SignWith::Key(key) = with {
        args.push(format!("--key={key}"));
    }
    args.extend(services.into_iter().chain(at));
    args
}

/// The flags for signing where nobody but the registry can be reached: cosign's own lists of services and of
/// whom to trust, empty. Without them it asks sigstore for both.
async fn without_services(session: &Session) -> Result<Vec<String>> {
    let mut flags = Vec::new();
    for (what, flag) in [("signing-config", "--signing-config"), ("trusted-root", "--trusted-root")] {
        let file = session.file(&format!("{what}.json")).display().to_string();
        let said = session.hear(&[what, "create", "--out", &file].map(str::to_owned), Knows::Nothing).await?;
        if !said.status.success() {
            let message = format!("cosign cannot make an empty {what}");
            return Err(Error::new(Kind::Tool, message).source(cosign::complaint(&said)));
        }
        flags.push(format!("{flag}={file}"));
    }
    Ok(flags)
}

/// Whether cosign will have to ask somebody who they are.
fn is_for_people(with: &SignWith, variable: &dyn Fn(&str) -> bool) -> bool {
    let given = ["ACTIONS_ID_TOKEN_REQUEST_URL", "SIGSTORE_ID_TOKEN"];
    *with == SignWith::Keyless && !given.iter().any(|name| variable(name))
}

/// What is wrong with a key, as far as it is known.
fn unsigned(key: &str, why: &str) -> Error {
    let message = format!("cosign cannot sign with the key {key}");
    if why.contains("decryption failed") {
        return Error::new(Kind::Auth, format!("{PASSWORD} is not the password of the key {key}"))
            .source(why.to_owned())
            .hint(format!("set {PASSWORD} to the password that the key was made with"));
    }
    let given = std::env::var_os(PASSWORD).is_some();
    if !given && is_file(key) && why.contains("reading key") && !why.contains("open ") {
        return Error::new(Kind::Auth, format!("the key {key} has a password, and {PASSWORD} is not set"))
            .source(why.to_owned())
            .hint(format!("set {PASSWORD}; for a key without a password, to nothing: {PASSWORD}="));
    }
    Error::new(Kind::Tool, message).source(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosign_is_told_with_what_to_sign_and_without_which_services() {
        let at = || vec!["--timeout=9s".to_owned(), "r/a@sha256:1".to_owned()];
        let key = |text: &str| SignWith::Key(text.to_owned());
        let check = |with: &SignWith, services: &[&str], expected: &str| {
            let services = services.iter().map(|flag| (*flag).to_owned()).collect();
            assert_eq!(arguments(with, services, at()).join(" "), expected);
        };
        check(&SignWith::Keyless, &[], "sign --yes --timeout=9s r/a@sha256:1");
        check(&key("gcpkms://p"), &[], "sign --yes --key=gcpkms://p --timeout=9s r/a@sha256:1");
        let without = ["--signing-config=a.json", "--trusted-root=b.json"];
        let expected = "sign --yes --key=/k --signing-config=a.json --trusted-root=b.json --timeout=9s r/a@sha256:1";
        check(&key("/k"), &without, expected);
    }

    #[test]
    fn a_workflow_without_a_token_waits_for_nobody() {
        for (set, lacks, for_people) in [
            (&["GITHUB_ACTIONS"][..], true, true),
            (&["GITHUB_ACTIONS", "ACTIONS_ID_TOKEN_REQUEST_URL"], false, false),
            (&["GITHUB_ACTIONS", "SIGSTORE_ID_TOKEN"], false, false),
            (&[], false, true),
        ] {
            let variable = |name: &str| set.contains(&name);
            assert_eq!(lacks_token(&variable), lacks, "{set:?}");
            assert_eq!(is_for_people(&SignWith::Keyless, &variable), for_people, "{set:?}");
            assert!(!is_for_people(&SignWith::Key("k".to_owned()), &variable));
        }
    }

    #[test]
    fn who_signs_without_a_key_is_who_is_required_or_the_workflow() {
        let exact = |text: &str| Pattern::Exact(text.to_owned());
        let signing = |signer| Signing { sign: None, signer, transparency_log: true };
        let person = Signer::Identity { identity: exact("a@b"), issuer: exact("https://i") };
        let workflow = |name: &str| match name {
            "GITHUB_SERVER_URL" => Some("https://github.com".to_owned()),
            "GITHUB_WORKFLOW_REF" => Some("o/r/.github/workflows/deploy.yml@refs/heads/main".to_owned()),
            _ => None,
        };
        let identity = exact("https://github.com/o/r/.github/workflows/deploy.yml@refs/heads/main");
        let ours = Signer::Identity { identity, issuer: exact(GITHUB) };
        assert_eq!(oneself(&signing(Some(person.clone())), &workflow), Some(person.clone()));
        assert_eq!(oneself(&signing(Some(person.clone())), &|_| None), Some(person));
        assert_eq!(oneself(&signing(Some(Signer::Key("k".to_owned()))), &workflow), Some(ours.clone()));
        assert_eq!(oneself(&signing(None), &workflow), Some(ours));
        assert_eq!(oneself(&signing(None), &|_| None), None);
    }

    #[test]
    fn nothing_is_started_for_what_cannot_be_signed() {
        let offline = Signing { sign: None, signer: None, transparency_log: false };
        assert_eq!(ready(&offline, &SignWith::Keyless).unwrap_err().kind(), Kind::Config);
        let missing = SignWith::Key("/does/not/exist".to_owned());
        assert_eq!(ready(&offline, &missing).unwrap_err().kind(), Kind::Input);
        let elsewhere = SignWith::Key("gcpkms://projects/p".to_owned());
        assert!(ready(&offline, &elsewhere).is_ok());
    }
}
