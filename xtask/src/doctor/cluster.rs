//! The cluster: whether it is there, what we may do in it, and whether the pods find what they need.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use crate::cluster::budget::{Demand, Verdict};
use crate::cluster::preflight::{self, NamespaceState};
use crate::cluster::{Cluster, call, image, render};
use crate::config::Config;
use crate::config::cluster::ClusterConfig;
use crate::error::{Error, Result};

use super::{Check, DEADLINE, State, asked};

const NAMES: [&str; 5] = ["cluster", "rights", "namespace", "nodes", "pod security"];

/// The label by which a namespace says what its pods may be
/// (<https://kubernetes.io/docs/concepts/security/pod-security-admission/>).
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// How many connections the database takes, as far as anyone could tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limit {
    /// The number.
    pub(super) connections: Option<u64>,
    /// From where it is, or why there is none.
    pub(super) from: String,
}

/// Looks at the cluster of an environment.
pub(super) async fn of(config: &Config, settings: &ClusterConfig) -> Vec<Check> {
    let unmade = config.environment().is_err();
    if unmade && config.infra.as_ref().is_some_and(|infra| infra.cluster.is_some()) {
        return vec![Check::not_asked(NAMES[0], "`infra apply` has still to make it")];
    }
    let reached = async {
        let cluster = Cluster::connect(settings).await?;
        let version = preflight::version(&cluster).await?;
        Ok::<_, Error>((cluster, version))
    };
    let reached = tokio::time::timeout(DEADLINE, reached).await;
    let (cluster, version) = match reached {
        Ok(Ok(reached)) => reached,
        Ok(Err(error)) => return not_reached(Check { state: State::Missing, ..Check::failed(NAMES[0], &error) }),
        Err(_) => {
            let seen = format!("no answer within {} s", DEADLINE.as_secs());
            return not_reached(Check::missing(NAMES[0], seen, "check the network and the context's server address"));
        }
    };
    let mut checks =
        vec![Check::ok(NAMES[0], format!("{version} at {} (context {})", cluster.server, cluster.context))];
    let (rights, namespace, nodes, security) = tokio::join!(
        asked(NAMES[1], rights(&cluster, settings)),
        asked(NAMES[2], namespace(&cluster)),
        asked(NAMES[3], nodes(&cluster, config)),
        asked(NAMES[4], security(&cluster)),
    );
    checks.extend([rights, namespace, nodes, security]);
    checks
}

fn not_reached(first: Check) -> Vec<Check> {
    let others = NAMES[1..].iter().map(|name| Check::not_asked(*name, "no connection to the cluster"));
    std::iter::once(first).chain(others).collect()
}

async fn rights(cluster: &Cluster, settings: &ClusterConfig) -> Result<Check> {
    let (user, namespace) = tokio::join!(preflight::user(cluster), preflight::namespace(cluster));
    // A namespace that is being deleted is said by the next check.
    let (user, namespace) = (user?, namespace.unwrap_or(NamespaceState::Foreign));
    preflight::rights(cluster, user.as_deref(), &render::kinds(settings), namespace).await?;
    Ok(Check::ok(NAMES[1], format!("{} may do all that a deploy does", user.as_deref().unwrap_or("the user"))))
}

async fn namespace(cluster: &Cluster) -> Result<Check> {
    let name = &cluster.namespace;
    Ok(Check::ok(
        NAMES[2],
        match preflight::namespace(cluster).await? {
            NamespaceState::Missing => format!("{name} is not there: deploy makes it"),
            NamespaceState::Ours => format!("{name} is there, and ours"),
            NamespaceState::Foreign => format!("{name} is there, and left as it is"),
        },
    ))
}

async fn nodes(cluster: &Cluster, config: &Config) -> Result<Check> {
    let nodes = image::node_platforms(cluster).await?;
    let built: BTreeSet<String> = config.image.platforms.iter().map(ToString::to_string).collect();
    Ok(platforms(&nodes, &built))
}

/// Whether the image is built for the nodes.
fn platforms(nodes: &BTreeSet<String>, built: &BTreeSet<String>) -> Check {
    let list = |all: &mut dyn Iterator<Item = &String>| all.map(String::as_str).collect::<Vec<_>>().join(", ");
    let (all, without) = (list(&mut nodes.iter()), list(&mut nodes.difference(built)));
    let fix = || format!("add {without} to image.platforms in deploy.toml");
    match (nodes.is_empty(), without.is_empty()) {
        (true, _) => Check::unknown(NAMES[3], "there are none, or they may not be listed", None),
        (false, true) => Check::ok(NAMES[3], format!("{all}: the image is built for them")),
        (false, false) if nodes.is_disjoint(built) => {
            Check::missing(NAMES[3], format!("{all}: the image is not built for them"), fix())
        }
        (false, false) => Check::warning(NAMES[3], format!("{all}: on some of them the image does not run"), fix()),
    }
}

async fn security(cluster: &Cluster) -> Result<Check> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let found = match call::repeat(DEADLINE, || api.get_opt(&cluster.namespace)).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            return Ok(Check::unknown(
                NAMES[4],
                "the namespace may not be looked at; the pods fit \"restricted\"",
                None,
            ));
        }
        Err(error) => {
            return Err(crate::cluster::failure::explain(cluster, "read the namespace", error));
        }
    };
    let level = found.and_then(|found| found.metadata.labels?.remove(ENFORCE));
    Ok(Check::ok(
        NAMES[4],
        match level {
            Some(level) => {
                format!("the namespace enforces {level:?}; the pods fit \"restricted\", which is the strictest")
            }
            None => "the namespace enforces nothing of its own; the pods fit \"restricted\"".to_owned(),
        },
    ))
}

/// Whether the database takes as many connections as the server may open.
pub(super) fn budget(settings: &ClusterConfig, limit: Limit) -> Check {
    let name = "connections";
    let demand = Demand::of(settings);
    let sum = demand.sum();
    let Limit { connections, from } = limit;
    let (connections, from) = match (connections, settings.max_connections) {
        (None, Some(said)) => (Some(said.into()), "database.max-connections in deploy.toml".to_owned()),
        _ => (connections, from),
    };
    let Some(connections) = connections else {
        let fix = "set database.max-connections in deploy.toml to what `SHOW max_connections` of the database says: \
                   the server's pools then fit";
        return Check::unknown(name, format!("{sum}; {from}"), Some(fix));
    };
    let seen = format!("{sum}; the database takes {connections} ({from})");
    match demand.verdict(connections) {
        Verdict::Fits => Check::ok(name, seen),
        Verdict::TightUnderLoad(fix) => Check::warning(name, format!("{seen}: under load requests fail with 503"), fix),
        Verdict::TooMany(fix) => Check::missing(name, format!("{seen}: not even enough at rest"), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_built_for_the_nodes() {
        let check = |nodes: &[&str], expected: State, words: &str| {
            let set = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<BTreeSet<_>>();
            let check = platforms(&set(nodes), &set(&["linux/amd64"]));
            assert_eq!(check.state, expected, "{nodes:?}");
            assert!(check.seen.contains(words), "{check:?}");
            assert_eq!(check.fix.is_some(), matches!(expected, State::Missing | State::Warning), "{check:?}");
        };
        check(&[], State::Unknown, "none");
        check(&["linux/amd64"], State::Ok, "built for them");
        check(&["linux/amd64", "linux/arm64"], State::Warning, "some of them");
        check(&["linux/arm64"], State::Missing, "not built");
    }
}
