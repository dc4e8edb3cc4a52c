//! Downloads by digest into the cache: parallel, retried, verified before they get their name.
//!
//! A file of the cache is complete: it is written under a temporary name and renamed when size and
//! SHA-256 are right. Two runs that fetch the same file replace it by itself.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use mlflow_image::{Digest, HashWriter};
use url::Url;

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::registry::{Patience, retry_after};
use crate::report;
use crate::ui::Bar;

/// Files that are downloaded at the same time.
const PARALLEL: usize = 6;
/// How long connecting may take, TLS included.
const CONNECT: Duration = Duration::from_secs(15);
/// The most that is accepted where the size is not known before.
const LARGEST: u64 = 4 << 30;
/// What an interrupted download left behind is removed after this time.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A file to have.
#[derive(Clone, Debug)]
pub struct Item {
    /// What messages call it: a wheel's or package's file name.
    pub what: String,
    /// Where it may be (`http`, `https`, `file`), tried in this order.
    pub urls: Vec<Url>,
    /// Its digest.
    pub sha256: Digest,
    /// Bytes, where known.
    pub size: Option<u64>,
}

/// How downloads went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Bytes that came over the network.
    pub bytes: u64,
    /// The items, by index, that no server has (any more).
    pub gone: Vec<usize>,
}

/// How one attempt, or all attempts for one file, failed.
#[derive(Debug)]
enum Fault {
    /// The server has no such file.
    Gone,
    /// May pass: try again, no sooner than the server asked for.
    Transient(Error, Option<Duration>),
    /// This server will not do; another one may.
    Refused(Error),
    /// This machine fails; no server can help.
    Machine(Error),
}

/// Downloads over HTTP with one connection pool.
#[derive(Clone)]
pub struct Downloader {
    client: reqwest::Client,
    patience: Patience,
}

impl Downloader {
    /// Refuses to exist offline: `what` is what would have been downloaded.
    pub fn new(run: &Run, what: &str) -> Result<Self> {
        if run.offline {
            return Err(Error::new(Kind::Remote, format!("{what}: not in the cache, and this run is offline"))
                .hint("run the same command once without --offline"));
        }
        Self::with_patience(Patience { attempts: 5, ..Patience::default() })
    }

    fn with_patience(patience: Patience) -> Result<Self> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("mlflow-on-kubernetes/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .read_timeout(patience.stall)
            .build();
        let client = client.map_err(|error| {
            Error::new(Kind::Machine, "cannot set up TLS").source(error).hint("install ca-certificates")
        })?;
        Ok(Self { client, patience })
    }

    /// Fetches a file of unknown digest, such as a signed index; `None` when no server has it.
    pub async fn read(&self, run: &Run, what: &str, urls: &[Url], limit: u64) -> Result<Option<(Vec<u8>, Url)>> {
        for url in urls {
            let mut body = Vec::new();
            let bar = run.ui.bytes(format!("Fetching {what}"), 0);
            let fetched = tokio::select! {
                fetched = self.retried(what, url, limit, &bar, &mut body) => fetched,
                () = run.cancel.cancelled() => return Err(Run::interrupted()),
            };
            match fetched {
                Ok(_) => return Ok(Some((body, url.clone()))),
                Err(Fault::Gone) => {}
                Err(fault) => return Err(fault.into_error(what)),
            }
        }
        Ok(None)
    }

    /// Fetches what the cache lacks.
    pub async fn fetch(&self, run: &Run, cache: &Cache, items: &[Item]) -> Result<Fetched> {
        let folder = cache.dir("downloads")?;
        remove_stale(&folder);
        let total = items.iter().map(|item| item.size.unwrap_or(0)).sum();
        let label = match items {
            [item] => format!("Fetching {}", item.what),
            items => format!("Fetching {} files", items.len()),
        };
        let bar = run.ui.bytes(label, total);
        let mut downloads = futures::stream::iter(items.iter().enumerate())
            .map(|(at, item)| {
                let (bar, path) = (bar.clone(), folder.join(item.sha256.hex()));
                async move { (at, self.one(item, &path, &bar).await) }
            })
            .buffer_unordered(PARALLEL);
        let mut fetched = Fetched::default();
        loop {
            let next = tokio::select! {
                next = downloads.next() => next,
                () = run.cancel.cancelled() => return Err(Run::interrupted()),
            };
            match next {
                None => break,
                Some((_, Ok(bytes))) => fetched.bytes += bytes,
                Some((at, Err(Fault::Gone))) => fetched.gone.push(at),
                Some((at, Err(fault))) => return Err(fault.into_error(&items[at].what)),
            }
        }
        fetched.gone.sort_unstable();
        Ok(fetched)
    }

