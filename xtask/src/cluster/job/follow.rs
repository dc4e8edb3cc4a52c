//! Makes a Job, follows it to its end, gives what it printed, removes it.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams, Preconditions};
use tokio::time::Instant;

use super::judge::{Look, Memory, State, judge};
use crate::cluster::rollout::{Cause, Code, clean};
use crate::cluster::{CONTAINER, Cluster, call, failure};
use crate::commands::Run;
use crate::error::{Error, Kind, Result};

/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How much longer than the Job's own deadline its end is waited for.
const GRACE: Duration = Duration::from_secs(30);
/// How long the removal of what an earlier run left may take.
const REMOVAL: Duration = Duration::from_secs(60);
/// How often a Job that someone else removes is made again.
const ATTEMPTS: usize = 3;
/// How much of a log is read: its end, which holds the answer.
const LOG_LINES: i64 = 1_000;
const LOG_BYTES: i64 = 1 << 20;
/// Lines of a log that are shown of a Job that failed.
const SHOWN: usize = 5;

/// The label by which the Job controller marks its pods.
pub const JOB: &str = "batch.kubernetes.io/job-name";

/// The server's Deployment, whose pods a Job's are like.
///
/// # Errors
/// `Check` where nothing is deployed.
pub async fn deployment(cluster: &Cluster, env: &str) -> Result<Deployment> {
    cluster.deployment().await?.ok_or_else(|| {
        Error::new(Kind::Check, format!("nothing is deployed in {}: only its pods reach the database", cluster.place()))
            .hint(format!("deploy first: cargo xtask deploy --env {env}"))
    })
}

/// Runs a Job to its end and gives the lines that the server's container printed. One of the same
/// name that is under way is joined; one that has ended is removed first. `what` completes "to ...".
///
/// # Errors
/// `Image` or `Refused` with the cause where its pod does not come up, `Remote` with the last lines of
/// its log where it fails; `Interrupted`, after it was removed.
pub async fn run(run: &Run, cluster: &Cluster, job: &Job, what: &str) -> Result<Vec<String>> {
    for _ in 0..ATTEMPTS {
        let uid = match begin(run, cluster, job, what).await? {
            Begun::Made(uid) | Begun::Joined(uid) => uid,
            Begun::Ended(uid) => {
                remove(cluster, job, &uid).await?;
                continue;
            }
            Begun::Gone => continue,
        };
        let end = tokio::select! {
            biased;
            () = run.cancel.cancelled() => Err(Run::interrupted()),
            end = follow(run, cluster, job, &uid, what) => end,
        };
        match end {
            Ok(None) => run.ui.step("Repeating", format!("Job/{}: someone has removed it", name(job))),
            Ok(Some(lines)) => {
                forget(run, cluster, job, &uid).await;
                return Ok(lines);
            }
            Err(error) => {
                // The API server may be what failed: then the cluster removes it when its time is up.
                forget(run, cluster, job, &uid).await;
                return Err(error);
            }
        }
    }
    Err(Error::new(Kind::Conflict, format!("Job/{} is removed by someone else each time it is made", name(job)))
        .hint("wait for the other run to end, then run the same command again"))
}

enum Begun {
    Made(String),
    Joined(String),
    /// What is there has ended: its answer may be an old one.
    Ended(String),
    /// What was there is there no more.
    Gone,
}

async fn begin(run: &Run, cluster: &Cluster, job: &Job, what: &str) -> Result<Begun> {
    let api = cluster.api::<Job>();
    let doing = format!("make Job/{}", name(job));
    let params = PostParams::default();
    let uid = |job: &Job| job.metadata.uid.clone().unwrap_or_default();
    match call::repeat(QUESTION, || api.create(&params, job)).await {
        Ok(made) => {
            run.ui.step("Starting", format!("Job/{} to {what}", name(job)));
            Ok(Begun::Made(uid(&made)))
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let found = call::repeat(QUESTION, || api.get_opt(name(job))).await;
            match found.map_err(|error| failure::explain(cluster, &doing, error))? {
                Some(found) if !has_ended(&found) && found.metadata.deletion_timestamp.is_none() => {
                    run.ui.step("Joining", format!("Job/{}, which is under way, to {what}", name(job)));
                    Ok(Begun::Joined(uid(&found)))
                }
                Some(found) => Ok(Begun::Ended(uid(&found))),
                None => Ok(Begun::Gone),
            }
        }
        Err(error) => Err(failure::explain(cluster, &doing, error)),
    }
}

fn has_ended(job: &Job) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions
        .iter()
        .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

