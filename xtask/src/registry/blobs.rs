//! Blobs: which the registry lacks, and how they get there.
//!
//! `oci-client`'s push sends every layer without asking whether it is there, tries nothing again,
//! and treats the legal answer 202 to a mount as an error. So uploads are done here: one POST
//! (with a mount, where another repository may hold the blob) and one PUT with the whole blob.
//! Never in chunks: Artifact Registry refuses PATCH.

use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use mlflow_image::{Digest, HashWriter};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::error::{Context as _, Error, Kind, Result};
use crate::ui::Bar;

use super::Client;
use super::auth::Granted;
use super::retry::Fault;

/// Questions that are asked at once.
const PARALLEL_HEADS: usize = 8;
/// How much of a file is read at once.
const CHUNK: usize = 256 << 10;
/// How often a running upload is looked at.
const TICK: Duration = Duration::from_millis(200);
/// How long a registry may take to cancel an upload.
const CANCEL: Duration = Duration::from_secs(5);
/// A registry may take this many stall times to check and store a blob that it has received.
const COMMIT: u32 = 4;

/// A blob by name and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

impl Client {
    /// Those of `blobs` that the repository lacks, each once, in the order given. A blob that
    /// another repository of the registry holds is mounted and not missing.
    pub async fn missing_blobs(&self, blobs: &[Blob]) -> Result<Vec<Blob>> {
        let mut unique: Vec<Blob> = Vec::new();
        for blob in blobs {
            if !unique.iter().any(|seen| seen.digest == blob.digest) {
                unique.push(*blob);
            }
        }
        let bar = self.transport.run().ui.count("Comparing layers with the registry's", unique.len() as u64);
        let asked = futures::stream::iter(unique.into_iter().map(|blob| {
            let bar = bar.clone();
            async move {
                let there = self.has_blob(&blob).await? || self.mount(&blob).await?;
                bar.inc(1);
                Ok::<_, Error>((!there).then_some(blob))
            }
        }));
        let found: Vec<Option<Blob>> = asked.buffered(PARALLEL_HEADS).try_collect().await?;
        self.mounts.save();
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether the repository has the blob.
    pub async fn has_blob(&self, blob: &Blob) -> Result<bool> {
        let doing = format!("look for layer {}", blob.digest.short());
        let path = format!("blobs/{}", blob.digest);
        let Some(answer) = self.transport.ask(&doing, &path, &[]).await? else { return Ok(false) };
        check_digest(&answer, &blob.digest, self.transport.reference().registry(), &doing)?;
        let size = answer.header(CONTENT_LENGTH.as_str()).and_then(|size| size.parse::<u64>().ok());
        if size.is_some_and(|size| size != blob.size) {
            // Half a blob, or no registry at all.
            return Ok(false);
        }
        self.mounts.remember(&blob.digest);
        Ok(true)
    }

    /// Tries to mount the blob from where this machine pushed it before.
    async fn mount(&self, blob: &Blob) -> Result<bool> {
        let Some(from) = self.mounts.candidate(&blob.digest) else { return Ok(false) };
        let doing = format!("mount layer {} from {from}", blob.digest.short());
        let mut url = self.transport.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &blob.digest.to_string()).append_pair("from", &from);
        let mut scopes = self.transport.scopes();
        scopes.push(format!("repository:{from}:pull"));
        let answer = self.transport.retry(&doing, &scopes, |granted| self.post(&doing, &url, granted)).await;
        match answer {
            Ok(answer) if answer.status == 201 => {
                self.mounts.remember(&blob.digest);
                Ok(true)
            }
            // Not mounted (a legal 202), or not allowed to read there: an ordinary upload follows.
            // The session that a 202 opened is left to the registry, which expires it.
            Ok(_) => {
                self.mounts.forget(&blob.digest, &from);
                Ok(false)
            }
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Err(_) => {
                self.mounts.forget(&blob.digest, &from);
                Ok(false)
            }
        }
    }

    /// Asks whether the login may push, as a push asks: an upload is opened, and canceled at once
    /// (distribution-spec, "Pushing blobs"). Nothing is stored; a registry that cannot cancel lets the
    /// empty upload expire. A token alone does not tell: services grant less than is asked for.
    ///
    /// # Errors
    /// What a push would end in.
    pub async fn may_push(&self) -> Result<()> {
        let doing = "push";
        let (scopes, start) = (self.transport.scopes(), self.transport.url("blobs/uploads/")?);
        let opened = self.transport.retry(doing, &scopes, |granted| self.post(doing, &start, granted)).await?;
        let Some(location) = opened.header(LOCATION.as_str()) else { return Ok(()) };
        let Ok(url) = self.transport.location(doing, location) else { return Ok(()) };
        if let Ok(granted) = self.transport.auth().current(&scopes).await {
            let request = self.transport.request(Method::DELETE, url.clone()).timeout(CANCEL);
            // Whether it was canceled changes nothing for anyone.
            let _ = self.transport.send(doing, self.transport.authorize(request, &url, granted.as_ref())).await;
        }
        Ok(())
    }

