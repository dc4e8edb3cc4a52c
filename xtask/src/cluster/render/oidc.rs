//! A login by OpenID Connect: oauth2-proxy before the server in its pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::login::probe;
use super::manifests::{FOLDER, OAUTH2_PROXY};
use super::pod::{Names, set_env, set_secret, wrong};
use crate::cluster::login::{COOKIE_KEY, SECRET, SIGN_IN_PROXY};
use crate::cluster::{CONTAINER, PORT, PREFIX};
use crate::config::cluster::{Oidc, Secret};
use crate::error::{Error, Kind, Result};

/// The key of our Secret with the client's secret.
pub const CLIENT_KEY: &str = "oidc-client-secret";

/// Where those who get in are listed: an annotation, and the file that is made of it.
const EMAILS: (&str, &str) = ("emails", "/etc/oauth2-proxy/emails");

/// The proxy's port by name, which the Service and the NetworkPolicy know.
const HTTP: &str = "http";

/// The server's port by name, once the proxy has the other one.
const INNER: &str = "mlflow";

/// How many seconds longer than the proxy the server takes requests, when both are to stop.
const LONGER: i64 = 5;

/// Puts the proxy before the server.
///
/// # Errors
/// `Input`, naming the file, where the Deployment or the option is not as it has to be.
pub fn set(deployment: &mut Deployment, option: &Pod, oidc: &Oidc, names: &Names) -> Result<()> {
    let template = deployment.spec.as_mut().map(|spec| &mut spec.template).ok_or_else(|| wrong("it has no spec"))?;
    let emails = oidc.emails.iter().map(|email| format!("{email}\n")).collect();
    let annotations = template.metadata.get_or_insert_default().annotations.get_or_insert_default();
    annotations.insert(format!("{PREFIX}/{}", EMAILS.0), emails);
    let pod = template.spec.as_mut().ok_or_else(|| wrong("its pods have no spec"))?;
    let added = option.spec.as_ref().ok_or_else(|| missing("has no spec"))?;
    let mut proxy = added.containers.iter().find(|container| container.name == SIGN_IN_PROXY).cloned();
    let proxy = proxy.as_mut().ok_or_else(|| missing(&format!("has no container {SIGN_IN_PROXY}")))?;
    let ports = proxy.ports.iter().flatten();
    let port = ports.filter(|port| port.name.as_deref() == Some(HTTP)).map(|port| port.container_port).next();
    let port = port.ok_or_else(|| missing(&format!("has no port {HTTP}")))?;
    behind(pod, port)?;
    settings(proxy, oidc, names);
    let others = added.containers.iter().filter(|container| container.name != SIGN_IN_PROXY).cloned();
    pod.containers.extend([proxy.clone()].into_iter().chain(others));
    pod.volumes.get_or_insert_default().extend(added.volumes.iter().flatten().cloned());
    Ok(())
}

fn missing(what: &str) -> Error {
    Error::new(Kind::Input, format!("{FOLDER}/{OAUTH2_PROXY} {what}")).hint("get it back from the repository")
}

/// Lets the server listen to the proxy only, and asks it through the proxy.
fn behind(pod: &mut PodSpec, port: i32) -> Result<()> {
    if pod.containers.iter().any(|container| container.name == SIGN_IN_PROXY) {
        return Err(wrong(format!("it has a container {SIGN_IN_PROXY} of its own"))
            .hint(format!("move it to {FOLDER}/{OAUTH2_PROXY}")));
    }
    let server = pod.containers.iter_mut().find(|container| container.name == CONTAINER);
    let server = server.ok_or_else(|| wrong(format!("no container is named {CONTAINER}")))?;
    set_env(server.env.get_or_insert_default(), "MLFLOW_HOST", "127.0.0.1".to_owned());
    let own = server.ports.iter_mut().flatten().filter(|own| own.container_port == i32::from(PORT));
    own.for_each(|own| own.name = Some(INNER.to_owned()));
    probe(server);
    let probes = [&mut server.startup_probe, &mut server.readiness_probe, &mut server.liveness_probe];
    for action in probes.into_iter().flatten().filter_map(|probe: &mut Probe| probe.http_get.as_mut()) {
        if [IntOrString::String(HTTP.to_owned()), IntOrString::Int(PORT.into())].contains(&action.port) {
            action.port = IntOrString::Int(port);
        }
    }
    // First nobody asks the proxy any more, then nobody the server.
    let stop = server.lifecycle.as_mut().and_then(|lifecycle| lifecycle.pre_stop.as_mut());
    if let Some(sleep) = stop.and_then(|stop| stop.sleep.as_mut()) {
        sleep.seconds += LONGER;
    }
    Ok(())
}

