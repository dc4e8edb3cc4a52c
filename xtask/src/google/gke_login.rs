//! The login for clusters of Google's, as Kubernetes' clients take it from a program (client-go
//! credential plugins). It stands in where Google's own plugin is not installed.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::Result;

use super::Login;

/// How long a client may keep the token. It lasts longer, and asking again costs little.
const KEPT: Duration = Duration::from_secs(240);

/// The versions of the answer that clients take.
const VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];

/// The answer to the client, which holds the token. `asked` is what the client has put into
/// `KUBERNETES_EXEC_INFO`: the answer has to have the same version.
///
/// # Errors
/// `Auth` where nobody is logged in.
pub async fn credential(asked: Option<&str>) -> Result<Value> {
    let token = Login::find().await?.token().await?;
    Ok(answer(asked, token.expose(), OffsetDateTime::now_utc() + KEPT))
}

fn answer(asked: Option<&str>, token: &str, until: OffsetDateTime) -> Value {
    let asked = asked.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let version = asked.as_ref().and_then(|asked| asked["apiVersion"].as_str());
    let version = VERSIONS.into_iter().find(|known| version == Some(known)).unwrap_or(VERSIONS[0]);
    let until = until.replace_nanosecond(0).unwrap_or(until).format(&Rfc3339).unwrap_or_default();
    json!({
        "apiVersion": version,
        "kind": "ExecCredential",
        "status": { "token": token, "expirationTimestamp": until },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_version_that_was_asked_for() {
        let until = time::macros::datetime!(2026-11-27 12:00:00.5 UTC);
        let check = |asked: Option<&str>, expected: &str| {
            let answer = answer(asked, "abc", until);
            assert_eq!(answer["apiVersion"], expected, "{asked:?}");
            assert_eq!(answer["status"], json!({ "token": "abc", "expirationTimestamp": "2026-11-27T12:00:00Z" }));
        };
        check(None, VERSIONS[0]);
        check(Some("nonsense"), VERSIONS[0]);
        check(Some(r#"{"apiVersion":"client.authentication.k8s.io/v1beta1"}"#), VERSIONS[1]);
        check(Some(r#"{"apiVersion":"client.authentication.k8s.io/v9"}"#), VERSIONS[0]);
    }
}
