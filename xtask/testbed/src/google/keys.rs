//! Keys of service accounts: real ones.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs1::EncodeRsaPublicKey as _;
use rsa::pkcs8::{EncodePrivateKey as _, LineEnding};
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::failure::{Failure, Outcome};
use super::faults::constrained;
use super::projects::enforces;
use super::state::{State, now};

const KEYS: &str = "iam.keys";
const CONSTRAINT: &str = "iam.disableServiceAccountKeyCreation";

/// A key that nobody has yet.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Where its holder asks for tokens.
    pub(crate) base: Option<String>,
    private: String,
    public: Vec<u8>,
}

impl Fresh {
    /// Makes one; takes a second or more.
    pub(crate) fn make() -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let key = rsa::RsaPrivateKey::new(&mut rand08::thread_rng(), 2048)?;
        let private = key.to_pkcs8_pem(LineEnding::LF)?.to_string();
        Ok(Self { private, base: None, public: key.to_public_key().to_pkcs1_der()?.as_bytes().to_vec() })
    }
}

/// Answers a call below an account's `keys`.
pub(crate) fn serve(
    state: &mut State,
    call: &Call,
    account: &str,
    rest: &[&str],
    fresh: Option<Fresh>,
) -> Outcome<Reply> {
    match (call.method.as_str(), rest) {
        ("GET", []) => {
            let mut keys = state.list(KEYS, &format!("{account}/"));
            if let Some(kind) = call.query("keyTypes") {
                keys.retain(|key| key["keyType"] == kind);
            }
            Ok(json!({ "keys": keys }).into())
        }
        ("POST", []) => {
            let fresh = fresh.ok_or_else(|| Failure::new(500, "There is no key to hand out."))?;
            create(state, call, account, fresh)
        }
        ("GET", [key]) => {
            let found = state.get(KEYS, &format!("{account}/keys/{key}")).cloned();
            found.map(Reply::from).ok_or_else(|| missing(key))
        }
        ("DELETE", [key]) => {
            state.public_keys.remove(*key);
            let removed = state.remove(KEYS, &format!("{account}/keys/{key}"));
            removed.map(|_| json!({}).into()).ok_or_else(|| missing(key))
        }
        _ => Err(call.unknown()),
    }
}

fn missing(key: &str) -> Failure {
    Failure::not_found(format!("Service account key {key} does not exist."))
}

fn create(state: &mut State, call: &Call, account: &str, fresh: Fresh) -> Outcome<Reply> {
    let email = account.rsplit('/').next().unwrap_or_default().to_owned();
    let project = account.split('/').nth(1).unwrap_or_default().to_owned();
    if enforces(state.project(&project)?, CONSTRAINT) {
        return Err(constrained(CONSTRAINT));
    }
    let keys = state.list(KEYS, &format!("{account}/"));
    if keys.len() >= 10 {
        return Err(Failure::new(429, "Maximum number of keys on account reached.").reason("rateLimitExceeded"));
    }
    let id = format!("{:040x}", rand::random::<u128>());
    state.public_keys.insert(id.clone(), fresh.public);
    let name = format!("{account}/keys/{id}");
    let number = state.get(super::iam::ACCOUNTS, account).map(|found| found["uniqueId"].clone()).unwrap_or_default();
    let shown = json!({
        "name": name,
        "validAfterTime": now(),
        "validBeforeTime": "9999-12-31T23:59:59Z",
        "keyAlgorithm": "KEY_ALG_RSA_2048",
        "keyOrigin": "GOOGLE_PROVIDED",
        "keyType": "USER_MANAGED",
    });
    state.put(KEYS, name, shown.clone());
    let base = fresh.base.unwrap_or_else(|| call.base());
    // The file as Google writes it, but for where tokens come from.
    let file = json!({
        "type": "service_account",
        "project_id": project,
        "private_key_id": id,
        "private_key": fresh.private,
        "client_email": email,
        "client_id": number,
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": format!("{base}/oauth2/token"),
        "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
        "client_x509_cert_url": format!("https://www.googleapis.com/robot/v1/metadata/x509/{email}"),
        "universe_domain": "googleapis.com",
    });
    let mut answer = shown;
    answer["privateKeyType"] = Value::from("TYPE_GOOGLE_CREDENTIALS_FILE");
    answer["privateKeyData"] = STANDARD.encode(format!("{file:#}\n")).into();
    Ok(answer.into())
}
