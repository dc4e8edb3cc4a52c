//! Signatures by the real cosign in a real registry, with keys that each test makes. Signing without a key needs
//! sigstore's services and is left to the unit tests of what cosign is asked.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use testbed::actions::shim::{Says, scripted};
use testbed::cluster::COSIGN;
use testbed::{Auth, Home, Options, Registry};

use crate::node;
use crate::registry::layout::SyntheticLayout;

const PASSWORD: &str = "a password of the test";
const USER: &str = "ada";
const LOGIN: &str = "open sesame";

/// The folder of the real cosign, each night: its build takes five minutes of a CPU.
pub fn cosign() -> Option<PathBuf> {
    if !testbed::nightly("what needs the real cosign") {
        return None;
    }
    let program = node::program(&COSIGN)?;
    Some(program.parent().expect("a folder").to_owned())
}

/// What a run answered.
#[derive(Debug)]
struct Outcome {
    code: i32,
    answer: Value,
    stderr: String,
}

/// A home with a cosign, and a registry with an image.
struct Scene {
    home: Home,
    registry: Registry,
    /// Where cosign is; `None`: nowhere.
    cosign: Option<PathBuf>,
}

impl Scene {
    fn new(options: Options<'_>, cosign: Option<PathBuf>) -> Option<Self> {
        let registry = Registry::start_with(options)?;
        Some(Self { home: Home::new(), registry, cosign })
    }

    fn reference(&self, name: &str) -> String {
        format!("{}/team/{name}", self.registry.host())
    }

