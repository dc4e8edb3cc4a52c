//! Logging in to one registry: on its first challenge the credentials are looked up and exchanged
//! for a token, which is renewed when it is about to expire or was refused.
//!
//! `oci-client` has such an exchange, but a narrow one: it cannot send identity tokens, asks for no
//! scope beside the repository's own (which a mount from another repository needs), takes a failed
//! exchange for an anonymous login, so that the user reads "401" instead of the reason, and asks
//! `/v2/` before every request of an anonymous client. The token service's protocol is small, so
//! it is spoken here; pulls by `oci-client` use the same tokens ([`super::pull`]).
//!
//! Sources: distribution, "Token Authentication Specification", "OAuth2 Token Authentication" and
//! "Token Scope Documentation"; RFC 6750; RFC 7617.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use http::HeaderValue;
use tokio::sync::Mutex;
use url::Url;

use crate::error::{Error, Kind};
use crate::secret::Secret;

use super::challenge::Challenge;
use super::credentials::{self, CredentialSource, Login, Proof};
use super::failure::{self, Answer, Scene};
use super::http_client;
use super::reference::{Reference, is_loopback};
use super::retry::Fault;

/// The lifetime of a token that does not state one (distribution, token specification).
const DEFAULT_LIFETIME: Duration = Duration::from_secs(60);
/// A token is renewed when less than this is left, or a quarter of a shorter life.
const RESERVE: Duration = Duration::from_secs(30);
/// What this program calls itself to token services.
const CLIENT_ID: &str = "mlflow-on-kubernetes";

/// What a request needs to be allowed to do: scopes of the token, without duplicates.
pub type Scopes = Vec<String>;

/// An `Authorization` header that was granted.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The header, marked as sensitive.
    pub header: HeaderValue,
    /// The token, or the user and password, as `oci-client` wants them.
    pub kind: GrantedKind,
    /// Which grant this is; a refused grant is renewed once, however many requests it failed.
    number: u64,
    fresh_until: Option<Instant>,
}

/// What is inside of a grant.
#[derive(Clone, Debug)]
pub enum GrantedKind {
    /// User and password.
    Basic(String, Secret),
    /// A bearer token.
    Bearer(Secret),
}

/// The login of one registry.
pub struct Auth {
    reference: Reference,
    source: CredentialSource,
    http: reqwest::Client,
    stall: Duration,
    push: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    challenge: Option<Challenge>,
    login: Option<Login>,
    granted: HashMap<Scopes, Granted>,
    count: u64,
}

impl Auth {
    /// Nothing is looked up until the registry asks.
    pub fn new(
        reference: &Reference,
        source: CredentialSource,
        http: reqwest::Client,
        stall: Duration,
        push: bool,
    ) -> Self {
        Self { reference: reference.clone(), source, http, stall, push, state: Mutex::default() }
    }

    /// What to send now: nothing before the first challenge; after it a grant that is still fresh.
    pub async fn current(&self, scopes: &Scopes) -> Result<Option<Granted>, Fault> {
        let mut state = self.state.lock().await;
        if state.challenge.is_none() {
            return Ok(None);
        }
        match state.granted.get(scopes) {
            Some(granted) if granted.fresh_until.is_none_or(|until| Instant::now() < until) => {
                Ok(Some(granted.clone()))
            }
            _ => self.grant(&mut state, scopes).await,
        }
    }

    /// After a 401: reads the challenge and gets a new grant in place of `refused`.
    pub async fn renew(
        &self,
        scopes: &Scopes,
        refused: Option<&Granted>,
        header: Option<&str>,
    ) -> Result<Option<Granted>, Fault> {
        let mut state = self.state.lock().await;
        if let Some(current) = state.granted.get(scopes)
            && refused.is_none_or(|refused| refused.number != current.number)
        {
            return Ok(Some(current.clone()));
        }
        match header.and_then(Challenge::parse) {
            Some(challenge) => state.challenge = Some(challenge),
            None if state.challenge.is_none() => state.challenge = self.ask().await?,
            None => {}
        }
        state.granted.remove(scopes);
        self.grant(&mut state, scopes).await
    }

    /// Whether the registry has asked for a login so far.
    pub async fn was_asked(&self) -> bool {
        self.state.lock().await.challenge.is_some()
    }

