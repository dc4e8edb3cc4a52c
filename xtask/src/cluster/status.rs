//! What runs in a cluster: observed without changing anything, then put in words.

use std::io;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::mlflow::Outcome;

use super::diff::{Action, Change};
use super::lease::LEASE;
use super::login::{Login, SignIn};
use super::release::{self, Release, State};
use super::target::{self, SELECTOR};
use super::{CONTAINER, Cluster, NAME, PREFIX, apply, call, failure, smoke};

/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(20);

/// The label with MLflow's version.
const VERSION: &str = "app.kubernetes.io/version";

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The Deployment.
    pub deployment: Option<Deployment>,
    /// Its ReplicaSets.
    pub sets: Vec<ReplicaSet>,
    /// Their pods.
    pub pods: Vec<Pod>,
    /// The Service.
    pub service: Option<Service>,
    /// All releases, the oldest first.
    pub releases: Vec<Release>,
    /// The lock of deploys.
    pub lease: Option<Lease>,
}

/// What runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Running {
    /// The image that the Deployment asks for.
    pub image: Option<String>,
    /// Its MLflow version.
    pub version: Option<String>,
    /// The release that the Deployment belongs to.
    pub release: Option<u64>,
    /// When that was deployed, RFC 3339.
    pub since: Option<String>,
    /// Who deployed it.
    pub by: Option<String>,
    /// From which commit.
    pub commit: Option<String>,
    /// The address of the CI run that did.
    pub run: Option<String>,
    /// How many pods there are.
    pub replicas: Replicas,
    /// The pods, those of the newest ReplicaSet first.
    pub pods: Vec<PodLine>,
    /// Where clients inside of the cluster reach it.
    pub address: Option<String>,
    /// The Service's type.
    pub service_type: Option<String>,
    /// Its addresses outside.
    pub external: Vec<String>,
    /// Where the administrator's password is, where the server has a login.
    pub login: Option<Login>,
    /// Who logs people in, where the server does not.
    pub sign_in: Option<SignIn>,
    /// What became of the newest release, where that is not what runs.
    pub unfinished: Option<String>,
}

/// How many pods there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replicas {
    /// Wanted.
    pub wanted: i32,
    /// Of the newest template.
    pub updated: i32,
    /// That take requests.
    pub ready: i32,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PodLine {
    /// Its name.
    pub name: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// What it does, as `kubectl get pods` says it.
    pub state: String,
    /// How often its containers have been restarted, all together.
    pub restarts: i32,
    /// Where it runs.
    pub node: Option<String>,
    /// When it was made, RFC 3339.
    pub since: Option<String>,
}

/// Whether what is live is what was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// The release that was compared.
    pub release: Option<u64>,
    /// The objects that differ, with what an apply would change back.
    pub changes: Vec<Change>,
    /// Why it is not known.
    pub unknown: Option<String>,
}

impl Drift {
    /// Whether something differs.
    pub fn is_there(&self) -> bool {
        !self.changes.is_empty()
    }
}

/// Looks at everything at once.
///
/// # Errors
/// What the API server answers.
pub async fn observe(cluster: &Cluster) -> Result<Seen> {
    let params = ListParams::default().labels(SELECTOR);
    let (deployments, sets, pods) = (cluster.api::<Deployment>(), cluster.api::<ReplicaSet>(), cluster.api::<Pod>());
    let (services, leases) = (cluster.api::<Service>(), cluster.api::<Lease>());
    let (deployment, sets, pods, service, lease, releases) = tokio::join!(
        call::repeat(QUESTION, || deployments.get_opt(NAME)),
        call::repeat(QUESTION, || sets.list(&params)),
        call::repeat(QUESTION, || pods.list(&params)),
        call::repeat(QUESTION, || services.get_opt(NAME)),
        call::repeat(QUESTION, || leases.get_opt(LEASE)),
        release::list(cluster),
    );
    let explain = |doing: &'static str| move |error| failure::explain(cluster, doing, error);
    Ok(Seen {
        deployment: deployment.map_err(explain("read the Deployment"))?,
        sets: sets.map_err(explain("list the ReplicaSets"))?.items,
        pods: pods.map_err(explain("list the pods"))?.items,
        service: service.map_err(explain("read the Service"))?,
        // Whoever may not read it is told less.
        lease: lease.unwrap_or_default(),
        releases: releases?,
    })
}

