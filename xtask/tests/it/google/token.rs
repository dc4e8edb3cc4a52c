//! `cargo xtask token`: who may have a token made, for whom, and where it is printed.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testbed::Home;
use testbed::google::{Google, Options};

use super::{Calls as _, PROJECT, enabled};
use crate::image;

/// An environment behind Google's Identity-Aware Proxy.
pub const DEPLOY: &str = r#"
[environment.lab]
kind = "gke"
context = "nowhere"
hosts = ["mlflow.example.com"]
gateway = "infra/external"
login = "iap"
[environment.lab.iap]
client-id = "1.apps.googleusercontent.com"
client-secret-secret = "iap"
[environment.lab.database]
instance = "p:r:i"
user = "mlflow@p.iam"
[environment.lab.artifacts]
uri = "gs://bucket"
"#;

/// Exit code, stdout and stderr.
fn token(google: &Google, login: &str, deploy: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let home = Home::new();
    let root = home.path().join("project");
    image::copy_project(&root);
    std::fs::write(root.join("deploy.toml"), deploy).expect("a file");
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.args(["token", "--env", "lab"]).args(args).env("CARGO_MANIFEST_DIR", &root);
    command.envs(google.gcloud_env()).env("GOOGLE_OAUTH_ACCESS_TOKEN", login);
    command.env("GITHUB_STEP_SUMMARY", home.file("summary")).env("GITHUB_ACTIONS", "true");
    let output = command.output().expect("xtask starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let summary = std::fs::read_to_string(Path::new(&home.file("summary"))).unwrap_or_default();
    assert!(!summary.contains("eyJ"), "the token is on the summary page: {summary}");
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).expect("a token of three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

#[test]
fn a_token_is_made_for_who_may_act_as_the_account() {
    let google = Google::start(Options { projects: vec![enabled()], enforce: true, polls: 0, ..Options::default() });
    let (account, friend, stranger) = (google.account("client"), google.account("friend"), google.account("stranger"));
    let path = format!("iam/v1/projects/{PROJECT}/serviceAccounts/{account}");
    google.grant(&path, "roles/iam.serviceAccountTokenCreator", &format!("serviceAccount:{friend}"));
    let (friend, stranger) = (google.token(&friend), google.token(&stranger));

    let (code, out, err) = token(&google, &friend, DEPLOY, &["--account", &account]);
    assert_eq!(code, Some(0), "{err}");
    let found = claims(out.trim());
    assert_eq!((&found["aud"], &found["email"]), (&json!("1.apps.googleusercontent.com"), &json!(account)));
    assert!(err.contains("until ") && !err.contains(out.trim()), "{err}");

    // Without a client of one's own the account signs for the address.
    let googles = DEPLOY.replace("client-id = \"1.apps.googleusercontent.com\"\nclient-secret-secret = \"iap\"", "");
    let googles =
        googles.replace("[environment.lab.iap]", &format!("[environment.lab.iap]\nservice-account = \"{account}\""));
    let (code, out, err) = token(&google, &friend, &googles, &["--json"]);
    assert_eq!(code, Some(0), "{err}");
    let answer: Value = serde_json::from_str(&out).expect("JSON");
    let found = claims(answer["token"].as_str().expect("a token"));
    assert_eq!((&found["aud"], &found["iss"]), (&json!("https://mlflow.example.com/*"), &json!(account)));
    assert_eq!((&answer["account"], &answer["audience"]), (&json!(account), &found["aud"]));

    let (open, _) = DEPLOY.split_once("login = \"iap\"").expect("a login");
    let (_, rest) = DEPLOY.split_once("client-secret-secret = \"iap\"\n").expect("a table");
    let open = format!("{open}gateway-is-internal = true\n{rest}");
    for (login, deploy, args, expected) in [
        (&stranger, DEPLOY, vec!["--account", &account], (15, "serviceAccountTokenCreator")),
        (
            &friend,
            DEPLOY,
            vec!["--account", "nobody@testbed-project.iam.gserviceaccount.com"],
            (18, "no service account"),
        ),
        (&friend, DEPLOY, vec![], (2, "--account")),
        (&friend, &open, vec![], (3, "no login")),
    ] {
        let (code, out, err) = token(&google, login, deploy, &args);
        assert_eq!(code, Some(expected.0), "{args:?}: {out}{err}");
        assert!(out.is_empty() && err.contains(expected.1), "{args:?}: {out}{err}");
    }
}
