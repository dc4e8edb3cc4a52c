//! Tokens: for keys of service accounts, for federated identities, and on behalf of accounts.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::core::Core;
use super::failure::{Failure, Outcome};
use super::state::State;
use crate::jwt::Signer;

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_SECONDS: i64 = 3600;
/// Google's own keys; made when the first token is.
static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::new);
/// How wrong a client's clock may be.
const SKEW: i64 = 300;

/// Answers iamcredentials, sts and the OAuth token endpoint.
pub(crate) fn serve(core: &Core, call: &Call) -> Outcome<Reply> {
    let mut state = core.state();
    match (call.service.as_str(), call.method.as_str(), call.parts().as_slice(), call.verb.as_str()) {
        ("oauth2", "POST", ["token"], "") => oauth(&mut state, call),
        ("oauth2", "GET", ["tokeninfo"], "") => tokeninfo(core, &state, call),
        ("sts", "POST", ["v1", "token"], "") => exchange(&mut state, call),
        ("iamcredentials", "POST", ["v1", "projects", _, "serviceAccounts", email], "generateAccessToken") => {
            may(core, &state, call, email, "getAccessToken")?;
            let token = state.token(email, HOUR);
            let until = time::OffsetDateTime::now_utc() + HOUR;
            let until = until.format(&time::format_description::well_known::Rfc3339).expect("a date after 1970");
            Ok(json!({ "accessToken": token, "expireTime": until }).into())
        }
        ("iamcredentials", "POST", ["v1", "projects", _, "serviceAccounts", email], "generateIdToken") => {
            may(core, &state, call, email, "getOpenIdToken")?;
            let body = call.json()?;
            let now = time::OffsetDateTime::now_utc().unix_timestamp();
            let mut claims = json!({
                "iss": "https://accounts.google.com", "sub": email, "azp": email, "aud": body["audience"],
                "iat": now, "exp": now + HOUR_SECONDS,
            });
            if body["includeEmail"] == true {
                claims["email"] = json!(email);
                claims["email_verified"] = json!(true);
            }
            Ok(json!({ "token": SIGNER.sign(&claims) }).into())
        }
        ("iamcredentials", "POST", ["v1", "projects", _, "serviceAccounts", email], "signJwt") => {
            may(core, &state, call, email, "signJwt")?;
            let body = call.json()?;
            let claims = body["payload"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            let claims = claims.filter(Value::is_object);
            let claims = claims.ok_or_else(|| Failure::new(400, "Payload is not a JSON object."))?;
            Ok(json!({ "keyId": SIGNER.jwk()["kid"], "signedJwt": SIGNER.sign(&claims) }).into())
        }
        _ => Err(call.unknown()),
    }
}

/// Refuses who may not do this on behalf of an account.
fn may(core: &Core, state: &State, call: &Call, email: &str, what: &str) -> Outcome<()> {
    let (name, permission) = (super::iam::find(state, email)?, format!("iam.serviceAccounts.{what}"));
    match core.options.enforce && !state.holds(&call.principal, &permission, &name) {
        true => Err(Failure::permission(&permission, &name)),
        false => Ok(()),
    }
}

/// A refusal as OAuth writes it (RFC 6749, section 5.2).
fn refused(error: &str, description: &str) -> Reply {
    let mut reply = Reply::json(&json!({ "error": error, "error_description": description }));
    reply.status = 400;
    reply
}

fn fields(call: &Call) -> Vec<(String, String)> {
    if call.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
        let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
        let fields = body.as_object().into_iter().flatten();
        return fields.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
    }
    url::form_urlencoded::parse(&call.body).into_owned().collect()
}

/// A key's signature for a token (RFC 7523).
fn oauth(state: &mut State, call: &Call) -> Outcome<Reply> {
    let fields = fields(call);
    let get = |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str());
    if get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
        return Ok(refused("unsupported_grant_type", "Invalid grant_type"));
    }
    match verify(state, get("assertion")) {
        Ok(account) => {
            let token = state.token(&account, HOUR);
            Ok(json!({ "access_token": token, "expires_in": HOUR.as_secs(), "token_type": "Bearer" }).into())
        }
        Err(why) => Ok(refused("invalid_grant", why)),
    }
}

/// The account whose key has signed.
fn verify(state: &State, jwt: &str) -> Result<String, &'static str> {
    let mut parts = jwt.rsplitn(2, '.');
    let (Some(signature), Some(signed)) = (parts.next(), parts.next()) else { return Err("Invalid JWT") };
    let (header, claims) = signed.split_once('.').ok_or("Invalid JWT")?;
    let json = |part: &str| -> Result<Value, &'static str> {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| "Invalid JWT")?;
        serde_json::from_slice(&bytes).map_err(|_| "Invalid JWT")
    };
    let (header, claims) = (json(header)?, json(claims)?);
    let account = claims["iss"].as_str().unwrap_or_default();
    let key = header["kid"].as_str().unwrap_or_default();
    let name = super::iam::find(state, account).map_err(|_| "Invalid grant: account not found")?;
    let known = state.get("iam.keys", &format!("{name}/keys/{key}")).is_some();
    let public = state.public_keys.get(key).filter(|_| known).ok_or("Invalid JWT Signature.")?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "Invalid JWT Signature.")?;
    ring::signature::UnparsedPublicKey::new(&ring::signature::RSA_PKCS1_2048_8192_SHA256, public)
        .verify(signed.as_bytes(), &signature)
        .map_err(|_| "Invalid JWT Signature.")?;
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let expires = claims["exp"].as_i64().unwrap_or(0);
    if expires < now - SKEW || claims["iat"].as_i64().unwrap_or(0) > now + SKEW {
        return Err("Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe.");
    }
    Ok(account.to_owned())
}

fn tokeninfo(core: &Core, state: &State, call: &Call) -> Outcome<Reply> {
    let principal = state.principal(call.query("access_token").unwrap_or_default(), &core.options.owner);
    Ok(match principal {
        Some(principal) => {
            let scope = "https://www.googleapis.com/auth/cloud-platform";
            json!({ "email": principal.email(), "scope": scope, "expires_in": "3599" }).into()
        }
        None => refused("invalid_token", "Invalid Value"),
    })
}

/// A token of somebody else's issuer for a federated one (RFC 8693). Whose it is, is not verified:
/// the issuer is not here.
fn exchange(state: &mut State, call: &Call) -> Outcome<Reply> {
    let fields = fields(call);
    let get = |names: &[&str]| {
        fields.iter().find(|(key, _)| names.contains(&key.as_str())).map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let audience = get(&["audience"]);
    let provider = audience.trim_start_matches("//iam.googleapis.com/");
    let Some((number, rest)) = provider.strip_prefix("projects/").and_then(|rest| rest.split_once('/')) else {
        return Ok(refused("invalid_request", "Invalid value for \"audience\"."));
    };
    let project = state.project(number)?.id.clone();
    let found = state.get("iam.workloadIdentityPoolProviders", &format!("projects/{project}/{rest}"));
    if found.is_none_or(|found| found["state"] != "ACTIVE") {
        return Ok(refused(
            "invalid_target",
            "The target service indicated by the \"audience\" parameters is invalid.",
        ));
    }
    if get(&["subject_token", "subjectToken"]).is_empty() {
        return Ok(refused("invalid_request", "Missing subject token."));
    }
    let token = state.token(&format!("federated:{provider}"), HOUR);
    Ok(json!({
        "access_token": token,
        "expires_in": HOUR.as_secs(),
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
    })
    .into())
}
