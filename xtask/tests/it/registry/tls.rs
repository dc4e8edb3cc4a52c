//! Registries on other hosts: TLS, and Google's logins. The hosts are real names, led to a registry
//! of the testbed by an HTTPS proxy.

use std::path::Path;

use testbed::{Auth, Certificate, Home, Options, Registry, TokenServer, Tunnel};

use super::layout::SyntheticLayout;
use super::{Outcome, finish, push_command};

const GOOGLE_HOST: &str = "europe-west1-docker.pkg.dev";
/// What the test's own token service hands out and accepts.
const ACCESS_TOKEN: &str = "an access token of the test";

struct World {
    home: Home,
    layout: SyntheticLayout,
    tunnel: Tunnel,
    certificate: Certificate,
}

impl World {
    fn push(&self, reference: &str, env: &[(&str, &Path)]) -> Outcome {
        let mut command = push_command(&self.home, &self.layout, reference);
        command.env("HTTPS_PROXY", self.tunnel.url()).env("SSL_CERT_FILE", self.certificate.chain());
        // Google's library otherwise asks for the metadata server of a cloud machine.
        command.env("GCE_METADATA_HOST", format!("127.0.0.1:{}", testbed::free_port()));
        finish(command.envs(env.iter().map(|(name, value)| (*name, *value))))
    }
}

fn world(target: &Registry, certificate: Certificate) -> World {
    let tunnel = Tunnel::start(target.address());
    World { home: Home::new(), layout: SyntheticLayout::new(700, &[30_000, 10]), tunnel, certificate }
}

#[test]
fn other_hosts_are_spoken_to_by_tls_only() {
    let Some(certificate) = Certificate::for_host("registry.example.com") else { return };
    let options = Options { tls: Some(&certificate), ..Options::default() };
    let Some(registry) = Registry::start_with(options) else { return };
    let world = world(&registry, certificate);
    let reference = "registry.example.com/team/mlflow:1";
    let outcome = world.push(reference, &[]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(world.tunnel.hosts().iter().all(|host| host == "registry.example.com:443"));

    // A certificate that this machine does not trust, and one for another host.
    let stranger = Certificate::for_host("registry.example.com").unwrap();
    for (reference, trusted) in [(reference, stranger.chain()), ("other.example.com/a:1", world.certificate.chain())] {
        let outcome = world.push(reference, &[("SSL_CERT_FILE", &trusted)]);
        assert_eq!(outcome.code, Some(6), "{outcome:?}");
        assert!(outcome.stderr.contains("no safe connection to"), "{}", outcome.stderr);
        assert!(outcome.stderr.contains("SSL_CERT_FILE"), "{}", outcome.stderr);
        assert!(outcome.seconds < 5.0, "trying again cannot help: {} s", outcome.seconds);
    }

    // A server that speaks plain HTTP where TLS belongs.
    let plain = Registry::start().unwrap();
    let tunnel = Tunnel::start(plain.address());
    let world = World { tunnel, ..world };
    let outcome = world.push(reference, &[]);
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
    assert!(outcome.stderr.contains("plain HTTP is for loopback only"), "{}", outcome.stderr);
}

#[test]
fn artifact_registry_is_pushed_to_with_application_default_credentials() {
    let Some(tokens) = TokenServer::start("oauth2accesstoken", ACCESS_TOKEN, "unused") else { return };
    let Some(certificate) = Certificate::for_host(GOOGLE_HOST) else { return };
    let options = Options { auth: Auth::Token(&tokens), tls: Some(&certificate), ..Options::default() };
    let Some(registry) = Registry::start_with(options) else { return };
    let world = world(&registry, certificate);
    let reference = format!("{GOOGLE_HOST}/project/images/mlflow:1");

    let stranger = world.push(&reference, &[]);
    assert_eq!(stranger.code, Some(5), "{stranger:?}");
    for part in ["no login at Google", "gcloud auth application-default login", "roles/artifactregistry.writer"] {
        assert!(stranger.stderr.contains(part), "{part}: {}", stranger.stderr);
    }

    // What `gcloud auth application-default login` writes, with the test's token service in it.
    let user = serde_json::json!({
        "type": "authorized_user", "client_id": "client", "client_secret": "of the test",
        "refresh_token": "of the test", "token_uri": tokens.google_token_url(),
    });
    // What GitHub Actions' google-github-actions/auth writes.
    let subject = world.home.file("subject-token");
    std::fs::write(&subject, "a subject token of the test").unwrap();
    let federation = serde_json::json!({
        "type": "external_account", "audience": "//iam.googleapis.com/testbed",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "token_url": tokens.google_token_url(),
        "credential_source": { "file": subject },
    });
    let check = |number: &str, env: &[(&str, &Path)]| {
        let outcome = world.push(&format!("{reference}{number}"), env);
        assert_eq!(outcome.code, Some(0), "{number}: {outcome:?}");
        let last = tokens.log().pop().unwrap();
        assert_eq!((last.by, last.granted), ("password", true));
        assert!(!outcome.stderr.contains(ACCESS_TOKEN), "{}", outcome.stderr);
    };
    for (number, credentials) in [("-user", user), ("-federation", federation)] {
        let file = world.home.file("adc.json");
        std::fs::write(&file, credentials.to_string()).unwrap();
        check(number, &[("GOOGLE_APPLICATION_CREDENTIALS", &file)]);
    }
    check("-machine", &[("GCE_METADATA_HOST", Path::new(&tokens.host()))]);
}
