//! A proxy in front of a real server that breaks what a rule tells it to, and counts all bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::http::{Head, Length, answer};
use crate::loopback::Loopback;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The proxy answers itself, after it has read the request whole.
    Answer {
        /// The status.
        status: u16,
        /// Further headers.
        headers: Vec<(&'static str, &'static str)>,
        /// The body.
        body: &'static str,
    },
    /// The connection is reset when this many bytes of the body have passed.
    ResetAfter(u64),
    /// The request passes, the connection is reset in place of the answer.
    ResetAnswer,
    /// The answer is cut in the middle of its headers, or of its body if it has one.
    Truncate,
    /// No byte passes any more when this many bytes of the body have passed.
    StallAfter(u64),
    /// The registry's digest is replaced by another in the answer's headers.
    WrongDigest,
    /// The answer gets one more header.
    AddHeader(&'static str, String),
    /// The request passes with this many bytes a second.
    Slow(u64),
}

/// Which requests a fault befalls.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The method; empty for all.
    pub method: &'static str,
    /// A part of path and query.
    pub path: String,
    /// How many such requests pass unharmed first.
    pub skip: u32,
    /// How many then fail.
    pub times: u32,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// The first such request fails.
    pub fn once(method: &'static str, path: impl Into<String>, fault: Fault) -> Self {
        Self { method, path: path.into(), skip: 0, times: 1, fault }
    }

    /// All such requests fail.
    pub fn always(method: &'static str, path: impl Into<String>, fault: Fault) -> Self {
        Self { method, path: path.into(), skip: 0, times: u32::MAX, fault }
    }
}

/// One request as it passed.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The status that the client got; 0 for none.
    pub status: u16,
    /// Bytes of the request's body that arrived.
    pub body: u64,
    /// Whether the body was sent in chunks of HTTP.
    pub chunked: bool,
    /// Whether a login was sent.
    pub authorized: bool,
    /// Whether a rule broke it.
    pub broken: bool,
}

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    log: Mutex<Vec<Exchange>>,
    received: AtomicU64,
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    server: Loopback,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A proxy in front of `upstream` that breaks nothing yet.
    pub fn start(upstream: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let task = Arc::clone(&shared);
        let server = Loopback::serve(move |client| {
            let shared = Arc::clone(&task);
            // A connection that ends early is the client's business.
            async move { drop(connection(client, upstream, &shared).await) }
        });
        Self { server, shared }
    }

    /// Host and port.
    pub fn host(&self) -> String {
        self.server.address.to_string()
    }

    /// Replaces the rules.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        *self.shared.rules.lock().expect("the rules") = rules;
    }

    /// Bytes of request bodies that arrived since the last [`Proxy::reset`].
    pub fn received_bytes(&self) -> u64 {
        self.shared.received.load(Ordering::SeqCst)
    }

    /// The requests since the last [`Proxy::reset`], in the order of their answers.
    pub fn log(&self) -> Vec<Exchange> {
        self.shared.log.lock().expect("the log").clone()
    }

    /// How many requests there were with this method and a path that contains `path`.
    pub fn count(&self, method: &str, path: &str) -> usize {
        self.log().iter().filter(|exchange| exchange.method == method && exchange.path.contains(path)).count()
    }

    /// Forgets log and count; the rules stay.
    pub fn reset(&self) {
        self.shared.log.lock().expect("the log").clear();
        self.shared.received.store(0, Ordering::SeqCst);
    }
}

