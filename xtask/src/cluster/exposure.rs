//! Who can reach the server from outside of the cluster, as far as `deploy.toml` and the manifests say.
//!
//! Whoever reaches a server without a login can read and delete everything, so a public address without
//! one is refused before anybody is asked anything.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::render::Manifests;
use crate::config::cluster::{Access, ClusterConfig, Login};
use crate::error::{Error, Kind, Result};

/// The annotations with which a cloud keeps a load balancer's address inside of the network: of Google
/// (<https://cloud.google.com/kubernetes-engine/docs/how-to/internal-load-balancing>), Azure
/// (<https://learn.microsoft.com/azure/aks/internal-lb>) and AWS
/// (<https://docs.aws.amazon.com/eks/latest/userguide/network-load-balancing.html>).
const INTERNAL: [(&str, &str); 5] = [
    ("networking.gke.io/load-balancer-type", "Internal"),
    ("cloud.google.com/load-balancer-type", "Internal"),
    ("service.beta.kubernetes.io/azure-load-balancer-internal", "true"),
    ("service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"),
    ("service.beta.kubernetes.io/aws-load-balancer-internal", "true"),
];

/// The widest network from outside that a server is reached from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// None: only the cluster itself.
    Cluster,
    /// A private one, as the text says.
    Private(&'static str),
    /// The internet, or nobody can tell; with what makes it so.
    Public(String),
}

/// Who can reach the server.
///
/// # Errors
/// `Input` where the manifest of an option is missing.
pub fn of(config: &ClusterConfig, manifests: &Manifests) -> Result<Exposure> {
    let access = &config.access;
    let service = if access.load_balancer { manifests.load_balancer()? } else { &manifests.service };
    Ok(match (of_service(service), &access.gateway) {
        (Exposure::Public(why), _) => Exposure::Public(why),
        (_, Some(gateway)) if !access.gateway_is_internal => Exposure::Public(format!("the Gateway {gateway}")),
        (_, Some(_)) => Exposure::Private("a Gateway that is internal, as gateway-is-internal says"),
        (private, None) => private,
    })
}

/// Refuses a server that everyone reaches and that asks nobody who they are.
///
/// # Errors
/// `Config`, with the ways out.
pub fn check(config: &ClusterConfig, manifests: &Manifests) -> Result<Exposure> {
    let exposure = of(config, manifests)?;
    match refusal(&exposure, &config.access) {
        Some(error) => Err(error),
        None => Ok(exposure),
    }
}

fn refusal(exposure: &Exposure, access: &Access) -> Option<Error> {
    let Exposure::Public(what) = exposure else { return None };
    if let (Login::Iap(_), false) = (&access.login, what.contains("Gateway")) {
        let message = format!("{what} leads past Google's Identity-Aware Proxy, and may be reached by everyone");
        return Some(Error::new(Kind::Config, message).hint("take that address out of kubernetes/service.yaml"));
    }
    if access.public_without_login || access.login != Login::None {
        return None;
    }
    let narrower = match access.gateway.is_some() && what.contains("Gateway") {
        true => "where only a private network reaches it, set gateway-is-internal = true".to_owned(),
        false => {
            let (annotation, value) = INTERNAL[0];
            format!("keep the address inside of the network with an annotation such as {annotation}: {value}")
        }
    };
    let message = format!("the server has no login, and {what} may be reached by everyone");
    Some(Error::new(Kind::Config, message).hint(format!(
        "set login = \"oidc\" or \"basic\"; {narrower}; to let everyone read and delete everything, set public-without-login = true, or deploy with \
         --public-without-login"
    )))
}

fn of_service(service: &Service) -> Exposure {
    let Some(spec) = &service.spec else { return Exposure::Cluster };
    let public = |text: &&String| text.parse::<IpAddr>().is_ok_and(is_public);
    if let Some(address) = spec.external_ips.iter().flatten().find(public) {
        return Exposure::Public(format!("the Service's address {address}"));
    }
    if spec.type_.as_deref() != Some("LoadBalancer") {
        return Exposure::Cluster;
    }
    let annotations = service.metadata.annotations.iter().flatten();
    let internal = |(key, value): (&String, &String)| INTERNAL.contains(&(key.as_str(), value.as_str()));
    if annotations.clone().any(internal) {
        return Exposure::Private("a load balancer that is internal, as its annotations say");
    }
    match has_private_clients(spec) {
        true => Exposure::Private("a load balancer for private addresses, as loadBalancerSourceRanges says"),
        false => Exposure::Public("the Service's load balancer".to_owned()),
    }
}

