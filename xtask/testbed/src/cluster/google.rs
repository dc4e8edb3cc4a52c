//! The fake Google of a node: a process beside the others, in front of the node's own API server,
//! registry, PostgreSQL and fake GCS.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::google::{self, Metadata, Project};

use super::components::CLOUD_SQL;
use super::error::{Context as _, Result};
use super::options::Options;
use super::state::write_private;
use super::{database, network};

/// The one project.
pub const PROJECT: &str = "testbed-project";

/// The argument that makes the supervisor's program a fake Google.
pub const COMMAND: &str = "google";

/// Its settings, below `conf`. There is a password in it.
pub(crate) const SETTINGS: &str = "google.json";

/// How the API server asks it about tokens, below `conf`.
pub(crate) const TOKENS: &str = "tokens.kubeconfig";

/// The port of Cloud SQL's connectors.
const CONNECTORS: u16 = 3307;

/// Whose tokens pods get: the service account `mlflow` of the namespace `mlflow` acts as this one.
const WORKLOAD: (&str, &str) = ("mlflow/mlflow", "mlflow@testbed-project.iam.gserviceaccount.com");

/// What the process is started with.
#[derive(Debug, Serialize, Deserialize)]
struct Settings {
    listen: SocketAddr,
    registry: String,
    cluster: String,
    cluster_ca: String,
    postgres: String,
    connectors: SocketAddr,
    objects: String,
    metadata: SocketAddr,
}

/// The command of the component.
pub(crate) fn command(options: &Options, settings: &str) -> Vec<String> {
    let program = options.supervisor.iter().map(|arg| arg.to_string_lossy().into_owned());
    // The last argument is the one that leads to the node.
    let mut argv: Vec<String> = program.take(options.supervisor.len().saturating_sub(1)).collect();
    argv.extend([COMMAND.to_owned(), settings.to_owned()]);
    argv
}

/// Writes its settings, and how the API server asks it whose a token is.
pub(crate) fn configure(options: &Options, authority: &str, password: &str) -> Result<()> {
    let network = &options.network;
    let node = IpAddr::V4(network.node_ip());
    let settings = Settings {
        listen: SocketAddr::new(node, network.google),
        registry: network.registry(),
        cluster: network.api_server().trim_start_matches("https://").to_owned(),
        cluster_ca: authority.to_owned(),
        postgres: database::uri(database::ADMIN, password, &format!("{node}:{}", CLOUD_SQL.1), "postgres"),
        connectors: SocketAddr::new(node, CONNECTORS),
        objects: network.gcs(),
        metadata: SocketAddr::new(network::METADATA.into(), 80),
    };
    let text = serde_json::to_vec_pretty(&settings).on_machine(|| "cannot write JSON")?;
    write_private(&options.path("conf").join(SETTINGS), &text)?;
    let webhook = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "google",
        "clusters": [{
            "name": "google",
            "cluster": { "server": format!("{}/_testbed/tokenreview", network.google_for_pods()) },
        }],
        "users": [{ "name": "apiserver", "user": {} }],
        "contexts": [{ "name": "google", "context": { "cluster": "google", "user": "apiserver" } }],
    });
    write_private(&options.path("conf").join(TOKENS), webhook.to_string().as_bytes())
}

/// Serves for as long as the process lives; `settings` is the file that [`configure`] has written.
///
/// # Errors
/// When an address is taken, or the file is damaged.
pub async fn serve(settings: &Path) -> std::io::Result<Infallible> {
    let text = std::fs::read(settings)?;
    let settings: Settings = serde_json::from_slice(&text)?;
    let (workload, account) = WORKLOAD;
    google::serve(
        google::Options {
            listen: settings.listen,
            projects: vec![Project::new(PROJECT)],
            enforce: true,
            registry: Some(settings.registry),
            cluster_endpoint: Some(settings.cluster),
            cluster_ca: Some(settings.cluster_ca),
            postgres: Some(settings.postgres),
            keys_base: Some(format!("http://{}", settings.listen)),
            tunnel: Some(settings.connectors),
            objects: Some(settings.objects),
            metadata: vec![Metadata {
                listen: settings.metadata,
                account: account.to_owned(),
                workload: Some(workload.to_owned()),
            }],
            ..google::Options::default()
        },
        |_| {},
    )
    .await
}
