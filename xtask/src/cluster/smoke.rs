//! The smoke test of a server in a cluster: through its pods as a client would use it, and through
//! its Service, so that the Service's selector, port and endpoints are proven too.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube::api::ListParams;
use kube::client::Body;
use reqwest::Method;
use serde_json::Value;
use url::Url;

use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::mlflow::smoke::{self, CheckReport, SmokeReport};
use crate::mlflow::{Class, Client, DATABASE_PROBE, Failure, Outcome, send};

use super::forward::Forward;
use super::login::SignIn;
use super::target::{self, SELECTOR, Target};
use super::{Cluster, NAME, call, failure, login};

/// The version of what runs
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>).
const VERSION: &str = "app.kubernetes.io/version";
/// How long one question to the API server may take.
const QUESTION: Duration = Duration::from_secs(10);
/// How long the endpoints may lag behind the pods.
const SETTLED: Duration = Duration::from_secs(15);
/// Between two looks at them.
const PAUSE: Duration = Duration::from_millis(500);

/// The address of the server's Service inside of the cluster, and the MLflow version that the
/// Deployment is labelled with.
///
/// # Errors
/// `Check` when nothing is deployed, else what the API server answered.
pub async fn deployed(cluster: &Cluster) -> Result<(Url, Option<String>)> {
    let text = address_text(&read_service(cluster).await?, &cluster.namespace);
    let url = text.parse().context(Kind::Internal, || format!("{text} is no address"))?;
    let deployment = cluster.deployment().await?;
    Ok((url, deployment.and_then(|deployment| deployment.labels().get(VERSION).cloned())))
}

/// Names and addresses that a load balancer has given the Service, as far as it has, and the port.
///
/// # Errors
/// What the API server answers.
pub async fn outside(cluster: &Cluster) -> Result<(Vec<String>, i32)> {
    let service = ask(cluster, &format!("read Service/{NAME}"), cluster.api::<Service>().get_opt(NAME)).await?;
    let Some(service) = service else { return Ok((Vec::new(), 0)) };
    Ok((super::status::external(&service), self::port(&service).map_or(0, |port| port.port)))
}

/// The address of a Service inside of its cluster.
pub fn address_text(service: &Service, namespace: &str) -> String {
    format!("http://{NAME}.{namespace}.svc.cluster.local:{}", port(service).map_or(80, |port| port.port))
}

/// Runs all checks of [`smoke::run`] over a forward to the pods of `pods`, with the Host header of the
/// Service's address unless `wanted` has another one, and then asks through the Service itself.
/// The address in `wanted` is what the report names.
///
/// # Errors
/// `Check` when no pod is ready, `Forbidden` without the right to forward a port, `Interrupted`. A
/// failing check is no error but a part of the report.
pub async fn run(run: &Run, cluster: &Cluster, pods: &Target, wanted: &smoke::Target) -> Result<SmokeReport> {
    let begun = Instant::now();
    let service = read_service(cluster).await?;
    let login = match wanted.auth {
        Some(_) => None,
        None => login::auth(cluster).await?,
    };
    let forward = Forward::start(run, cluster, pods.clone(), None).await?;
    let over_forward = smoke::Target {
        url: forward.url(),
        host_header: wanted.host_header.clone().or_else(|| host(&wanted.url)),
        auth: wanted.auth.clone().or_else(|| login.as_ref().map(|(_, auth)| auth.clone())),
        ..wanted.clone()
    };
    let mut report = smoke::run(run, &over_forward).await?;
    drop(forward);
    if let (Some((login, _)), true) = (&login, report.is_refused()) {
        run.ui.warn(login.stale());
    }
    let sign_in = cluster.deployment().await?.as_ref().and_then(SignIn::of);
    let names = ["endpoints", "service"].into_iter().chain(sign_in.as_ref().map(|_| "login"));
    for name in names {
        let started = Instant::now();
        let asked = async {
            match (name, &sign_in) {
                ("endpoints", _) => endpoints(cluster, pods).await,
                ("login", Some(sign_in)) => before(run, cluster, pods, sign_in, &over_forward).await,
                _ => through_service(cluster, &service).await,
            }
        };
        let outcome = tokio::select! {
            () = run.cancel.cancelled() => return Err(Run::interrupted()),
            outcome = asked => outcome,
        };
        report.add(CheckReport::named(name, started.elapsed(), outcome));
    }
    report.url = wanted.url.to_string();
    report.seconds = crate::report::seconds(begun.elapsed());
    Ok(report)
}