    /// Uploads a file as the blob, whole, with retries. An attempt that failed is taken back from
    /// the bar; [`Client::sent_bytes`] counts it, because it was sent.
    pub async fn upload(&self, blob: &Blob, file: &Path, bar: &Bar) -> Result<()> {
        let doing = format!("push layer {} ({})", blob.digest.short(), crate::report::bytes(blob.size));
        let size = file.metadata().on_machine(|| format!("cannot read {}", file.display()))?.len();
        if size != blob.size {
            return Err(damaged(file, format!("it has {size} bytes, {} are expected", blob.size)));
        }
        let scopes = self.transport.scopes();
        let start = self.transport.url("blobs/uploads/")?;
        let mut first = true;
        let done = self
            .transport
            .retry(&doing, &scopes, |granted| {
                let ask_first = !std::mem::replace(&mut first, false);
                let (doing, start) = (&doing, &start);
                async move {
                    // The answer to an upload that arrived may have been lost on its way.
                    if ask_first && self.is_there(doing, blob, granted.as_ref()).await? {
                        bar.inc(blob.size);
                        return Ok(());
                    }
                    let session = self.post(doing, start, granted.clone()).await?;
                    let location = session.header(LOCATION.as_str()).ok_or_else(|| {
                        let registry = self.transport.reference().registry();
                        Error::new(
                            Kind::Remote,
                            format!("{registry} opens an upload without saying where: cannot {doing}"),
                        )
                    })?;
                    let mut url = self.transport.location(doing, location)?;
                    url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
                    self.put(doing, url, blob, file, granted, bar).await
                }
            })
            .await;
        if done.is_ok() {
            self.mounts.remember(&blob.digest);
        }
        done
    }

    async fn is_there(&self, doing: &str, blob: &Blob, granted: Option<&Granted>) -> Result<bool, Fault> {
        let url = self.transport.url(&format!("blobs/{}", blob.digest))?;
        let request = self.transport.request(Method::HEAD, url.clone()).timeout(self.transport.patience().stall);
        let answer = self.transport.send(doing, self.transport.authorize(request, &url, granted)).await?;
        Ok(self.transport.expect(doing, answer, &[200, 404, 500], granted).await?.status == 200)
    }

    async fn post(&self, doing: &str, url: &Url, granted: Option<Granted>) -> Result<super::http_client::Read, Fault> {
        let request = self.transport.request(Method::POST, url.clone()).header(CONTENT_LENGTH, 0);
        let request = self.transport.authorize(request, url, granted.as_ref());
        let answer = self.transport.send(doing, request.timeout(self.transport.patience().stall)).await?;
        self.transport.expect(doing, answer, &[201, 202], granted.as_ref()).await
    }

