//! Requests to an MLflow server, and what went wrong with them in words that name the request.
//!
//! HTTP/1.1 only: the Host header is under test, and HTTP/2 has none.

use std::error::Error as StdError;
use std::time::Duration;

use reqwest::header::{HOST, HeaderValue, LOCATION};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use url::Url;

use crate::error::{Context as _, Kind, Result};
use crate::report::shorten;

/// Characters of an answer's message that are shown.
const SHOWN: usize = 200;

/// How long to wait for the connection alone.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection may wait for its next request. uvicorn closes it after 5 s, and a request
/// that is sent at that moment is lost.
const IDLE: Duration = Duration::from_secs(2);

/// The largest JSON or text answer that is read, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// A request that reaches the database, and the cheapest that does.
pub const DATABASE_PROBE: &str = "/api/2.0/mlflow/experiments/search?max_results=1";

/// How to log in.
#[derive(Clone)]
pub enum Auth {
    /// MLflow's basic-auth app, or a proxy that speaks it.
    Basic { username: String, password: String },
    /// A token, as in `MLFLOW_TRACKING_TOKEN`.
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// A server to talk to.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    host: Option<HeaderValue>,
    auth: Option<Auth>,
}

impl Client {
    /// `base` is the server's address, a static prefix included. `timeout` is for one request.
    pub fn new(base: &Url, host: Option<&str>, auth: Option<Auth>, timeout: Duration) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .http1_only()
            .connect_timeout(CONNECT)
            .timeout(timeout)
            .pool_idle_timeout(IDLE)
            // A redirect is an answer that names a wrong URL or a login page; following it would
            // turn a POST into a GET and hide that.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("mlflow-on-kubernetes/", env!("CARGO_PKG_VERSION")));
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().context(Kind::Machine, || "cannot set up TLS")?;
        let host = host
            .map(HeaderValue::from_str)
            .transpose()
            .context(Kind::Usage, || format!("{:?} cannot be a Host header", host.unwrap_or_default()))?;
        Ok(Self { http, base: base.clone(), host, auth })
    }

    /// The address of `path`, which begins with a slash and may carry a query.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    /// A request with login and Host header.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self.http.request(method, self.url(path));
        if let Some(host) = &self.host {
            request = request.header(HOST, host);
        }
        match &self.auth {
            Some(Auth::Basic { username, password }) => request.basic_auth(username, Some(password)),
            Some(Auth::Bearer(token)) => request.bearer_auth(token),
            None => request,
        }
    }

    /// GET, answered with JSON.
    pub async fn get(&self, path: &str) -> Outcome<Value> {
        json("GET", path, self.request(Method::GET, path)).await
    }

    /// POST of JSON, answered with JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        json("POST", path, self.request(Method::POST, path).json(body)).await
    }

    /// DELETE with a JSON body, answered with JSON.
    pub async fn delete(&self, path: &str, body: &Value) -> Outcome<Value> {
        json("DELETE", path, self.request(Method::DELETE, path).json(body)).await
    }
}

/// Sends a request; any answer but a 2xx is a failure.
pub async fn send(method: &str, path: &str, request: RequestBuilder) -> Outcome<Response> {
    let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
    let answer = request.send().await.map_err(|error| Failure::transport(&what, &error))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let text = text(&what, answer).await.unwrap_or_default();
    Err(Failure::status(&what, status, location.as_deref(), &text))
}

/// The body as text, bounded.
pub async fn text(what: &str, mut answer: Response) -> Outcome<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| Failure::transport(what, &error))? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(Failure::wrong(format!("{what} answered more than {} MiB", MAX_ANSWER >> 20)));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn json(method: &str, path: &str, request: RequestBuilder) -> Outcome<Value> {
    let answer = send(method, path, request).await?;
    let what = format!("{method} {}", path.split('?').next().unwrap_or(path));
    let text = text(&what, answer).await?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::wrong(format!("{what} answered no JSON ({error}): {}", shorten(SHOWN, &text))))
}

/// The result of one request or check.
pub type Outcome<T> = std::result::Result<T, Failure>;

/// Why a request or a check failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The class, as far as the caller decides by it.
    pub class: Class,
    /// What happened, naming the request.
    pub detail: String,
    /// What the user can do about it.
    pub hint: Option<&'static str>,
}

/// Classes of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// No HTTP answer came.
    Unreachable,
    /// An answer with this status.
    Status(u16),
    /// An answer with a wrong content.
    Wrong,
    /// Not tried, because what it needs is missing.
    Skipped,
}