/// What runs, in words; `now` decides whether a deploy is at work.
pub fn describe(seen: &Seen, now: Timestamp) -> Running {
    let note = |key: &str| seen.deployment.as_ref()?.annotations().get(&format!("{PREFIX}/{key}")).cloned();
    let release = note("release").and_then(|number| number.parse().ok());
    let spec = seen.deployment.as_ref().and_then(|deployment| deployment.spec.as_ref());
    let status = seen.deployment.as_ref().and_then(|deployment| deployment.status.as_ref());
    let containers = spec.and_then(|spec| spec.template.spec.as_ref()).map(|pod| pod.containers.as_slice());
    let server = containers.unwrap_or_default().iter().find(|container| container.name == CONTAINER);
    let service = seen.service.as_ref();
    Running {
        image: server.and_then(|container| container.image.clone()),
        version: seen.deployment.as_ref().and_then(|deployment| deployment.labels().get(VERSION).cloned()),
        release,
        since: note("at"),
        by: note("by"),
        commit: note("commit"),
        run: note("run"),
        replicas: Replicas {
            wanted: spec.map_or(0, |spec| spec.replicas.unwrap_or(1)),
            updated: status.and_then(|status| status.updated_replicas).unwrap_or(0),
            ready: status.and_then(|status| status.ready_replicas).unwrap_or(0),
        },
        pods: pods(seen),
        address: service.map(|service| smoke::address_text(service, &service.namespace().unwrap_or_default())),
        service_type: service.and_then(|service| service.spec.as_ref()?.type_.clone()),
        external: service.map(external).unwrap_or_default(),
        login: seen.deployment.as_ref().and_then(Login::of),
        sign_in: seen.deployment.as_ref().and_then(SignIn::of),
        unfinished: unfinished(&seen.releases, seen.lease.as_ref().and_then(|lease| holder(lease, now))),
    }
}

/// Compares the live objects with those that the release on the Deployment had applied.
pub async fn drift(cluster: &Cluster, seen: &Seen, running: &Running) -> Result<Drift> {
    let found = running.release.and_then(|number| seen.releases.iter().find(|release| release.number == number));
    let Some(release) = found.or_else(|| release::current(&seen.releases)) else {
        return Ok(Drift { unknown: Some("no release is recorded".to_owned()), ..Drift::default() });
    };
    let compared = async {
        let objects = release::objects(cluster, release).await?;
        // By force, for a field that another manager has changed is what is looked for.
        apply::dry_run(cluster, &objects, true).await
    };
    match compared.await {
        Ok(changes) => {
            let changes = changes.into_iter().filter(|change| change.action != Action::Unchanged).collect();
            Ok(Drift { release: Some(release.number), changes, unknown: None })
        }
        // Looking is less of a right than writing, be it for trial only.
        Err(error) if matches!(error.kind(), Kind::Forbidden | Kind::Check | Kind::Refused | Kind::Input) => {
            Ok(Drift { release: Some(release.number), changes: Vec::new(), unknown: Some(one_line(&error)) })
        }
        Err(error) => Err(error),
    }
}

/// Whether the server answers through its Service, and what was seen. Where the API server cannot be
/// asked for that, the pods' own probes count.
pub async fn health(cluster: &Cluster, seen: &Seen) -> (bool, String) {
    let ready = seen.pods.iter().filter(|pod| target::is_ready(pod)).count();
    let Some(service) = seen.service.as_ref().filter(|_| ready > 0) else {
        let why = match (seen.pods.len(), ready) {
            (0, _) => "no pod is there",
            (_, 0) => "no pod is ready",
            _ => "there is no Service",
        };
        return (false, why.to_owned());
    };
    judge(smoke::through_service(cluster, service).await)
}

fn judge(outcome: Outcome<String>) -> (bool, String) {
    match outcome {
        Ok(seen) => (true, seen),
        Err(failure) if failure.is_skipped() => (true, format!("the pods' own probes say so ({})", failure.detail)),
        Err(failure) => (false, failure.detail),
    }
}

fn one_line(error: &Error) -> String {
    error.lines().join(": ")
}