    /// Tries one place after the other. Tells the last refusal; that a file is gone only if no
    /// place said anything else.
    async fn one(&self, item: &Item, path: &Path, bar: &Bar) -> std::result::Result<u64, Fault> {
        let mut last = Fault::Gone;
        for url in &item.urls {
            match self.store(item, url, path, bar).await {
                Ok(bytes) => return Ok(bytes),
                Err(Fault::Machine(error)) => return Err(Fault::Machine(error)),
                Err(Fault::Gone) => {}
                Err(fault) => last = fault,
            }
        }
        Err(last)
    }

    async fn store(&self, item: &Item, url: &Url, path: &Path, bar: &Bar) -> std::result::Result<u64, Fault> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let named = || format!("cannot write {} into the cache", item.what);
        let mut file =
            tempfile::Builder::new().prefix(".part-").tempfile_in(folder).on_machine(named).map_err(Fault::Machine)?;
        let limit = item.size.unwrap_or(LARGEST);
        let (digest, bytes) = self.retried(&item.what, url, limit, bar, file.as_file_mut()).await?;
        if item.size.is_some_and(|size| size != bytes) || digest != item.sha256 {
            bar.dec(bytes);
            return Err(Fault::Refused(not_what_the_lock_says(item, url, digest, bytes)));
        }
        cache::set_default_mode(file.as_file(), path).map_err(Fault::Machine)?;
        file.persist(path).map_err(|error| error.error).on_machine(named).map_err(Fault::Machine)?;
        Ok(bytes)
    }

    /// Attempts with waits between them. `out` is emptied before each.
    async fn retried<W: Out>(
        &self,
        what: &str,
        url: &Url,
        limit: u64,
        bar: &Bar,
        out: &mut W,
    ) -> std::result::Result<(Digest, u64), Fault> {
        let began = Instant::now();
        for attempt in 1.. {
            let mut counted = 0;
            let done = self.attempt(what, url, limit, bar, &mut counted, out).await;
            let (error, asked) = match done {
                Err(Fault::Transient(error, asked)) => (error, asked),
                other => {
                    if other.is_err() {
                        bar.dec(counted);
                    }
                    return other;
                }
            };
            bar.dec(counted);
            match self.patience.wait(attempt, asked, began.elapsed(), rand::random()) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(Fault::Transient(error, asked)),
            }
            out.restart().on_machine(|| format!("cannot write {what}")).map_err(Fault::Machine)?;
        }
        unreachable!("attempts end with a wait of None")
    }

    async fn attempt(
        &self,
        what: &str,
        url: &Url,
        limit: u64,
        bar: &Bar,
        counted: &mut u64,
        out: &mut impl Out,
    ) -> std::result::Result<(Digest, u64), Fault> {
        let mut out = HashWriter::new(out);
        let mut write = |bytes: &[u8]| {
            *counted += bytes.len() as u64;
            bar.inc(bytes.len() as u64);
            if *counted > limit {
                let message = format!("{what} is larger than the {} it may have", report::bytes(limit));
                return Err(Fault::Refused(Error::new(Kind::Input, message).source(format!("from {}", shown(url)))));
            }
            out.write_all(bytes).on_machine(|| format!("cannot write {what} into the cache")).map_err(Fault::Machine)
        };
        if url.scheme() == "file" {
            let path = url.to_file_path().unwrap_or_else(|()| PathBuf::from(url.path()));
            match fs::read(&path) {
                Ok(bytes) => write(&bytes)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Fault::Gone),
                Err(error) => {
                    let error = Error::new(Kind::Machine, format!("cannot read {}", path.display())).source(error);
                    return Err(Fault::Refused(error));
                }
            }
        } else {
            let failed = |error: reqwest::Error| transport_fault(what, url, &error);
            let mut response = self.client.get(url.clone()).send().await.map_err(failed)?;
            if let Some(fault) = status_fault(what, url, &response) {
                return Err(fault);
            }
            while let Some(chunk) = response.chunk().await.map_err(failed)? {
                write(&chunk)?;
            }
        }
        let (digest, bytes, _) = out.finish();
        Ok((digest, bytes))
    }
}