impl Failure {
    /// A wrong content.
    pub fn wrong(detail: impl Into<String>) -> Self {
        Self { class: Class::Wrong, detail: detail.into(), hint: None }
    }

    /// Not tried.
    pub fn skipped(detail: impl Into<String>) -> Self {
        Self { class: Class::Skipped, detail: detail.into(), hint: None }
    }

    /// Whether nothing was asked, so that nothing is known.
    pub fn is_skipped(&self) -> bool {
        self.class == Class::Skipped
    }

    /// Adds what the user can do.
    pub fn hint(self, hint: &'static str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// No answer, or not all of it.
    pub fn transport(what: &str, error: &reqwest::Error) -> Self {
        let detail = if error.is_timeout() && !error.is_connect() {
            format!("{what}: no answer in time")
        } else {
            format!("{what}: {}", deepest(error))
        };
        Self { class: Class::Unreachable, detail, hint: None }
    }

    fn status(what: &str, status: StatusCode, location: Option<&str>, body: &str) -> Self {
        let said = message(body);
        let mut detail = format!("{what} answered {}", status.as_u16());
        if let Some(location) = location.filter(|_| status.is_redirection()) {
            detail += &format!(", a redirect to {location}");
        }
        if !said.is_empty() {
            detail += &format!(": {said}");
        }
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                Some("log in with --username and --password-stdin, or set MLFLOW_TRACKING_TOKEN")
            }
            StatusCode::FORBIDDEN if said.contains("Invalid Host header") => {
                Some("add the host to MLFLOW_SERVER_ALLOWED_HOSTS of the server, or use --host-header")
            }
            StatusCode::FORBIDDEN => Some("this login may not do that: use one that may create experiments and models"),
            _ if status.is_redirection() => Some("use the final address of the server"),
            _ => None,
        };
        Self { class: Class::Status(status.as_u16()), detail, hint }
    }
}

/// What an error body says: MLflow's `error_code` and `message`, FastAPI's `detail`, else its text.
fn message(body: &str) -> String {
    let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let field = |name: &str| value.get(name).and_then(Value::as_str);
    match (field("error_code"), field("message"), value.get("detail")) {
        (Some(code), Some(message), _) => format!("{code}, {}", shorten(SHOWN, message)),
        (None, Some(message), _) => shorten(SHOWN, message),
        (_, _, Some(detail)) => shorten(SHOWN, &detail.as_str().map_or_else(|| detail.to_string(), str::to_owned)),
        _ => shorten(SHOWN, body),
    }
}

/// The innermost cause, which is the one that says something ("connection refused").
fn deepest(error: &dyn StdError) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Whether the URL names this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_is_read_in_every_dialect() {
        for (body, expected) in [
            (r#"{"error_code":"INTERNAL_ERROR","message":"boom"}"#, "INTERNAL_ERROR, boom"),
            (r#"{"detail":"no spans found"}"#, "no spans found"),
            (r#"{"detail":[{"loc":["header"]}]}"#, r#"[{"loc":["header"]}]"#),
            ("<html>\n<b>Bad Gateway</b>", "<html> <b>Bad Gateway</b>"),
            ("", ""),
        ] {
            assert_eq!(message(body), expected, "{body}");
        }
    }

    #[test]
    fn a_status_is_explained_with_what_to_do() {
        let check = |status: u16, location, body, detail: &str, hint: &str| {
            let failure = Failure::status("POST /x", StatusCode::from_u16(status).unwrap(), location, body);
            assert_eq!(failure.detail, detail);
            assert!(failure.hint.unwrap_or("").contains(hint), "{:?}", failure.hint);
        };
        check(401, None, "", "POST /x answered 401", "--password-stdin");
        check(
            403,
            None,
            "Invalid Host header - possible",
            "POST /x answered 403: Invalid Host header - possible",
            "ALLOWED",
        );
        check(302, Some("https://login"), "", "POST /x answered 302, a redirect to https://login", "final address");
        check(500, None, r#"{"error_code":"E","message":"m"}"#, "POST /x answered 500: E, m", "");
    }

    #[test]
    fn loopback_is_this_machine_only() {
        for (url, expected) in [
            ("http://127.0.0.1:5000", true),
            ("http://localhost", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("https://localhost.example.com", false),
        ] {
            assert_eq!(is_loopback(&url.parse().unwrap()), expected, "{url}");
        }
    }

    #[test]
    fn a_login_is_never_printed() {
        let auth = Auth::Basic { username: "ann".into(), password: "hush".into() };
        assert_eq!(format!("{auth:?} {:?}", Auth::Bearer("hush".into())), "Basic(ann) Bearer");
    }
}
