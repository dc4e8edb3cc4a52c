//! Google's own host names, for clients that know no other: an HTTP proxy that answers itself.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::core::Core;
use super::server;
use crate::http::{Head, answer};

/// The service at a host, if its name differs.
const HOSTS: &[(&str, &str)] = &[("sqladmin", "sql"), ("www", "storage")];

/// The service at one of Google's hosts.
pub(crate) fn service(host: &str) -> Option<&str> {
    let name = host.strip_suffix(".googleapis.com")?;
    Some(HOSTS.iter().find(|(found, _)| *found == name).map_or(name, |(_, service)| service))
}

/// Answers `CONNECT HOST:443` in the place of the host (RFC 9110, section 9.3.6).
pub(crate) async fn serve(stream: TcpStream, core: &Arc<Core>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let Some(head) = Head::read(&mut stream).await? else { return Ok(()) };
    let host = head.word(1).split(':').next().unwrap_or_default().to_owned();
    if service(&host).is_none() {
        // Nobody else is to be called.
        return stream.write_all(&answer(403, &[], "only googleapis.com is here")).await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    let key = core.authority.server(&host, &[&host]);
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    server::connection(stream, core, None, Some(&host)).await
}