    async fn put(
        &self,
        doing: &str,
        url: Url,
        blob: &Blob,
        file: &Path,
        granted: Option<Granted>,
        bar: &Bar,
    ) -> Result<(), Fault> {
        let opened = tokio::fs::File::open(file).await.on_machine(|| format!("cannot read {}", file.display()))?;
        let progress = Arc::new(Progress { sent: AtomicU64::new(0), total: blob.size, trouble: Mutex::new(None) });
        let body = Body {
            reader: ReaderStream::with_capacity(opened, CHUNK),
            hash: Some(HashWriter::new(std::io::sink())),
            expected: *blob,
            file: file.display().to_string(),
            progress: Arc::clone(&progress),
            all: Arc::clone(&self.sent),
            bar: bar.clone(),
        };
        let request = self
            .transport
            .request(Method::PUT, url.clone())
            .header(CONTENT_LENGTH, blob.size)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(body));
        let request = self.transport.authorize(request, &url, granted.as_ref());
        let outcome = async {
            let answer = self.watch(doing, &progress, self.transport.send(doing, request)).await?;
            let answer = self.transport.expect(doing, answer, &[201], granted.as_ref()).await?;
            check_digest(&answer, &blob.digest, self.transport.reference().registry(), doing)?;
            Ok(())
        }
        .await;
        if outcome.is_err() {
            bar.dec(progress.sent.load(Ordering::Relaxed));
            // What went wrong with the file reaches the client as a broken body only.
            if let Some(trouble) = progress.trouble.lock().ok().and_then(|mut trouble| trouble.take()) {
                return Err(Fault::Fatal(trouble));
            }
        }
        outcome
    }

    /// Ends an upload that moves no byte.
    async fn watch<T>(
        &self,
        doing: &str,
        progress: &Progress,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let stall = self.transport.patience().stall;
        let mut work = std::pin::pin!(work);
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(TICK.min(stall)) => {}
            }
            let sent = progress.sent.load(Ordering::Relaxed);
            if sent != seen {
                (seen, since) = (sent, Instant::now());
            }
            let allowed = if sent == progress.total { stall * COMMIT } else { stall };
            if since.elapsed() >= allowed {
                let registry = self.transport.reference().registry();
                let message = format!("{registry} took nothing for {} s: cannot {doing}", allowed.as_secs());
                let error = Error::new(Kind::Remote, message)
                    .hint("check the network, then run the same command again: it carries on where this one stopped");
                return Err(Fault::Transient(error, None));
            }
        }
    }
}

/// What the registry says it stored must be what was sent. `Docker-Content-Digest` is optional.
pub(super) fn check_digest(
    answer: &super::http_client::Read,
    expected: &Digest,
    registry: &str,
    doing: &str,
) -> Result<()> {
    let said = answer.header("docker-content-digest").map(str::to_owned);
    let located = answer.header(LOCATION.as_str()).and_then(|location| {
        let at = location.rfind("sha256:")?;
        location.get(at..at + "sha256:".len() + 64).map(str::to_owned)
    });
    match said.into_iter().chain(located).find(|digest| *digest != expected.to_string()) {
        None => Ok(()),
        Some(other) => Err(wrong_digest(registry, &other, expected, doing)),
    }
}

/// The error of an answer that names other content.
pub(super) fn wrong_digest(registry: &str, found: &str, expected: &Digest, doing: &str) -> Error {
    let message = format!("{registry} answers with the digest {found} instead of {expected}: cannot {doing}");
    Error::new(Kind::Remote, message)
        .hint("something between here and the registry changes answers; try without the proxy, or another network")
}

fn damaged(file: &Path, why: String) -> Error {
    Error::new(Kind::Machine, format!("{} is damaged: {why}", file.display()))
        .hint("delete the file and run the same command again: it is made anew")
}

struct Progress {
    sent: AtomicU64,
    total: u64,
    trouble: Mutex<Option<Error>>,
}

/// A file on its way: counted, and hashed so that a damaged file is not taken for a bad network.
struct Body {
    reader: ReaderStream<tokio::fs::File>,
    hash: Option<HashWriter<std::io::Sink>>,
    expected: Blob,
    file: String,
    progress: Arc<Progress>,
    all: Arc<AtomicU64>,
    bar: Bar,
}

impl Body {
    fn fail(&self, error: Error) -> Poll<Option<std::io::Result<Bytes>>> {
        let shown = std::io::Error::other(error.to_string());
        if let Ok(mut trouble) = self.progress.trouble.lock() {
            *trouble = Some(error);
        }
        Poll::Ready(Some(Err(shown)))
    }
}

impl Stream for Body {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let chunk = match std::task::ready!(self.reader.poll_next_unpin(context)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => {
                let error = Error::new(Kind::Machine, format!("cannot read {}", self.file)).source(error);
                return self.fail(error);
            }
            Some(Ok(chunk)) => chunk,
        };
        let length = chunk.len() as u64;
        if let Some(hash) = &mut self.hash {
            use std::io::Write as _;
            // Writing to a sink does not fail.
            let _ = hash.write_all(&chunk);
        }
        let sent = self.progress.sent.load(Ordering::Relaxed) + length;
        if sent >= self.expected.size
            && let Some((digest, size, _)) = self.hash.take().map(HashWriter::finish)
            && (digest, size) != (self.expected.digest, self.expected.size)
        {
            // The last chunk is held back, so that the registry never stores it.
            return self.fail(damaged(Path::new(&self.file), format!("its content has the digest {digest}")));
        }
        self.progress.sent.store(sent, Ordering::Relaxed);
        self.all.fetch_add(length, Ordering::Relaxed);
        self.bar.inc(length);
        Poll::Ready(Some(Ok(chunk)))
    }
}