    /// xtask in a checkout, where nobody can reach a transparency log.
    fn xtask(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).arg("--json").current_dir(repository()).stdin(Stdio::null());
        command.env("XTASK_IMAGE_TRANSPARENCY_LOG", "false").env("COSIGN_PASSWORD", PASSWORD);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).filter(|dir| !dir.join("cosign").exists());
        command.env("PATH", std::env::join_paths(self.cosign.iter().cloned().chain(dirs)).expect("a PATH"));
        command
    }

    fn push(&self, layout: &SyntheticLayout, name: &str, args: &[&str]) -> Outcome {
        let mut command = self.xtask(&["push-layout"]);
        outcome(command.arg(layout.dir()).arg(self.reference(name)).args(args))
    }

    /// What `verify-image` says where a signature with this key is required.
    fn verify(&self, reference: &str, key: &Path) -> Outcome {
        outcome(&mut self.require(reference, key))
    }

    fn require(&self, reference: &str, key: &Path) -> Command {
        let mut command = self.xtask(&["verify-image", reference]);
        command.env("XTASK_IMAGE_REQUIRE", "signature").env("XTASK_IMAGE_SIGNER_KEY", key);
        command
    }

    /// A pair of keys: the private half, and the public one.
    fn keys(&self, name: &str) -> (String, PathBuf) {
        let cosign = self.cosign.as_ref().expect("a cosign").join("cosign");
        let prefix = self.home.path().join(name);
        let mut command = self.home.command(cosign);
        command.args(["generate-key-pair", "--output-key-prefix"]).arg(&prefix).env("COSIGN_PASSWORD", PASSWORD);
        let output = command.stdin(Stdio::null()).output().expect("cosign starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        (format!("--sign={}.key", prefix.display()), prefix.with_extension("pub"))
    }

    /// The signatures of an image that `verify-image` lists.
    fn listed(&self, reference: &str) -> Vec<String> {
        let shown = outcome(&mut self.xtask(&["verify-image", reference]));
        assert_eq!(shown.code, 0, "{shown:?}");
        let found = shown.answer["attached"].as_array().expect("a list").iter();
        let signatures = found.filter(|entry| entry["kind"] == "signature");
        signatures.map(|entry| entry["said"]["Ok"].as_str().expect("a good one").to_owned()).collect()
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}

fn outcome(command: &mut Command) -> Outcome {
    let begun = Instant::now();
    let output = command.output().expect("xtask starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(begun.elapsed().as_secs() < 120, "{stderr}");
    let all = [&output.stdout[..], &output.stderr].concat();
    let all = String::from_utf8_lossy(&all);
    assert!(!all.contains(PASSWORD) && !all.contains(LOGIN), "a secret is printed: {all}");
    let answer = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Outcome { code: output.status.code().unwrap_or(-1), answer, stderr }
}

#[test]
fn a_signature_is_made_once_and_required_of_its_signer() {
    let Some(cosign) = cosign() else { return };
    let Some(scene) = Scene::new(Options::default(), Some(cosign)) else { return };
    let ((sign, public), (by_another, other)) = (scene.keys("mine"), scene.keys("another"));
    let layout = SyntheticLayout::new(1, &[1000]);
    let reference = scene.reference("mlflow:1");

    let pushed = scene.push(&layout, "mlflow:1", &[]);
    assert_eq!((pushed.code, &pushed.answer["signature"]), (0, &Value::Null), "{pushed:?}");
    let unsigned = scene.verify(&reference, &public);
    assert_eq!(unsigned.code, 17, "{unsigned:?}");
    assert!(unsigned.stderr.contains("has no signature, which is required"), "{unsigned:?}");
    assert_eq!(scene.listed(&reference), [""; 0]);
    let mut deploy = scene.xtask(&["deploy", "--image", &reference]);
    deploy.env("XTASK_IMAGE_REQUIRE", "signature").env("XTASK_IMAGE_SIGNER_KEY", &public);
    let deployed = outcome(&mut deploy);
    assert_eq!(deployed.code, 17, "{deployed:?}");
    assert!(deployed.stderr.contains("has no signature, which is required"), "{deployed:?}");

    let signed = scene.push(&layout, "mlflow:1", &[&sign]);
    assert_eq!((signed.code, &signed.answer["signature"]["made"]), (0, &Value::Bool(true)), "{signed:?}");
    let by = signed.answer["signature"]["by"].as_str().expect("whose it is");
    assert!(by.starts_with("a key with the fingerprint "), "{by}");
    let verified = scene.verify(&reference, &public);
    assert_eq!((verified.code, &verified.answer["signature"]["verdict"]), (0, &"signed".into()), "{verified:?}");

    // The same again adds nothing; somebody else's comes beside it.
    let again = scene.push(&layout, "mlflow:1", &[&sign]);
    assert_eq!((again.code, &again.answer["signature"]["made"]), (0, &Value::Bool(false)), "{again:?}");
    assert_eq!(again.answer["signature"]["by"], by);
    assert_eq!(scene.listed(&reference), [format!("signature, it says by {by}")]);
    let refused = scene.verify(&reference, &other);
    assert_eq!(refused.code, 4, "{refused:?}");
    for part in ["is signed, but not by the key", "another.pub", by] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    let beside = scene.push(&layout, "mlflow:1", &[&by_another]);
    assert_eq!((beside.code, &beside.answer["signature"]["made"]), (0, &Value::Bool(true)), "{beside:?}");
    assert_eq!(scene.listed(&reference).len(), 2);
    for key in [&public, &other] {
        assert_eq!(scene.verify(&reference, key).code, 0);
    }

    // Another image under the same tag has no signature; by its digest the old one keeps its own.
    let old = pushed.answer["image"].as_str().expect("a reference").to_owned();
    assert_eq!(scene.push(&SyntheticLayout::new(2, &[1000]), "mlflow:1", &[]).code, 0);
    assert_eq!(scene.verify(&reference, &public).code, 17);
    assert_eq!(scene.verify(&old, &public).code, 0);
}

#[test]
fn a_signature_that_is_moved_to_another_image_is_none() {
    let Some(cosign) = cosign() else { return };
    let Some(scene) = Scene::new(Options::default(), Some(cosign)) else { return };
    let (sign, public) = scene.keys("mine");
    let (good, bad) = (SyntheticLayout::new(1, &[1000]), SyntheticLayout::new(2, &[1000]));
    assert_eq!(scene.push(&good, "mlflow:good", &[&sign]).code, 0);
    let pushed = scene.push(&bad, "mlflow:bad", &[]);
    let reference = scene.reference("mlflow:bad");

    // The list of what is attached to the one becomes that of the other, as somebody could who may push.
    let digest = |reference: &str| {
        let shown = outcome(&mut scene.xtask(&["verify-image", reference]));
        shown.answer["digest"].as_str().expect("a digest").to_owned()
    };
    let tag = |digest: &str| digest.replace("sha256:", "sha256-");
    let tags = scene.registry.folder().join("docker/registry/v2/repositories/team/mlflow/_manifests/tags");
    let list = tags.join(tag(&digest(&scene.reference("mlflow:good"))));
    let moved = tags.join(tag(pushed.answer["digest"].as_str().expect("a digest")));
    let copied = testbed::command("cp").arg("-a").arg(list).arg(moved).status().expect("cp starts");
    assert!(copied.success());

    let refused = scene.verify(&reference, &public);
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.stderr.contains("names another image") || refused.stderr.contains("not by the key"), "{refused:?}");
}

#[test]
fn another_statement_of_the_signers_is_no_signature() {
    let Some(cosign) = cosign() else { return };
    let Some(scene) = Scene::new(Options::default(), Some(cosign.clone())) else { return };
    let (sign, public) = scene.keys("mine");
    let key = sign.replace("--sign=", "--key=");
    let pushed = scene.push(&SyntheticLayout::new(1, &[1000]), "mlflow:1", &[]);
    let image = pushed.answer["image"].as_str().expect("a reference");
    let predicate = scene.home.file("scan.json");
    std::fs::write(&predicate, r#"{"vulnerable":true}"#).expect("a file");
    let mut attest = scene.home.command(cosign.join("cosign"));
    attest.args(["attest", "--yes", &key, "--type=custom", "--predicate"]).arg(&predicate);
    attest.args(["--use-signing-config=false", "--tlog-upload=false", "--allow-http-registry", image]);
    let attested = attest.env("COSIGN_PASSWORD", PASSWORD).stdin(Stdio::null()).output().expect("cosign starts");
    assert!(attested.status.success(), "{}", String::from_utf8_lossy(&attested.stderr));

    let shown = outcome(&mut scene.xtask(&["verify-image", image]));
    let said = shown.answer["attached"][0]["said"]["Ok"].as_str().unwrap_or_default();
    assert!(said.starts_with("statement https://cosign.sigstore.dev/attestation/v1, it says by a key"), "{shown:?}");
    let refused = scene.verify(image, &public);
    assert_eq!(refused.code, 17, "{refused:?}");
    assert!(refused.stderr.contains("has no signature, which is required"), "{refused:?}");
}

#[test]
fn what_is_wrong_with_a_key_is_named() {
    let Some(cosign) = cosign() else { return };
    let Some(scene) = Scene::new(Options::default(), Some(cosign)) else { return };
    let (sign, public) = scene.keys("mine");
    let layout = SyntheticLayout::new(1, &[1000]);
    let push = |change: &dyn Fn(&mut Command)| {
        let mut command = scene.xtask(&["push-layout"]);
        command.arg(layout.dir()).arg(scene.reference("mlflow:1")).arg(&sign);
        change(&mut command);
        outcome(&mut command)
    };
    let wrong = push(&|command| _ = command.env("COSIGN_PASSWORD", "wrong"));
    assert_eq!(wrong.code, 5, "{wrong:?}");
    assert!(wrong.stderr.contains("COSIGN_PASSWORD is not the password of the key"), "{wrong:?}");
    let none = push(&|command| _ = command.env_remove("COSIGN_PASSWORD"));
    assert_eq!(none.code, 5, "{none:?}");
    assert!(none.stderr.contains("COSIGN_PASSWORD is not set"), "{none:?}");
    assert_eq!(push(&|_| ()).code, 0);

    // A forgotten variable of cosign's does not weaken anything, and a key that is no key is not "unsigned".
    let reference = scene.reference("mlflow:1");
    let (_, other) = scene.keys("another");
    let mut command = scene.require(&reference, &other);
    let refused = outcome(command.env("COSIGN_KEY", &public).env("COSIGN_CHECK_CLAIMS", "false"));
    assert_eq!(refused.code, 4, "{refused:?}");
    let broken = scene.home.file("broken.pub");
    std::fs::write(&broken, "x").expect("a file");
    let unknown = scene.verify(&reference, &broken);
    assert_eq!(unknown.code, 7, "{unknown:?}");
    assert!(unknown.stderr.contains("cosign cannot tell whether"), "{unknown:?}");
}

#[test]
fn cosign_gets_the_login_of_the_registry_and_leaves_nothing_behind() {
    use base64::Engine as _;
    let Some(cosign) = cosign() else { return };
    let auth = Auth::Basic { user: USER, password: LOGIN };
    let Some(scene) = Scene::new(Options { auth, ..Options::default() }, Some(cosign)) else { return };
    let (sign, public) = scene.keys("mine");
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{LOGIN}"));
    let config = serde_json::json!({ "auths": { scene.registry.host(): { "auth": pair } } }).to_string();
    std::fs::write(scene.home.file("docker/config.json"), config).expect("a file");
    let tmp = scene.home.path().join("tmp");
    std::fs::create_dir(&tmp).expect("a folder");

    let layout = SyntheticLayout::new(1, &[1000]);
    let reference = scene.reference("mlflow:1");
    let mut command = scene.xtask(&["push-layout"]);
    let signed = outcome(command.arg(layout.dir()).arg(&reference).arg(&sign).env("TMPDIR", &tmp));
    assert_eq!(signed.code, 0, "{signed:?}");
    let verified = outcome(scene.require(&reference, &public).env("TMPDIR", &tmp));
    assert_eq!(verified.code, 0, "{verified:?}");
    let left: Vec<_> = std::fs::read_dir(&tmp).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_plan_says_with_what_is_signed() {
    let home = Home::new();
    let plan = |args: &[&str]| {
        let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
        command.args(["build-image", "--dry-run", "--locked", "--offline", "--json"]).args(args);
        outcome(command.current_dir(repository()).stdin(Stdio::null()).env("XTASK_IMAGE_SIGN", "env://KEY"))
    };
    let push = ["--push", "--repository", "127.0.0.1:1/team/mlflow"];
    for (sign, expected) in [
        (None, Some("the key env://KEY")),
        (Some("--sign"), Some("a certificate of sigstore's")),
        (Some("--sign=gcpkms://projects/p"), Some("the key gcpkms://projects/p")),
        (Some("--sign=none"), None),
    ] {
        let args: Vec<&str> = push.into_iter().chain(sign).collect();
        let planned = plan(&args);
        assert_eq!((planned.code, planned.answer["sign"].as_str()), (0, expected), "{planned:?}");
    }
    assert_eq!(plan(&[]).answer["sign"], Value::Null, "nothing is pushed");
    let alone = plan(&["--sign"]);
    assert_eq!(alone.code, 2, "{alone:?}");
    assert!(alone.stderr.contains("add --push"), "{alone:?}");
}

#[test]
fn a_cosign_that_is_missing_or_old_is_named() {
    let Some(mut scene) = Scene::new(Options::default(), None) else { return };
    let key = scene.home.file("mine.pub");
    std::fs::write(&key, "x").expect("a file");
    let layout = SyntheticLayout::new(1, &[1000]);
    let reference = scene.reference("mlflow:1");
    let sign = format!("--sign={}", key.display());
    let missing = [scene.push(&layout, "mlflow:1", &[&sign]), scene.verify(&reference, &key)];
    let bin = scene.home.path().join("bin");
    std::fs::create_dir(&bin).expect("a folder");
    scripted(&bin, "cosign", &[Says { to: "version --json", text: r#"{"gitVersion":"v2.6.1"}"#, code: 0 }]);
    scene.cosign = Some(bin);
    let old = [scene.push(&layout, "mlflow:1", &[&sign]), scene.verify(&reference, &key)];
    for (outcomes, part) in [(missing, "cosign is not installed"), (old, "is cosign v2.6.1, older than 3")] {
        for outcome in outcomes {
            assert_eq!(outcome.code, 7, "{outcome:?}");
            assert!(outcome.stderr.contains(part) && outcome.stderr.contains("install cosign 3"), "{outcome:?}");
        }
    }
    let doctor = outcome(scene.xtask(&["doctor"]).env("XTASK_IMAGE_SIGN", &key));
    let checks = doctor.answer["checks"].as_array().expect("checks");
    let state = |name: &str| checks.iter().find(|check| check["name"] == name).map(|check| &check["state"]);
    assert_eq!((state("cosign"), state("signing key")), (Some(&"missing".into()), Some(&"ok".into())), "{doctor:?}");
    // What is not required is not asked.
    assert_eq!(outcome(&mut scene.xtask(&["verify-image", &reference])).code, 0);
}
