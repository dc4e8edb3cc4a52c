//! Google's Identity-Aware Proxy: the policies that GKE's Gateway controller reads.

use serde_json::json;

use super::Manifests;
use super::pod::{Names, place};
use crate::cluster::{Object, ObjectKind};
use crate::config::cluster::{IAP_CLIENT_KEY, Iap};
use crate::error::Result;

/// The objects; they are applied before the route, which would be open without them.
pub fn objects(manifests: &Manifests, iap: &Iap, names: &Names) -> Result<[Object; 2]> {
    let mut backend = manifests.backend()?.clone();
    let settings = &mut backend["spec"]["default"]["iap"];
    settings["enabled"] = json!(true);
    if let Some(client) = &iap.client {
        settings["clientID"] = json!(client.id);
        settings["oauth2ClientSecret"] = json!({ "name": place(&client.secret, IAP_CLIENT_KEY, names).0 });
    }
    let health = manifests.health()?.clone();
    Ok([
        Object { kind: ObjectKind::GcpBackendPolicy, value: backend },
        Object { kind: ObjectKind::HealthCheckPolicy, value: health },
    ])
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::secrets::SecretText;
    use super::super::tests::{cloud_sql, named, objects, secrets};
    use super::super::{SECRET, Secrets, kinds};
    use super::*;
    use crate::config::cluster::{Client, ClusterConfig, IapClient, Login, Secret};

    fn behind(iap: Iap) -> ClusterConfig {
        let mut config = cloud_sql();
        config.access.login = Login::Iap(iap);
        config.access.hosts = vec!["mlflow.example.com".to_owned()];
        config.access.gateway = Some("infra/external".to_owned());
        config
    }

    fn find(objects: &[Object], kind: ObjectKind) -> &Value {
        &objects.iter().find(|object| object.kind == kind && object.name() == "mlflow").unwrap().value["spec"]
    }

    fn sources(objects: &[Object]) -> Vec<String> {
        let from = find(objects, ObjectKind::NetworkPolicy)["ingress"][0]["from"].as_array().unwrap();
        from.iter().map(|from| from["ipBlock"]["cidr"].as_str().unwrap_or("a namespace").to_owned()).collect()
    }

    #[test]
    fn googles_proxy_is_switched_on_before_the_route_and_nobody_gets_past_it() {
        let mut config = behind(Iap::default());
        let found = objects(&config, &Secrets::default());
        let backend = find(&found, ObjectKind::GcpBackendPolicy);
        assert_eq!(backend["default"]["iap"], json!({ "enabled": true }), "Google's own client");
        let service = json!({ "group": "", "kind": "Service", "name": "mlflow" });
        assert_eq!(backend["targetRef"], service);
        let health = find(&found, ObjectKind::HealthCheckPolicy);
        assert_eq!(health["targetRef"], service);
        assert_eq!(health["default"]["config"]["httpHealthCheck"]["requestPath"], "/health");
        let order: Vec<ObjectKind> = found.iter().map(|object| object.kind).collect();
        let at = |kind: ObjectKind| order.iter().position(|found| *found == kind).unwrap();
        assert!(at(ObjectKind::GcpBackendPolicy) < at(ObjectKind::HttpRoute), "{order:?}");
        assert!(order.iter().all(|kind| kinds(&config).contains(kind)), "rights are asked for");
        assert_eq!(sources(&found), ["130.211.0.0/22", "35.191.0.0/16"]);
        config.access.clients = vec![Client::Namespace("research".to_owned())];
        assert_eq!(sources(&objects(&config, &Secrets::default())), ["130.211.0.0/22", "35.191.0.0/16", "a namespace"]);
    }

    #[test]
    fn a_client_of_ones_own_is_named_and_its_secret_kept_where_gke_reads_it() {
        let client = |secret: Secret| Iap {
            client: Some(IapClient { id: "1.apps.googleusercontent.com".to_owned(), secret }),
            account: None,
        };
        let config = behind(client(Secret::Variable("IAP".to_owned())));
        let found = objects(&config, &Secrets { client: Some(SecretText::new("hunter2")), ..Secrets::default() });
        let name = named(&found, ObjectKind::Secret, SECRET);
        let iap = &find(&found, ObjectKind::GcpBackendPolicy)["default"]["iap"];
        let expected = json!({
            "enabled": true,
            "clientID": "1.apps.googleusercontent.com",
            "oauth2ClientSecret": { "name": name },
        });
        assert_eq!(*iap, expected);
        let secret = found.iter().find(|object| object.kind == ObjectKind::Secret).unwrap();
        // Base64 of `hunter2`.
        assert_eq!(secret.value["data"], json!({ "key": "aHVudGVyMg==" }));
        let theirs = behind(client(Secret::Existing { name: "theirs".to_owned(), key: "key".to_owned() }));
        let found = objects(&theirs, &secrets());
        let iap = &find(&found, ObjectKind::GcpBackendPolicy)["default"]["iap"];
        assert_eq!(iap["oauth2ClientSecret"]["name"], "theirs");
    }
}
