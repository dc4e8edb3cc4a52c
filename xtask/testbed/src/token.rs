//! A token service as registries trust it (distribution, "Token Authentication Implementation"):
//! tokens are JSON Web Tokens, signed with a key whose certificate the registry knows.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::certificate::Certificate;
use crate::http::{Head, Length, answer};
use crate::loopback::Loopback;
use crate::tool;

const SERVICE: &str = "testbed registry";
const ISSUER: &str = "testbed";
/// Where the service plays Google's: there it hands out its user's password as an access token.
const GOOGLE: &str = "/google/token";
/// Where a cloud machine's metadata server hands out tokens.
const METADATA: &str = "/computeMetadata/v1/instance/service-accounts/default/token";
/// How much too old a token may be for distribution 2.8 (`token.Leeway`).
const LEEWAY: i64 = 60;

/// What the service hands out, to whom.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Seconds until the registry takes a token for expired.
    pub lifetime: i64,
    /// What the service says the lifetime is.
    pub claimed: i64,
    /// So many first tokens are expired when they are handed out.
    pub expired_first: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { lifetime: 300, claimed: 300, expired_first: 0 }
    }
}

/// A request for a token, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The scopes that were asked for.
    pub scopes: Vec<String>,
    /// By user and password, by identity token, or by nothing.
    pub by: &'static str,
    /// Whether it was granted.
    pub granted: bool,
}

#[derive(Debug)]
struct Shared {
    user: String,
    password: String,
    identity_token: String,
    policy: Mutex<Policy>,
    log: Mutex<Vec<TokenRequest>>,
    certificate: Certificate,
    openssl: PathBuf,
}

/// A running token service.
#[derive(Debug)]
pub struct TokenServer {
    server: Loopback,
    shared: Arc<Shared>,
}

impl TokenServer {
    /// A service that knows one user, by password or by identity token; `None` without openssl.
    pub fn start(user: &str, password: &str, identity_token: &str) -> Option<Self> {
        let openssl = tool::require("openssl", "openssl")?;
        let certificate = Certificate::for_host("token.testbed")?;
        let shared = Arc::new(Shared {
            user: user.to_owned(),
            password: password.to_owned(),
            identity_token: identity_token.to_owned(),
            policy: Mutex::default(),
            log: Mutex::default(),
            certificate,
            openssl,
        });
        let task = Arc::clone(&shared);
        let server = Loopback::serve(move |client| {
            let shared = Arc::clone(&task);
            async move { drop(serve(client, &shared).await) }
        });
        Some(Self { server, shared })
    }

    /// Changes what is handed out from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.shared.policy.lock().expect("the policy") = policy;
    }

    /// The requests so far.
    pub fn log(&self) -> Vec<TokenRequest> {
        self.shared.log.lock().expect("the log").clone()
    }

    /// Host and port; also what `GCE_METADATA_HOST` may name.
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    /// The URL that gives whoever asks the user's password as an OAuth access token, as Google's
    /// token service would (RFC 6749, section 5.1; RFC 8693, section 2.2.1).
    pub fn google_token_url(&self) -> String {
        format!("http://{}{GOOGLE}", self.server.address)
    }

    /// The `auth.token` part of a registry's configuration.
    pub(crate) fn registry_config(&self) -> Value {
        json!({
            "realm": format!("http://{}/token", self.server.address),
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": self.shared.certificate.chain(),
        })
    }
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some(head) = Head::read(&mut client).await? {
        let Length::Bytes(length) = head.length() else { return Ok(()) };
        let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
        client.read_exact(&mut body).await?;
        let query = head.word(1).split_once('?').map_or("", |(_, query)| query).to_owned();
        let fields: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).chain(url::form_urlencoded::parse(&body)).into_owned_pairs();
        if [GOOGLE, METADATA].iter().any(|path| head.word(1).starts_with(path)) {
            let token = json!({
                "access_token": shared.password, "expires_in": 3600, "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            });
            let json = [("Content-Type", "application/json")];
            client.write_all(&answer(200, &json, &token.to_string())).await?;
            continue;
        }
        let get = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let scopes: Vec<String> = fields
            .iter()
            .filter(|(key, _)| key == "scope")
            .flat_map(|(_, value)| value.split(' ').map(str::to_owned))
            .collect();
        let basic = STANDARD.encode(format!("{}:{}", shared.user, shared.password));
        let (by, right) = match (head.word(0), head.get("authorization")) {
            ("POST", _) => ("identity token", get("refresh_token") == Some(&shared.identity_token)),
            (_, Some(header)) => ("password", header.strip_prefix("Basic ") == Some(&basic)),
            _ => ("nothing", false),
        };
        let granted = right && get("service") == Some(SERVICE);
        shared.log.lock().expect("the log").push(TokenRequest { scopes: scopes.clone(), by, granted });
        let reply = if granted {
            let (token, claimed) = shared.token(&scopes);
            let name = if head.word(0) == "POST" { "access_token" } else { "token" };
            answer(
                200,
                &[("Content-Type", "application/json")],
                &json!({ name: token, "expires_in": claimed }).to_string(),
            )
        } else {
            answer(401, &[], r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong user or password"}]}"#)
        };
        client.write_all(&reply).await?;
    }
    Ok(())
}

trait IntoOwnedPairs {
    fn into_owned_pairs(self) -> Vec<(String, String)>;
}

impl<'a, I: Iterator<Item = (std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>)>> IntoOwnedPairs for I {
    fn into_owned_pairs(self) -> Vec<(String, String)> {
        self.map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
    }
}

impl Shared {
    fn token(&self, scopes: &[String]) -> (String, i64) {
        let mut policy = self.policy.lock().expect("the policy");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        let now = i64::try_from(now.as_secs()).expect("a time within 292 billion years");
        let expires = if policy.expired_first > 0 {
            policy.expired_first -= 1;
            now - 2 * LEEWAY
        } else {
            now - LEEWAY + policy.lifetime
        };
        let access: Vec<Value> = scopes
            .iter()
            .filter_map(|scope| {
                let mut parts = scope.splitn(3, ':');
                let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
                Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
            })
            .collect();
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5c": [self.certificate.base64()] });
        let claims = json!({
            "iss": ISSUER, "sub": self.user, "aud": SERVICE, "exp": expires, "nbf": now - 2 * LEEWAY * 2,
            "iat": now, "jti": format!("{now}"), "access": access,
        });
        let signed = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature = sign(&self.openssl, &self.certificate.key(), signed.as_bytes());
        (format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), policy.claimed)
    }
}

fn sign(openssl: &Path, key: &Path, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut child = tool::command(openssl)
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl starts");
    child.stdin.take().expect("a pipe").write_all(bytes).expect("openssl reads");
    child.wait_with_output().expect("openssl ends").stdout
}
