//! `kind = "kubernetes"` and `kind = "gke"`: a server in a cluster.

mod checks;
mod iap;
mod oidc;
mod read;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(test)]
pub use iap::IapClient;
pub use iap::{CLIENT_KEY as IAP_CLIENT_KEY, Iap, RANGES as GOOGLE_RANGES};
#[cfg(test)]
pub use oidc::IMAGE as OAUTH2_PROXY_IMAGE;
pub use oidc::Oidc;
pub use read::{namespace, read};

/// The Cloud SQL Auth Proxy. Its releases are tags that Google does not move
/// (<https://github.com/GoogleCloudPlatform/cloud-sql-proxy/releases>).
pub const PROXY_IMAGE: &str = "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25.3";

/// Which of the two kinds is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterKind {
    /// Any: the server is told a database URI.
    Kubernetes,
    /// Google's: Cloud SQL is reached through its Auth Proxy.
    Gke,
}

/// A server in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The kubeconfig file; `None`: what `KUBECONFIG` names, else `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it. Named always: the current one is never taken.
    pub context: String,
    /// The namespace, made when it is missing.
    pub namespace: String,
    /// The tracking server itself.
    pub server: ServerConfig,
    /// Where runs, metrics and models are recorded.
    pub database: Database,
    /// How many connections the database takes; `None`: nobody said.
    pub max_connections: Option<u32>,
    /// Where artifacts are kept.
    pub artifacts: Artifacts,
    /// How clients reach it.
    pub access: Access,
    /// Who fetches the server's metrics.
    pub metrics: Metrics,
    /// How a rollout is judged.
    pub rollout: RolloutConfig,
    /// Whether the credentials that pushed are handed to the cluster as a pull secret.
    pub pull_secret: PullSecret,
    /// When what deleted runs still hold is freed.
    pub gc: GcConfig,
    /// How the database is backed up.
    pub backup: BackupConfig,
}

/// The pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// Pods, where no autoscaler decides.
    pub replicas: u32,
    /// The most pods that an autoscaler may start; `None`: no autoscaler.
    pub max_replicas: Option<u32>,
    /// Worker processes in each.
    pub workers: u16,
    /// CPU that each asks for, as a Kubernetes quantity.
    pub cpu: String,
    /// Memory that each asks for and may not exceed, as a Kubernetes quantity.
    pub memory: String,
    /// Space for artifacts in transit (`/tmp`), as a Kubernetes quantity.
    pub scratch: String,
    /// Further variables for MLflow and its storage clients. No secrets: they are readable.
    pub env: BTreeMap<String, String>,
}

/// Where runs, metrics and models are recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A `postgresql://` URI, with its password.
    Uri(Secret),
    /// Cloud SQL through the Auth Proxy, a native sidecar.
    CloudSql(CloudSql),
}

impl Database {
    /// Cloud SQL, if that is what it is.
    pub fn cloud_sql(&self) -> Option<&CloudSql> {
        match self {
            Self::Uri(_) => None,
            Self::CloudSql(cloud) => Some(cloud),
        }
    }
}

/// A Cloud SQL database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudSql {
    /// `PROJECT:REGION:INSTANCE`.
    pub instance: String,
    /// The database's name.
    pub database: String,
    /// The database user; for IAM logins the service account without `.gserviceaccount.com`.
    pub user: String,
    /// The user's password; `None`: IAM logs in.
    pub password: Option<Secret>,
    /// The proxy's image.
    pub proxy_image: String,
    /// Whether the instance is reached at its private address.
    pub private_ip: bool,
    /// Another address of the Cloud SQL Admin API, for tests and private endpoints.
    pub admin_api: Option<String>,
}

/// Where artifacts are kept, and with whose rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifacts {
    /// `gs://BUCKET[/PATH]`, or whatever else MLflow's server can reach.
    pub uri: String,
    /// Whose rights the pod has at Google.
    pub identity: Identity,
}

/// Whose rights the pod has at Google.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// None, or what the node has.
    Ambient,
    /// Workload Identity Federation for GKE: the Kubernetes service account acts as this one.
    Workload(String),
    /// A service account's JSON key, mounted as a file.
    Key(Secret),
}

/// A secret, by where it is found. The value itself is never part of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file of this machine.
    File(PathBuf),
    /// An environment variable of this machine.
    Variable(String),
    /// A Secret of the namespace that someone else keeps: its name and key.
    Existing {
        /// The Secret's name.
        name: String,
        /// The key in it.
        key: String,
    },
}

