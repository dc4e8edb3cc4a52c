//! Counts what a client sends to a registry: a proxy that passes all bytes unchanged and reads of
//! each HTTP/1.1 request (RFC 9112) only where its body begins and ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::error::{Context as _, Kind, Result};

/// A longer head is no registry client's.
const HEAD_LIMIT: usize = 1 << 16;

/// A running proxy; ends when dropped.
pub struct Counter {
    address: SocketAddr,
    bodies: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Counter {
    /// Listens on a free loopback port in front of `upstream`.
    pub async fn start(upstream: SocketAddr) -> Result<Self> {
        let listener =
            TcpListener::bind("127.0.0.1:0").await.context(Kind::Machine, || "cannot open a loopback port")?;
        let address = listener.local_addr().context(Kind::Machine, || "a loopback port has no address")?;
        let bodies = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bodies);
        let task = tokio::spawn(async move {
            // Dropping the set, with this task, ends all connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                connections.spawn(async move {
                    // A connection that breaks shows in the client's own exit status.
                    let _ = connection(client, upstream, &counted).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, bodies, task })
    }

    /// Host and port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes of request bodies since the last call.
    pub fn take(&self) -> u64 {
        self.bodies.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, counted: &AtomicU64) -> io::Result<()> {
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, mut to_client), (mut from_server, mut to_server)) = (client.into_split(), server.into_split());
    let requests = async {
        requests(&mut BufReader::with_capacity(1 << 17, from_client), &mut to_server, counted).await?;
        to_server.shutdown().await
    };
    let answers = async {
        tokio::io::copy(&mut from_server, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(requests, answers).map(drop)
}

/// Passes requests until the client ends the connection.
async fn requests(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counted: &AtomicU64,
) -> io::Result<()> {
    loop {
        // A client that tries TLS first must get the registry's own refusal, at once.
        if from.fill_buf().await?.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            return tokio::io::copy_buf(from, to).await.map(drop);
        }
        let mut head = Vec::new();
        while from.read_until(b'\n', &mut head).await? > 0 && !head.ends_with(b"\r\n\r\n") {
            if head.len() > HEAD_LIMIT {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if head.is_empty() {
            return Ok(());
        }
        to.write_all(&head).await?;
        match body(&head) {
            Body::Bytes(length) => pass(from, to, length, counted).await?,
            Body::Chunked => chunks(from, to, counted).await?,
        }
        to.flush().await?;
    }
}

/// How a request tells its body's length (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Bytes(u64),
    Chunked,
}

fn body(head: &[u8]) -> Body {
    let head = String::from_utf8_lossy(head);
    let field = |wanted: &str| {
        let mut lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_ascii_lowercase())
    };
    if field("transfer-encoding").is_some_and(|value| value.ends_with("chunked")) {
        return Body::Chunked;
    }
    Body::Bytes(field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0))
}

async fn pass(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    length: u64,
    counted: &AtomicU64,
) -> io::Result<()> {
    let mut left = length;
    while left > 0 {
        let bytes = from.fill_buf().await?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        to.write_all(&bytes[..now]).await?;
        from.consume(now);
        counted.fetch_add(now as u64, Ordering::SeqCst);
        left -= now as u64;
    }
    Ok(())
}

/// Passes a chunked body (RFC 9112, section 7.1); only the data counts.
async fn chunks(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    counted: &AtomicU64,
) -> io::Result<()> {
    loop {
        let line = line(from, to).await?;
        let text = String::from_utf8_lossy(&line);
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if size == 0 {
            // Trailers end with an empty line.
            while self::line(from, to).await? != b"\r\n" {}
            return Ok(());
        }
        pass(from, to, size, counted).await?;
        self::line(from, to).await?;
    }
}

async fn line(from: &mut (impl AsyncBufRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    if from.read_until(b'\n', &mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&line).await?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_counted_and_nothing_is_changed() {
        let check = async |sent: &str, expected: u64| {
            let (counted, mut out) = (AtomicU64::new(0), Vec::new());
            requests(&mut BufReader::with_capacity(7, sent.as_bytes()), &mut out, &counted).await.unwrap();
            assert_eq!((String::from_utf8(out).unwrap().as_str(), counted.into_inner()), (sent, expected));
        };
        check("", 0).await;
        check("HEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", 0).await;
        check("PUT /a HTTP/1.1\r\ncontent-length: 5\r\n\r\n12345", 5).await;
        check("PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\n12GET /b HTTP/1.1\r\n\r\n", 2).await;
        let chunked = "PATCH /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        check(&format!("{chunked}3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n"), 13).await;
        check(
            &format!("{chunked}1\r\na\r\n0\r\nTrailer: 1\r\n\r\nPUT /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd"),
            5,
        )
        .await;
    }

    #[tokio::test]
    async fn what_is_not_http_is_passed_at_once() {
        let (mut client, far) = tokio::io::duplex(1 << 10);
        let (mut server, to) = tokio::io::duplex(1 << 10);
        let passing = tokio::spawn(async move {
            let (mut far, mut to) = (BufReader::new(far), to);
            requests(&mut far, &mut to, &AtomicU64::new(0)).await
        });
        // The start of a TLS ClientHello, of a client that then waits for an answer.
        let hello = [0x16, 0x03, 0x01, 0x00, 0xc8];
        client.write_all(&hello).await.unwrap();
        let mut passed = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut passed).await.unwrap();
        assert_eq!(passed, hello);
        drop(client);
        passing.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_body_that_ends_early_is_an_error() {
        for sent in [
            "PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n123",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            "PUT /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab",
        ] {
            let counted = AtomicU64::new(0);
            assert!(requests(&mut sent.as_bytes(), &mut Vec::new(), &counted).await.is_err(), "{sent}");
        }
    }
}
