//! Requests to one registry: login, retries, deadlines and interruption in one place.

use std::time::Instant;

use http::{Method, StatusCode};
use url::Url;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};

use super::auth::{Auth, Granted, Scopes};
use super::credentials::CredentialSource;
use super::failure::{self, Answer};
use super::http_client::{self, Read};
use super::reference::{Reference, is_loopback};
use super::retry::{Fault, Patience};

/// Renewals of the login for one request; a second refusal of a new token is final.
const RENEWALS: u32 = 2;

/// What the client is going to do; decides what the token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Pull,
    /// Reading and writing.
    Push,
}

/// The connection to one registry, for one repository.
pub struct Transport {
    run: Run,
    reference: Reference,
    base: Url,
    http: reqwest::Client,
    auth: Auth,
    patience: Patience,
    access: Access,
}

impl Transport {
    /// Sets up the client. Nothing is sent yet.
    pub fn new(run: &Run, reference: &Reference, access: Access, source: CredentialSource) -> Result<Self> {
        let patience = Patience::from_env()?;
        let http = http_client::build(reference)?;
        let base = format!("{}://{}/v2/{}/", reference.scheme(), reference.host(), reference.repository());
        let base = Url::parse(&base)
            .map_err(|error| Error::new(Kind::Usage, format!("{reference} makes no URL")).source(error))?;
        let auth = Auth::new(reference, source, http.clone(), patience.stall, access == Access::Push);
        Ok(Self { run: run.clone(), reference: reference.clone(), base, http, auth, patience, access })
    }

    /// The image this is for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The login.
    pub fn auth(&self) -> &Auth {
        &self.auth
    }

    /// How patient it is.
    pub fn patience(&self) -> &Patience {
        &self.patience
    }

