//! Calls to Google's APIs: where they go, how long they may take, and when they are made again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::registry::{self, Fault, Patience};

use super::failure::{self, Answer, Scene};
use super::token::Login;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(30);

/// What the variables begin with that send gcloud elsewhere (its properties `api_endpoint_overrides`).
const OVERRIDES: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_";

/// Addresses in place of Google's own, by variable.
type Overrides = BTreeMap<String, String>;

/// An API of Google's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Cloud Billing.
    Billing,
    /// Compute Engine.
    Compute,
    /// IAM.
    Iam,
    /// Tokens on behalf of service accounts.
    IamCredentials,
    /// Resource Manager.
    ResourceManager,
    /// Service Usage.
    Usage,
    /// Cloud SQL.
    Sql,
    /// Cloud Storage.
    Storage,
}

impl Service {
    /// The name of gcloud's property `api_endpoint_overrides/...`, and the address.
    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Billing => ("CLOUDBILLING", "https://cloudbilling.googleapis.com/"),
            Self::Compute => ("COMPUTE", "https://compute.googleapis.com/compute/v1/"),
            Self::Iam => ("IAM", "https://iam.googleapis.com/"),
            Self::IamCredentials => ("IAMCREDENTIALS", "https://iamcredentials.googleapis.com/"),
            Self::ResourceManager => ("CLOUDRESOURCEMANAGER", "https://cloudresourcemanager.googleapis.com/"),
            Self::Usage => ("SERVICEUSAGE", "https://serviceusage.googleapis.com/"),
            Self::Sql => ("SQL", "https://sqladmin.googleapis.com/"),
            Self::Storage => ("STORAGE", "https://storage.googleapis.com/storage/v1/"),
        }
    }

    /// Its address, or the one that the user has set in place of it, as gcloud reads that: one
    /// without a path gets the API's.
    fn base(self, overrides: &Overrides) -> Result<Url> {
        let (name, default) = self.place();
        let default = Url::parse(default)
            .map_err(|error| Error::new(Kind::Internal, format!("{default} is no URL")).source(error))?;
        let variable = format!("{OVERRIDES}{name}");
        let Some(text) = overrides.get(&variable).filter(|text| !text.is_empty()) else { return Ok(default) };
        let refuse = |why: String| Error::new(Kind::Config, format!("{variable}={text} is not an address: {why}"));
        let mut url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
        if url.scheme() != "https" && !(url.scheme() == "http" && is_here(&url)) {
            return Err(refuse("a login is sent there, so it must begin with https://".to_owned()));
        }
        if url.path() == "/" {
            url.set_path(default.path());
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(url)
    }
}

/// Whether an address is on this machine.
fn is_here(url: &Url) -> bool {
    url.host_str().is_some_and(|host| ["127.0.0.1", "localhost", "[::1]"].contains(&host))
}

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Its second time changes nothing.
    Safe,
    /// Only when the first was certainly not carried out.
    Refused,
}

/// One call.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    service: Service,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    body: Option<&'a Value>,
    repeat: Repeat,
    doing: String,
}

impl<'a> Ask<'a> {
    /// Reads. `path` follows the API's address; `doing` completes "cannot ...".
    pub fn get(service: Service, path: impl Into<String>, doing: impl Into<String>) -> Self {
        Self::new(service, Method::GET, path.into(), doing.into())
    }

    /// Writes, or asks what is too long for an address.
    pub fn post(
        service: Service,
        path: impl Into<String>,
        body: &'a Value,
        repeat: Repeat,
        doing: impl Into<String>,
    ) -> Self {
        Self::new(service, Method::POST, path.into(), doing.into()).with(body, repeat)
    }

    /// Changes.
    pub fn put(
        service: Service,
        path: impl Into<String>,
        body: &'a Value,
        repeat: Repeat,
        doing: impl Into<String>,
    ) -> Self {
        Self::new(service, Method::PUT, path.into(), doing.into()).with(body, repeat)
    }

