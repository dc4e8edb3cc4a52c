//! The lock of an environment: a Lease in its namespace, renewed while its holder works.
//!
//! Who may write it is decided by the API server alone: every write names the version that it
//! replaces. Times are by the API server's clock, so that a laptop whose clock is wrong neither
//! steals a lock nor keeps one.

use std::sync::Arc;
use std::time::Duration;

use http::header::DATE;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::fmt::rfc2822::DateTimeParser;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::provenance;
use crate::ui::Ui;

use super::connect::Cluster;
use super::{MANAGED_BY, MANAGER, call, failure};

/// The Lease's name.
pub const LEASE: &str = "mlflow-deploy";

/// How long a lock is good without renewal.
const DURATION: Duration = Duration::from_secs(30);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);

/// How often a renewal that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How often a lock of someone else is looked at.
const POLL: Duration = Duration::from_secs(1);

/// How far a recorded time may be off, beyond what the server's clock explains.
const SKEW: Duration = Duration::from_secs(10);

/// How long one request may take, with its repetitions.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who holds a lock, as others are told: unique to this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder(String);

impl Holder {
    /// This process: `USER@HOST process PID (RANDOM)`.
    pub fn this_process() -> Self {
        let unique: u32 = rand::random();
        Self(format!("{}@{} process {} ({unique:08x})", provenance::user(), provenance::host(), std::process::id()))
    }
}

/// A lock that is held, and renewed until it is released or dropped. A dropped one is not released:
/// it expires.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

struct Shared {
    cluster: Cluster,
    holder: Holder,
    /// What is to be added to our clock to get the API server's.
    offset: SignedDuration,
    lost: CancellationToken,
    /// As it was last written by us.
    record: Mutex<Lease>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{LEASE} of {}", self.holder.0)
    }
}

/// Why a lock was not renewed.
enum Unrenewed {
    /// Someone else has it now, or it was deleted.
    Lost(Option<String>),
    /// The API server could not be asked; the lock may still be ours.
    Unknown(kube::Error),
}

/// Takes the lock of the cluster's namespace.
///
/// A lock whose holder does not renew it is waited for until it expires (30 s at most) and then
/// taken over. One that is being renewed is waited for as long as `patience` says.
///
/// # Errors
/// `Locked` names the holder of a lock that is in use; `Interrupted`; what the API server answers.
pub async fn take(run: &Run, cluster: &Cluster, holder: Holder, patience: Duration) -> Result<Held> {
    let doing = format!("take the lock Lease/{LEASE}");
    let explain = |error| failure::explain(cluster, &doing, error);
    let api = cluster.api::<Lease>();
    let offset = clock_offset(cluster).await.map_err(explain)?;
    let params = PostParams::default();
    let begun = Instant::now();
    let mut seen: Option<Seen> = None;
    let mut told = false;
    loop {
        let found = call::repeat(DEADLINE, || api.get_opt(LEASE)).await.map_err(explain)?;
        let now = now(offset);
        let written = match &found {
            None => {
                let lease = record(cluster, &holder, now, None);
                Some(call::repeat(DEADLINE, || api.create(&params, &lease)).await)
            }
            Some(lease) => {
                let current = Seen::update(seen.take(), lease, Instant::now());
                let unchanged = current.since.elapsed();
                let (verdict, renewed) = (judge(lease, &holder, unchanged, now), current.renewals > 0);
                seen = Some(current);
                match verdict {
                    Verdict::Free => {
                        let lease = record(cluster, &holder, now, Some(lease));
                        Some(call::repeat(DEADLINE, || api.replace(LEASE, &params, &lease)).await)
                    }
                    Verdict::Held if renewed && begun.elapsed() >= patience => {
                        return Err(locked(cluster, lease, now));
                    }
                    Verdict::Held => None,
                }
            }
        };
        match written {
            Some(Ok(lease)) => return Ok(Held::new(run.ui.clone(), cluster, holder, offset, lease)),
            // Someone else was faster, or our own first attempt was carried out: look again.
            Some(Err(error)) if failure::kind(&error) == Kind::Conflict => {}
            Some(Err(error)) => return Err(explain(error)),
            None => {
                if let Some(lease) = found.filter(|_| !told) {
                    told = true;
                    run.ui.step("Waiting", format!("for the lock of {}", holder_of(&lease)));
                }
                tokio::select! {
                    () = tokio::time::sleep(POLL) => {}
                    () = run.cancel.cancelled() => return Err(Run::interrupted()),
                }
            }
        }
    }
}

