//! What a fake Google is started with.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::builds::BuildHook;

/// A project and what an administrator has decided for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its number.
    pub number: u64,
    /// Whether a billing account pays for it.
    pub billing: bool,
    /// The APIs that are enabled from the start.
    pub enabled: Vec<String>,
    /// Boolean constraints that the organisation enforces, like `iam.disableServiceAccountKeyCreation`.
    pub constraints: Vec<String>,
    /// Quotas of a region by metric, like `CPUS`; what is not named has a limit that nobody reaches.
    pub quotas: BTreeMap<String, u64>,
}

impl Default for Project {
    fn default() -> Self {
        Self {
            id: "testbed-project".to_owned(),
            number: 415_104_041_262,
            billing: true,
            enabled: Vec::new(),
            constraints: Vec::new(),
            quotas: BTreeMap::new(),
        }
    }
}

impl Project {
    /// A project with billing and without any API of its own.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// A metadata server of its own, as a machine or a pod has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The service account whose tokens it hands out.
    pub account: String,
    /// `NAMESPACE/ACCOUNT` of Kubernetes: the tokens then depend on the account's policy, as in GKE.
    pub workload: Option<String>,
}

/// What a fake Google is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The projects that there are.
    pub projects: Vec<Project>,
    /// Who a token of unknown origin belongs to; may do everything.
    pub owner: String,
    /// Whether the IAM policies decide what service accounts may do.
    pub enforce: bool,
    /// How often an operation is told to be running.
    pub polls: u32,
    /// Host of the registry, `HOST/PROJECT/REPOSITORY`; without one Google's.
    pub registry: Option<String>,
    /// The Kubernetes API server that clusters are told to have, `HOST:PORT`.
    pub cluster_endpoint: Option<String>,
    /// The name by which its API server is reached without its authority; with `cluster_endpoint`
    /// there is none unless it is given.
    pub cluster_dns_endpoint: Option<String>,
    /// Its authority, PEM.
    pub cluster_ca: Option<String>,
    /// A superuser's URI of the PostgreSQL behind Cloud SQL, `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub postgres: Option<String>,
    /// Whether service accounts own what is in a database, as users with a password do. Google's may
    /// do nothing there until somebody grants it or `databaseRoles` names `cloudsqlsuperuser`.
    pub iam_superusers: bool,
    /// Where whoever has a key asks for tokens, `http://HOST:PORT`; without one where the key was asked for.
    pub keys_base: Option<String>,
    /// Where Cloud SQL's TLS end listens; port 3307 is what connectors dial.
    pub tunnel: Option<SocketAddr>,
    /// The address that instances are told to have; without one that of `tunnel`.
    pub instance_address: Option<String>,
    /// A fake-gcs-server for the objects, `http://HOST:PORT`; without one they are in memory.
    pub objects: Option<String>,
    /// The account of the metadata server at the bare paths of the main address.
    pub metadata_account: Option<String>,
    /// Further metadata servers.
    pub metadata: Vec<Metadata>,
    /// What builds images; without one builds fail.
    pub build: Option<Arc<dyn BuildHook>>,
}

impl Default for Options {
    fn default() -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: local,
            projects: vec![Project::default()],
            owner: "owner@testbed.example".to_owned(),
            enforce: false,
            polls: 1,
            registry: None,
            cluster_endpoint: None,
            cluster_dns_endpoint: None,
            cluster_ca: None,
            postgres: None,
            iam_superusers: false,
            keys_base: None,
            tunnel: None,
            instance_address: None,
            objects: None,
            metadata_account: None,
            metadata: Vec::new(),
            build: None,
        }
    }
}
