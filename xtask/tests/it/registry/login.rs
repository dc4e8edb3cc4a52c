//! Logins against real registries: basic, token, identity token, renewals.

use testbed::{Auth, Home, Options, Policy, Proxy, Registry, TokenServer};

use super::layout::SyntheticLayout;
use super::{Outcome, finish, push, push_command, read_with_skopeo};

const USER: &str = "ada";
/// What the test's own registry is told to accept.
const PASSWORD: &str = "open sesame";
const IDENTITY: &str = "an identity token of the test";

fn docker_login(home: &Home, host: &str, entry: serde_json::Value) {
    let config = serde_json::json!({ "auths": { host: entry } });
    std::fs::write(home.file("docker/config.json"), config.to_string()).unwrap();
}

fn password_entry(password: &str) -> serde_json::Value {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
    serde_json::json!({ "auth": pair })
}

fn token_registry(tokens: &TokenServer) -> Option<Registry> {
    Registry::start_with(Options { auth: Auth::Token(tokens), ..Options::default() })
}

/// No secret of the test shows up in what was printed.
fn assert_discreet(outcome: &Outcome) {
    for secret in [PASSWORD, IDENTITY] {
        assert!(!outcome.stderr.contains(secret) && !outcome.stdout.contains(secret), "{outcome:?}");
    }
}

#[test]
fn a_registry_with_passwords_is_pushed_to() {
    let auth = Auth::Basic { user: USER, password: PASSWORD };
    let Some(registry) = Registry::start_with(Options { auth, ..Options::default() }) else { return };
    let layout = SyntheticLayout::new(3, &[50_000, 100]);
    let reference = format!("{}/team/mlflow:1", registry.host());

    let stranger = push(&Home::new(), &layout, &reference);
    assert_eq!(stranger.code, Some(5), "{stranger:?}");
    for part in ["anonymous", "no docker login found", &format!("docker login {}", registry.host()), "team/mlflow"] {
        assert!(stranger.stderr.contains(part), "{part}: {}", stranger.stderr);
    }

    let home = Home::new();
    docker_login(&home, &registry.host(), password_entry("wrong"));
    let wrong = push(&home, &layout, &reference);
    assert_eq!(wrong.code, Some(5), "{wrong:?}");
    assert!(wrong.stderr.contains("user ada (docker login)"), "{}", wrong.stderr);

    docker_login(&home, &registry.host(), password_entry(PASSWORD));
    let right = push(&home, &layout, &reference);
    assert_eq!(right.code, Some(0), "{right:?}");
    assert_discreet(&right);
    if testbed::require("skopeo", "skopeo").is_some() {
        read_with_skopeo(&home, &reference, Some(&format!("{USER}:{PASSWORD}"))).unwrap();
    }
}