fn pods(seen: &Seen) -> Vec<PodLine> {
    let revisions = target::revisions(&seen.sets);
    let revision = |pod: &Pod| target::template_hash(pod).and_then(|hash| revisions.get(hash)).copied().unwrap_or(0);
    let mut pods: Vec<&Pod> = seen.pods.iter().collect();
    pods.sort_by_key(|pod| (std::cmp::Reverse(revision(pod)), pod.name_any()));
    let line = |pod: &Pod| {
        let status = pod.status.as_ref();
        let lists = status.map(|status| [&status.init_container_statuses, &status.container_statuses]);
        let statuses = lists.into_iter().flatten().flatten().flatten();
        PodLine {
            name: pod.name_any(),
            ready: target::is_ready(pod),
            state: target::state(pod),
            restarts: statuses.map(|status| status.restart_count).sum(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            since: pod.creation_timestamp().map(|time| time.0.to_string()),
        }
    };
    pods.into_iter().map(line).collect()
}

/// Names and addresses that a load balancer has given the Service.
pub fn external(service: &Service) -> Vec<String> {
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let address = |one: &k8s_openapi::api::core::v1::LoadBalancerIngress| one.hostname.clone().or(one.ip.clone());
    ingress.into_iter().flatten().filter_map(address).collect()
}

/// Who deploys now: a lock that is held and renewed.
fn holder(lease: &Lease, now: Timestamp) -> Option<&str> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())?;
    let life = SignedDuration::from_secs(i64::from(spec.lease_duration_seconds?));
    (spec.renew_time.as_ref()?.0 + life > now).then_some(holder)
}

/// What became of the newest release, where that is not simply what runs.
fn unfinished(releases: &[Release], at_work: Option<&str>) -> Option<String> {
    let newest = releases.last()?;
    let number = newest.number;
    let cause = newest.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    match (newest.state, at_work) {
        (State::Pending, Some(holder)) => Some(format!("release {number} is being deployed by {holder}")),
        (State::Pending, None) => Some(format!("release {number} was interrupted: run deploy again")),
        (State::Failed, _) => Some(format!("release {number} failed{cause}")),
        (State::RolledBack, _) => Some(format!("release {number} failed and was undone{cause}")),
        (State::Superseded, _) => {
            Some(format!("someone else changed the Deployment while release {number} was deployed{cause}"))
        }
        (State::Deployed, _) => None,
    }
}

