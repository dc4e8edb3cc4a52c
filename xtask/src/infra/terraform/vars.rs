//! The environment's settings -> terraform's variables. Pure.

use serde_json::{Map, Value, json};

use crate::config::infra::{ClusterShape, InfraConfig, RegistryNames};
use crate::infra::way::Wish;

/// The variables of `terraform/`. No secret is among them. `password` is the version of the database
/// user's password.
pub fn vars(infra: &InfraConfig, wish: Wish, password: Option<u64>) -> Value {
    let sql = &infra.sql;
    let mut vars = json!({
        "project": infra.project,
        "region": infra.region,
        "name": infra.name,
        "bucket": infra.bucket,
        "instance": sql.instance,
        "database_version": sql.version,
        "edition": sql.edition,
        "tier": sql.tier,
        "availability": sql.availability,
        "disk_gb": sql.disk_gb,
        "login": sql.login,
        "private_ip": sql.private_ip,
        "deletion_protection": infra.deletion_protection && wish == Wish::Have,
        "delete_data": wish == Wish::DestroyData,
        "registry": match infra.registry {
            RegistryNames::PkgDev => "pkg.dev",
            RegistryNames::GcrIo => "gcr.io",
        },
        "cluster": match &infra.cluster {
            None => "none",
            Some(ClusterShape::Autopilot) => "autopilot",
            Some(ClusterShape::Standard { .. }) => "standard",
        },
        "namespace": infra.namespace,
        "labels": infra.labels,
    });
    let map: &mut Map<String, Value> = vars.as_object_mut().expect("an object was just made");
    if let Some(ClusterShape::Standard { node_type, node_count, spot }) = &infra.cluster {
        map.extend([
            ("node_type".to_owned(), json!(node_type)),
            ("node_count".to_owned(), json!(node_count)),
            ("spot".to_owned(), json!(spot)),
        ]);
    }
    if let Some(github) = &infra.github {
        map.extend([
            ("github".to_owned(), json!(github.repository)),
            ("github_repository_id".to_owned(), json!(github.repository_id)),
            ("github_owner_id".to_owned(), json!(github.owner_id)),
            ("github_environment".to_owned(), json!(github.environment)),
        ]);
    }
    let others = [
        ("state_bucket", infra.state_bucket.as_ref().map(|bucket| json!(bucket))),
        ("database_password_version", password.map(|version| json!(version))),
    ];
    map.extend(others.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    vars
}

/// The modules whose resources go when the data stays. The network of a private address stays with its
/// database.
pub fn disposable(infra: &InfraConfig) -> Vec<&'static str> {
    let all = [
        ("cluster", infra.cluster.is_some()),
        ("registry", true),
        ("github", infra.github.is_some()),
        ("identities", true),
        ("network", infra.has_network() && !infra.sql.private_ip),
    ];
    all.into_iter().filter(|(_, goes)| *goes).map(|(module, _)| module).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::infra::tests::{gke, kubernetes};

    #[test]
    fn what_a_wish_protects() {
        for (wish, protected, deleted) in
            [(Wish::Have, true, false), (Wish::Destroy, false, false), (Wish::DestroyData, false, true)]
        {
            let vars = vars(&gke(), wish, None);
            assert_eq!((&vars["deletion_protection"], &vars["delete_data"]), (&json!(protected), &json!(deleted)));
        }
    }

    #[test]
    fn a_variable_that_has_no_value_is_left_to_its_default() {
        let vars = vars(&kubernetes(), Wish::Have, None);
        for name in ["node_type", "github", "state_bucket", "database_password_version"] {
            assert_eq!(vars.get(name), None, "{name}");
        }
        assert_eq!(
            (&vars["cluster"], &vars["private_ip"], &vars["login"]),
            (&json!("none"), &json!(false), &json!("iam"))
        );
    }

    #[test]
    fn the_data_stays_with_what_it_stands_on() {
        assert_eq!(disposable(&gke()), ["cluster", "registry", "identities"]);
        assert_eq!(disposable(&kubernetes()), ["registry", "identities"]);
        let mut public = gke();
        public.sql.private_ip = false;
        assert_eq!(disposable(&public), ["cluster", "registry", "identities", "network"]);
    }
}
