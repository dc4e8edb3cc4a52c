//! A port of this machine that leads to a pod, through the API server.
//!
//! Each connection looks for a pod of its own, so that the forward outlives pods and restarts of the
//! API server. A pod that refuses the connection is replaced by another as long as nothing can have
//! reached it: what the client has sent until then is kept and sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, Portforwarder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};

use super::job::JOB;
use super::target::{self, SELECTOR, Target};
use super::{Cluster, PORT, call, failure};

/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How long a connection waits for a pod that takes it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks for such a pod.
const PAUSE: Duration = Duration::from_millis(500);
/// How much of a request is kept until the pod answers, in bytes.
const KEPT: usize = 64 << 10;
/// How long the pod may be silent once the client has sent all it will. A client that has gone
/// looks the same as one that waits for its answer.
const LINGER: Duration = Duration::from_secs(60);
/// How long a client may take to close its side.
const CLOSING: Duration = Duration::from_secs(2);
/// How much is read at once, in bytes.
const CHUNK: usize = 64 << 10;

/// A forwarded port. Ends, with all its connections, when dropped.
pub struct Forward {
    port: u16,
    accepting: JoinHandle<()>,
}

impl Forward {
    /// Takes connections on 127.0.0.1, on `port` or a free one, and pipes them to a pod of `target`.
    ///
    /// # Errors
    /// `Check` when no pod is ready now, `Machine` for a port that is taken; `Forbidden`, `Auth` or
    /// `Remote` when the API server does not say which pods there are, or does not lead to them.
    pub async fn start(run: &Run, cluster: &Cluster, target: Target, port: Option<u16>) -> Result<Self> {
        Self::to(run, cluster, target, PORT, port).await
    }

    /// The same to another port of the pod than the server's.
    ///
    /// # Errors
    /// As [`Forward::start`].
    pub async fn to(run: &Run, cluster: &Cluster, target: Target, of_pod: u16, port: Option<u16>) -> Result<Self> {
        Self::through(Pool::new(run, cluster, target, SELECTOR.to_owned(), of_pod), port).await
    }

    /// The same on a free port, to a port of a Job's pod. A pod that has no probe is ready once it runs.
    ///
    /// # Errors
    /// As [`Forward::start`].
    pub async fn to_job(run: &Run, cluster: &Cluster, job: &str, pod_port: u16) -> Result<Self> {
        Self::through(Pool::new(run, cluster, Target::Newest, format!("{JOB}={job}"), pod_port), None).await
    }

    async fn through(pool: Pool, port: Option<u16>) -> Result<Self> {
        // Rights are missing now or never.
        drop(pool.open().await?);
        let address = (Ipv4Addr::LOCALHOST, port.unwrap_or(0));
        let listener = TcpListener::bind(address).await.on_machine(|| format!("cannot listen on {address:?}"));
        let listener = listener.map_err(|error| match port {
            Some(_) => error.hint("name another port, or none to get a free one"),
            None => error,
        })?;
        let port = listener.local_addr().on_machine(|| "cannot read the address of a listener")?.port();
        let accepting = tokio::spawn(accept(listener, Arc::new(pool)));
        Ok(Self { port, accepting })
    }