/// What `deploy.toml` says, as flags behind those of the file: of two the last one counts.
fn settings(proxy: &mut Container, oidc: &Oidc, names: &Names) {
    proxy.image = Some(oidc.image.clone());
    let each = |flag: &'static str, values: &[String]| {
        values.iter().map(|value| format!("--{flag}={value}")).collect::<Vec<_>>()
    };
    let one = |flag: &'static str, value: &str| vec![format!("--{flag}={value}")];
    let insecure = (oidc.url.scheme() != "https").then(|| vec!["--cookie-secure=false".to_owned()]);
    // Groups alone name people whatever their address; the proxy wants to hear about addresses.
    let by_groups = oidc.domains.is_empty() && oidc.emails.is_empty();
    let domains = if by_groups { one("email-domain", "*") } else { each("email-domain", &oidc.domains) };
    let emails = if oidc.emails.is_empty() { Vec::new() } else { one("authenticated-emails-file", EMAILS.1) };
    proxy.args.get_or_insert_default().extend(
        [
            one("oidc-issuer-url", &oidc.issuer),
            one("client-id", &oidc.client),
            one("redirect-url", &oidc.redirect()),
            one("scope", &oidc.scopes),
            one("cookie-expire", &format!("{}s", oidc.session.as_secs())),
            insecure.unwrap_or_default(),
            domains,
            emails,
            each("allowed-group", &oidc.groups),
            one("oidc-groups-claim", &oidc.groups_claim),
            each("oidc-extra-audience", &oidc.audiences),
        ]
        .concat(),
    );
    let env = proxy.env.get_or_insert_default();
    set_secret(env, "OAUTH2_PROXY_CLIENT_SECRET", &oidc.client_secret, CLIENT_KEY, names);
    let kept = Secret::Existing { name: SECRET.to_owned(), key: COOKIE_KEY.to_owned() };
    set_secret(env, "OAUTH2_PROXY_COOKIE_SECRET", &kept, COOKIE_KEY, names);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::secrets::SecretText;
    use super::super::tests::{IMAGE, container, env, kubernetes, named, objects, root, secrets};
    use super::super::{Inputs, Manifests, SECRET as OURS, Secrets, render};
    use super::*;
    use crate::cluster::{Object, ObjectKind};
    use crate::config::cluster::{ClusterConfig, Login, OAUTH2_PROXY_IMAGE};

    fn oidc() -> Oidc {
        Oidc {
            issuer: "https://login.example.com".to_owned(),
            client: "mlflow".to_owned(),
            client_secret: Secret::Variable("OIDC".to_owned()),
            url: "https://mlflow.example.com".parse().unwrap(),
            domains: vec!["example.com".to_owned()],
            emails: vec!["ann@example.org".to_owned(), "bob@example.org".to_owned()],
            groups: Vec::new(),
            groups_claim: "groups".to_owned(),
            audiences: vec!["jobs".to_owned()],
            scopes: "openid email profile".to_owned(),
            session: Duration::from_secs(43_200),
            image: OAUTH2_PROXY_IMAGE.to_owned(),
        }
    }

    fn rendered(oidc: Oidc) -> Vec<Object> {
        let mut config = kubernetes();
        config.access.login = Login::Oidc(Box::new(oidc));
        objects(&config, &Secrets { client: Some(SecretText::new("hunter2")), ..secrets() })
    }

    fn flags(objects: &[Object]) -> Vec<String> {
        let args = container(objects, "containers", SIGN_IN_PROXY)["args"].as_array().unwrap();
        args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
    }

    fn spec(objects: &[Object], kind: ObjectKind) -> &Value {
        &objects.iter().find(|object| object.kind == kind && object.name() == "mlflow").unwrap().value["spec"]
    }

    #[test]
    fn nobody_reaches_the_server_but_through_the_proxy() {
        let found = rendered(oidc());
        let server = container(&found, "containers", CONTAINER);
        assert!(env(server).contains(&"MLFLOW_HOST=127.0.0.1".to_owned()), "{:?}", env(server));
        // Probes come from the node.
        for (probe, path) in [("startupProbe", "/health"), ("readinessProbe", "/ready"), ("livenessProbe", "/health")] {
            let action = &server[probe]["httpGet"];
            assert_eq!((&action["port"], &action["path"]), (&json!(4180), &json!(path)), "{probe}");
        }
        assert_eq!(server["ports"], json!([{ "containerPort": 5000, "name": "mlflow" }]));
        let proxy = container(&found, "containers", SIGN_IN_PROXY);
        assert_eq!(proxy["ports"], json!([{ "containerPort": 4180, "name": "http" }]));
        // What leads to the pods leads to the proxy.
        assert_eq!(spec(&found, ObjectKind::Service)["ports"][0]["targetPort"], "http");
        assert_eq!(spec(&found, ObjectKind::NetworkPolicy)["ingress"][0]["ports"][0]["port"], "http");
        // The proxy is told first to stop, and both within the time that the pod gets.
        let sleep = |container: &Value| container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().unwrap();
        assert_eq!(sleep(server), sleep(proxy) + LONGER);
        let grace = &spec(&found, ObjectKind::Deployment)["template"]["spec"]["terminationGracePeriodSeconds"];
        assert!(grace.as_i64().unwrap() > sleep(server) + 30, "{grace}");
        assert_eq!(proxy["image"], OAUTH2_PROXY_IMAGE);
    }

    #[test]
    fn only_who_is_named_gets_in() {
        let check = |oidc: Oidc, has: &[&str], lacks: &[&str], emails: &str| {
            let found = rendered(oidc);
            let flags = flags(&found);
            for flag in has {
                assert!(flags.iter().any(|known| known == flag), "{flag}: {flags:?}");
            }
            for flag in lacks {
                assert!(!flags.iter().any(|known| known.starts_with(flag)), "{flag}: {flags:?}");
            }
            let pods = &spec(&found, ObjectKind::Deployment)["template"];
            assert_eq!(pods["metadata"]["annotations"]["mlflow-on-kubernetes/emails"], emails);
            let file = &pods["spec"]["volumes"].as_array().unwrap().last().unwrap()["downwardAPI"]["items"][0];
            assert_eq!(file["fieldRef"]["fieldPath"], "metadata.annotations['mlflow-on-kubernetes/emails']");
        };
        let file = "--authenticated-emails-file=/etc/oauth2-proxy/emails";
        check(
            oidc(),
            &[
                "--oidc-issuer-url=https://login.example.com",
                "--client-id=mlflow",
                "--redirect-url=https://mlflow.example.com/oauth2/callback",
                "--email-domain=example.com",
                file,
                "--oidc-extra-audience=jobs",
                "--cookie-expire=43200s",
            ],
            &["--email-domain=*", "--allowed-group", "--cookie-secure"],
            "ann@example.org\nbob@example.org\n",
        );
        let people = Oidc { domains: Vec::new(), ..oidc() };
        check(people.clone(), &[file], &["--email-domain"], "ann@example.org\nbob@example.org\n");
        let groups = Oidc { groups: vec!["lab".to_owned()], ..people };
        check(
            groups.clone(),
            &["--allowed-group=lab", file],
            &["--email-domain"],
            "ann@example.org\nbob@example.org\n",
        );
        let groups = Oidc { emails: Vec::new(), url: "http://10.0.0.1:5000".parse().unwrap(), ..groups };
        let open = ["--allowed-group=lab", "--email-domain=*", "--cookie-secure=false"];
        check(groups, &open, &["--authenticated-emails-file"], "");
    }

    #[test]
    fn secrets_are_named_and_the_cookies_key_is_in_no_release() {
        let found = rendered(oidc());
        let variables = env(container(&found, "containers", SIGN_IN_PROXY));
        let secret = named(&found, ObjectKind::Secret, OURS);
        let expected = [
            format!("OAUTH2_PROXY_CLIENT_SECRET<{secret}/oidc-client-secret"),
            "OAUTH2_PROXY_COOKIE_SECRET<mlflow-login/cookie-secret".to_owned(),
        ];
        assert_eq!(variables, expected);
        assert_eq!(named(&found, ObjectKind::Secret, "mlflow-login"), "");
        let text = found.iter().map(|object| object.value.to_string()).collect::<String>();
        assert!(!text.contains("hunter2"), "a Secret's values are encoded, and nowhere else");
    }

    #[test]
    fn a_job_asks_for_no_login_and_a_second_proxy_is_refused() {
        let mut config = kubernetes();
        config.gc.schedule = Some("@daily".to_owned());
        config.access.login = Login::Oidc(Box::new(oidc()));
        let found = objects(&config, &secrets());
        let job = &found.iter().find(|object| object.kind == ObjectKind::CronJob).unwrap().value;
        assert!(!job.to_string().contains("\"name\":\"oauth2-proxy\",\"ports\""), "{job}");
        let mut manifests = Manifests::read(&root()).unwrap();
        let pod = manifests.deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers.push(Container { name: SIGN_IN_PROXY.to_owned(), ..Container::default() });
        let render = |manifests: &Manifests, config: &ClusterConfig| {
            let inputs = Inputs { env: "test", config, image: IMAGE, version: None, secrets: &secrets() };
            render(manifests, &inputs).map(|_| ()).unwrap_err()
        };
        assert_eq!(render(&manifests, &config).kind(), Kind::Input);
        let without = Manifests { sign_in: None, ..Manifests::read(&root()).unwrap() };
        assert!(render(&without, &config).to_string().contains("oauth2-proxy.yaml is missing"));
    }
}