    /// The login, looked up unless it was needed already.
    pub async fn login(&self) -> crate::error::Result<Login> {
        let mut state = self.state.lock().await;
        match &state.login {
            Some(login) => Ok(login.clone()),
            None => Ok(state.login.insert(credentials::find(&self.source, &self.reference).await?).clone()),
        }
    }

    /// Who was logged in, for messages.
    pub async fn scene(&self) -> Scene {
        let identity = match &self.state.lock().await.login {
            Some(login) => login.identity().to_owned(),
            None => "a request without login".to_owned(),
        };
        self.scene_as(identity)
    }

    fn scene_as(&self, identity: String) -> Scene {
        Scene {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
            google: self.reference.is_google(),
            push: self.push,
            identity,
        }
    }

    /// Asks the registry's root for its challenge.
    async fn ask(&self) -> Result<Option<Challenge>, Fault> {
        let url = format!("{}://{}/v2/", self.reference.scheme(), self.reference.host());
        let sent = self.http.get(&url).timeout(self.stall).send().await;
        let response = sent.map_err(|error| http_client::fault(&error, self.reference.registry(), "log in"))?;
        let header = response.headers().get(http::header::WWW_AUTHENTICATE);
        Ok(header.and_then(|header| header.to_str().ok()).and_then(Challenge::parse))
    }

    async fn grant(&self, state: &mut State, scopes: &Scopes) -> Result<Option<Granted>, Fault> {
        let Some(challenge) = state.challenge.clone() else { return Ok(None) };
        let login = match &state.login {
            Some(login) => login.clone(),
            None => state.login.insert(credentials::find(&self.source, &self.reference).await?).clone(),
        };
        let proof = login.proof().await?;
        let (kind, lifetime) = match (challenge, proof) {
            (Challenge::Basic, Proof::Basic(user, password)) => (GrantedKind::Basic(user, password), None),
            (Challenge::Basic, _) => return Ok(None),
            (Challenge::Bearer { realm, service, scope }, proof) => {
                let mut scopes = scopes.clone();
                scopes.extend(scope.filter(|scope| !covers(&scopes, scope)));
                let scene = self.scene_as(login.identity().to_owned());
                let (token, lifetime) = self.exchange(&scene, &realm, service, &scopes, proof).await?;
                (GrantedKind::Bearer(token), Some(lifetime))
            }
        };
        state.count += 1;
        let granted = Granted {
            header: header(&kind)?,
            kind,
            number: state.count,
            fresh_until: lifetime.map(|lifetime| Instant::now() + lifetime.saturating_sub(RESERVE.min(lifetime / 4))),
        };
        state.granted.insert(scopes.clone(), granted.clone());
        Ok(Some(granted))
    }

    /// Gets a token from the service at `realm`.
    async fn exchange(
        &self,
        scene: &Scene,
        realm: &str,
        service: Option<String>,
        scopes: &Scopes,
        proof: Proof,
    ) -> Result<(Secret, Duration), Fault> {
        let doing = "log in";
        let mut url = Url::parse(realm).map_err(|error| {
            let message = format!("{} names a token service that is no URL: {realm:?}", scene.registry);
            Error::new(Kind::Remote, message).source(error)
        })?;
        let encrypted = url.scheme() == "https" || url.host_str().is_some_and(is_loopback);
        if !encrypted && !matches!(proof, Proof::None) {
            let message =
                format!("{} wants the login to be sent unencrypted, to {}", scene.registry, http_client::origin(&url));
            return Err(Error::new(Kind::Auth, message)
                .hint("let the registry's owner put its token service behind TLS")
                .into());
        }
        let request = match proof {
            Proof::Refresh(token) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                form.append_pair("grant_type", "refresh_token").append_pair("refresh_token", token.expose());
                form.append_pair("client_id", CLIENT_ID).append_pair("scope", &scopes.join(" "));
                if let Some(service) = &service {
                    form.append_pair("service", service);
                }
                let kind = "application/x-www-form-urlencoded";
                self.http.post(url.clone()).header(http::header::CONTENT_TYPE, kind).body(form.finish())
            }
            Proof::Basic(..) | Proof::None => {
                {
                    let mut query = url.query_pairs_mut();
                    if let Some(service) = &service {
                        query.append_pair("service", service);
                    }
                    for scope in scopes {
                        query.append_pair("scope", scope);
                    }
                }
                let request = self.http.get(url.clone());
                match proof {
                    Proof::Basic(user, password) => request.basic_auth(user, Some(password.expose())),
                    _ => request,
                }
            }
        };
        // Errors of the HTTP client name the URL; scopes are no secret, and the form is not in it.
        let response = request
            .timeout(self.stall)
            .send()
            .await
            .map_err(|error| http_client::fault(&error, &http_client::origin(&url), doing))?;
        let answer = http_client::read(response, doing, &http_client::origin(&url)).await?;
        match answer.status {
            200 => {}
            // The token service says no to the login itself: a newer token would not help.
            400 | 401 | 403 => {
                let refused = Answer { status: 401, ..Answer::parse(answer.status, &answer.body) };
                return Err(Fault::Fatal(failure::denied(scene, doing, &refused)));
            }
            status => {
                let answer = Answer { retry_after: answer.retry_after, ..Answer::parse(status, &answer.body) };
                let scene = Scene { registry: http_client::origin(&url), ..scene.clone() };
                return Err(failure::explain(&scene, doing, &answer));
            }
        }
        let token = read_token(&answer.body).ok_or_else(|| {
            let message = format!("the token service {} answers without a token", http_client::origin(&url));
            Fault::Transient(Error::new(Kind::Remote, message), None)
        })?;
        Ok(token)
    }
}

