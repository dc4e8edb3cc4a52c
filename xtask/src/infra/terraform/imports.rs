//! How terraform finds a resource that exists and is not in its state: by the id that the google
//! provider's documentation gives for each kind, from names that all follow from the settings. Pure.

use serde_json::{Value, json};

use crate::config::infra::{DATABASE, InfraConfig};

/// The `import` blocks for resources, by their addresses (a file in terraform's JSON syntax); `None`
/// for none. An address that cannot exist before is left out.
pub fn blocks(infra: &InfraConfig, addresses: &[String]) -> Option<Value> {
    let block = |address: &String| Some(json!({ "to": address, "id": id(infra, address)? }));
    let blocks: Vec<Value> = addresses.iter().filter_map(block).collect();
    (!blocks.is_empty()).then(|| json!({ "import": blocks }))
}

/// The id under which the resource at an address is imported.
fn id(infra: &InfraConfig, address: &str) -> Option<String> {
    let InfraConfig { project, region, name, bucket, sql, .. } = infra;
    let (location, repository) = infra.repository();
    let instance = &sql.instance;
    let global = format!("projects/{project}/global");
    let regional = format!("projects/{project}/regions/{region}");
    let account = |role: &str| format!("projects/{project}/serviceAccounts/{}", infra.account(role));
    let pool = format!("projects/{project}/locations/global/workloadIdentityPools/{name}-github");
    let known = match address {
        "module.network[0].google_compute_network.this" => format!("{global}/networks/{name}"),
        "module.network[0].google_compute_subnetwork.this" => format!("{regional}/subnetworks/{name}"),
        "module.network[0].google_compute_router.this[0]" => format!("{regional}/routers/{name}"),
        "module.network[0].google_compute_router_nat.this[0]" => format!("{regional}/routers/{name}/{name}"),
        "module.network[0].google_compute_global_address.services[0]" => format!("{global}/addresses/{name}-services"),
        "module.network[0].google_service_networking_connection.services[0]" => {
            format!("{global}/networks/{name}:servicenetworking.googleapis.com")
        }
        "module.bucket.google_storage_bucket.this" => format!("{project}/{bucket}"),
        "module.database.google_sql_database_instance.this" => format!("projects/{project}/instances/{instance}"),
        "module.database.google_sql_database.this" => {
            format!("projects/{project}/instances/{instance}/databases/{DATABASE}")
        }
        "module.database.google_sql_user.iam[0]" | "module.database.google_sql_user.password[0]" => {
            format!("{project}/{instance}/{}", infra.database_user())
        }
        "module.registry.google_artifact_registry_repository.this" => {
            format!("projects/{project}/locations/{location}/repositories/{repository}")
        }
        "module.identities.google_service_account.server" => account(""),
        "module.identities.google_service_account.nodes" => account("nodes"),
        "module.cluster[0].google_container_cluster.this" => {
            format!("projects/{project}/locations/{region}/clusters/{name}")
        }
        "module.cluster[0].google_container_node_pool.this[0]" => format!("{project}/{region}/{name}/nodes"),
        "module.github[0].google_iam_workload_identity_pool.this" => pool,
        "module.github[0].google_iam_workload_identity_pool_provider.this" => format!("{pool}/providers/github"),
        _ => {
            let role = address.strip_prefix("module.github[0].google_service_account.this[\"")?.strip_suffix("\"]")?;
            account(role)
        }
    };
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::infra::tests::gke;

    #[test]
    fn a_resource_is_found_by_its_name() {
        let check = |address: &str, expected: Option<&str>| {
            assert_eq!(id(&gke(), address).as_deref(), expected, "{address}");
        };
        check("module.bucket.google_storage_bucket.this", Some("my-project/my-project-mlflow"));
        check("module.database.google_sql_user.iam[0]", Some("my-project/mlflow/mlflow@my-project.iam"));
        check(
            "module.github[0].google_service_account.this[\"plan\"]",
            Some("projects/my-project/serviceAccounts/mlflow-plan@my-project.iam.gserviceaccount.com"),
        );
        check("module.identities.google_project_iam_member.nodes[0]", None);
        check("google_project_service.this[\"storage\"]", None);
    }

    #[test]
    fn what_cannot_be_imported_is_left_out() {
        let addresses = ["module.registry.google_artifact_registry_repository.this", "x"].map(str::to_owned);
        let id = "projects/my-project/locations/europe-west1/repositories/mlflow";
        assert_eq!(blocks(&gke(), &addresses), Some(json!({ "import": [{ "to": addresses[0], "id": id }] })));
        assert_eq!(blocks(&gke(), &addresses[1..]), None);
    }
}
