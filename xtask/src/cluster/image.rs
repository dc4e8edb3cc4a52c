//! Whether the nodes can run an image, asked before anything is applied.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};

use crate::error::{Error, Kind, Result};
use crate::registry::{Client, Reference};

use super::{Cluster, call, failure};

/// The label that holds the version of MLflow (image-spec, annotations.md).
const VERSION: &str = "org.opencontainers.image.version";

/// How long the API server may take to list the nodes.
const QUESTION: Duration = Duration::from_secs(10);

/// An image that is there and that the nodes can run.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Resolved {
    /// By digest, as it is deployed.
    pub reference: Reference,
    /// The version that it is labelled with.
    pub version: Option<String>,
    /// What it runs on, as `linux/amd64`.
    pub platforms: Vec<String>,
}

/// Asks the registry for the client's reference and compares the image with `nodes`, the platforms
/// that it has to run on.
///
/// # Errors
/// `Image` when it is not there or not for a platform of the nodes; `Auth` or `Remote` when the
/// registry does not say.
pub async fn check(client: &Client, nodes: &BTreeSet<String>) -> Result<Resolved> {
    let reference = client.reference();
    let found = client.inspect().await?.ok_or_else(|| {
        Error::new(Kind::Image, format!("the registry has no image {reference}")).hint(
            "check repository, tag and digest; without --image, deploy builds the image and pushes it to \
             image.repository of deploy.toml",
        )
    })?;
    let missing = missing(&found.platforms, nodes);
    if !missing.is_empty() {
        let (has, missing) = (found.platforms.join(", "), missing.join(", "));
        let message = format!("{reference} is for {has}, and there are nodes of {missing}");
        return Err(Error::new(Kind::Image, message)
            .hint("add the platform to image.platforms in deploy.toml and deploy again, or name another image"));
    }
    let reference = reference.with_digest(found.digest);
    Ok(Resolved { reference, version: found.labels.get(VERSION).cloned(), platforms: found.platforms })
}

/// The platforms of the nodes that a pod without tolerations may be put on. Empty when this user may
/// not list nodes: then the nodes themselves say what they cannot run.
///
/// # Errors
/// `Auth` or `Remote` when the API server does not say.
pub async fn node_platforms(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let params = ListParams::default();
    let listed = call::repeat(QUESTION, || nodes.list(&params)).await;
    match listed {
        Ok(nodes) => Ok(platforms(&nodes.items)),
        Err(error) if failure::kind(&error) == Kind::Forbidden => Ok(BTreeSet::new()),
        Err(error) => Err(failure::explain(cluster, "list the nodes", error)),
    }
}

fn platforms(nodes: &[Node]) -> BTreeSet<String> {
    let open = |node: &&Node| {
        let spec = node.spec.as_ref();
        let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let closed = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
        // What a node says of its own health passes; its platform does not.
        let passing = |key: &str| key.starts_with("node.kubernetes.io/");
        !closed && !taints.iter().any(|taint| taint.effect != "PreferNoSchedule" && !passing(&taint.key))
    };
    let platform = |node: &Node| {
        let info = node.status.as_ref()?.node_info.as_ref()?;
        Some(format!("{}/{}", info.operating_system, info.architecture))
    };
    nodes.iter().filter(open).filter_map(platform).collect()
}

fn missing(image: &[String], nodes: &BTreeSet<String>) -> Vec<String> {
    nodes.iter().filter(|node| !image.contains(node)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A node as `PLATFORM [TAINT:EFFECT | cordoned]`.
    fn node(text: &str) -> Node {
        let (platform, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (os, cpu) = platform.split_once('/').unwrap();
        let taints: Vec<_> =
            rest.rsplit_once(':').map(|(key, effect)| json!({"key": key, "effect": effect})).into_iter().collect();
        serde_json::from_value(json!({
            "metadata": {},
            "spec": {"taints": taints, "unschedulable": rest == "cordoned"},
            "status": {"nodeInfo": {
                "operatingSystem": os, "architecture": cpu, "bootID": "", "containerRuntimeVersion": "",
                "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "osImage": "",
                "systemUUID": "",
            }},
        }))
        .unwrap()
    }

    #[test]
    fn the_platforms_are_those_of_the_nodes_that_take_pods() {
        let check = |nodes: &[&str], expected: &str| {
            let nodes: Vec<Node> = nodes.iter().map(|text| node(text)).collect();
            let found: Vec<String> = platforms(&nodes).into_iter().collect();
            assert_eq!(found.join(" "), expected);
        };
        check(&["linux/amd64", "linux/amd64"], "linux/amd64");
        check(&["linux/arm64", "linux/amd64"], "linux/amd64 linux/arm64");
        check(&["linux/amd64", "linux/arm64 kubernetes.io/arch:NoSchedule"], "linux/amd64");
        check(&["linux/amd64", "windows/amd64 os:NoExecute"], "linux/amd64");
        check(&["linux/amd64", "linux/arm64 spot:PreferNoSchedule"], "linux/amd64 linux/arm64");
        check(&["linux/amd64 node.kubernetes.io/not-ready:NoExecute"], "linux/amd64");
        check(&["linux/amd64", "linux/arm64 cordoned"], "linux/amd64");
        check(&[], "");
    }

    #[test]
    fn an_image_must_run_on_all_of_them() {
        let check = |image: &[&str], nodes: &[&str], expected: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
            let found = missing(&owned(image), &owned(nodes).into_iter().collect());
            assert_eq!(found, expected, "{image:?} {nodes:?}");
        };
        check(&["linux/amd64", "linux/arm64"], &["linux/amd64"], &[]);
        check(&["linux/arm64"], &["linux/amd64"], &["linux/amd64"]);
        check(&["linux/amd64"], &["linux/amd64", "linux/arm64"], &["linux/arm64"]);
        check(&["linux/amd64"], &[], &[]);
    }
}
