//! The HTTP client: how it is set up, and what its errors mean.

use std::error::Error as StdError;
use std::time::Duration;

use url::Url;

use crate::error::{Error, Kind, Result};

use super::Reference;
use super::retry::{self, Fault};

/// How long connecting may take, TLS included.
pub const CONNECT: Duration = Duration::from_secs(15);
/// The most that is read of an answer which is not a blob: manifests may have 4 MiB
/// (distribution-spec, "Pushing Manifests").
const LARGEST_ANSWER: usize = 8 << 20;
/// How the client introduces itself.
pub const USER_AGENT: &str = concat!("mlflow-on-kubernetes/", env!("CARGO_PKG_VERSION"));

/// A client for the registry of `reference`.
///
/// HTTP/1.1 only: each upload has a connection of its own, so that parallel layers share no flow
/// control window and a reset costs one layer. Loopback registries are spoken to without TLS, so
/// the system's root certificates, which take longer to read than a warm push takes, are not read,
/// and without a proxy, as Go's clients do.
pub fn build(reference: &Reference) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder().user_agent(USER_AGENT).http1_only().connect_timeout(CONNECT);
    if reference.is_loopback() {
        builder = builder.tls_certs_only([]).no_proxy();
    }
    builder
        .build()
        .map_err(|error| Error::new(Kind::Machine, "cannot set up TLS").source(error).hint("install ca-certificates"))
}

/// An answer whose body was read whole.
pub struct Read {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl Read {
    /// A header's text; `None` where it is absent or not ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Reads an answer whole, within limits.
pub async fn read(mut response: reqwest::Response, doing: &str, server: &str) -> Result<Read, Fault> {
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => break,
            Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_ANSWER => body.extend_from_slice(&chunk),
            Ok(Some(_)) => {
                let message = format!("{server} answers with more than {LARGEST_ANSWER} bytes: cannot {doing}");
                return Err(Error::new(Kind::Remote, message).into());
            }
            // The status has been given; what is missing of a refusal's text is no new failure.
            Err(_) if !response_is_needed(status) => break,
            Err(error) => return Err(fault(&error, server, doing)),
        }
    }
    let retry_after = headers
        .get(http::header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry::retry_after(value, time::OffsetDateTime::now_utc()));
    Ok(Read { status, headers, body, retry_after })
}

fn response_is_needed(status: u16) -> bool {
    status == 200
}

/// Scheme, host and port of a URL: what may be shown of it.
pub fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What an error of the client means.
pub fn fault(error: &reqwest::Error, server: &str, doing: &str) -> Fault {
    let chain = causes(error);
    // The last cause is the operating system's or TLS's own; those before it repeat the URL.
    let cause = chain.last().cloned().unwrap_or_else(|| "no cause given".to_owned());
    let has = |words: &[&str]| chain.iter().any(|text| words.iter().any(|word| text.contains(word)));
    let remote = |message: String| Error::new(Kind::Remote, message).source(cause.clone());
    let again = "check the network, then run the same command again: it carries on where this one stopped";

    if error.is_timeout() {
        return Fault::Transient(remote(format!("{server} does not answer: cannot {doing}")).hint(again), None);
    }
    if let Some(tls) = tls_error(error) {
        let message = format!("no safe connection to {server}: cannot {doing}");
        let hint = match tls {
            rustls::Error::InvalidCertificate(_) => {
                "if its certificate is from your company's own authority, add that to this machine's trusted \
                 certificates or name it in SSL_CERT_FILE"
            }
            _ => "check that the address is right and that the server speaks TLS; plain HTTP is for loopback only",
        };
        return Fault::Fatal(remote(message).hint(hint));
    }
    if has(&["dns error", "failed to lookup address"]) {
        let message = format!("the address of {server} cannot be looked up: cannot {doing}");
        let error = remote(message).hint("check the server's name and this machine's network");
        let temporary = has(&["Temporary failure"]);
        return if temporary { Fault::Transient(error, None) } else { Fault::Fatal(error) };
    }
    if error.is_connect() {
        let hint = "check that the registry runs and its address is right, then run the same command again";
        return Fault::Transient(remote(format!("cannot connect to {server}: cannot {doing}")).hint(hint), None);
    }
    if error.is_builder() || error.is_redirect() {
        return Fault::Fatal(remote(format!("{server} sends this client elsewhere: cannot {doing}")));
    }
    Fault::Transient(remote(format!("the connection to {server} broke: cannot {doing}")).hint(again), None)
}

fn causes(error: &reqwest::Error) -> Vec<String> {
    let mut texts = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // tokio-rustls wraps it in an I/O error, whose `source` skips what is directly inside.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if tls.is_some() {
            return tls;
        }
        cause = error.source();
    }
    None
}
