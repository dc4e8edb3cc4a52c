//! HTTP: connections, the log, and calls that fail on purpose.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::call::{Call, Reply};
use super::control;
use super::core::Core;
use super::faults::{self, Fault};
use super::log::{self, Entry};
use super::options::Metadata;
use super::proxy;

/// Serves connections for ever. `place` is set for a metadata server of its own.
pub(crate) async fn accept(listener: TcpListener, core: Arc<Core>, place: Option<Metadata>) -> Infallible {
    let place = Arc::new(place);
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (core, place) = (Arc::clone(&core), Arc::clone(&place));
        tokio::spawn(async move {
            let mut first = [0; 8];
            // A connection that ends early is the client's business.
            let _ = match stream.peek(&mut first).await {
                Ok(8) if first == *b"CONNECT " => proxy::serve(stream, &core).await,
                _ => connection(stream, &core, place.as_ref().as_ref(), None).await,
            };
        });
    }
}

/// Serves a connection to its end. `host` is the one that the client thinks it speaks to.
pub(crate) async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    core: &Arc<Core>,
    place: Option<&Metadata>,
    host: Option<&str>,
) -> io::Result<()> {
    let service = service_fn(|request| answer(request, core, place, host));
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    served.map_err(io::Error::other)
}

/// Answers a request; an error closes the connection.
async fn answer(
    request: Request<Incoming>,
    core: &Arc<Core>,
    place: Option<&Metadata>,
    host: Option<&str>,
) -> io::Result<Response<Full<Bytes>>> {
    let begun = Instant::now();
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let path = head.uri.path();
    let target = host.and_then(proxy::service).map_or_else(|| path.to_owned(), |service| format!("/{service}{path}"));
    let mut call = Call::new(head.method, &target, &query, head.headers, body);
    if place.is_some() {
        // Whoever looks whether there is one asks for nothing in particular.
        "metadata".clone_into(&mut call.service);
    }
    if call.service == "_testbed" {
        return response(&control::serve(core, &call).unwrap_or_else(|failure| failure.to_reply()));
    }
    let fault = faults::take(&mut core.state().rules, &call, &query);
    if let Some(Fault::Operation(fault)) = &fault {
        call.operation = Some(fault.clone());
    }
    let kind = call.header("content-type").unwrap_or_default().to_owned();
    let writes = !matches!(call.method.as_str(), "GET" | "HEAD");
    let mut entry = Entry {
        method: call.method.to_string(),
        path: format!("/{}", call.path),
        query: log::query(&query),
        service: call.service.clone(),
        principal: String::new(),
        status: 0,
        broken: fault.is_some(),
        milliseconds: 0,
        body: if writes { log::body(&kind, &call.body) } else { None },
    };
    let identity = core.identify(&call);
    if let Ok(principal) = &identity {
        call.principal = principal.clone();
    }
    call.principal.email().clone_into(&mut entry.principal);
    let write = |mut entry: Entry, status: u16| {
        entry.status = status;
        entry.milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        core.state().log.push(entry);
    };
    match &fault {
        Some(Fault::Hang) => {
            write(entry, 0);
            return std::future::pending().await;
        }
        Some(Fault::Closed) => {
            write(entry, 0);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        _ => {}
    }
    let reply = match fault.as_ref().and_then(|fault| fault.failure(&call.service)) {
        Some(failure) => failure.to_reply(),
        None => {
            let outcome = match identity {
                Ok(_) => core.dispatch(&call, place).await,
                Err(failure) => Err(failure),
            };
            outcome.unwrap_or_else(|failure| failure.to_reply())
        }
    };
    if fault == Some(Fault::AnswerLost) {
        write(entry, 0);
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    // Before the client can know of the answer.
    write(entry, reply.status);
    response(&reply)
}

fn response(reply: &Reply) -> io::Result<Response<Full<Bytes>>> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in &reply.headers {
        response = response.header(*name, HeaderValue::from_str(value).map_err(io::Error::other)?);
    }
    response.body(Full::new(reply.body.clone())).map_err(io::Error::other)
}
