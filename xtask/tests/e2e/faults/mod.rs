//! The fault table: a healthy release, a deploy that must fail, and what must be seen of it.

mod cluster;
mod connection;
mod images;
mod interrupted;
mod policy;
mod server;
mod trial;

pub use connection::back_to_the_beginning;
pub use trial::{State, settled};

use crate::scenario::{Run, Scenario};

/// A scenario that may run beside others.
const fn beside(name: &'static str, about: &'static str, run: Run) -> Scenario {
    Scenario { name, about, alone: false, needs: None, run }
}

/// A scenario that stops a component that all share.
const fn alone(name: &'static str, component: &'static str, about: &'static str, run: Run) -> Scenario {
    Scenario { name, about, alone: true, needs: Some(component), run }
}

/// Those that break only what is their own.
pub const SCENARIOS: &[Scenario] = &[
    beside("fault-never-ready", "an image that runs and never gets ready", images::never_ready),
    beside("fault-database-unreachable", "a database that nobody listens for", server::database_unreachable),
    beside("fault-unschedulable", "more memory than any node has", server::unschedulable),
    Scenario {
        name: "fault-registry-gone",
        about: "the registry goes away after it was asked",
        alone: false,
        needs: Some("login-registry"),
        run: images::registry_gone,
    },
    beside("fault-sidecar", "a Cloud SQL proxy that exits again and again", server::sidecar),
    beside("fault-exits", "an image that exits at once", images::exits),
    beside("fault-oom", "a server that needs more memory than its limit", images::out_of_memory),
    beside("fault-image-tag", "an image tag that does not exist", images::no_such_tag),
    beside("fault-image-layer", "an image of which the registry has lost a layer", images::lost_layer),
    beside("fault-registry-down", "a registry that does not answer", images::registry_down),
    beside("fault-secret-key", "a key that the Secret does not have", server::secret_key),
    beside("fault-schema", "a database whose schema is newer than the image", server::newer_schema),
    beside("fault-quota", "a quota that leaves no room for another pod", policy::quota),
    beside("fault-admission", "a policy that refuses the Deployment", policy::admission),
    beside("fault-admission-pods", "a policy that refuses its pods", policy::admission_of_pods),
    beside("fault-pod-security", "pods that break the namespace's Pod Security", policy::pod_security),
    beside("fault-token", "credentials that expire during the rollout", connection::token),
    beside("fault-two-at-once", "two deploys at once", connection::two_at_once),
    beside("killed-locked", "xtask is killed once it has the lock", interrupted::locked),
    beside("killed-applied", "xtask is killed right after the apply", interrupted::applied),
    beside("killed-rollout", "xtask is killed while it follows the rollout", interrupted::rollout),
    beside("killed-soak", "xtask is killed while it watches the new pods", interrupted::soak),
    beside("killed-smoke", "xtask is killed in the smoke test", interrupted::smoke),
    beside("killed-bad-rollout", "xtask is killed while a rollout fails", interrupted::bad_rollout),
    beside("interrupted", "Ctrl-C during the rollout", interrupted::ctrl_c),
];

/// Those that break what all share.
pub const ALONE: &[Scenario] = &[
    alone("fault-database-down", "postgres", "PostgreSQL stops", cluster::database_down),
    alone("fault-api-server", "apiserver", "the API server restarts during the rollout", cluster::api_server_restart),
    alone("fault-node", "kubelet", "the node stops", cluster::node_stopped),
];