/// The token and its lifetime (distribution, "Token Response Fields").
fn read_token(body: &[u8]) -> Option<(Secret, Duration)> {
    #[derive(serde::Deserialize)]
    struct Response {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<f64>,
    }
    let response: Response = serde_json::from_slice(body).ok()?;
    let token = response.token.into_iter().chain(response.access_token).find(|token| !token.is_empty())?;
    let lifetime = response.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some((Secret::new(token), lifetime.filter(|life| !life.is_zero()).unwrap_or(DEFAULT_LIFETIME)))
}

fn header(kind: &GrantedKind) -> Result<HeaderValue, Fault> {
    let text = match kind {
        GrantedKind::Basic(user, password) => {
            let pair = format!("{user}:{}", password.expose());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        }
        GrantedKind::Bearer(token) => format!("Bearer {}", token.expose()),
    };
    // The source would quote the token.
    let mut header = HeaderValue::try_from(text)
        .map_err(|_| Error::new(Kind::Auth, "the registry's token has characters that no header may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

/// Whether `scopes` allow all that `wanted` (separated by spaces) names.
fn covers(scopes: &[String], wanted: &str) -> bool {
    wanted.split(' ').filter(|wanted| !wanted.is_empty()).all(|wanted| {
        let Some((resource, actions)) = wanted.rsplit_once(':') else { return false };
        actions.split(',').all(|action| {
            scopes
                .iter()
                .filter_map(|scope| scope.rsplit_once(':'))
                .any(|(found, allowed)| found == resource && allowed.split(',').any(|allowed| allowed == action))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_covered_action_by_action() {
        let scopes = vec!["repository:a/b:pull,push".to_owned(), "repository:c:pull".to_owned()];
        for (wanted, expected) in [
            ("repository:a/b:pull", true),
            ("repository:a/b:push,pull", true),
            ("repository:c:pull repository:a/b:push", true),
            ("repository:c:push", false),
            ("repository:d:pull", false),
            ("repository:a/b:delete", false),
            ("nonsense", false),
            ("", true),
        ] {
            assert_eq!(covers(&scopes, wanted), expected, "{wanted}");
        }
    }

    #[test]
    fn tokens_are_read_in_all_their_spellings() {
        for (body, expected) in [
            (r#"{"token":"a"}"#, Some(("a", 60))),
            (r#"{"access_token":"b","expires_in":300}"#, Some(("b", 300))),
            (r#"{"token":"a","access_token":"b","expires_in":0}"#, Some(("a", 60))),
            (r#"{"token":"","access_token":"b"}"#, Some(("b", 60))),
            (r#"{"token":""}"#, None),
            (r#"{"expires_in":-5,"token":"a"}"#, Some(("a", 60))),
            ("{}", None),
            ("<html>", None),
        ] {
            let found = read_token(body.as_bytes()).map(|(token, life)| (token.expose().to_owned(), life.as_secs()));
            assert_eq!(found, expected.map(|(token, life)| (token.to_owned(), life)), "{body}");
        }
    }

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let kind = GrantedKind::Bearer(Secret::new("hunter2"));
        let granted = Granted { header: header(&kind).unwrap(), kind, number: 1, fresh_until: None };
        assert!(!format!("{granted:?}").contains("hunter2"));
    }
}