/// The lines of its log; `None` where it is not there any more.
async fn follow(run: &Run, cluster: &Cluster, job: &Job, uid: &str, what: &str) -> Result<Option<Vec<String>>> {
    let limit = job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(limit.unsigned_abs()) + GRACE;
    let (mut memory, mut shown, mut away) = (Memory::new(), String::new(), false);
    loop {
        let look = match look(cluster, job, uid).await {
            Ok(look) => look,
            // The Job goes on meanwhile.
            Err(error) if error.kind() == Kind::Remote && Instant::now() < end => {
                if !std::mem::replace(&mut away, true) {
                    run.ui.step("Retrying", error.lines().join(": "));
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        away = false;
        match judge(uid, &look, &mut memory) {
            State::Gone => return Ok(None),
            State::Done { pod } => return log(cluster, &pod, CONTAINER).await,
            State::Failed { why, pod, container } => {
                let container = container.as_deref().unwrap_or(CONTAINER);
                let lines = match &pod {
                    Some(pod) => log(cluster, pod, container).await.ok().flatten().unwrap_or_default(),
                    None => Vec::new(),
                };
                return Err(failed(what, container, &why, &lines));
            }
            State::Stuck(cause) => return Err(stuck(what, &cause)),
            State::Waits(state) => {
                if Instant::now() >= end {
                    return Err(Error::new(Kind::Remote, format!("cannot {what}: Job/{} does not end", name(job)))
                        .source(state)
                        .hint("look at its pod with kubectl describe, then run the same command again"));
                }
                if state != shown {
                    run.ui.step("Waiting", format!("for Job/{}: {state}", name(job)));
                    shown = state;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn look(cluster: &Cluster, job: &Job, uid: &str) -> Result<Look> {
    let (jobs, pods) = (cluster.api::<Job>(), cluster.api::<Pod>());
    let labelled = ListParams::default().labels(&format!("{JOB}={}", name(job)));
    let explain = |error| failure::explain(cluster, &format!("follow Job/{}", name(job)), error);
    // The Job first: what is seen of its pods is no older than its own word that they have ended.
    let found = call::repeat(QUESTION, || jobs.get_opt(name(job))).await.map_err(explain)?;
    let pods = call::repeat(QUESTION, || pods.list(&labelled)).await.map_err(explain)?.items;
    let of_job = |pod: &Pod| pod.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid);
    let pods: Vec<Pod> = pods.into_iter().filter(of_job).collect();
    let mut events = Vec::new();
    let alive = pods.iter().find(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        !matches!(phase, Some("Succeeded" | "Failed"))
    });
    let about = alive.or(pods.first()).and_then(|pod| pod.metadata.uid.clone()).unwrap_or_else(|| uid.to_owned());
    let params = ListParams::default().fields(&format!("involvedObject.uid={about}"));
    // They name a cause; they do not decide that there is none.
    if let Ok(list) = call::once(QUESTION, cluster.api::<Event>().list(&params)).await {
        events = list.items;
    }
    Ok(Look { at: Timestamp::now(), job: found, pods, events })
}

/// What a container printed; `None` where its pod is gone.
async fn log(cluster: &Cluster, pod: &str, container: &str) -> Result<Option<Vec<String>>> {
    let params = LogParams {
        container: Some(container.to_owned()),
        tail_lines: Some(LOG_LINES),
        limit_bytes: Some(LOG_BYTES),
        ..LogParams::default()
    };
    let api = cluster.api::<Pod>();
    match call::repeat(QUESTION, || api.logs(pod, &params)).await {
        Ok(text) => Ok(Some(text.lines().map(str::to_owned).collect())),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
        Err(error) => Err(failure::explain(cluster, &format!("read the log of pod {pod}"), error)),
    }
}

fn failed(what: &str, container: &str, why: &str, lines: &[String]) -> Error {
    let words: Vec<String> = lines.iter().map(|line| clean(line)).filter(|line| !line.trim().is_empty()).collect();
    let last = words[words.len().saturating_sub(SHOWN)..].join("\n");
    let error = Error::new(Kind::Remote, format!("cannot {what}: container {container}: {why}"));
    let error = if last.is_empty() { error } else { error.source(last) };
    error.hint("correct what its last words name, then run the same command again")
}

fn stuck(what: &str, cause: &Cause) -> Error {
    let kind = match cause.code {
        Code::ImageName
        | Code::ImageNotFound
        | Code::ImageAbsent
        | Code::ImagePlatform
        | Code::ImageAuth
        | Code::ImagePull => Kind::Image,
        _ => Kind::Refused,
    };
    let place = cause.container.as_ref().map_or(String::new(), |container| format!("container {container}: "));
    let error = Error::new(kind, format!("cannot {what}: {place}{}", cause.code.phrase()));
    error.source(format!("{}: {}", cause.reason, cause.message)).hint(cause.code.hint())
}

/// Removes a Job with its pods, and waits until it is gone.
async fn remove(cluster: &Cluster, job: &Job, uid: &str) -> Result<()> {
    let end = Instant::now() + REMOVAL;
    let explain = |error| failure::explain(cluster, &format!("remove Job/{}", name(job)), error);
    let api = cluster.api::<Job>();
    loop {
        delete(cluster, job, uid).await.map_err(explain)?;
        let found = call::repeat(QUESTION, || api.get_opt(name(job))).await.map_err(explain)?;
        if found.is_none_or(|found| found.metadata.uid.as_deref() != Some(uid)) {
            return Ok(());
        }
        if Instant::now() >= end {
            let message = format!("Job/{} is not removed within {} s", name(job), REMOVAL.as_secs());
            return Err(Error::new(Kind::Remote, message).hint("look at its finalizers with kubectl describe job"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Removes it where that works: the cluster does it later otherwise.
async fn forget(run: &Run, cluster: &Cluster, job: &Job, uid: &str) {
    if let Err(error) = delete(cluster, job, uid).await {
        run.ui.warn(format!("Job/{} is left, and removed by the cluster after it has ended: {error}", name(job)));
    }
}

/// This Job and no other: one of the same name may be someone else's by now.
async fn delete(cluster: &Cluster, job: &Job, uid: &str) -> kube::Result<()> {
    let ours = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams::background().preconditions(ours);
    let api = cluster.api::<Job>();
    match call::repeat(QUESTION, || api.delete(name(job), &params)).await {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        answer => answer.map(drop),
    }
}

fn name(job: &Job) -> &str {
    job.metadata.name.as_deref().unwrap_or_default()
}