    /// Where it listens.
    pub fn url(&self) -> Url {
        let mut url = Url::parse("http://127.0.0.1").expect("a valid URL");
        url.set_port(Some(self.port)).expect("http URLs have ports");
        url
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, pool: Arc<Pool>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => drop(connections.spawn(serve(client, pool.clone()))),
                // Too many open files; it may pass.
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
}

/// One connection to its end.
async fn serve(mut client: TcpStream, pool: Arc<Pool>) {
    let deadline = Instant::now() + PATIENCE;
    let kept = Kept::default();
    let mut told = false;
    // Small answers must not wait for more; a system that cannot promise it is only slower.
    let _ = client.set_nodelay(true);
    loop {
        let error = match pool.open().await {
            Ok(opened) => match pipe(&mut client, opened, &kept).await {
                Ended::Whole => return finish(client).await,
                Ended::Refused(why) => Error::new(Kind::Remote, "the pod does not take the connection").source(why),
            },
            Err(error) => error,
        };
        let why = error.lines().join(": ");
        if Instant::now() >= deadline || matches!(error.kind(), Kind::Auth | Kind::Forbidden) {
            pool.run.ui.warn(format!("a connection is given up: {why}"));
            // Whoever asks knows HTTP; an empty answer would say nothing.
            let head = "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nconnection: close\r\n";
            let answer = format!("{head}content-length: {}\r\n\r\n{why}", why.len());
            let _ = client.write_all(answer.as_bytes()).await;
            return finish(client).await;
        }
        if !told {
            pool.run.ui.step("Waiting", format!("for a pod: {why}"));
            told = true;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Closes a connection so that the client can read all of the answer: closing it with something
/// unread would throw away what the client has not read yet.
async fn finish(mut client: TcpStream) {
    let rest = async {
        client.shutdown().await?;
        let mut buffer = vec![0; CHUNK];
        while client.read(&mut buffer).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(CLOSING, rest).await;
}

/// The pods to choose from.
struct Pool {
    run: Run,
    cluster: Cluster,
    /// Through a client that waits for silent pods.
    pods: Api<Pod>,
    target: Target,
    /// Which pods there are to choose from.
    selector: String,
    /// The port in them.
    pod_port: u16,
    last: Mutex<Option<String>>,
}

impl Pool {
    fn new(run: &Run, cluster: &Cluster, target: Target, selector: String, pod_port: u16) -> Self {
        Self {
            run: run.clone(),
            cluster: cluster.clone(),
            pods: Api::namespaced(cluster.streams.clone(), &cluster.namespace),
            target,
            selector,
            pod_port,
            last: Mutex::default(),
        }
    }

    /// A connection to the best pod that lets itself be reached now.
    async fn open(&self) -> Result<Opened> {
        let candidates = self.candidates().await?.map_err(|why| {
            let message = format!("nothing in namespace {} can be talked to", self.cluster.namespace);
            Error::new(Kind::Check, message).hint("`cargo xtask status` shows what runs").source(why)
        })?;
        let mut refused = None;
        for pod in candidates {
            let doing = format!("forward a port to pod {pod}");
            match call::once(QUESTION, self.pods.portforward(&pod, &[self.pod_port])).await {
                Ok(forwarder) => {
                    self.announce(&pod);
                    return Ok(Opened { forwarder, port: self.pod_port });
                }
                Err(error) => refused = Some(failure::explain(&self.cluster, &doing, error)),
            }
        }
        Err(refused.unwrap_or_else(|| Error::new(Kind::Internal, "no pod was chosen, and no reason given")))
    }

    /// The names of the pods to try, the best first, or why there are none.
    async fn candidates(&self) -> Result<Result<Vec<String>, String>> {
        let pods = self.list::<Pod>("list the pods").await?;
        let hashes: BTreeSet<_> = pods.iter().filter_map(target::template_hash).collect();
        let revisions = match self.target == Target::Newest && hashes.len() > 1 {
            true => target::revisions(&self.list::<ReplicaSet>("list the ReplicaSets").await?),
            false => BTreeMap::new(),
        };
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let chosen = target::choose(&pods, &revisions, &self.target, last.as_deref());
        Ok(chosen.map(|pods| pods.iter().map(|pod| pod.name_any()).collect()))
    }

    async fn list<K>(&self, doing: &str) -> Result<Vec<K>>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
        K::DynamicType: Default,
    {
        let api = self.cluster.api::<K>();
        let params = ListParams::default().labels(&self.selector);
        let listed = call::once(QUESTION, api.list(&params)).await;
        listed.map(|list| list.items).map_err(|error| failure::explain(&self.cluster, doing, error))
    }

    /// Says which pod is talked to when it is not the one before.
    fn announce(&self, pod: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(pod) {
            self.run.ui.step("Forwarding", format!("to pod {pod}"));
            *last = Some(pod.to_owned());
        }
    }
}

/// A connection to a pod; kube's own task ends with it.
struct Opened {
    forwarder: Portforwarder,
    port: u16,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.forwarder.abort();
    }
}

/// How a connection ended.
enum Ended {
    /// It is over, one way or another.
    Whole,
    /// The pod did not take it, and all that the client has sent is kept.
    Refused(String),
}

/// What the client has sent, as long as it may have to be sent again.
#[derive(Default)]
struct Kept(Mutex<Option<Vec<u8>>>);

impl Kept {
    fn new_bytes(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get_or_insert_default();
        // One byte too many marks what cannot be sent again.
        let room = (KEPT + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// All of it; `None` when it was too much to keep.
    fn whole(&self) -> Option<Vec<u8>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(kept.clone().unwrap_or_default()).filter(|bytes| bytes.len() <= KEPT)
    }
}

/// Copies in both directions until the pod has said all, the client is gone, or the port-forward
/// breaks. The end of what the client sends is not passed on: kube would close both directions.
async fn pipe(client: &mut TcpStream, mut opened: Opened, kept: &Kept) -> Ended {
    let (Some(stream), Some(error)) =
        (opened.forwarder.take_stream(opened.port), opened.forwarder.take_error(opened.port))
    else {
        return Ended::Whole;
    };
    let (mut from_pod, mut to_pod) = tokio::io::split(stream);
    let (mut from_client, mut to_client) = client.split();
    let answered = AtomicU64::new(0);
    let again = kept.whole().unwrap_or_default();
    let up = async {
        to_pod.write_all(&again).await?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = from_client.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, io::Error>(());
            }
            if answered.load(Ordering::Relaxed) == 0 {
                kept.new_bytes(&buffer[..n]);
            }
            to_pod.write_all(&buffer[..n]).await?;
        }
    };
    let down = async {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = from_pod.read(&mut buffer).await?;
            if n == 0 {
                return Ok::<_, io::Error>(());
            }
            answered.fetch_add(n as u64, Ordering::Relaxed);
            to_client.write_all(&buffer[..n]).await?;
        }
    };
    tokio::pin!(up, down, error);
    let mut silence = None;
    let mut complaint = None;
    let mut complaining = true;
    loop {
        let heard = answered.load(Ordering::Relaxed);
        tokio::select! {
            biased;
            text = &mut error, if complaining => {
                complaining = false;
                complaint = text;
                if complaint.is_some() {
                    break;
                }
            }
            _ = &mut down => break,
            _ = &mut up, if silence.is_none() => silence = Some(heard),
            () = tokio::time::sleep(LINGER), if silence.is_some() => {
                let now = answered.load(Ordering::Relaxed);
                if silence == Some(now) {
                    break;
                }
                silence = Some(now);
            }
        }
    }
    if answered.load(Ordering::Relaxed) > 0 {
        return Ended::Whole;
    }
    if complaining {
        // What went wrong may come after the end of the data.
        complaint = timeout(PAUSE, &mut error).await.ok().flatten();
    }
    match complaint {
        Some(text) if is_refusal(&text) && kept.whole().is_some() => Ended::Refused(text.trim().to_owned()),
        _ => Ended::Whole,
    }
}

/// Whether the pod's port did not take the connection, so that nothing of it can have arrived:
/// containerd and CRI-O say what `connect` said, others what socat said.
fn is_refusal(text: &str) -> bool {
    text.to_ascii_lowercase().contains("connection refused")
}
