//! A provider of OpenID Connect with users and passwords of its own: discovery, keys, the page on which
//! people log in, and the exchange of its code (OpenID Connect Core 1.0, section 3.1; PKCE, RFC 7636).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::http::{Head, Length, answer};
use crate::jwt::Signer;
use crate::loopback::Loopback;

/// How long a token counts.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Who may log in.
#[derive(Clone, Debug)]
pub struct Person {
    /// The address, by which they log in too.
    pub email: String,
    /// The password.
    pub password: String,
    /// What they belong to.
    pub groups: Vec<String>,
    /// Whether the provider knows that the address is theirs.
    pub verified: bool,
}

impl Person {
    /// Somebody whose address is known to be theirs.
    pub fn new(email: &str, password: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Self { email: email.to_owned(), password: password.to_owned(), groups, verified: true }
    }

    fn claims(&self) -> Value {
        json!({ "email": self.email, "email_verified": self.verified, "groups": self.groups })
    }
}

/// Who asks the provider to log people in.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Where people may be sent back to.
    pub redirects: Vec<String>,
}

/// A login that was begun and not yet fetched.
#[derive(Clone, Debug)]
struct Code {
    person: Person,
    redirect: String,
    nonce: Option<String>,
    challenge: Option<String>,
}

#[derive(Debug)]
struct Shared {
    url: Mutex<String>,
    client: Mutex<Client>,
    people: Vec<Person>,
    signer: Signer,
    codes: Mutex<BTreeMap<String, Code>>,
}

/// A running provider.
#[derive(Debug)]
pub struct Issuer {
    server: Loopback,
    shared: Arc<Shared>,
}

impl Issuer {
    /// One that listens at `address`, on a free port, and knows these people.
    pub fn start(address: IpAddr, client: Client, people: Vec<Person>) -> Self {
        let shared = Arc::new(Shared {
            url: Mutex::default(),
            client: Mutex::new(client),
            people,
            signer: Signer::new(),
            codes: Mutex::default(),
        });
        let task = Arc::clone(&shared);
        let server = Loopback::serve_at(address, move |client| {
            let shared = Arc::clone(&task);
            async move { drop(serve(client, &shared).await) }
        });
        *shared.url.lock().expect("the address") = format!("http://{}", server.address);
        Self { server, shared }
    }

    /// Its address, which is its name in tokens.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Lets people be sent back to `redirect` from now on.
    pub fn allow(&self, redirect: &str) {
        self.shared.client.lock().expect("the client").redirects.push(redirect.to_owned());
    }

    /// A token for a program: of this person, for this audience, good for so many seconds from now on.
    pub fn token(&self, person: &Person, audience: &str, seconds: i64) -> String {
        self.shared.token(person, audience, seconds, None)
    }

    /// A token with claims of the test's own.
    pub fn sign(&self, claims: &Value) -> String {
        self.shared.signer.sign(claims)
    }
}

impl Shared {
    fn token(&self, person: &Person, audience: &str, seconds: i64, nonce: Option<&str>) -> String {
        let now = now();
        let mut claims = person.claims();
        let subject: String = Sha256::digest(&person.email).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        claims["iss"] = json!(*self.url.lock().expect("the address"));
        claims["sub"] = json!(subject);
        claims["aud"] = json!(audience);
        claims["iat"] = json!(now);
        claims["exp"] = json!(now + seconds);
        if let Some(nonce) = nonce {
            claims["nonce"] = json!(nonce);
        }
        self.signer.sign(&claims)
    }

