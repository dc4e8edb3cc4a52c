//! Tokens by which Google's Identity-Aware Proxy, and any issuer that trusts Google, knows a service account.
//!
//! They are made by the IAM Service Account Credentials API on behalf of the account, so that every login will
//! do (a person's, a workload's, an account's own): it needs roles/iam.serviceAccountTokenCreator on it. A
//! person's own tokens are made for the client that they logged in with, which the proxy does not know.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

use super::{Ask, Google, Repeat, Service};

/// How long a token lasts that is signed here, in seconds: the most that is taken.
const LIFETIME: i64 = 3_600;

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// An OAuth client: Google makes an ID token for it.
    Client(String),
    /// An address behind Google's own client: the account signs a token for it
    /// (<https://cloud.google.com/iap/docs/authentication-howto>).
    Address(String),
}

/// A token of a service account.
#[derive(Clone, Debug)]
pub struct IdToken {
    /// The token.
    pub token: Secret,
    /// Until when it counts, RFC 3339.
    pub expires: String,
}

/// Has a token made.
///
/// # Errors
/// `Forbidden` for who may not act as the account, `Refused` where the API is off or there is no such account.
pub async fn make(google: &Google, account: &str, audience: &Audience) -> Result<IdToken> {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let (verb, body, field) = match audience {
        Audience::Client(id) => ("generateIdToken", json!({ "audience": id, "includeEmail": true }), "token"),
        Audience::Address(url) => {
            let claims = json!({ "iss": account, "sub": account, "aud": url, "iat": now, "exp": now + LIFETIME });
            ("signJwt", json!({ "payload": claims.to_string() }), "signedJwt")
        }
    };
    let path = format!("v1/projects/-/serviceAccounts/{account}:{verb}");
    let ask = Ask::post(Service::IamCredentials, path, &body, Repeat::Safe, format!("make a token of {account}"));
    let answer = google.ask(&ask).await.map_err(|error| match error.kind() {
        Kind::Forbidden => error.hint(format!(
            "let an administrator grant you roles/iam.serviceAccountTokenCreator on it: gcloud iam service-accounts \
             add-iam-policy-binding {account} --member=... --role=roles/iam.serviceAccountTokenCreator"
        )),
        _ => error,
    })?;
    let answer = answer.ok_or_else(|| {
        Error::new(Kind::Refused, format!("there is no service account {account}")).hint("name another: --account")
    })?;
    read(answer[field].as_str().unwrap_or_default())
        .ok_or_else(|| Error::new(Kind::Remote, format!("Google answers without a token of {account}")))
}

/// A token with the time in it.
fn read(token: &str) -> Option<IdToken> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let expires = OffsetDateTime::from_unix_timestamp(claims["exp"].as_i64()?).ok()?.format(&Rfc3339).ok()?;
    Some(IdToken { token: Secret::new(token), expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_until_when_it_counts() {
        let with = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for (token, expected) in [
            (with(r#"{"exp":1700000000}"#), Some("2023-11-14T22:13:20Z")),
            (with(r#"{"iat":1}"#), None),
            (with("nonsense"), None),
            ("no token".to_owned(), None),
            (String::new(), None),
        ] {
            let found = read(&token);
            assert_eq!(found.as_ref().map(|found| found.expires.as_str()), expected, "{token}");
            assert!(!format!("{found:?}").contains("c2ln"), "a token is printed");
        }
    }
}