    /// Deletes.
    pub fn delete(service: Service, path: impl Into<String>, doing: impl Into<String>) -> Self {
        Self::new(service, Method::DELETE, path.into(), doing.into())
    }

    fn new(service: Service, method: Method, path: String, doing: String) -> Self {
        Self { service, method, path, query: Vec::new(), body: None, repeat: Repeat::Safe, doing }
    }

    fn with(self, body: &'a Value, repeat: Repeat) -> Self {
        Self { body: Some(body), repeat, ..self }
    }

    /// Adds a parameter.
    pub fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The project that the path names.
    fn project(&self) -> Option<&str> {
        let mut parts = self.path.split('/').skip_while(|part| *part != "projects").skip(1);
        let name = parts.next()?.split(':').next()?;
        (name != "-").then_some(name)
    }
}

/// A client of Google's APIs. Cheap to clone.
#[derive(Clone)]
pub struct Google {
    login: Login,
    http: reqwest::Client,
    overrides: Arc<Overrides>,
    patience: Patience,
    cancel: CancellationToken,
}

impl Google {
    /// Speaks as `login`.
    pub fn new(run: &Run, login: Login) -> Result<Self> {
        Self::at(run, login, std::env::vars().filter(|(name, _)| name.starts_with(OVERRIDES)).collect())
    }

    pub(super) fn at(run: &Run, login: Login, overrides: Overrides) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .user_agent(registry::USER_AGENT)
            .connect_timeout(registry::CONNECT)
            .redirect(reqwest::redirect::Policy::none());
        // No proxy knows the way to this machine.
        if overrides.values().any(|text| Url::parse(text).is_ok_and(|url| is_here(&url))) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            Error::new(Kind::Machine, "cannot set up TLS").source(error).hint("install ca-certificates")
        })?;
        let patience = Patience {
            longest_wait: Duration::from_secs(10),
            attempts: 5,
            deadline: Duration::from_secs(90),
            ..Patience::default()
        };
        Ok(Self { login, http, overrides: Arc::new(overrides), patience, cancel: run.cancel.clone() })
    }

    /// Speaks as whoever is logged in.
    ///
    /// # Errors
    /// `Auth` where nobody is.
    pub async fn connect(run: &Run) -> Result<Self> {
        Self::new(run, Login::find().await?)
    }

    /// The same, giving up earlier.
    pub fn hurried(mut self, deadline: Duration) -> Self {
        self.patience.deadline = deadline;
        self
    }

    /// Makes a call until it is answered, fails for good, or patience ends. `None`: there is no such
    /// thing.
    ///
    /// # Errors
    /// `Auth`: the login is not accepted. `Forbidden`: it lacks a permission. `Refused`: the API or
    /// billing is off, a quota or a policy is in the way, or the call is wrong. `Conflict`: it is there
    /// already. `Remote`: no answer.
    pub async fn ask(&self, ask: &Ask<'_>) -> Result<Option<Value>> {
        let mut url =
            ask.service.base(&self.overrides)?.join(&ask.path).map_err(|error| {
                Error::new(Kind::Internal, format!("{:?} makes no address", ask.path)).source(error)
            })?;
        if !ask.query.is_empty() {
            url.query_pairs_mut().extend_pairs(ask.query.iter().map(|(key, value)| (*key, value.as_str())));
        }
        let begun = Instant::now();
        let (mut attempts, mut renewed) = (0, false);
        loop {
            let answered = tokio::select! {
                answered = self.attempt(ask, &url) => answered,
                () = self.cancel.cancelled() => return Err(Run::interrupted()),
            };
            let (error, asked) = match answered {
                Ok(answer) => return Ok(answer),
                Err(Fault::Fatal(error)) if error.kind() == Kind::Auth && !renewed && self.login.renew().await => {
                    renewed = true;
                    continue;
                }
                Err(Fault::Fatal(error)) => return Err(error),
                Err(Fault::Transient(error, asked)) => (error, asked),
                Err(Fault::Unauthorized(_)) => return Err(Error::new(Kind::Internal, "a registry's answer")),
            };
            attempts += 1;
            let Some(wait) = self.patience.wait(attempts, asked, begun.elapsed(), rand::random::<f64>()) else {
                return Err(error);
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.cancelled() => return Err(Run::interrupted()),
            }
        }
    }

    async fn attempt(&self, ask: &Ask<'_>, url: &Url) -> Result<Option<Value>, Fault> {
        let mut header = http::HeaderValue::try_from(format!("Bearer {}", self.login.token().await?.expose()))
            .map_err(|_| {
                Error::new(Kind::Auth, format!("{} has characters that no header may have", self.login.whose()))
            })?;
        header.set_sensitive(true);
        let mut request = self.http.request(ask.method.clone(), url.clone()).timeout(ATTEMPT);
        request = request.header(http::header::AUTHORIZATION, header);
        if let Some(project) = self.login.quota_project() {
            request = request.header("x-goog-user-project", project);
        }
        if let Some(body) = ask.body {
            request = request.json(body);
        }
        let server = registry::origin(url);
        // Whoever waits for no answer does not know whether it was carried out.
        let once = |fault: Fault| match fault {
            Fault::Transient(error, _) if ask.repeat == Repeat::Refused && !is_before_sending(&error) => {
                Fault::Fatal(error)
            }
            fault => fault,
        };
        let response = request.send().await.map_err(|error| {
            let refused = error.is_connect();
            let fault = registry::fault(&error, &server, &ask.doing);
            if refused { fault } else { once(fault) }
        })?;
        let answer = registry::read(response, &ask.doing, &server).await.map_err(once)?;
        match answer.status {
            200..=299 if answer.body.is_empty() => Ok(Some(Value::Null)),
            200..=299 => serde_json::from_slice(&answer.body).map(Some).map_err(|_| {
                let message = format!("{server} answers with something that is not JSON: cannot {}", ask.doing);
                Fault::Fatal(Error::new(Kind::Remote, message))
            }),
            404 => Ok(None),
            status => {
                let scene = Scene { doing: &ask.doing, whose: self.login.whose(), project: ask.project() };
                let fault = failure::explain(scene, &Answer::parse(status, &answer.body), answer.retry_after);
                // A server that limits its rate has carried nothing out.
                Err(if status == 429 { fault } else { once(fault) })
            }
        }
    }
}