    /// A URL below `/v2/REPOSITORY/`. `path` consists of checked tags, digests and constants.
    pub fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).map_err(|error| Error::new(Kind::Internal, format!("{path:?} makes no URL")).source(error))
    }

    /// The scopes of ordinary requests.
    pub fn scopes(&self) -> Scopes {
        let actions = if self.access == Access::Push { "pull,push" } else { "pull" };
        vec![format!("repository:{}:{actions}", self.reference.repository())]
    }

    /// Runs `attempt` until it succeeds, fails for good, or patience ends. The login is renewed
    /// and the attempt repeated when the registry asks for it. `doing` completes "cannot ...".
    pub async fn retry<T, F: Future<Output = Result<T, Fault>>>(
        &self,
        doing: &str,
        scopes: &Scopes,
        mut attempt: impl FnMut(Option<Granted>) -> F,
    ) -> Result<T> {
        let begun = Instant::now();
        let (mut failures, mut renewals) = (0, 0);
        loop {
            let fault = match self.auth.current(scopes).await {
                Ok(granted) => match self.interruptible(attempt(granted.clone())).await? {
                    Ok(value) => return Ok(value),
                    Err(Fault::Unauthorized(answer)) if renewals < RENEWALS => {
                        renewals += 1;
                        let renewed = self.auth.renew(scopes, granted.as_ref(), answer.challenge.as_deref());
                        match self.interruptible(renewed).await? {
                            // No login to offer: the refusal stands.
                            Ok(None) => Fault::Fatal(failure::denied(&self.auth.scene().await, doing, &answer)),
                            Ok(Some(_)) => continue,
                            Err(fault) => fault,
                        }
                    }
                    Err(fault) => fault,
                },
                Err(fault) => fault,
            };
            let (error, asked) = match fault {
                Fault::Transient(error, asked) => (error, asked),
                Fault::Unauthorized(answer) => {
                    return Err(failure::denied(&self.auth.scene().await, doing, &answer));
                }
                Fault::Fatal(error) => return Err(error),
            };
            failures += 1;
            let Some(wait) = self.patience.wait(failures, asked, begun.elapsed(), rand::random::<f64>()) else {
                return Err(gave_up(error, failures, asked));
            };
            self.run.ui.step("Retrying", format!("in {:.1} s: {}", wait.as_secs_f64(), error.lines().join(": ")));
            self.interruptible(tokio::time::sleep(wait)).await?;
        }
    }

    /// Sends one request without a body and reads the answer; statuses other than `expected` are
    /// faults.
    pub async fn simple(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        headers: &[(http::HeaderName, &str)],
        expected: &[u16],
    ) -> Result<Read> {
        let url = self.url(path)?;
        let scopes = self.scopes();
        self.retry(doing, &scopes, |granted| {
            let mut request = self.http.request(method.clone(), url.clone());
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            let url = &url;
            async move {
                let request = self.authorize(request, url, granted.as_ref()).timeout(self.patience.stall);
                let answer = self.send(doing, request).await?;
                self.expect(doing, answer, expected, granted.as_ref()).await
            }
        })
        .await
    }

    /// Asks whether something is there: the answer to a HEAD, `None` for no.
    ///
    /// A registry whose disk was full has empty files where it keeps its links, and answers 500 for
    /// them until they are written anew (distribution 2.8). A push therefore takes a lasting 500
    /// for a no: it then sends what may be there already, and heals the registry.
    pub async fn ask(&self, doing: &str, path: &str, headers: &[(http::HeaderName, &str)]) -> Result<Option<Read>> {
        let mut expected = vec![200, 404];
        if self.access == Access::Push {
            expected.push(500);
        }
        for wait in [Some(self.patience.first_wait), None] {
            let answer = self.simple(doing, Method::HEAD, path, headers, &expected).await?;
            match (answer.status, wait) {
                (200, _) => return Ok(Some(answer)),
                (500, Some(wait)) => self.interruptible(tokio::time::sleep(wait)).await?,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// A request to build on.
    pub fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        self.http.request(method, url)
    }

    /// Adds the login, but only for the registry itself: an upload's location may be on another
    /// host (distribution-spec, "Pushing blobs"; CVE-2020-15157).
    pub fn authorize(
        &self,
        request: reqwest::RequestBuilder,
        url: &Url,
        granted: Option<&Granted>,
    ) -> reqwest::RequestBuilder {
        match granted {
            Some(granted) if url.origin() == self.base.origin() => {
                request.header(http::header::AUTHORIZATION, granted.header.clone())
            }
            _ => request,
        }
    }

    /// Sends a request and reads the answer whole.
    pub async fn send(&self, doing: &str, request: reqwest::RequestBuilder) -> Result<Read, Fault> {
        let server = self.reference.registry();
        let response = request.send().await.map_err(|error| http_client::fault(&error, server, doing))?;
        http_client::read(response, doing, server).await
    }

    /// Turns statuses that were not expected into faults.
    pub async fn expect(
        &self,
        doing: &str,
        answer: Read,
        expected: &[u16],
        granted: Option<&Granted>,
    ) -> Result<Read, Fault> {
        if expected.contains(&answer.status) {
            return Ok(answer);
        }
        let refusal = Answer {
            retry_after: answer.retry_after,
            challenge: answer.header("www-authenticate").map(str::to_owned),
            ..Answer::parse(answer.status, &answer.body)
        };
        // Some registries refuse strangers with 403 and no challenge.
        if answer.status == StatusCode::FORBIDDEN && granted.is_none() {
            return Err(Fault::Unauthorized(Box::new(refusal)));
        }
        Err(self.explain(doing, &refusal).await)
    }

    /// What a refusal means for this registry.
    pub async fn explain(&self, doing: &str, answer: &Answer) -> Fault {
        failure::explain(&self.auth.scene().await, doing, answer)
    }

    /// Where a registry sends an upload: relative, absolute, or on another host. A registry behind
    /// a TLS proxy may call itself `http`; its own host is spoken to as before.
    pub fn location(&self, doing: &str, location: &str) -> Result<Url> {
        let odd = |why: &str| {
            let message = format!("{} sends the upload {why}: cannot {doing}", self.reference.registry());
            Error::new(Kind::Remote, message)
        };
        let mut url = self.base.join(location).map_err(|error| odd("to a place that is no URL").source(error))?;
        if url.scheme() == "http" && self.base.scheme() == "https" && url.host_str() == self.base.host_str() {
            let port = url.port().filter(|port| *port != 80).or(self.base.port());
            let moved = url.set_scheme("https").and_then(|()| url.set_port(port));
            moved.map_err(|()| odd("to a place that is no URL"))?;
        }
        let safe = url.scheme() == "https" || (url.scheme() == "http" && url.host_str().is_some_and(is_loopback));
        if !safe {
            return Err(odd(&format!("unencrypted to {}", http_client::origin(&url))));
        }
        Ok(url)
    }

    /// Waits for `work` unless the user interrupts.
    pub async fn interruptible<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.run.cancel.cancelled() => Err(Run::interrupted()),
            value = work => Ok(value),
        }
    }

    /// The interruption and terminal of this run.
    pub fn run(&self) -> &Run {
        &self.run
    }
}

fn gave_up(error: Error, attempts: u32, asked: Option<std::time::Duration>) -> Error {
    let mut lines = error.lines();
    let mut message = lines.remove(0);
    if attempts > 1 {
        message.push_str(&format!(" (after {attempts} attempts)"));
    }
    if let Some(asked) = asked {
        message.push_str(&format!(" (the registry asks to wait {} s)", asked.as_secs()));
    }
    let mut given_up = Error::new(error.kind(), message);
    if let Some(hint) = error.hint_text() {
        given_up = given_up.hint(hint);
    }
    if lines.is_empty() { given_up } else { given_up.source(lines.join(": ")) }
}
