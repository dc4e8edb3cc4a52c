//! The server's environment variables, as far as they are no secret.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cluster::NAME;
use crate::cluster::budget::{Demand, MAX_OVERFLOW, POOL_SIZE};
use crate::config::cluster::{CloudSql, ClusterConfig};

/// Where the sidecar listens.
const PROXY: &str = "127.0.0.1:5432";

/// What the pod's own address is called in its environment.
pub const POD_IP: &str = "POD_IP";

/// The data of the ConfigMap: what the file has, overridden by `[environment.NAME.env]`, overridden
/// by the keys of `deploy.toml` that have a name of their own.
pub fn data(file: &BTreeMap<String, String>, config: &ClusterConfig) -> BTreeMap<String, String> {
    let mut data = file.clone();
    if !config.access.hosts.is_empty() {
        data.insert("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS".to_owned(), allowed_origins(&config.access.hosts).join(","));
    }
    if config.max_connections.is_some() {
        let Demand { pool, overflow, .. } = Demand::of(config);
        data.insert(POOL_SIZE.0.to_owned(), pool.to_string());
        data.insert(MAX_OVERFLOW.0.to_owned(), overflow.to_string());
    }
    data.extend(super::metrics::settings(config.metrics));
    data.extend(config.server.env.clone());
    data.insert("MLFLOW_WORKERS".to_owned(), config.server.workers.to_string());
    data.insert("MLFLOW_ARTIFACTS_DESTINATION".to_owned(), config.artifacts.uri.clone());
    data
}

/// The values of the Host header that the server answers to. MLflow matches them as a whole, port
/// included, with `*` for anything, and this list replaces its own (`mlflow.server.security_utils`).
pub fn allowed_hosts(config: &ClusterConfig) -> Vec<String> {
    let mut hosts = Vec::new();
    let mut add = |host: &str| match has_port(host) {
        true => hosts.push(host.to_owned()),
        false => hosts.extend([host.to_owned(), format!("{host}:*")]),
    };
    config.access.hosts.iter().for_each(|host| add(host));
    let namespace = &config.namespace;
    add(NAME);
    add(&format!("{NAME}.{namespace}"));
    add(&format!("{NAME}.{namespace}.svc"));
    add(&format!("{NAME}.{namespace}.svc.cluster.local"));
    // The pod's own address, private or not: clusters have pods in 100.64.0.0/10 and 240.0.0.0/4.
    add(&format!("$({POD_IP})"));
    // What MLflow means to allow by itself: this machine and private networks. The probes say localhost.
    ["localhost", "127.0.0.1"].into_iter().for_each(add);
    hosts.extend(private_addresses());
    hosts
}

/// All private IPv4 addresses (RFC 1918), with any port. MLflow's own `10.*` fits 10.example.com too, a
/// name that anyone can register and let point here; no name ends in a number, so these fit addresses
/// only. A pattern needs a `*`, which only the port gives: who serves at port 80 names the address.
fn private_addresses() -> Vec<String> {
    let octet = ["[0-9]", "[0-9][0-9]", "[0-9][0-9][0-9]"];
    let after = |start: &str| octet.map(|octet| format!("{start}.{octet}"));
    let ends = |starts: Vec<String>| starts.iter().flat_map(|start| after(start)).collect::<Vec<_>>();
    let two = ends(after("10").to_vec());
    let others = ["192.168", "172.1[6-9]", "172.2[0-9]", "172.3[01]"].iter().flat_map(|start| after(start)).collect();
    ends([two, others].concat()).into_iter().map(|address| format!("{address}:*")).collect()
}

/// The origins from which a browser may change something. The UI's own requests carry its origin,
/// and MLflow by itself trusts localhost only.
fn allowed_origins(hosts: &[String]) -> Vec<String> {
    let origins = |host: &String| match has_port(host) {
        true => vec![format!("https://{host}"), format!("http://{host}")],
        false => ["https://", "http://"]
            .iter()
            .flat_map(|scheme| [format!("{scheme}{host}"), format!("{scheme}{host}:*")])
            .collect(),
    };
    hosts.iter().flat_map(origins).collect()
}

/// The URI of a Cloud SQL database as the server sees it. The password, if there is one, is in
/// PGPASSWORD, where libpq looks for it.
pub fn proxied_uri(cloud: &CloudSql) -> String {
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    format!("postgresql://{}@{PROXY}/{}", encode(&cloud.user), encode(&cloud.database))
}