/// Writes drift for a person.
pub fn write_drift(drift: &Drift, out: &mut dyn io::Write) -> io::Result<()> {
    let release = drift.release.map(|number| format!(" of release {number}")).unwrap_or_default();
    match (&drift.unknown, drift.changes.len()) {
        (Some(why), _) => writeln!(out, "  drift     not known: {why}"),
        (None, 0) => writeln!(out, "  drift     none: what is live is what was applied"),
        (None, count) => {
            let objects = if count == 1 { "1 object differs" } else { "objects differ" };
            let count = if count == 1 { String::new() } else { format!("{count} ") };
            writeln!(out, "  drift     {count}{objects} from what was applied{release}; deploy puts back:")?;
            drift.changes.iter().try_for_each(|change| change.human(out))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn release(number: u64, state: State, cause: Option<&str>) -> Release {
        serde_json::from_value(json!({
            "number": number, "state": state, "at": "2026-11-24T00:00:00Z", "finished": null, "by": "ada",
            "commit": null, "run": null, "image": "r/m@sha256:a", "version": "3.17.2", "replaces": null,
            "restores": null, "cause": cause, "objects": [],
        }))
        .unwrap()
    }

    fn lease(holder: &str, renewed: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 30, "renewTime": renewed},
        }))
        .unwrap()
    }

    #[test]
    fn a_release_that_did_not_end_well_is_put_in_words() {
        let check = |last: (State, Option<&str>), at_work: Option<&str>, expected: Option<&str>| {
            let releases = [release(6, State::Deployed, None), release(7, last.0, last.1)];
            assert_eq!(unfinished(&releases, at_work).as_deref(), expected, "{last:?}");
        };
        check((State::Deployed, None), None, None);
        check((State::Deployed, None), Some("bob@host"), None);
        check((State::Pending, None), None, Some("release 7 was interrupted: run deploy again"));
        check((State::Pending, None), Some("bob@host"), Some("release 7 is being deployed by bob@host"));
        check((State::Failed, Some("OOMKilled")), None, Some("release 7 failed: OOMKilled"));
        check((State::RolledBack, None), None, Some("release 7 failed and was undone"));
        assert_eq!(unfinished(&[], None), None);
    }

    #[test]
    fn a_lock_counts_while_it_is_renewed() {
        let now: Timestamp = "2026-11-24T00:01:00Z".parse().unwrap();
        for (holder_name, renewed, expected) in [
            ("bob", "2026-11-24T00:00:45.000000Z", Some("bob")),
            ("bob", "2026-11-24T00:00:15.000000Z", None),
            ("", "2026-11-24T00:00:45.000000Z", None),
        ] {
            assert_eq!(holder(&lease(holder_name, renewed), now), expected, "{holder_name} {renewed}");
        }
        assert_eq!(holder(&Lease::default(), now), None);
    }

    fn seen(annotations: Value) -> Seen {
        let deployment = json!({
            "metadata": {"name": "mlflow", "labels": {VERSION: "3.17.2"}, "annotations": annotations},
            "spec": {
                "replicas": 2, "selector": {},
                "template": {"spec": {"containers": [
                    {"name": "sidecar", "image": "s"}, {"name": "mlflow", "image": "r/m@sha256:a"},
                ]}},
            },
            "status": {"updatedReplicas": 2, "readyReplicas": 1},
        });
        let pod = |name: &str, hash: &str, ready: &str, restarts: i32| {
            json!({
                "metadata": {
                    "name": name, "labels": {target::TEMPLATE_HASH: hash}, "creationTimestamp": "2026-11-24T00:00:00Z",
                },
                "spec": {"nodeName": "node1", "containers": []},
                "status": {
                    "phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
                    "containerStatuses": [
                        {"name": "mlflow", "image": "", "imageID": "", "ready": true, "restartCount": restarts},
                    ],
                },
            })
        };
        let set = |hash: &str, revision: &str| {
            let revision = json!({"deployment.kubernetes.io/revision": revision});
            json!({"metadata": {"labels": {target::TEMPLATE_HASH: hash}, "annotations": revision}})
        };
        let service = json!({
            "metadata": {"name": "mlflow", "namespace": "ml"},
            "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 5000}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}},
        });
        let read = |value: Value| serde_json::from_value::<Pod>(value).unwrap();
        Seen {
            deployment: Some(serde_json::from_value(deployment).unwrap()),
            sets: [set("a", "1"), set("b", "2")].map(|set| serde_json::from_value(set).unwrap()).into(),
            pods: vec![read(pod("x", "a", "True", 0)), read(pod("y", "b", "False", 3))],
            service: Some(serde_json::from_value(service).unwrap()),
            ..Seen::default()
        }
    }

    #[test]
    fn what_runs_is_read_from_the_deployment_and_its_pods() {
        let notes = json!({
            "mlflow-on-kubernetes/release": "7", "mlflow-on-kubernetes/at": "2026-11-24T00:00:00Z",
            "mlflow-on-kubernetes/by": "ada", "mlflow-on-kubernetes/commit": "c0ffee",
        });
        let running = describe(&seen(notes), Timestamp::UNIX_EPOCH);
        assert_eq!(running.image.as_deref(), Some("r/m@sha256:a"));
        assert_eq!((running.release, running.by.as_deref()), (Some(7), Some("ada")));
        assert_eq!((running.version.as_deref(), running.commit.as_deref()), (Some("3.17.2"), Some("c0ffee")));
        assert_eq!(running.replicas, Replicas { wanted: 2, updated: 2, ready: 1 });
        let pods: Vec<_> = running.pods.iter().map(|pod| (pod.name.as_str(), pod.ready, pod.restarts)).collect();
        assert_eq!(pods, [("y", false, 3), ("x", true, 0)]);
        assert_eq!(running.pods[0].node.as_deref(), Some("node1"));
        assert_eq!(running.address.as_deref(), Some("http://mlflow.ml.svc.cluster.local:5000"));
        assert_eq!(running.external, ["203.0.113.7"]);
    }

    #[test]
    fn what_another_tool_deployed_is_described_too() {
        let running = describe(&seen(json!({})), Timestamp::UNIX_EPOCH);
        assert_eq!((running.release, running.by, running.since), (None, None, None));
        assert_eq!(running.image.as_deref(), Some("r/m@sha256:a"));
        assert_eq!(describe(&Seen::default(), Timestamp::UNIX_EPOCH), Running::default());
    }
}
