//! A server in a Kubernetes cluster: what is applied, by whom, and whether it works.
//!
//! `render` and `rollout::verdict` are pure. The rest observes (read only) or acts, and is driven by
//! `commands::deploy`. Nothing here reads the current context of a kubeconfig.

pub mod apply;
pub mod budget;
pub mod call;
pub mod connect;
pub mod credentials;
pub mod deploy;
pub mod diff;
pub mod exposure;
pub mod failure;
pub mod forward;
pub mod image;
pub mod job;
pub mod lease;
pub mod login;
pub mod logs;
pub mod object;
pub mod plan;
pub mod preflight;
pub mod prune;
pub mod pull_secret;
pub mod release;
pub mod render;
pub mod rollout;
pub mod smoke;
pub mod source;
pub mod status;
pub mod target;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;

pub use connect::Cluster;
pub use object::{Object, ObjectKind};

/// The field manager of everything that this program applies.
pub const MANAGER: &str = "mlflow-on-kubernetes";

/// The name of the Deployment, the Service and whatever else there is one of.
pub const NAME: &str = "mlflow";

/// The label that marks what is ours, with [`MANAGER`] as its value
/// (<https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/>).
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The prefix of our own labels and annotations: `mlflow-on-kubernetes/release`.
pub const PREFIX: &str = "mlflow-on-kubernetes";

/// The server's port in the pod.
pub const PORT: u16 = 5000;

/// The container that runs MLflow.
pub const CONTAINER: &str = "mlflow";

/// The container of a Deployment's pods that runs MLflow.
pub fn server(deployment: &Deployment) -> Option<&Container> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    pod.containers.iter().find(|container| container.name == CONTAINER)
}

/// The image that a Deployment's servers run.
pub fn server_image(deployment: &Deployment) -> Option<&str> {
    server(deployment)?.image.as_deref()
}