/// The names that a Gateway can serve: hosts without their ports, each once; no addresses.
pub fn hostnames(hosts: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for host in hosts {
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        if name.parse::<IpAddr>().is_err() && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

fn has_port(host: &str) -> bool {
    host.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::render::tests::{cloud_sql, kubernetes};

    /// As MLflow does: `fnmatch` where there is a `*`, else the very text.
    fn matches(pattern: &str, host: &str) -> bool {
        fn fits(pattern: &[char], host: &[char]) -> bool {
            match (pattern, host) {
                ([], []) => true,
                (['*', rest @ ..], _) => (0..=host.len()).any(|at| fits(rest, &host[at..])),
                (['[', rest @ ..], [first, others @ ..]) => {
                    let end = rest.iter().position(|c| *c == ']').unwrap();
                    let is_in = match &rest[..end] {
                        [from, '-', to] => (from..=to).contains(&first),
                        set => set.contains(first),
                    };
                    is_in && fits(&rest[end + 1..], others)
                }
                ([wanted, rest @ ..], [first, others @ ..]) => wanted == first && fits(rest, others),
                _ => false,
            }
        }
        let letters = |text: &str| text.chars().collect::<Vec<_>>();
        match pattern.contains('*') {
            true => fits(&letters(pattern), &letters(host)),
            false => pattern == host,
        }
    }

    #[test]
    fn the_server_answers_to_its_names() {
        let mut config = kubernetes();
        config.namespace = "lab".to_owned();
        config.access.hosts = ["mlflow.example.com", "other.example.com:8443"].map(str::to_owned).to_vec();
        let hosts = allowed_hosts(&config);
        for (host, answered) in [
            ("mlflow.example.com", true),
            ("mlflow.example.com:443", true),
            ("other.example.com:8443", true),
            ("other.example.com", false),
            ("mlflow:5000", true),
            ("mlflow.lab:5000", true),
            ("mlflow.lab.svc:5000", true),
            ("mlflow.lab.svc.cluster.local:5000", true),
            ("mlflow.other.svc.cluster.local:5000", false),
            ("mlflow.lab.svc.evil.com:5000", false),
            ("localhost", true),
            ("localhost:41234", true),
            ("127.0.0.1:5000", true),
            ("10.245.0.7:5000", true),
            ("172.16.0.1:5000", true),
            ("172.31.0.1:5000", true),
            ("172.32.0.1:5000", false),
            ("192.168.1.1:80", true),
            ("192.168.100.254:31234", true),
            ("10.97.0.1:5000", true),
            ("10.255.255.255:5000", true),
            ("11.1.2.3:5000", false),
            ("172.15.0.1:5000", false),
            ("10.evil.com:5000", false),
            ("10.1.2.3.evil.com:5000", false),
            ("192.168.evil.com:80", false),
            ("172.16.1.evil.com:5000", false),
            ("$(POD_IP):5000", true),
            ("evil.com", false),
        ] {
            assert_eq!(hosts.iter().any(|pattern| matches(pattern, host)), answered, "{host}");
        }
    }

    #[test]
    fn a_browser_may_write_from_the_hosts() {
        let mut config = kubernetes();
        let origins =
            |config: &ClusterConfig| data(&BTreeMap::new(), config).get("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS").cloned();
        assert_eq!(origins(&config), None);
        config.access.hosts = vec!["a.b".to_owned(), "c.d:81".to_owned()];
        let expected = "https://a.b,https://a.b:*,http://a.b,http://a.b:*,https://c.d:81,http://c.d:81";
        assert_eq!(origins(&config).as_deref(), Some(expected));
        config.server.env.insert("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS".to_owned(), "https://a.b".to_owned());
        assert_eq!(origins(&config).as_deref(), Some("https://a.b"));
    }

    #[test]
    fn pools_fit_the_database_where_it_is_known() {
        let check = |limit: Option<u32>, env: &[&str], expected: [Option<&str>; 2]| {
            let mut config = kubernetes();
            (config.server.replicas, config.server.workers, config.max_connections) = (1, 1, limit);
            config.server.env = env.iter().map(|value| (POOL_SIZE.0.to_owned(), (*value).to_owned())).collect();
            let data = data(&BTreeMap::new(), &config);
            let found = [POOL_SIZE.0, MAX_OVERFLOW.0].map(|name| data.get(name).map(String::as_str));
            assert_eq!(found, expected, "{limit:?} {env:?}");
        };
        check(None, &[], [None, None]);
        check(Some(100), &[], [Some("4"), Some("10")]);
        check(Some(100), &["6"], [Some("6"), Some("8")]);
    }

    #[test]
    fn an_iam_user_is_one_part_of_the_uri() {
        let config = cloud_sql();
        let crate::config::cluster::Database::CloudSql(mut cloud) = config.database else { unreachable!() };
        cloud.user = "mlflow@my-project.iam".to_owned();
        cloud.database = "ml flow".to_owned();
        assert_eq!(proxied_uri(&cloud), "postgresql://mlflow%40my-project.iam@127.0.0.1:5432/ml%20flow");
    }

    #[test]
    fn a_gateway_serves_names() {
        let hosts = ["a.b", "a.b:81", "10.0.0.1", "*.c.d"].map(str::to_owned);
        assert_eq!(hostnames(&hosts), ["a.b", "*.c.d"]);
    }
}