/// Whether an error is one of this machine, before anything was sent.
fn is_before_sending(error: &Error) -> bool {
    error.kind() == Kind::Machine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_replaced_as_gcloud_does_it() {
        let check = |service: Service, set: &str, expected: Option<&str>| {
            let (name, _) = service.place();
            let overrides = Overrides::from([(format!("{OVERRIDES}{name}"), set.to_owned())]);
            assert_eq!(service.base(&overrides).ok().as_ref().map(Url::as_str), expected, "{service:?} {set}");
        };
        check(Service::Sql, "", Some("https://sqladmin.googleapis.com/"));
        check(Service::Sql, "http://127.0.0.1:8/sql/", Some("http://127.0.0.1:8/sql/"));
        check(Service::Sql, "http://127.0.0.1:8/sql", Some("http://127.0.0.1:8/sql/"));
        check(Service::Storage, "https://storage.p.example.com", Some("https://storage.p.example.com/storage/v1/"));
        check(Service::Storage, "http://[::1]:8/storage/storage/v1/", Some("http://[::1]:8/storage/storage/v1/"));
        check(Service::Compute, "https://a.example.com/", Some("https://a.example.com/compute/v1/"));
        check(Service::Iam, "http://a.example.com/", None);
        check(Service::Iam, "nonsense", None);
    }

    #[test]
    fn the_project_is_read_from_the_path() {
        for (path, expected) in [
            ("v1/projects/my-project:testIamPermissions", Some("my-project")),
            ("sql/v1beta4/projects/p/instances/i", Some("p")),
            ("v1/projects/-/serviceAccounts/a/keys", None),
            ("b/bucket", None),
        ] {
            assert_eq!(Ask::get(Service::Iam, path, "ask").project(), expected, "{path}");
        }
    }
}
