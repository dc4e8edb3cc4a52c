//! The contract of the outputs, from what there is.

use serde_json::Value;

use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Error, Kind, Result};
use crate::outputs::{Database, GitHub, GkeCluster, Outputs, Registry};

use super::observe::ask_for;
use super::observed::Observed;
use super::resources::{PROVIDER, Resource, pool_name};

/// Asks Google, and gives the contract.
///
/// # Errors
/// `Check` where something of it is not there yet.
pub async fn outputs(run: &Run, infra: &InfraConfig) -> Result<Outputs> {
    use Resource::{Bucket, Cluster, Database, Instance, Pool, Provider, Repository};
    let mut asked = vec![Bucket, Repository, Instance, Database];
    asked.extend(infra.cluster.as_ref().map(|_| Cluster));
    asked.extend(infra.github.iter().flat_map(|_| [Pool, Provider]));
    from(infra, &ask_for(run, infra, &asked).await?)
}

/// The contract, from answers.
pub fn from(infra: &InfraConfig, observed: &Observed) -> Result<Outputs> {
    let there = |resource: Resource| match observed.state(infra, &resource).is_there() {
        true => observed.answer(infra, &resource).ok_or_else(|| lacks(infra, &resource)),
        false => Err(lacks(infra, &resource)),
    };
    there(Resource::Bucket)?;
    there(Resource::Database)?;
    let repository = there(Resource::Repository)?;
    let instance = there(Resource::Instance)?;
    let foretold = Outputs::foretold(infra);
    Ok(Outputs {
        database: Database {
            instance: text(instance, "/connectionName").unwrap_or(foretold.database.instance),
            ..foretold.database
        },
        registry: Registry { repository: text(repository, "/registryUri").unwrap_or(foretold.registry.repository) },
        cluster: match infra.cluster {
            Some(_) => Some(cluster(infra, there(Resource::Cluster)?)?),
            None => None,
        },
        github: match infra.github {
            Some(_) => {
                there(Resource::Provider)?;
                Some(GitHub {
                    provider: format!("{}/providers/{PROVIDER}", pool_name(infra, &observed.number)),
                    build: infra.account("build"),
                    deploy: infra.account("deploy"),
                    plan: infra.account("plan"),
                })
            }
            None => None,
        },
        ..foretold
    })
}

/// The endpoint with a name of its own, which everybody trusts, comes before the address.
fn cluster(infra: &InfraConfig, answer: &Value) -> Result<GkeCluster> {
    let dns = "/controlPlaneEndpointsConfig/dnsEndpointConfig";
    let is_open = answer.pointer(&format!("{dns}/allowExternalTraffic")) == Some(&Value::Bool(true));
    let name = text(answer, &format!("{dns}/endpoint")).filter(|_| is_open);
    let (host, ca_certificate) = match name {
        Some(name) => (Some(name), None),
        None => (text(answer, "/endpoint"), text(answer, "/masterAuth/clusterCaCertificate")),
    };
    let host = host.ok_or_else(|| lacks(infra, &Resource::Cluster))?;
    Ok(GkeCluster {
        name: infra.name.clone(),
        location: infra.region.clone(),
        endpoint: format!("https://{host}"),
        ca_certificate,
    })
}

fn text(answer: &Value, pointer: &str) -> Option<String> {
    answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

fn lacks(infra: &InfraConfig, resource: &Resource) -> Error {
    Error::new(Kind::Check, format!("{} is not there, or not ready", resource.title(infra)))
        .hint("run `cargo xtask infra apply` first")
}