/// What stands before the server lets nobody in who has no login, and leads to it. The checks before
/// have gone past it, to the server's own port, which no network reaches.
async fn before(
    run: &Run,
    cluster: &Cluster,
    pods: &Target,
    sign_in: &SignIn,
    server: &smoke::Target,
) -> Outcome<String> {
    let forward = Forward::to(run, cluster, pods.clone(), sign_in.port, None).await.map_err(not_asked)?;
    let client = Client::new(&forward.url(), server.host_header.as_deref(), None, QUESTION).map_err(not_asked)?;
    for path in ["/health", "/ready"] {
        send("GET", path, client.request(Method::GET, path)).await?;
    }
    let answer = send("GET", DATABASE_PROBE, client.request(Method::GET, DATABASE_PROBE)).await;
    judge_login(answer.map(|answer| answer.status().as_u16()), sign_in)
}

fn judge_login(answer: Outcome<u16>, sign_in: &SignIn) -> Outcome<String> {
    let SignIn { issuer, port } = sign_in;
    match answer {
        Err(Failure { class: Class::Status(401), .. }) => {
            Ok(format!("port {port} of the pods asks for a login by {issuer} and leads to the server"))
        }
        Err(failure) => Err(failure),
        Ok(status) => Err(Failure::wrong(format!("port {port} of the pods answers {status} to whoever asks"))
            .hint("look for flags that let requests pass in kubernetes/options/oauth2-proxy.yaml")),
    }
}

async fn read_service(cluster: &Cluster) -> Result<Service> {
    let doing = format!("read Service/{NAME}");
    let service = ask(cluster, &doing, cluster.api::<Service>().get_opt(NAME)).await?;
    service.ok_or_else(|| {
        let message = format!("namespace {} of context {} has no Service {NAME}", cluster.namespace, cluster.context);
        Error::new(Kind::Check, message).hint("nothing was deployed there yet: run `cargo xtask deploy` with its --env")
    })
}

async fn ask<T>(cluster: &Cluster, doing: &str, question: impl Future<Output = kube::Result<T>>) -> Result<T> {
    call::once(QUESTION, question).await.map_err(|error| failure::explain(cluster, doing, error))
}

/// The port that clients use.
fn port(service: &Service) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_ref()?;
    ports.iter().find(|port| port.name.as_deref() == Some("http")).or(ports.first())
}