impl Held {
    fn new(ui: Ui, cluster: &Cluster, holder: Holder, offset: SignedDuration, lease: Lease) -> Self {
        let lost = CancellationToken::new();
        let cluster = cluster.clone();
        let shared = Arc::new(Shared { cluster, holder, offset, lost, record: Mutex::new(lease) });
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(Arc::clone(&shared), stop.clone(), ui));
        Self { shared, stop, task }
    }

    /// Cancelled once someone else is known to have the lock: stop, and write nothing more.
    ///
    /// An API server that is away does not cancel it: nobody else can take the lock there either.
    /// Whether it is still ours afterwards, [`Held::confirm`] knows.
    pub fn lost(&self) -> CancellationToken {
        self.shared.lost.clone()
    }

    /// Proves that the lock is ours now, by renewing it. To be asked before each thing that is written.
    ///
    /// # Errors
    /// `Locked` when someone else has it; what the API server answers.
    pub async fn confirm(&self) -> Result<()> {
        self.shared.renew().await.map_err(|unrenewed| match unrenewed {
            Unrenewed::Lost(by) => self.shared.lost(by),
            Unrenewed::Unknown(error) => {
                failure::explain(&self.shared.cluster, &format!("renew the lock Lease/{LEASE}"), error)
            }
        })
    }

    /// Ends the lock once all is done; where that does not work, it says so.
    pub async fn end(self, ui: &Ui) {
        if let Err(error) = self.release().await {
            ui.warn(format!("{}: it expires by itself", error.lines().join(": ")));
        }
    }

    /// Ends the lock, so that the next one need not wait for its expiry.
    ///
    /// # Errors
    /// What the API server answers; the lock then expires by itself.
    async fn release(mut self) -> Result<()> {
        self.stop.cancel();
        // It only ends; a panic in it would have been its own.
        let _ = (&mut self.task).await;
        let shared = &self.shared;
        match shared.write(free).await {
            Ok(()) | Err(Unrenewed::Lost(_)) => Ok(()),
            Err(Unrenewed::Unknown(error)) => {
                Err(failure::explain(&shared.cluster, &format!("release the lock Lease/{LEASE}"), error))
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Renews the lock until it is stopped or lost.
async fn keep(shared: Arc<Shared>, stop: CancellationToken, ui: Ui) {
    let mut renewed = Instant::now();
    let (mut wait, mut warned) = (RENEWAL, false);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        let begun = Instant::now();
        let outcome = tokio::select! {
            () = stop.cancelled() => return,
            outcome = shared.renew() => outcome,
        };
        match outcome {
            Ok(()) => (renewed, wait, warned) = (begun, RENEWAL, false),
            Err(Unrenewed::Lost(_)) => return,
            Err(Unrenewed::Unknown(error)) => {
                wait = RETRY;
                if renewed.elapsed() >= DURATION && !warned {
                    warned = true;
                    let error = failure::explain(&shared.cluster, "renew the lock", error);
                    ui.warn(format!("the lock has expired without renewal: {}", error.lines().join(": ")));
                }
            }
        }
    }
}

impl Shared {
    async fn renew(&self) -> Result<(), Unrenewed> {
        self.write(|lease, now| {
            if let Some(spec) = &mut lease.spec {
                spec.renew_time = Some(MicroTime(now));
            }
        })
        .await
    }

    /// Writes over the version that we wrote last. That nobody has replaced it proves that the lock
    /// was ours all the time, even where it had expired.
    async fn write(&self, change: impl Fn(&mut Lease, Timestamp)) -> Result<(), Unrenewed> {
        let mut record = self.record.lock().await;
        let api = self.cluster.api::<Lease>();
        loop {
            let mut lease = record.clone();
            change(&mut lease, now(self.offset));
            let params = PostParams::default();
            let error = match call::repeat(DEADLINE, || api.replace(LEASE, &params, &lease)).await {
                Ok(lease) => {
                    *record = lease;
                    return Ok(());
                }
                Err(error) => error,
            };
            let gone = matches!(&error, kube::Error::Api(status) if status.is_not_found());
            if !gone && failure::kind(&error) != Kind::Conflict {
                return Err(Unrenewed::Unknown(error));
            }
            let found = call::repeat(DEADLINE, || api.get_opt(LEASE)).await.map_err(Unrenewed::Unknown)?;
            match found {
                // A write of ours that was carried out although its answer was lost.
                Some(lease) if holder_of(&lease) == self.holder.0 => *record = lease,
                other => {
                    self.lost.cancel();
                    return Err(Unrenewed::Lost(other.map(|lease| holder_of(&lease).to_owned())));
                }
            }
        }
    }

    fn lost(&self, by: Option<String>) -> Error {
        let message = match by.filter(|by| !by.is_empty()) {
            Some(by) => format!("the lock of namespace {} was taken over by {by}", self.cluster.namespace),
            None => format!("the lock of namespace {} was removed", self.cluster.namespace),
        };
        Error::new(Kind::Locked, message)
            .hint("look at what the other run does: `cargo xtask status`, then deploy again")
    }
}

/// A lock of someone else, as it was seen over time.
struct Seen {
    version: Option<String>,
    holder: String,
    since: Instant,
    renewals: u32,
}

impl Seen {
    fn update(before: Option<Self>, lease: &Lease, now: Instant) -> Self {
        let version = lease.metadata.resource_version.clone();
        let holder = holder_of(lease).to_owned();
        match before {
            Some(before) if before.version == version => before,
            Some(before) if before.holder == holder => {
                Self { version, holder, since: now, renewals: before.renewals + 1 }
            }
            _ => Self { version, holder, since: now, renewals: 0 },
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// May be taken: nobody has it, it has expired, or it is ours.
    Free,
    /// Must not be taken yet.
    Held,
}

/// Whether a lock may be taken: it is free, or has expired. Expired is what has not been renewed for
/// its duration while we looked, or what by the server's clock was due long before we came.
fn judge(lease: &Lease, ours: &Holder, unchanged: Duration, now: Timestamp) -> Verdict {
    let holder = holder_of(lease);
    if holder.is_empty() || holder == ours.0 {
        return Verdict::Free;
    }
    let overdue = expiry(lease).is_none_or(|expiry| expiry + SKEW < now);
    match unchanged > duration(lease) || overdue {
        true => Verdict::Free,
        false => Verdict::Held,
    }
}

fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(DURATION, Duration::from_secs)
}

/// When the lock ends unless it is renewed.
fn expiry(lease: &Lease) -> Option<Timestamp> {
    lease.spec.as_ref()?.renew_time.as_ref()?.0.checked_add(duration(lease)).ok()
}

fn holder_of(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// A lock of ours, in place of `before`.
fn record(cluster: &Cluster, holder: &Holder, now: Timestamp, before: Option<&Lease>) -> Lease {
    let labels = [(MANAGED_BY.to_owned(), MANAGER.to_owned())];
    let metadata = before.map_or_else(
        || ObjectMeta {
            name: Some(LEASE.to_owned()),
            namespace: Some(cluster.namespace.clone()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        |lease| lease.metadata.clone(),
    );
    let transitions = before.map(|lease| lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0) + 1);
    let spec = LeaseSpec {
        holder_identity: Some(holder.0.clone()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(transitions.unwrap_or(0)),
        ..LeaseSpec::default()
    };
    Lease { metadata, spec: Some(spec) }
}

fn free(lease: &mut Lease, now: Timestamp) {
    if let Some(spec) = &mut lease.spec {
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(now));
    }
}

fn locked(cluster: &Cluster, lease: &Lease, now: Timestamp) -> Error {
    let since = lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref());
    let since = since.map(|time| format!(", since {:.0}", time.0)).unwrap_or_default();
    let message = format!("another run is at work in namespace {}: {}{since}", cluster.namespace, holder_of(lease));
    let left = expiry(lease).map_or(0, |expiry| expiry.duration_since(now).as_secs().max(0));
    let renewed = format!("its lock is being renewed; unless it is again, it ends in {left} s");
    Error::new(Kind::Locked, message).source(renewed).hint("wait for that run to end, then run the same command again")
}

fn now(offset: SignedDuration) -> Timestamp {
    let now = Timestamp::now();
    now.checked_add(offset).unwrap_or(now)
}

/// How far the API server's clock is ahead of ours, by the `Date` of an answer: to the second.
async fn clock_offset(cluster: &Cluster) -> kube::Result<SignedDuration> {
    let ask = || async {
        let request =
            http::Request::get("/version").body(kube::client::Body::empty()).map_err(kube::Error::HttpError)?;
        let answer = cluster.client.send(request).await?;
        let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
        // Without one, ours must do: expiry is then a matter of waiting.
        let server = date.and_then(|date| DateTimeParser::new().parse_timestamp(date).ok());
        Ok(server.map_or(SignedDuration::ZERO, |server| server.duration_since(Timestamp::now())))
    };
    call::repeat(DEADLINE, ask).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: Option<&str>, renewed: Option<i64>) -> Lease {
        let spec = LeaseSpec {
            holder_identity: holder.map(str::to_owned),
            lease_duration_seconds: Some(30),
            renew_time: renewed.map(|second| MicroTime(Timestamp::from_second(second).unwrap())),
            ..LeaseSpec::default()
        };
        Lease { metadata: ObjectMeta::default(), spec: Some(spec) }
    }

    #[test]
    fn a_lock_is_taken_when_it_is_free_expired_or_ours() {
        let check = |lease: &Lease, unchanged: u64, now: i64, expected: Verdict| {
            let now = Timestamp::from_second(now).unwrap();
            let verdict = judge(lease, &Holder("us".to_owned()), Duration::from_secs(unchanged), now);
            assert_eq!(verdict, expected, "{lease:?} {unchanged} {now}");
        };
        check(&Lease::default(), 0, 1000, Verdict::Free);
        check(&lease(None, Some(1000)), 0, 1000, Verdict::Free);
        check(&lease(Some(""), Some(1000)), 0, 1000, Verdict::Free);
        check(&lease(Some("us"), Some(1000)), 0, 1000, Verdict::Free);
        check(&lease(Some("other"), Some(1000)), 0, 1000, Verdict::Held);
        check(&lease(Some("other"), Some(1000)), 0, 1039, Verdict::Held);
        check(&lease(Some("other"), Some(1000)), 0, 1041, Verdict::Free);
        // A clock that is ahead writes a time to come: what counts is that nothing moves.
        check(&lease(Some("other"), Some(9000)), 30, 1000, Verdict::Held);
        check(&lease(Some("other"), Some(9000)), 31, 1000, Verdict::Free);
        check(&lease(Some("other"), None), 0, 1000, Verdict::Free);
    }

    #[test]
    fn a_renewal_is_a_new_version_by_the_same_holder() {
        let version = |version: &str, holder: &str| {
            let mut lease = lease(Some(holder), Some(1000));
            lease.metadata.resource_version = Some(version.to_owned());
            lease
        };
        let start = Instant::now();
        let check = |leases: &[(&str, &str)], renewals: u32, since: u64| {
            let mut seen = None;
            for (second, (number, holder)) in leases.iter().enumerate() {
                seen = Some(Seen::update(seen, &version(number, holder), start + Duration::from_secs(second as u64)));
            }
            let seen = seen.unwrap();
            assert_eq!((seen.renewals, seen.since - start), (renewals, Duration::from_secs(since)), "{leases:?}");
        };
        check(&[("1", "a")], 0, 0);
        check(&[("1", "a"), ("1", "a"), ("1", "a")], 0, 0);
        check(&[("1", "a"), ("1", "a"), ("2", "a")], 1, 2);
        check(&[("1", "a"), ("2", "a"), ("3", "a"), ("3", "a")], 2, 2);
        check(&[("1", "a"), ("2", "b")], 0, 1);
    }

    #[test]
    fn holders_differ_even_in_one_process() {
        assert_ne!(Holder::this_process(), Holder::this_process());
    }
}
