//! The NetworkPolicy of the pods: whom it lets in, and where it lets them go.

use std::net::IpAddr;

use serde_json::{Value, json};
use url::Url;

use super::Secrets;
use super::manifests::FOLDER;
use crate::cluster::{NAME, Object, ObjectKind};
use crate::config::cluster::{Client, ClusterConfig, Database, Egress, GOOGLE_RANGES, Identity, Login, Peer};
use crate::error::{Error, Kind, Result};

/// The port at which the Cloud SQL Auth Proxy finds an instance
/// (<https://cloud.google.com/sql/docs/postgres/sql-proxy>).
const CLOUD_SQL: u16 = 3307;

/// PostgreSQL's port.
const POSTGRESQL: u16 = 5432;

/// Where pods ask who they are at Google, and where GKE's nodes answer that for them
/// (<https://cloud.google.com/kubernetes-engine/docs/how-to/network-policy>).
const METADATA: [(&str, &[u16]); 2] = [("169.254.169.254/32", &[80]), ("169.254.169.252/32", &[987, 988])];

/// Sets the environment's fields in the NetworkPolicy among `objects`.
///
/// # Errors
/// `Input` where there is none, and the environment has something to set in it.
pub fn set(objects: &mut [Object], config: &ClusterConfig, secrets: &Secrets) -> Result<()> {
    let access = &config.access;
    let egress = match &access.egress {
        Egress::Open => None,
        Egress::Needed { also } => Some(needed(config, secrets, also)),
    };
    let clients = clients(config);
    if clients.is_empty() && egress.is_none() {
        return Ok(());
    }
    let policy = objects.iter_mut().find(|object| object.kind == ObjectKind::NetworkPolicy && object.name() == NAME);
    let policy = policy.ok_or_else(|| {
        let message = format!("{FOLDER}/ holds no NetworkPolicy named {NAME}, and deploy.toml has clients or egress");
        Error::new(Kind::Input, message).hint("get its file back from the repository, or take the keys out")
    })?;
    let spec = &mut policy.value["spec"];
    if !clients.is_empty() {
        let from: Vec<Value> = clients.iter().map(source).collect();
        for rule in spec["ingress"].as_array_mut().into_iter().flatten() {
            rule["from"] = json!(from);
        }
    }
    if let Some(rules) = egress {
        spec["egress"] = json!(rules);
        spec["policyTypes"] = json!(["Ingress", "Egress"]);
    }
    Ok(())
}

/// Who may open a connection; nobody is named: everybody. Behind IAP it is Google's load balancer and who
/// is named: others would go past the login.
fn clients(config: &ClusterConfig) -> Vec<Client> {
    let google = match config.access.login {
        Login::Iap(_) => GOOGLE_RANGES.map(|range| Client::Addresses(range.to_owned())).to_vec(),
        _ => Vec::new(),
    };
    [google, config.access.clients.clone()].concat()
}

fn source(client: &Client) -> Value {
    match client {
        Client::Namespace(name) => {
            json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } })
        }
        Client::Addresses(range) => json!({ "ipBlock": { "cidr": range } }),
    }
}

/// What the pods cannot do without. Where only a name is known, the port alone is: a policy knows no names.
fn needed(config: &ClusterConfig, secrets: &Secrets, also: &[Peer]) -> Vec<Value> {
    let mut rules = vec![json!({ "ports": [port("UDP", 53), port("TCP", 53)] })];
    let mut peers: Vec<(Option<String>, u16)> = Vec::new();
    match &config.database {
        Database::CloudSql(cloud) => {
            peers.extend([(None, CLOUD_SQL), (None, 443)]);
            peers.extend(cloud.admin_api.as_deref().and_then(at));
        }
        Database::Uri(_) => {
            let uri = secrets.database.as_ref().map(|uri| uri.expose());
            peers.push(uri.and_then(database).unwrap_or((None, POSTGRESQL)));
        }
    }
    // Stores of all clouds are reached by HTTPS.
    peers.push(at(&config.artifacts.uri).unwrap_or((None, 443)));
    peers.extend(config.server.env.get("STORAGE_EMULATOR_HOST").and_then(|address| at(address)));
    if let Login::Oidc(oidc) = &config.access.login {
        // Keys and tokens may be elsewhere than the issuer says its own address is: Google's are.
        peers
            .extend([at(&oidc.issuer), oidc.issuer.starts_with("https:").then_some((None, 443))].into_iter().flatten());
    }
    peers.extend(also.iter().map(|peer| (Some(peer.range.clone()), peer.port)));
    peers.sort();
    peers.dedup();
    // A port that is open to everywhere needs no address beside it.
    let open: Vec<u16> = peers.iter().filter(|(range, _)| range.is_none()).map(|(_, port)| *port).collect();
    peers.retain(|(range, port)| range.is_none() || !open.contains(port));
    rules.extend(peers.into_iter().map(|(range, number)| match range {
        Some(range) => json!({ "to": [{ "ipBlock": { "cidr": range } }], "ports": [port("TCP", number)] }),
        None => json!({ "ports": [port("TCP", number)] }),
    }));
    let is_google = config.database.cloud_sql().is_some() || config.artifacts.uri.starts_with("gs://");
    if is_google && !matches!(config.artifacts.identity, Identity::Key(_)) {
        rules.extend(METADATA.iter().map(|(range, ports)| {
            let ports: Vec<Value> = ports.iter().map(|number| port("TCP", *number)).collect();
            json!({ "to": [{ "ipBlock": { "cidr": range } }], "ports": ports })
        }));
    }
    rules
}