/// Whether the load balancer serves private addresses only.
fn has_private_clients(spec: &ServiceSpec) -> bool {
    let ranges: Vec<&String> = spec.load_balancer_source_ranges.iter().flatten().collect();
    let private = |range: &&String| {
        let (address, bits) = range.split_once('/').unwrap_or((range, ""));
        // A range that begins in a private network and reaches beyond it is none.
        let narrow = bits.parse::<u8>().is_ok_and(|bits| bits >= 8);
        narrow && address.parse::<IpAddr>().is_ok_and(|address| !is_public(address))
    };
    !ranges.is_empty() && ranges.iter().all(private)
}

/// Whether an address is reached from the whole internet, as far as an address tells.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            // RFC 6598: shared address space, which clouds use for pods and nodes.
            let shared = first == 100 && (64..128).contains(&second);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || shared)
        }
        IpAddr::V6(v6) => !(v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::cluster::Iap;

    fn service(annotations: Value, spec: Value) -> Exposure {
        let object = json!({ "metadata": { "name": "mlflow", "annotations": annotations }, "spec": spec });
        of_service(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_load_balancer_is_public_unless_its_manifest_says_otherwise() {
        let balancer = json!({ "type": "LoadBalancer" });
        let ranges = |ranges: &[&str]| json!({ "type": "LoadBalancer", "loadBalancerSourceRanges": ranges });
        let google = json!({ "networking.gke.io/load-balancer-type": "Internal" });
        for (annotations, spec, public) in [
            (json!({}), json!({ "type": "ClusterIP" }), false),
            (json!({}), json!({ "type": "NodePort" }), false),
            (json!({}), json!({ "type": "ClusterIP", "externalIPs": ["203.0.113.7"] }), true),
            (json!({}), json!({ "type": "ClusterIP", "externalIPs": ["10.1.2.3"] }), false),
            (json!({}), balancer.clone(), true),
            (google.clone(), balancer.clone(), false),
            (json!({ "networking.gke.io/load-balancer-type": "External" }), balancer.clone(), true),
            (json!({ "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal" }), balancer, false),
            (json!({}), ranges(&["10.0.0.0/8", "192.168.0.0/16"]), false),
            (json!({}), ranges(&["10.0.0.0/8", "203.0.113.0/24"]), true),
            (json!({}), ranges(&["0.0.0.0/0"]), true),
            (json!({}), ranges(&["10.0.0.0/4"]), true),
            (json!({}), ranges(&[]), true),
        ] {
            let found = service(annotations.clone(), spec.clone());
            assert_eq!(matches!(found, Exposure::Public(_)), public, "{annotations} {spec}: {found:?}");
        }
    }

    #[test]
    fn a_public_address_without_a_login_is_refused_with_the_ways_out() {
        let gateway = || Access { gateway: Some("infra/external".to_owned()), ..Access::default() };
        let check = |exposure: Exposure, access: Access, expected: Option<&str>| {
            let found = refusal(&exposure, &access);
            let text = found.as_ref().map(|error| format!("{error} | {}", error.hint_text().unwrap_or_default()));
            match (text, expected) {
                (None, None) => {}
                (Some(text), Some(part)) => assert!(text.contains(part), "{text} should contain {part:?}"),
                (found, expected) => panic!("{exposure:?}: {found:?}, expected {expected:?}"),
            }
            assert!(found.is_none_or(|error| error.kind() == Kind::Config));
        };
        let balancer = || Exposure::Public("the Service's load balancer".to_owned());
        check(Exposure::Cluster, Access::default(), None);
        check(Exposure::Private("x"), gateway(), None);
        check(balancer(), Access::default(), Some("load-balancer-type: Internal"));
        check(balancer(), Access::default(), Some("login = \"oidc\" or \"basic\""));
        check(balancer(), Access { public_without_login: true, ..Access::default() }, None);
        check(balancer(), Access { login: Login::Basic { password: None }, ..Access::default() }, None);
        check(Exposure::Public("the Gateway infra/external".to_owned()), gateway(), Some("gateway-is-internal = true"));
        let iap = || Access { login: Login::Iap(Iap::default()), ..gateway() };
        check(Exposure::Public("the Gateway infra/external".to_owned()), iap(), None);
        check(Exposure::Public("the Service's address 203.0.113.7".to_owned()), iap(), Some("leads past"));
    }

    #[test]
    fn public_addresses() {
        for (address, public) in [
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.1.1", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("34.118.0.1", true),
            ("100.128.0.1", true),
            ("fd00::1", false),
            ("2001:db8::1", true),
        ] {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        }
    }
}
