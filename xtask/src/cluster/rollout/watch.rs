//! Follows a rollout: looks, judges, sleeps until something changes.
//!
//! The API server's watches only say *when* to look. What is judged is listed afresh each time:
//! a watch that lags, or that resumes after the API server was away, shows a past that looks like
//! the present.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use tokio::time::Instant;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::ui::Bar;

use super::super::{Cluster, failure};
use super::logs::Logs;
use super::observe::look;
use super::verdict::{Memory, Progress, Verdict, verdict};
use super::{Expected, Limits, Outcome, diagnose};

/// The least time between two looks, however much changes.
const PAUSE: Duration = Duration::from_millis(400);
/// The most, where nothing changes: budgets and deadlines pass, and a watch may be dead.
const TICK: Duration = Duration::from_secs(2);
/// The most while the new pods have to stay up.
const SOAK_TICK: Duration = Duration::from_secs(1);
/// How long refused credentials are tried again: a plugin renews them, and an API server that has
/// just started knows no roles yet.
const REFUSED: Duration = Duration::from_secs(30);
/// How often an unchanged state is told again.
const REMIND: Duration = Duration::from_secs(30);

/// Follows a rollout to its end, which comes no later than deadline and soak time allow.
///
/// # Errors
/// `Interrupted`; `Auth` or `Forbidden` where the cluster refuses us for longer than 30 s; `Remote`
/// where it does not answer until the deadline. The rollout then goes on in the cluster, and its
/// state is unknown: following the same `expected` again takes it up.
pub async fn follow(run: &Run, cluster: &Cluster, expected: &Expected, limits: &Limits) -> Result<Outcome> {
    let mut changes = changes(cluster, expected);
    let mut known = Known::default();
    let mut memory = Memory::default();
    let mut outage = Outage::default();
    let mut shown = Shown::new(run);
    loop {
        let looked = tokio::select! {
            biased;
            () = run.cancel.cancelled() => return Err(interrupted(expected, &shown.text)),
            looked = look(cluster, expected) => looked,
        };
        let mut tick = TICK;
        match looked {
            Err(error) => outage.note(run, cluster, expected, limits, error)?,
            Ok(mut snapshot) => {
                outage.end(run);
                snapshot.events = known.events.values().cloned().collect();
                snapshot.logs = known.logs.lines();
                memory.learn(expected, &snapshot);
                match verdict(expected, limits, &memory, &snapshot) {
                    Verdict::Complete(complete) => return Ok(Outcome::Complete(complete)),
                    Verdict::Superseded(message) => return Ok(Outcome::Superseded { message }),
                    Verdict::Failed { cause, late } => {
                        let diagnosis =
                            diagnose::gather(cluster, expected, cause, late, memory.served(), &snapshot).await;
                        return Ok(Outcome::Failed(Box::new(diagnosis)));
                    }
                    Verdict::Wait(progress) => {
                        if progress.soaks {
                            tick = SOAK_TICK;
                        }
                        shown.show(expected, &progress);
                    }
                }
                known.logs.ask(cluster, expected, &snapshot);
            }
        }
        tokio::select! {
            biased;
            () = run.cancel.cancelled() => return Err(interrupted(expected, &shown.text)),
            () = known.rest(&mut changes, tick) => {}
        }
    }
}

fn interrupted(expected: &Expected, state: &str) -> Error {
    let state = if state.is_empty() { "its state is not known yet" } else { state };
    Error::new(Kind::Interrupted, format!("interrupted while Deployment/{} rolled out: {state}", expected.name))
        .hint("the rollout goes on in the cluster; run the same command again: it takes it up")
}

/// Something changed: an object of the rollout, or there is an event about one.
enum Change {
    Object,
    Event(Box<Event>),
}

/// Tells when to look. Errors are left out: a watch is begun anew, after a pause that grows.
fn changes(cluster: &Cluster, expected: &Expected) -> BoxStream<'static, Change> {
    let labelled = || watcher::Config::default().labels(&expected.selector);
    let named = watcher::Config::default().fields(&format!("metadata.name={}", expected.name));
    let events = watcher(cluster.api::<Event>(), watcher::Config::default()).default_backoff();
    let (name, prefix) = (expected.name.clone(), format!("{}-", expected.name));
    let events = events.filter_map(move |event| {
        let event = match event {
            Ok(watcher::Event::Apply(event) | watcher::Event::InitApply(event)) => Some(event),
            _ => None,
        };
        let about = |event: &Event| event.involved_object.name.as_deref().unwrap_or_default().to_owned();
        let ours = event.filter(|event| about(event) == name || about(event).starts_with(&prefix));
        std::future::ready(ours.map(|event| Change::Event(Box::new(event))))
    });
    stream::select_all([
        touches(watcher(cluster.api::<PartialObjectMeta<Deployment>>(), named).default_backoff()),
        touches(watcher(cluster.api::<PartialObjectMeta<ReplicaSet>>(), labelled()).default_backoff()),
        touches(watcher(cluster.api::<PartialObjectMeta<Pod>>(), labelled()).default_backoff()),
        events.boxed(),
    ])
    .boxed()
}