/// The Host header that a client of `url` sends: RFC 9110 leaves the scheme's own port out.
fn host(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The Service leads to every pod that is ready and to nothing else.
async fn endpoints(cluster: &Cluster, pods: &Target) -> Outcome<String> {
    let deadline = Instant::now() + SETTLED;
    loop {
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={NAME}"));
        let slices = cluster.api::<EndpointSlice>();
        let slices = ask(cluster, "list the EndpointSlices", slices.list(&params)).await.map_err(not_asked)?;
        let params = ListParams::default().labels(SELECTOR);
        let listed = cluster.api::<Pod>();
        let listed = ask(cluster, "list the pods", listed.list(&params)).await.map_err(not_asked)?;
        match agree(&slices.items, &listed.items, pods) {
            Err(why) if Instant::now() >= deadline => {
                return Err(Failure::wrong(why).hint("compare the Service's selector and port with the pods' labels"));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
            Ok(seen) => return Ok(seen),
        }
    }
}

/// What is seen when the endpoints are the ready pods, else how the two differ.
fn agree(slices: &[EndpointSlice], pods: &[Pod], wanted: &Target) -> Result<String, String> {
    let served: BTreeSet<&str> = slices.iter().flat_map(|slice| &slice.endpoints).filter_map(served_pod).collect();
    let ready: Vec<&Pod> = pods.iter().filter(|pod| target::is_ready(pod)).collect();
    if let Target::Template(hash) = wanted
        && let Some(other) = ready.iter().find(|pod| target::template_hash(pod) != Some(hash))
    {
        return Err(format!("pod {} of another release is still ready", other.name_any()));
    }
    let ready: BTreeSet<&str> = ready.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    let names = |set: &BTreeSet<&str>| set.iter().copied().collect::<Vec<_>>().join(", ");
    let lost: BTreeSet<&str> = ready.difference(&served).copied().collect();
    let stray: BTreeSet<&str> = served.difference(&ready).copied().collect();
    match (ready.len(), lost.is_empty(), stray.is_empty()) {
        (0, ..) => Err("no pod is ready".to_owned()),
        (_, false, _) => Err(format!("the Service does not lead to {}", names(&lost))),
        (_, _, false) => Err(format!("the Service leads to {}, which is not ready", names(&stray))),
        _ => Ok(format!("the Service leads to {}", names(&ready))),
    }
}

/// The pod of an endpoint that gets traffic; an endpoint that says nothing does.
fn served_pod(endpoint: &k8s_openapi::api::discovery::v1::Endpoint) -> Option<&str> {
    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
    endpoint.target_ref.as_ref()?.name.as_deref().filter(|_| ready)
}

/// Asks for health and for something of the database, the way that the API server goes: through the
/// Service's port to one of its endpoints.
pub async fn through_service(cluster: &Cluster, service: &Service) -> Outcome<String> {
    let Some(port) = port(service) else { return Err(Failure::wrong(format!("Service {NAME} has no port"))) };
    let name = port.name.clone().unwrap_or_else(|| port.port.to_string());
    let base = format!("/api/v1/namespaces/{}/services/http:{NAME}:{name}/proxy", cluster.namespace);
    let (status, text) = get(cluster, &format!("{base}/health")).await?;
    judge_health(status, &text)?;
    let (status, text) = get(cluster, &format!("{base}{DATABASE_PROBE}")).await?;
    judge_database(status, &text).map(|seen| format!("port {name} leads to a healthy server{seen}"))
}

/// Status and text of an answer that came through the API server's proxy, whoever gave it.
async fn get(cluster: &Cluster, path: &str) -> Outcome<(u16, String)> {
    let request = http::Request::get(path).body(Body::empty());
    let request = request.map_err(|error| Failure::wrong(format!("{path} is no path: {error}")))?;
    let sent = async {
        let answer = cluster.streams.send(request).await?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await?;
        Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
    };
    ask(cluster, "ask through the API server's proxy", sent).await.map_err(not_asked)
}

/// The API server did not do what it was asked for, which says nothing about the MLflow server.
fn not_asked(error: Error) -> Failure {
    Failure::skipped(error.lines().join(": "))
}

fn judge_health(status: u16, text: &str) -> Outcome<()> {
    let (message, refusal) = match of_api_server(text) {
        Some(message) => (message, true),
        None => (text.trim().to_owned(), false),
    };
    let short = |text: &str| text.chars().take(200).collect::<String>();
    match (status, refusal) {
        (200, false) if message == "OK" => Ok(()),
        (403, true) => Err(Failure::skipped(short(&message)).hint("it needs the right to get services/proxy")),
        // Some networks let the API server reach the nodes only. A refused connection is another matter.
        (_, true) if message.contains("i/o timeout") || message.contains("deadline exceeded") => {
            Err(Failure::skipped(format!("the API server does not reach the pods: {}", short(&message))))
        }
        (_, true) => Err(Failure::wrong(format!("the Service leads nowhere: {}", short(&message)))
            .hint("compare the Service's selector and targetPort with the pods' labels and ports")),
        (_, false) => Err(Failure::wrong(format!("GET /health answered {status}: {}", short(&message)))),
    }
}

/// What else is known after the question that needs the database.
fn judge_database(status: u16, text: &str) -> Outcome<&'static str> {
    match (status, of_api_server(text)) {
        (200, None) => Ok(" with its database"),
        // The proxy sends the API server's own address as Host; and no login passes through it.
        (403, None) if text.contains("Invalid Host header") => Ok(""),
        (401, None) => Ok(", which asks for a login"),
        (_, message) => {
            let text: String = message.unwrap_or_else(|| text.trim().to_owned()).chars().take(200).collect();
            Err(Failure::wrong(format!("GET {DATABASE_PROBE} answered {status}: {text}")))
        }
    }
}

/// The message of an answer that is the API server's own.
fn of_api_server(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value.get("kind")?.as_str()? == "Status").then(|| value["message"].as_str().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pods(texts: &[&str]) -> Vec<Pod> {
        let pod = |text: &&str| {
            let (name, hash) = text.split_once(' ').unwrap();
            let (hash, ready) = hash.split_once(' ').map_or((hash, "True"), |(hash, _)| (hash, "False"));
            serde_json::from_value(json!({
                "metadata": {"name": name, "labels": {target::TEMPLATE_HASH: hash}},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        texts.iter().map(pod).collect()
    }

    /// One slice for each address family has the same pods.
    fn slices(names: &[&str]) -> Vec<EndpointSlice> {
        let endpoint = |name: &&str| match name.strip_prefix('!') {
            Some(name) => json!({"addresses": [], "conditions": {"ready": false}, "targetRef": {"name": name}}),
            None => json!({"addresses": [], "targetRef": {"name": name}}),
        };
        let endpoints: Vec<Value> = names.iter().map(endpoint).collect();
        let slice = json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints});
        vec![serde_json::from_value(slice.clone()).unwrap(), serde_json::from_value(slice).unwrap()]
    }

    #[test]
    fn the_endpoints_are_exactly_the_ready_pods() {
        let check = |served: &[&str], there: &[&str], wanted: &Target, expected: Result<&str, &str>| {
            let found = agree(&slices(served), &pods(there), wanted);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{served:?} {there:?}");
        };
        let (all, new) = (Target::Newest, Target::Template("2".to_owned()));
        check(&["a", "b"], &["a 1", "b 2"], &all, Ok("the Service leads to a, b"));
        check(&["a", "!b"], &["a 1", "b 1 starting"], &all, Ok("the Service leads to a"));
        check(&["a"], &["a 1", "b 1"], &all, Err("the Service does not lead to b"));
        check(&["a", "b"], &["a 1"], &all, Err("the Service leads to b, which is not ready"));
        check(&[], &["a 1"], &all, Err("the Service does not lead to a"));
        check(&[], &[], &all, Err("no pod is ready"));
        check(&["b"], &["b 2"], &new, Ok("the Service leads to b"));
        check(&["a", "b"], &["a 1", "b 2"], &new, Err("pod a of another release is still ready"));
    }

    #[test]
    fn an_answer_through_the_service_is_judged_by_who_gave_it() {
        let status = |code: u16, message: &str| json!({"kind": "Status", "code": code, "message": message}).to_string();
        let check = |code: u16, text: &str, expected: &str| {
            let found = match judge_health(code, text) {
                Ok(()) => "ok".to_owned(),
                Err(failure) => format!("{:?} {}", failure.class, failure.detail),
            };
            assert!(found.starts_with(expected), "{code} {text}: {found}");
        };
        check(200, "OK", "ok");
        check(200, "<html>", "Wrong GET /health answered 200: <html>");
        check(503, &status(503, "no endpoints available"), "Wrong the Service leads nowhere: no endpoints");
        check(503, &status(503, "error trying to reach service: dial tcp: connection refused"), "Wrong the Service");
        check(503, &status(503, "error trying to reach service: dial tcp: i/o timeout"), "Skipped the API server");
        check(403, &status(403, "services \"http:mlflow:http\" is forbidden"), "Skipped services");
        check(404, &status(404, "services \"mlflow\" not found"), "Wrong the Service leads nowhere");
        check(500, "oops", "Wrong GET /health answered 500");

        let check = |code: u16, text: &str, expected: Result<&str, ()>| {
            assert_eq!(judge_database(code, text).map_err(|_| ()), expected, "{code} {text}");
        };
        check(200, r#"{"experiments": []}"#, Ok(" with its database"));
        check(403, "Invalid Host header - possible DNS rebinding attack detected", Ok(""));
        check(401, "You are not authenticated", Ok(", which asks for a login"));
        check(503, r#"{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "no database"}"#, Err(()));
        check(503, &status(503, "no endpoints available"), Err(()));
    }

    #[test]
    fn what_stands_before_the_server_asks_for_a_login() {
        let sign_in = SignIn { issuer: "https://login.example.com".to_owned(), port: 4180 };
        let status = |code: u16| Failure { class: Class::Status(code), detail: code.to_string(), hint: None };
        for (answer, good) in
            [(Err(status(401)), true), (Ok(200), false), (Err(status(502)), false), (Err(Failure::skipped("x")), false)]
        {
            assert_eq!(judge_login(answer.clone(), &sign_in).is_ok(), good, "{answer:?}");
        }
    }

    #[test]
    fn the_host_header_has_a_port_unless_it_is_the_schemes_own() {
        for (url, expected) in [
            ("http://mlflow.a.svc.cluster.local:5000", "mlflow.a.svc.cluster.local:5000"),
            ("http://mlflow.a.svc.cluster.local:80", "mlflow.a.svc.cluster.local"),
        ] {
            assert_eq!(host(&url.parse().unwrap()).as_deref(), Some(expected));
        }
    }
}
