//! Service accounts' JSON keys, for clusters that have no identity of Google's.
//!
//! A key can be read once, in the answer that makes it. So a request whose answer is lost is not made
//! again: that would leave a key that nobody holds. Whoever keeps a key somewhere knows its id
//! ([`Key::id`]), and can delete every other one of the account's with [`list`] and [`delete`]; that
//! is how a second run tidies up after one that was interrupted in between.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

use super::{Ask, Google, Repeat, Service};

/// A key that was made.
#[derive(Clone, Debug)]
pub struct Key {
    /// Its id, which is in the JSON as `private_key_id`.
    pub id: String,
    /// The JSON, in memory only.
    pub json: Secret,
}

/// Makes a key for the service account with this e-mail address.
///
/// # Errors
/// `Refused` where a policy of the organisation forbids keys, or the account has ten already;
/// `Remote` where no answer came: then there may be a key that nobody holds.
pub async fn create(google: &Google, account: &str) -> Result<Key> {
    let body = json!({ "keyAlgorithm": "KEY_ALG_RSA_2048" });
    let doing = format!("make a key of {account}");
    let made = google.ask(&Ask::post(Service::Iam, keys_of(account), &body, Repeat::Refused, doing)).await;
    let made = made.map_err(|error| match error.kind() {
        Kind::Remote => error.hint(format!(
            "run the same command again; a key that was made and lost is among those of `gcloud iam service-accounts \
             keys list --iam-account={account} --managed-by=user`"
        )),
        _ => error,
    })?;
    let made = made.ok_or_else(|| {
        Error::new(Kind::Refused, format!("there is no service account {account}"))
            .hint("run `cargo xtask infra apply`, which makes it")
    })?;
    read(&made).ok_or_else(|| Error::new(Kind::Remote, format!("Google answers without a key of {account}")))
}

fn read(made: &Value) -> Option<Key> {
    let id = made["name"].as_str()?.rsplit('/').next()?.to_owned();
    let json = STANDARD.decode(made["privateKeyData"].as_str()?).ok()?;
    Some(Key { id, json: Secret::new(String::from_utf8(json).ok()?) })
}

/// The ids of a service account's keys that people have made; none where there is no such account.
///
/// # Errors
/// As [`Google::ask`].
pub async fn list(google: &Google, account: &str) -> Result<Vec<String>> {
    let doing = format!("list the keys of {account}");
    let ask = Ask::get(Service::Iam, keys_of(account), doing).query("keyTypes", "USER_MANAGED");
    let answer = google.ask(&ask).await?.unwrap_or_default();
    let keys = answer["keys"].as_array().into_iter().flatten();
    Ok(keys.filter_map(|key| Some(key["name"].as_str()?.rsplit('/').next()?.to_owned())).collect())
}

/// Deletes a key; whether it was there.
///
/// # Errors
/// As [`Google::ask`].
pub async fn delete(google: &Google, account: &str, id: &str) -> Result<bool> {
    let doing = format!("delete the key {id} of {account}");
    Ok(google.ask(&Ask::delete(Service::Iam, format!("{}/{id}", keys_of(account)), doing)).await?.is_some())
}

fn keys_of(account: &str) -> String {
    format!("v1/projects/-/serviceAccounts/{account}/keys")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_the_answer_that_makes_it() {
        let name = "projects/p/serviceAccounts/a@p.iam.gserviceaccount.com/keys/0a1b";
        let made = json!({ "name": name, "privateKeyData": STANDARD.encode("{\"type\":\"service_account\"}") });
        let key = read(&made).unwrap();
        assert_eq!((key.id.as_str(), key.json.expose()), ("0a1b", "{\"type\":\"service_account\"}"));
        assert!(!format!("{key:?}").contains("service_account"));
        assert!(read(&json!({ "name": name })).is_none());
    }
}
