//! One authority, and the certificates of everybody who speaks in the cluster.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

use super::error::{Context as _, Result};
use super::options::Options;

/// Days that a testbed's certificates live. It is not meant to.
const DAYS: i64 = 365;

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: String,
    /// Its key.
    pub(crate) key: String,
}

/// Everything that proves an identity in the cluster.
#[derive(Debug)]
pub(crate) struct Pki {
    pub(crate) authority: Pair,
    /// Signs the tokens of service accounts; the public half is in `certificate`.
    pub(crate) tokens: Pair,
    pub(crate) api_server: Pair,
    pub(crate) kubelet_server: Pair,
    pub(crate) api_server_to_kubelet: Pair,
    /// Users, by the name of their kubeconfig.
    pub(crate) users: Vec<(&'static str, Pair)>,
}

/// The kubeconfig of the user who may do everything.
pub(crate) const ADMIN: &str = "admin";

/// Makes all of it anew; some milliseconds, the keys are elliptic.
pub(crate) fn make(options: &Options) -> Result<Pki> {
    build(options).on_machine(|| "cannot make the cluster's certificates")
}

fn build(options: &Options) -> std::result::Result<Pki, rcgen::Error> {
    let network = &options.network;
    let node = format!("system:node:{}", options.node_name());
    let mut params = params("kubernetes-ca", None, &[], &[])?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let issue = |name: &str, group: Option<&str>, ips: &[IpAddr], hosts: &[&str]| {
        let mut params = self::params(name, group, ips, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match ips {
            [] => vec![ExtendedKeyUsagePurpose::ClientAuth],
            _ => vec![ExtendedKeyUsagePurpose::ServerAuth],
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &authority)?;
        Ok::<_, rcgen::Error>(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    };
    let (node_ip, api_ip) = (IpAddr::from(network.node_ip()), IpAddr::from(network.api_ip()));
    let api_names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    let tokens = KeyPair::generate()?;
    // The groups and names are those that RBAC's built-in roles and the node authorizer expect.
    let (masters, nodes) = (Some("system:masters"), Some("system:nodes"));
    Ok(Pki {
        api_server: issue("kube-apiserver", None, &[node_ip, IpAddr::from([127, 0, 0, 1]), api_ip], &api_names)?,
        kubelet_server: issue(&node, nodes, &[node_ip], &[options.node_name()])?,
        api_server_to_kubelet: issue("apiserver-kubelet-client", masters, &[], &[])?,
        users: vec![
            (ADMIN, issue("testbed-admin", masters, &[], &[])?),
            ("kubelet", issue(&node, nodes, &[], &[])?),
            ("controller-manager", issue("system:kube-controller-manager", None, &[], &[])?),
            ("scheduler", issue("system:kube-scheduler", None, &[], &[])?),
            ("proxy", issue("system:kube-proxy", None, &[], &[])?),
        ],
        tokens: Pair { certificate: tokens.public_key_pem(), key: tokens.serialize_pem() },
        authority: Pair { certificate: authority.pem(), key: authority.key().serialize_pem() },
    })
}

fn params(
    name: &str,
    group: Option<&str>,
    ips: &[IpAddr],
    hosts: &[&str],
) -> std::result::Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
    params.subject_alt_names.extend(ips.iter().map(|ip| SanType::IpAddress(*ip)));
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    let now = time::OffsetDateTime::now_utc();
    // A clock that is set back a little must not make the cluster refuse itself.
    params.not_before = now - time::Duration::hours(1);
    params.not_after = now + time::Duration::days(DAYS);
    Ok(params)
}

/// A kubeconfig with everything in it, as JSON, which is YAML.
pub(crate) fn kubeconfig(authority: &Pair, user: &str, pair: &Pair, server: &str, context: &str) -> Value {
    let encode = |text: &str| STANDARD.encode(text);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": context, "cluster": {
            "server": server, "certificate-authority-data": encode(&authority.certificate) } }],
        "users": [{ "name": user, "user": {
            "client-certificate-data": encode(&pair.certificate), "client-key-data": encode(&pair.key) } }],
        "contexts": [{ "name": context, "context": { "cluster": context, "user": user } }],
        "current-context": context,
    })
}