#[test]
fn a_password_comes_by_stdin() {
    use std::io::Write as _;
    use std::process::Stdio;
    let auth = Auth::Basic { user: USER, password: PASSWORD };
    let Some(registry) = Registry::start_with(Options { auth, ..Options::default() }) else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(4, &[1_000]));
    let mut command = push_command(&home, &layout, &format!("{}/team/mlflow:1", registry.host()));
    command.args(["--username", USER, "--password-stdin"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    let outcome = super::wait(child, std::time::Instant::now());
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_discreet(&outcome);
}

#[test]
fn a_credential_helper_is_asked() {
    let auth = Auth::Basic { user: USER, password: PASSWORD };
    let Some(registry) = Registry::start_with(Options { auth, ..Options::default() }) else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(5, &[1_000]));
    let config = serde_json::json!({ "credHelpers": { registry.host(): "testbed" } });
    std::fs::write(home.file("docker/config.json"), config.to_string()).unwrap();
    let helper = home.file("bin/docker-credential-testbed");
    let run = |script: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&helper, format!("#!/bin/sh\nread server\n{script}\n")).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", home.path().join("bin").display(), std::env::var("PATH").unwrap());
        let reference = format!("{}/team/mlflow:1", registry.host());
        finish(push_command(&home, &layout, &reference).env("PATH", path))
    };
    let broken = run("echo secret-in-helper-output >&2; exit 3");
    assert_eq!(broken.code, Some(5), "{broken:?}");
    assert!(broken.stderr.contains("docker-credential-testbed failed"), "{}", broken.stderr);
    assert!(!broken.stderr.contains("secret-in-helper-output"), "{}", broken.stderr);
    let unknown = run("echo credentials not found in native keychain; exit 1");
    assert!(unknown.stderr.contains("no docker login found"), "{}", unknown.stderr);
    let works = run(&format!(r#"echo '{{"ServerURL":"'"$server"'","Username":"{USER}","Secret":"{PASSWORD}"}}'"#));
    assert_eq!(works.code, Some(0), "{works:?}");
}

#[test]
fn a_token_registry_is_pushed_to_with_password_or_identity_token() {
    let Some(tokens) = TokenServer::start(USER, PASSWORD, IDENTITY) else { return };
    let Some(registry) = token_registry(&tokens) else { return };
    let layout = SyntheticLayout::new(6, &[50_000]);
    for (number, entry, by) in [
        (1, password_entry(PASSWORD), "password"),
        (2, serde_json::json!({ "auth": "", "identitytoken": IDENTITY }), "identity token"),
    ] {
        let home = Home::new();
        docker_login(&home, &registry.host(), entry);
        let outcome = push(&home, &layout, &format!("{}/team/mlflow{number}:1", registry.host()));
        assert_eq!(outcome.code, Some(0), "{outcome:?}\n{}", registry.log());
        assert_discreet(&outcome);
        let last = tokens.log().pop().unwrap();
        assert_eq!((last.by, last.granted), (by, true));
        assert_eq!(last.scopes, [format!("repository:team/mlflow{number}:pull,push")]);
    }
    assert_eq!(tokens.log().len(), 2, "one token for one push: {:?}", tokens.log());

    let home = Home::new();
    docker_login(&home, &registry.host(), password_entry("wrong"));
    let wrong = push(&home, &layout, &format!("{}/team/mlflow3:1", registry.host()));
    assert_eq!(wrong.code, Some(5), "{wrong:?}");
    assert!(wrong.stderr.contains("wrong user or password"), "{}", wrong.stderr);
}

#[test]
fn a_mount_asks_for_the_scope_of_its_source() {
    let Some(tokens) = TokenServer::start(USER, PASSWORD, IDENTITY) else { return };
    let Some(registry) = token_registry(&tokens) else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(7, &[200_000]));
    docker_login(&home, &registry.host(), password_entry(PASSWORD));
    assert_eq!(push(&home, &layout, &format!("{}/team/one:1", registry.host())).code, Some(0));
    let second = push(&home, &layout, &format!("{}/team/two:1", registry.host()));
    assert_eq!(second.code, Some(0), "{second:?}");
    assert!(second.pushed_bytes() < 2_000, "{second:?}");
    let scopes = ["repository:team/two:pull,push".to_owned(), "repository:team/one:pull".to_owned()];
    assert!(tokens.log().iter().any(|request| request.scopes == scopes), "{:?}", tokens.log());
}

#[test]
fn an_expired_token_is_renewed() {
    let Some(tokens) = TokenServer::start(USER, PASSWORD, IDENTITY) else { return };
    let Some(registry) = token_registry(&tokens) else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(8, &[50_000]));
    docker_login(&home, &registry.host(), password_entry(PASSWORD));
    tokens.set_policy(Policy { expired_first: 1, ..Policy::default() });
    let outcome = push(&home, &layout, &format!("{}/team/mlflow:1", registry.host()));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(tokens.log().len(), 2);
}

#[test]
fn a_token_that_expires_during_a_push_is_renewed() {
    let Some(tokens) = TokenServer::start(USER, PASSWORD, IDENTITY) else { return };
    let Some(registry) = token_registry(&tokens) else { return };
    let proxy = Proxy::start(registry.address());
    let (home, layout) = (Home::new(), SyntheticLayout::new(9, &[1_500_000, 1_400_000]));
    docker_login(&home, &proxy.host(), password_entry(PASSWORD));
    // Each layer takes three seconds; a token lives for two, and the service claims 300.
    tokens.set_policy(Policy { lifetime: 2, ..Policy::default() });
    let slow = testbed::Fault::Slow(500_000);
    proxy.set_rules(vec![testbed::Rule::always("PUT", "/blobs/uploads/", slow)]);
    let outcome = push(&home, &layout, &format!("{}/team/mlflow:1", proxy.host()));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(tokens.log().len() >= 2, "{:?}", tokens.log());
    assert!(proxy.log().iter().any(|exchange| exchange.status == 401 && exchange.authorized), "{:?}", proxy.log());
}