    fn discovery(&self) -> Value {
        let url = self.url.lock().expect("the address").clone();
        json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        })
    }

    /// The answer to a browser that was sent here: the page, or where it goes back to.
    fn authorize(&self, method: &str, fields: &BTreeMap<String, String>) -> Vec<u8> {
        let get = |name: &str| fields.get(name).map_or("", String::as_str);
        let client = self.client.lock().expect("the client").clone();
        let redirect = get("redirect_uri");
        // Whoever is not known to belong to the client is not sent anything.
        if get("client_id") != client.id || !client.redirects.iter().any(|known| known == redirect) {
            return answer(400, &[], "unknown client or address");
        }
        if get("response_type") != "code" || !get("scope").split(' ').any(|scope| scope == "openid") {
            return back(redirect, &[("error", "invalid_request"), ("state", get("state"))]);
        }
        if method != "POST" {
            let page = "<form method=post><input name=email><input name=password type=password><button>Log in</button>";
            return answer(200, &[("Content-Type", "text/html")], page);
        }
        let known = |person: &&Person| person.email == get("email") && person.password == get("password");
        let Some(person) = self.people.iter().find(known) else { return answer(401, &[], "wrong password") };
        let code = format!("{:032x}", rand::random::<u128>());
        let text = |name: &str| fields.get(name).filter(|text| !text.is_empty()).cloned();
        if text("code_challenge").is_some() && get("code_challenge_method") != "S256" {
            return back(redirect, &[("error", "invalid_request"), ("state", get("state"))]);
        }
        let begun = Code {
            person: person.clone(),
            redirect: redirect.to_owned(),
            nonce: text("nonce"),
            challenge: text("code_challenge"),
        };
        self.codes.lock().expect("the codes").insert(code.clone(), begun);
        back(redirect, &[("code", &code), ("state", get("state"))])
    }

    /// The answer to the client that fetches a login.
    fn exchange(&self, head: &Head, fields: &BTreeMap<String, String>) -> Result<Value, &'static str> {
        let get = |name: &str| fields.get(name).map_or("", String::as_str);
        let client = self.client.lock().expect("the client").clone();
        let basic = STANDARD.encode(format!("{}:{}", client.id, client.secret));
        let by_header = head.get("authorization") == Some(&format!("Basic {basic}"));
        if !by_header && (get("client_id"), get("client_secret")) != (&client.id, &client.secret) {
            return Err("invalid_client");
        }
        if get("grant_type") != "authorization_code" {
            return Err("unsupported_grant_type");
        }
        // A code counts once, whatever comes of it.
        let code = self.codes.lock().expect("the codes").remove(get("code")).ok_or("invalid_grant")?;
        let verifier = URL_SAFE_NO_PAD.encode(Sha256::digest(get("code_verifier")));
        if code.redirect != get("redirect_uri") || code.challenge.is_some_and(|challenge| challenge != verifier) {
            return Err("invalid_grant");
        }
        let seconds = i64::try_from(LIFETIME.as_secs()).expect("an hour");
        Ok(json!({
            "id_token": self.token(&code.person, &client.id, seconds, code.nonce.as_deref()),
            "access_token": format!("{:032x}", rand::random::<u128>()),
            "token_type": "Bearer",
            "expires_in": seconds,
        }))
    }
}

/// Sends a browser back.
fn back(redirect: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    answer(302, &[("Location", &format!("{redirect}?{query}"))], "")
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(now.as_secs()).expect("a time within 292 billion years")
}

async fn serve(client: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    while let Some(head) = Head::read(&mut client).await? {
        let Length::Bytes(length) = head.length() else { return Ok(()) };
        let mut body = vec![0; usize::try_from(length).unwrap_or(0)];
        client.read_exact(&mut body).await?;
        let (path, query) = head.word(1).split_once('?').unwrap_or((head.word(1), ""));
        let pairs = url::form_urlencoded::parse(query.as_bytes()).chain(url::form_urlencoded::parse(&body));
        let fields: BTreeMap<String, String> =
            pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let json =
            |status: u16, value: &Value| answer(status, &[("Content-Type", "application/json")], &value.to_string());
        let reply = match (head.word(0), path) {
            ("GET", "/.well-known/openid-configuration") => json(200, &shared.discovery()),
            ("GET", "/keys") => json(200, &json!({ "keys": [shared.signer.jwk()] })),
            (method @ ("GET" | "POST"), "/authorize") => shared.authorize(method, &fields),
            ("POST", "/token") => match shared.exchange(&head, &fields) {
                Ok(tokens) => json(200, &tokens),
                Err(error) => json(400, &json!({ "error": error })),
            },
            _ => answer(404, &[], ""),
        };
        client.write_all(&reply).await?;
    }
    Ok(())
}
