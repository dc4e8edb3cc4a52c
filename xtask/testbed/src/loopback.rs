//! A server of the testbed: a free port of 127.0.0.1, or of another address, and a runtime of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::{TcpListener, TcpStream};

/// A running server; dropping it ends all connections.
#[derive(Debug)]
pub(crate) struct Loopback {
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Loopback {
    /// Serves each connection with `handle`, side by side.
    pub(crate) fn serve<F, C>(handle: F) -> Self
    where
        F: Fn(TcpStream) -> C + Send + 'static,
        C: Future<Output: Send> + Send + 'static,
    {
        Self::serve_at(Ipv4Addr::LOCALHOST.into(), handle)
    }

    /// The same at another address of this machine.
    pub(crate) fn serve_at<F, C>(address: IpAddr, handle: F) -> Self
    where
        F: Fn(TcpStream) -> C + Send + 'static,
        C: Future<Output: Send> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("an async runtime");
        let listener = std::net::TcpListener::bind((address, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("a bound address");
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).expect("a listening socket");
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(handle(client));
            }
        });
        Self { address, runtime: Some(runtime) }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