impl Shared {
    fn fault(&self, method: &str, path: &str) -> Option<Fault> {
        let mut rules = self.rules.lock().expect("the rules");
        let rule = rules.iter_mut().find(|rule| {
            rule.times > 0 && (rule.method.is_empty() || rule.method == method) && path.contains(&rule.path)
        })?;
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        rule.times = rule.times.saturating_sub(1);
        Some(rule.fault.clone())
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = TcpStream::connect(upstream).await?;
    server.set_nodelay(true)?;
    let (mut client, mut server) = (BufReader::new(client), BufReader::new(server));
    while let Some(head) = Head::read(&mut client).await? {
        let (method, path) = (head.word(0).to_owned(), head.word(1).to_owned());
        let fault = shared.fault(&method, &path);
        let exchange = Exchange {
            chunked: head.length() == Length::Chunked,
            authorized: head.get("authorization").is_some(),
            status: 0,
            body: 0,
            broken: fault.is_some(),
            method,
            path,
        };
        let pending = Pending { shared, exchange: Some(exchange), body: 0 };
        if !pass(&mut client, &mut server, &head, fault, pending).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Passes one request and its answer. False when the connection is to be closed.
async fn pass(
    client: &mut BufReader<TcpStream>,
    server: &mut BufReader<TcpStream>,
    head: &Head,
    fault: Option<Fault>,
    mut pending: Pending<'_>,
) -> io::Result<bool> {
    let mut limits = Limits { pending: &mut pending, reset: None, stall: None, pace: None };
    match &fault {
        Some(Fault::Answer { status, headers, body }) => {
            limits.body(client, &mut tokio::io::sink(), head.length()).await?;
            pending.answered(*status);
            client.write_all(&answer(*status, headers, body)).await?;
            return Ok(true);
        }
        Some(Fault::ResetAfter(bytes)) => limits.reset = Some(*bytes),
        Some(Fault::StallAfter(bytes)) => limits.stall = Some(*bytes),
        Some(Fault::Slow(pace)) => limits.pace = Some(*pace),
        _ => {}
    }
    server.write_all(&head.to_bytes()).await?;
    if !limits.body(client, server.get_mut(), head.length()).await? {
        client.get_ref().set_zero_linger()?;
        return Ok(false);
    }
    let Some(mut reply) = Head::read(server).await? else { return Ok(false) };
    match &fault {
        Some(Fault::ResetAnswer) => {
            client.get_ref().set_zero_linger()?;
            return Ok(false);
        }
        Some(Fault::WrongDigest) => {
            for (name, value) in &mut reply.headers {
                let at = value.find("sha256:").filter(|_| !name.eq_ignore_ascii_case("etag"));
                if let Some(at) = at {
                    value.replace_range(at + 7..at + 71, &"0".repeat(64));
                }
            }
        }
        Some(Fault::AddHeader(name, value)) => reply.headers.push(((*name).to_owned(), value.clone())),
        _ => {}
    }
    let status: u16 = reply.word(1).parse().unwrap_or(0);
    let bytes = reply.to_bytes();
    let has_body = head.word(0) != "HEAD" && status != 204 && status != 304 && reply.length() != Length::Bytes(0);
    if matches!(fault, Some(Fault::Truncate)) && !has_body {
        pending.answered(0);
        client.write_all(&bytes[..bytes.len() / 2]).await?;
        return Ok(false);
    }
    pending.answered(status);
    client.write_all(&bytes).await?;
    if has_body {
        let mut length = reply.length();
        let cut = matches!(fault, Some(Fault::Truncate));
        if let (true, Length::Bytes(bytes)) = (cut, &mut length) {
            *bytes /= 2;
        }
        copy_body(server, client.get_mut(), length).await?;
        if cut {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A request that goes into the log before the client can know of its answer, and in any case.
struct Pending<'a> {
    shared: &'a Shared,
    exchange: Option<Exchange>,
    body: u64,
}

impl Pending<'_> {
    fn answered(&mut self, status: u16) {
        if let Some(exchange) = self.exchange.take() {
            let exchange = Exchange { status, body: self.body, ..exchange };
            self.shared.log.lock().expect("the log").push(exchange);
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.answered(0);
    }
}

struct Limits<'a, 'b> {
    pending: &'a mut Pending<'b>,
    reset: Option<u64>,
    stall: Option<u64>,
    pace: Option<u64>,
}

impl Limits<'_, '_> {
    /// Passes a request's body, counted. False when a limit was reached.
    async fn body(
        &mut self,
        from: &mut BufReader<TcpStream>,
        to: &mut (impl AsyncWrite + Unpin),
        length: Length,
    ) -> io::Result<bool> {
        let Length::Bytes(mut left) = length else {
            copy_body(from, to, length).await?;
            return Ok(true);
        };
        let mut buffer = vec![0; 64 << 10];
        loop {
            if self.reset.is_some_and(|limit| self.pending.body >= limit) {
                return Ok(false);
            }
            if self.stall.is_some_and(|limit| self.pending.body >= limit) {
                // The other side gives up, or the test ends.
                tokio::time::sleep(Duration::from_secs(3600)).await;
                return Ok(false);
            }
            if left == 0 {
                return Ok(true);
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let most = self.pace.map_or(most, |pace| most.min(usize::try_from(pace / 20).unwrap_or(1).max(1)));
            let n = from.read(&mut buffer[..most]).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.pending.body += n as u64;
            self.pending.shared.received.fetch_add(n as u64, Ordering::SeqCst);
            left -= n as u64;
            to.write_all(&buffer[..n]).await?;
            if self.pace.is_some() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Passes a body as it is.
async fn copy_body(
    from: &mut BufReader<TcpStream>,
    to: &mut (impl AsyncWrite + Unpin),
    length: Length,
) -> io::Result<()> {
    match length {
        Length::Bytes(bytes) => {
            tokio::io::copy(&mut from.take(bytes), to).await?;
        }
        Length::Chunked => loop {
            let mut line = String::new();
            from.read_line(&mut line).await?;
            to.write_all(line.as_bytes()).await?;
            let size = line.split(';').next().and_then(|size| u64::from_str_radix(size.trim(), 16).ok());
            let size = size.ok_or(io::ErrorKind::InvalidData)?;
            // The chunk and its line break.
            tokio::io::copy(&mut from.take(size + 2), to).await?;
            if size == 0 {
                break;
            }
        },
    }
    to.flush().await
}