/// How clients reach the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Names under which clients from outside the cluster reach it; others are refused.
    pub hosts: Vec<String>,
    /// Whether the Service gets an address of its own outside the cluster.
    pub load_balancer: bool,
    /// The Gateway (`NAMESPACE/NAME`) that an HTTPRoute is attached to.
    pub gateway: Option<String>,
    /// Whether only a private network reaches the Gateway, which is someone else's.
    pub gateway_is_internal: bool,
    /// Who may open a connection to the pods; empty: whoever reaches them.
    pub clients: Vec<Client>,
    /// Where the pods may open connections to.
    pub egress: Egress,
    /// Whom the server asks who they are, and how.
    pub login: Login,
    /// Whether everyone may read and delete everything, at an address that everyone reaches.
    pub public_without_login: bool,
}

/// Who may open a connection to the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// The pods of a namespace.
    Namespace(String),
    /// A range of addresses: `10.0.0.0/8`.
    Addresses(String),
}

/// Where the pods may open connections to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Egress {
    /// Anywhere.
    #[default]
    Open,
    /// To what they cannot do without, and to these.
    Needed {
        /// What the configuration does not say otherwise.
        also: Vec<Peer>,
    },
}

/// A port of a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `10.0.0.0/8`.
    pub range: String,
    /// The port, TCP.
    pub port: u16,
}

impl Access {
    /// Adds addresses that were found to lead to the server at this port: those that are new, and that
    /// are not allowed anyway, as private ones are where clients name the port. No IPv6: its colons
    /// would be taken for a port's.
    pub fn add_hosts(&mut self, found: Vec<String>, port: i32) {
        let private = |host: &str| host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_private());
        let allowed = |host: &str| port != 80 && private(host);
        let fits = |host: &String| !host.contains(':') && !allowed(host) && !self.hosts.contains(host);
        let new: Vec<String> = found.into_iter().filter(fits).collect();
        self.hosts.extend(new);
    }
}

/// Who fetches the server's metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Metrics {
    /// Nobody: it has none.
    #[default]
    None,
    /// A Prometheus that looks for the annotations `prometheus.io/...` of pods.
    Annotations,
    /// The Prometheus Operator, told by a PodMonitor.
    PodMonitor,
    /// Google's managed Prometheus, told by a PodMonitoring.
    PodMonitoring,
}

impl Metrics {
    /// As it is written in `deploy.toml`.
    pub const NAMES: [(&str, Self); 4] = [
        ("none", Self::None),
        ("annotations", Self::Annotations),
        ("pod-monitor", Self::PodMonitor),
        ("pod-monitoring", Self::PodMonitoring),
    ];
}

/// How the server finds out who its clients are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// It does not: whoever reaches it may read and change everything.
    #[default]
    None,
    /// MLflow's own: user names and passwords in its database.
    Basic {
        /// The first administrator's; `None`: made at random, and kept in the namespace.
        password: Option<Secret>,
    },
    /// By OpenID Connect, asked for by oauth2-proxy before the server.
    Oidc(Box<Oidc>),
    /// By Google's Identity-Aware Proxy, before requests come from the Gateway.
    Iap(Iap),
}

/// How a rollout is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutConfig {
    /// How long new pods may take in all.
    pub deadline: Duration,
    /// How long they must stay up before they are believed.
    pub soak: Duration,
    /// How long a migration of the databases may take.
    pub migration: Duration,
    /// How many earlier releases can be gone back to.
    pub keep: usize,
}

/// When what deleted runs, models and experiments still hold is freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcConfig {
    /// When, as cron has it, in UTC; `None`: when someone asks for it.
    pub schedule: Option<String>,
    /// How long ago it must have been deleted.
    pub older_than: Duration,
    /// Whether the schedule only says what would be freed.
    pub dry_run: bool,
    /// How long it may take.
    pub deadline: Duration,
}

impl Default for GcConfig {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Self { schedule: None, older_than: days(30), dry_run: false, deadline: Duration::from_secs(3_600) }
    }
}

/// How the database is backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupConfig {
    /// Who makes and keeps backups.
    pub method: BackupMethod,
    /// Where dumps go; `None`: nobody said, and nothing follows from where the artifacts are.
    pub to: Option<String>,
    /// How many backups `db backup` leaves.
    pub keep: usize,
    /// How long one may take, and how long bringing it back may.
    pub deadline: Duration,
}

/// Who makes and keeps backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupMethod {
    /// A pod like the server's, by pg_dump, into a store.
    Dump,
    /// Cloud SQL, of the whole instance.
    CloudSql,
}

impl BackupMethod {
    /// As it is written in `deploy.toml`.
    pub const NAMES: [(&str, Self); 2] = [("dump", Self::Dump), ("cloud-sql", Self::CloudSql)];
}

/// Whether the cluster gets the credentials that pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PullSecret {
    /// When the registry asks for a login and is not one of Google's while the cluster is (`gke`).
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never: the nodes can pull, or the namespace's own secret does it.
    Never,
    /// Never: the pods name this Secret, which someone else keeps in the namespace.
    Existing(String),
}
