//! The TLS end of Cloud SQL: connectors dial it with certificates that were made here, and it
//! speaks to the real PostgreSQL.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::config::Host;
use tokio_rustls::TlsAcceptor;

use super::call::Principal;
use super::core::Core;
use super::postgres;
use super::sql::INSTANCES;
use super::sql_users;
use super::state::Session;

/// Codes in place of a protocol version (PostgreSQL, "Message Formats").
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The server's certificate, by the name that the client asks for.
#[derive(Debug)]
struct Resolver(Arc<Core>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().unwrap_or_default().to_owned();
        let all = self.0.state().list(INSTANCES, "");
        // Connectors that name no instance get the newest.
        let found = all.iter().find(|instance| instance["dnsName"] == asked);
        let found = found.or_else(|| all.iter().max_by_key(|instance| instance["etag"].to_string()))?;
        let name = format!("{}:{}", found["project"].as_str()?, found["name"].as_str()?);
        Some(self.0.authority.server(&name, &[found["dnsName"].as_str()?]))
    }
}

/// Serves connections for ever.
pub(crate) async fn accept(listener: TcpListener, core: Arc<Core>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(core.authority.der()).expect("an authority's certificate");
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring knows TLS 1.3")
        .with_client_cert_verifier(verifier.expect("an authority"))
        .with_cert_resolver(Arc::new(Resolver(Arc::clone(&core))));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let (core, acceptor) = (Arc::clone(&core), acceptor.clone());
        tokio::spawn(async move {
            // A connection that ends early is the client's business.
            let _ = serve(stream, &acceptor, &core).await;
        });
    }
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, core: &Core) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut client = acceptor.accept(stream).await?;
    let certificate =
        client.get_ref().1.peer_certificates().and_then(<[_]>::first).map(|der| Sha256::digest(der).to_vec());
    let session = certificate.and_then(|digest| core.state().sessions.get(&digest).cloned());
    let Some(session) = session else {
        return refuse(&mut client, "28000", "the certificate was not made for this instance").await;
    };
    let startup = loop {
        let packet = packet(&mut client).await?;
        match packet.code {
            // Whatever is inside the tunnel is encrypted already.
            SSL_REQUEST | GSS_REQUEST => client.write_all(b"N").await?,
            _ => break packet,
        }
    };
    let user = startup.parameter("user");
    let is_account = core
        .state()
        .get(super::sql::USERS, &format!("projects/{}/instances/{}/users/{user}", session.project, session.instance))
        .is_some_and(|found| found["type"] == sql_users::ACCOUNT);
    let Some(mut server) = upstream(core).await? else {
        return refuse(&mut client, "57P03", "there is no PostgreSQL behind this instance").await;
    };
    if is_account && startup.code != CANCEL_REQUEST {
        if !may_login(&mut client, core, &session, &user).await? {
            let message = format!("Cloud SQL IAM service account authentication failed for user \"{user}\"");
            return refuse(&mut client, "28P01", &message).await;
        }
        server.write_all(&startup.bytes).await?;
        let password = core.state().role_passwords.get(&user).cloned().unwrap_or_default();
        log_in(&mut server, &password).await?;
        client.write_all(b"R\0\0\0\x08\0\0\0\0").await?;
    } else {
        server.write_all(&startup.bytes).await?;
    }
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

async fn upstream(core: &Core) -> io::Result<Option<TcpStream>> {
    let Some(config) = postgres::config(core) else { return Ok(None) };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let Some(Host::Tcp(host)) = config.get_hosts().first() else { return Ok(None) };
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    stream.set_nodelay(true)?;
    Ok(Some(stream))
}

/// Whether a service account may log in: by the token in its certificate, else by one in place of a password.
async fn may_login(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    core: &Core,
    session: &Session,
    user: &str,
) -> io::Result<bool> {
    let principal = match session.login.clone() {
        Some(principal) => Some(principal),
        None => {
            client.write_all(b"R\0\0\0\x08\0\0\0\x03").await?;
            let (kind, body) = message(client).await?;
            let token = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
            if kind != b'p' || token.is_empty() {
                return Ok(false);
            }
            core.state().principal(&token, &core.options.owner)
        }
    };
    let instance = format!("projects/{}/instances/{}", session.project, session.instance);
    Ok(match principal {
        Some(principal @ Principal::Account(_)) => {
            principal.email() == format!("{user}.gserviceaccount.com")
                && (!core.options.enforce || core.state().holds(&principal, "cloudsql.instances.login", &instance))
        }
        // Nobody knows whose token it is; where policies decide, that is nobody's.
        Some(_) => !core.options.enforce,
        None => false,
    })
}

/// The first message of a connection.
struct Startup {
    code: u32,
    bytes: Vec<u8>,
}

impl Startup {
    fn parameter(&self, wanted: &str) -> String {
        let mut texts = self.bytes.get(8..).unwrap_or_default().split(|byte| *byte == 0);
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            if name == wanted.as_bytes() {
                return String::from_utf8_lossy(value).into_owned();
            }
        }
        String::new()
    }
}

async fn packet(client: &mut (impl AsyncRead + Unpin)) -> io::Result<Startup> {
    let length = client.read_u32().await?;
    let size = usize::try_from(length).unwrap_or(0);
    if !(8..=10_000).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.resize(size, 0);
    client.read_exact(&mut bytes[4..]).await?;
    let code = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
    Ok(Startup { code, bytes })
}

/// A message after the first.
async fn message(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(u8, Bytes)> {
    let kind = stream.read_u8().await?;
    let size = usize::try_from(stream.read_u32().await?).unwrap_or(0);
    if !(4..=100_000).contains(&size) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; size - 4];
    stream.read_exact(&mut body).await?;
    Ok((kind, body.into()))
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), body: &[u8]) -> io::Result<()> {
    let size = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    let mut bytes = vec![b'p'];
    bytes.extend(size.to_be_bytes());
    bytes.extend(body);
    stream.write_all(&bytes).await
}

/// Answers PostgreSQL's question for a password.
async fn log_in(server: &mut TcpStream, password: &str) -> io::Result<()> {
    let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    loop {
        let (kind, body) = message(server).await?;
        let code = body.get(..4).map_or(u32::MAX, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]));
        let rest = body.get(4..).unwrap_or_default();
        match (kind, code) {
            (b'R', 0) => return Ok(()),
            (b'R', 3) => send(server, &[password.as_bytes(), b"\0"].concat()).await?,
            (b'R', 10) => {
                let first = scram.message();
                let size = u32::try_from(first.len()).map_err(io::Error::other)?.to_be_bytes();
                send(server, &[b"SCRAM-SHA-256\0", &size[..], first].concat()).await?;
            }
            (b'R', 11) => {
                scram.update(rest)?;
                send(server, scram.message()).await?;
            }
            (b'R', 12) => scram.finish(rest)?,
            _ => return Err(io::Error::other("PostgreSQL refuses the user")),
        }
    }
}

/// Ends a connection with an error as PostgreSQL writes it.
async fn refuse(client: &mut (impl AsyncWrite + Unpin), code: &str, text: &str) -> io::Result<()> {
    let fields = format!("SFATAL\0VFATAL\0C{code}\0M{text}\0\0");
    let size = u32::try_from(fields.len() + 4).map_err(io::Error::other)?;
    let bytes = [b"E", &size.to_be_bytes()[..], fields.as_bytes()].concat();
    client.write_all(&bytes).await?;
    client.shutdown().await
}
