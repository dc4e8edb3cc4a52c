//! An HTTPS proxy (RFC 9110, section 9.3.6, CONNECT) that leads every host to one local server, so
//! that a program can talk to `europe-west1-docker.pkg.dev` and reach the testbed.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::TcpStream;

use crate::http::Head;
use crate::loopback::Loopback;

/// A running proxy, for `HTTPS_PROXY`.
#[derive(Debug)]
pub struct Tunnel {
    server: Loopback,
    hosts: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    /// A proxy that leads to `target`, whatever was asked for.
    pub fn start(target: SocketAddr) -> Self {
        let hosts = Arc::<Mutex<Vec<String>>>::default();
        let seen = Arc::clone(&hosts);
        let server = Loopback::serve(move |client| {
            let seen = Arc::clone(&seen);
            async move { drop(connect(client, target, &seen).await) }
        });
        Self { server, hosts }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// The hosts that were asked for, with ports.
    pub fn hosts(&self) -> Vec<String> {
        self.hosts.lock().expect("the hosts").clone()
    }
}

async fn connect(client: TcpStream, target: SocketAddr, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let Some(head) = Head::read(&mut client).await? else { return Ok(()) };
    if head.word(0) != "CONNECT" {
        return client.write_all(&crate::http::answer(405, &[], "")).await;
    }
    seen.lock().expect("the hosts").push(head.word(1).to_owned());
    let mut server = TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