/// Where bytes go, and can be taken back from.
trait Out: Write {
    fn restart(&mut self) -> io::Result<()>;
}

impl Out for Vec<u8> {
    fn restart(&mut self) -> io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Out for fs::File {
    fn restart(&mut self) -> io::Result<()> {
        use std::io::Seek as _;
        self.rewind()?;
        self.set_len(0)
    }
}

impl Fault {
    fn into_error(self, what: &str) -> Error {
        match self {
            Self::Gone => Error::new(Kind::Remote, format!("{what} is on no server")),
            Self::Transient(error, _) | Self::Refused(error) | Self::Machine(error) => error,
        }
    }
}

/// Scheme, host and port: what may be shown of a URL, which may hold a login.
fn shown(url: &Url) -> String {
    match url.scheme() {
        "file" => url.path().to_owned(),
        _ => url.origin().ascii_serialization(),
    }
}

fn status_fault(what: &str, url: &Url, response: &reqwest::Response) -> Option<Fault> {
    let status = response.status();
    let server = shown(url);
    let error = |kind| Error::new(kind, format!("{server} answers HTTP {} for {what}", status.as_u16()));
    match status.as_u16() {
        200 => None,
        404 | 410 => Some(Fault::Gone),
        401 | 403 | 407 => {
            Some(Fault::Refused(error(Kind::Auth).hint("check the login for this server, or your proxy")))
        }
        408 | 425 | 429 | 500..=599 => {
            let header = response.headers().get(http::header::RETRY_AFTER);
            let asked = header.and_then(|value| retry_after(value.to_str().ok()?, time::OffsetDateTime::now_utc()));
            Some(Fault::Transient(error(Kind::Remote).hint("try again later"), asked))
        }
        _ => Some(Fault::Refused(error(Kind::Remote))),
    }
}

fn transport_fault(what: &str, url: &Url, error: &reqwest::Error) -> Fault {
    let mut cause = std::error::Error::source(error);
    // The innermost cause is the operating system's or TLS's own; the others repeat the URL.
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    let reason = match cause {
        Some(cause) => cause.to_string(),
        None if error.is_timeout() => "no byte arrived in time".to_owned(),
        None => error.to_string(),
    };
    let message = format!("cannot fetch {what} from {}", shown(url));
    let error_out = Error::new(Kind::Remote, message)
        .source(reason)
        .hint("check the network, then run the same command again: finished files are kept");
    if error.is_builder() { Fault::Refused(error_out) } else { Fault::Transient(error_out, None) }
}

fn not_what_the_lock_says(item: &Item, url: &Url, digest: Digest, bytes: u64) -> Error {
    let found = match item.size {
        Some(size) if size != bytes => format!("{bytes} bytes instead of {size}"),
        _ => format!("{digest} instead of {}", item.sha256),
    };
    Error::new(Kind::Input, format!("{} from {} is not the file that is expected", item.what, shown(url)))
        .source(found)
        .hint("nothing was kept; if the server is right, refresh the locks with cargo xtask lock")
}

/// Whether the cache holds the file; its content is verified again by whoever reads it.
pub fn is_cached(cache: &Cache, sha256: &Digest, size: Option<u64>) -> Result<bool> {
    let found = fs::metadata(cache.download(sha256)?);
    Ok(found.is_ok_and(|meta| meta.is_file() && size.is_none_or(|size| size == meta.len())))
}

/// A killed run leaves its temporary files; those of a run at work are younger.
fn remove_stale(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let is_part = entry.file_name().to_string_lossy().starts_with(".part-");
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if is_part && age.is_some_and(|age| age > STALE) {
            // Whoever can't remove it can't be hurt by it.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