fn port(protocol: &str, number: u16) -> Value {
    json!({ "protocol": protocol, "port": number })
}

/// Address and port of an http(s) address; `None` for any other.
fn at(address: &str) -> Option<(Option<String>, u16)> {
    let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some((range(url.host_str()?), url.port_or_known_default()?))
}

/// The same of a database; `None` where the URI does not say, as for a list of hosts.
fn database(uri: &str) -> Option<(Option<String>, u16)> {
    let url = Url::parse(uri).ok()?;
    let host = url.host_str().filter(|host| !host.is_empty() && !host.contains(','))?;
    Some((range(host), url.port().unwrap_or(POSTGRESQL)))
}

/// The range of one address; `None` for a name.
fn range(host: &str) -> Option<String> {
    match host.trim_matches(['[', ']']).parse::<IpAddr>().ok()? {
        IpAddr::V4(address) => Some(format!("{address}/32")),
        IpAddr::V6(address) => Some(format!("{address}/128")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::secrets::SecretText;
    use super::super::tests::{cloud_sql, kubernetes};
    use super::*;

    /// `RANGE:PORT`, or `*:PORT` for everywhere.
    fn egress(config: &ClusterConfig, uri: &str, also: &[Peer]) -> Vec<String> {
        let secrets = Secrets { database: Some(SecretText::new(uri)), ..Secrets::default() };
        let text = |rule: &Value| {
            let to = rule["to"][0]["ipBlock"]["cidr"].as_str().unwrap_or("*").to_owned();
            let ports = rule["ports"].as_array().unwrap().iter().map(|port| port["port"].to_string());
            format!("{to}:{}", ports.collect::<Vec<_>>().join(","))
        };
        needed(config, &secrets, also).iter().map(text).collect()
    }

    #[test]
    fn pods_go_where_they_must_and_nowhere_else() {
        let mut config = kubernetes();
        let metadata = ["169.254.169.254/32:80", "169.254.169.252/32:987,988"];
        let check = |config: &ClusterConfig, uri: &str, expected: &[&str]| {
            let expected: Vec<&str> = ["*:53,53"].iter().chain(expected).copied().collect();
            assert_eq!(egress(config, uri, &[]), expected, "{uri}");
        };
        check(&config, "postgresql://u:p@10.1.2.3:5433/m", &["*:443", "10.1.2.3/32:5433", metadata[0], metadata[1]]);
        check(&config, "postgresql://u:p@db.lab/m", &["*:443", "*:5432", metadata[0], metadata[1]]);
        check(&config, "postgresql://u:p@a,b/m", &["*:443", "*:5432", metadata[0], metadata[1]]);
        check(&cloud_sql(), "", &["*:443", "*:3307", metadata[0], metadata[1]]);
        config.artifacts.uri = "s3://bucket".to_owned();
        config.server.env.insert("STORAGE_EMULATOR_HOST".to_owned(), "http://10.201.0.2:4443".to_owned());
        let uri = "postgresql://u@[fd00::1]/m";
        check(&config, uri, &["*:443", "10.201.0.2/32:4443", "fd00::1/128:5432"]);
        let also = [Peer { range: "10.9.0.0/16".to_owned(), port: 8080 }];
        assert!(egress(&config, uri, &also).contains(&"10.9.0.0/16:8080".to_owned()));
    }

    #[test]
    fn only_named_clients_are_let_in() {
        let policy = json!({
            "kind": "NetworkPolicy",
            "metadata": { "name": NAME },
            "spec": { "policyTypes": ["Ingress"], "ingress": [{ "ports": [{ "port": "http" }] }] },
        });
        let mut objects = [Object { kind: ObjectKind::NetworkPolicy, value: policy }];
        let mut config = kubernetes();
        let before = objects[0].value.clone();
        set(&mut objects, &config, &Secrets::default()).unwrap();
        assert_eq!(objects[0].value, before);
        config.access.clients =
            vec![Client::Namespace("research".to_owned()), Client::Addresses("10.0.0.0/8".to_owned())];
        set(&mut objects, &config, &Secrets::default()).unwrap();
        let rule = &objects[0].value["spec"]["ingress"][0];
        assert_eq!(rule["from"][0]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], "research");
        assert_eq!(
            (&rule["from"][1]["ipBlock"]["cidr"], &rule["ports"][0]["port"]),
            (&json!("10.0.0.0/8"), &json!("http"))
        );
        assert_eq!(objects[0].value["spec"]["policyTypes"], json!(["Ingress"]));
        assert_eq!(set(&mut [], &config, &Secrets::default()).unwrap_err().kind(), Kind::Input);
    }
}