fn touches<K: Send + 'static>(
    watch: impl stream::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> BoxStream<'static, Change> {
    watch.filter_map(|event| std::future::ready(event.ok().map(|_| Change::Object))).boxed()
}

/// What is gathered between looks.
#[derive(Default)]
struct Known {
    /// Events by their uid.
    events: BTreeMap<String, Event>,
    logs: Logs,
}

impl Known {
    /// Sleeps until something changes, but no longer than `most`, and never less than [`PAUSE`].
    async fn rest(&mut self, changes: &mut BoxStream<'static, Change>, most: Duration) {
        let (earliest, latest) = (Instant::now() + PAUSE, Instant::now() + most);
        let mut is_due = false;
        loop {
            let until = if is_due { earliest } else { latest };
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => return,
                Some(change) = changes.next() => {
                    is_due = true;
                    if let Change::Event(event) = change {
                        self.events.insert(event.metadata.uid.clone().unwrap_or_default(), *event);
                    }
                }
                () = self.logs.arrived() => is_due = true,
            }
        }
    }
}

/// The API server does not answer, or not as it should.
#[derive(Default)]
struct Outage {
    began: Option<(Instant, Kind)>,
}

impl Outage {
    fn note(
        &mut self,
        run: &Run,
        cluster: &Cluster,
        expected: &Expected,
        limits: &Limits,
        error: kube::Error,
    ) -> Result<()> {
        let doing = format!("read Deployment/{} and its pods", expected.name);
        let error = failure::explain(cluster, &doing, error);
        let kind = error.kind();
        let (began, first) = match self.began {
            Some((began, same)) if same == kind => (began, false),
            _ => (Instant::now(), true),
        };
        self.began = Some((began, kind));
        let elapsed = Timestamp::now().duration_since(expected.started).as_secs_f64();
        let is_over = elapsed >= limits.deadline.as_secs_f64() + limits.soak.as_secs_f64();
        let is_refused = matches!(kind, Kind::Auth | Kind::Forbidden) && began.elapsed() >= REFUSED;
        if is_over || is_refused {
            let unknown = format!("the state of the rollout of Deployment/{} is unknown", expected.name);
            let hint = match kind {
                Kind::Auth => "log in again, then run the same command again: it takes the rollout up",
                Kind::Forbidden => {
                    "ask for the right that is named above, then run the same command again: it takes the rollout up"
                }
                _ => {
                    "the rollout goes on in the cluster; when the API server answers, run the same command again: it takes it up"
                }
            };
            return Err(Error::new(kind, unknown).hint(hint).source(error));
        }
        if first {
            run.ui.step("Retrying", format!("{}; the rollout goes on in the cluster", error.lines().join(": ")));
        }
        Ok(())
    }

    fn end(&mut self, run: &Run) {
        if let Some((began, _)) = self.began.take() {
            run.ui.step("Reached", format!("the API server again, after {:.0} s", began.elapsed().as_secs_f64()));
        }
    }
}

/// What the terminal shows.
struct Shown<'a> {
    run: &'a Run,
    text: String,
    at: Instant,
    bar: Option<(Bar, usize, usize)>,
}

impl<'a> Shown<'a> {
    fn new(run: &'a Run) -> Self {
        Self { run, text: String::new(), at: Instant::now(), bar: None }
    }

    fn show(&mut self, expected: &Expected, progress: &Progress) {
        let (ready, wanted) = (progress.ready, progress.wanted);
        let (bar, total, at) = match self.bar.take() {
            Some((bar, total, at)) if total == wanted => (bar, total, at),
            _ => (self.run.ui.count("Starting pods", wanted as u64), wanted, 0),
        };
        match ready.checked_sub(at) {
            Some(0) => {}
            Some(more) => bar.inc(more as u64),
            None => bar.dec((at - ready) as u64),
        }
        self.bar = Some((bar, total, ready));
        let is_new = progress.text != self.text;
        if is_new || self.at.elapsed() >= REMIND {
            let elapsed = Timestamp::now().duration_since(expected.started).as_secs();
            let since = if is_new { String::new() } else { format!(" ({elapsed} s so far)") };
            let verb = if progress.soaks { "Watching" } else { "Waiting" };
            self.run.ui.step(verb, format!("{}{since}", progress.text));
            self.text.clone_from(&progress.text);
            self.at = Instant::now();
        }
    }
}
