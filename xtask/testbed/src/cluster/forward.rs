//! The node's registries and its fake Google on the host's loopback: clients speak plain HTTP to
//! loopback only.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

use super::error::{Context as _, Result};
use super::options::Network;

/// Serves for as long as this process lives, on a thread of its own.
pub(crate) fn serve(network: &Network) -> Result<()> {
    let mut listeners = Vec::new();
    for port in network.forwarded() {
        let named = || format!("cannot listen on 127.0.0.1:{port}");
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).on_machine(named)?;
        listener.set_nonblocking(true).on_machine(named)?;
        listeners.push((listener, SocketAddr::from((network.node_ip(), port))));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.on_machine(|| "cannot start the async runtime")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            for (listener, target) in listeners {
                tokio::spawn(accept(listener, target));
            }
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

async fn accept(listener: std::net::TcpListener, target: SocketAddr) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return eprintln!("cannot listen for {target}: {error}"),
    };
    loop {
        match listener.accept().await {
            Ok((client, _)) => drop(tokio::spawn(forward(client, target))),
            // Out of file descriptors, most likely: some will be closed.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

async fn forward(mut client: TcpStream, target: SocketAddr) {
    // A registry that is down looks to the client like one that hangs up.
    let Ok(mut server) = TcpStream::connect(target).await else { return };
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}
