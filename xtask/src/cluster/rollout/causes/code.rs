//! The names of causes, and what to do about each.

use serde::Serialize;

/// What is wrong. The names are part of `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The image's name is no name.
    ImageName,
    /// The registry does not have the image.
    ImageNotFound,
    /// The node does not have the image, and may not pull it.
    ImageAbsent,
    /// The image is not for the node's platform.
    ImagePlatform,
    /// The registry wants other credentials.
    ImageAuth,
    /// The image cannot be pulled for another reason: the registry does not answer.
    ImagePull,
    /// The pod runs another image than the one that was applied.
    ImageChanged,
    /// A ConfigMap, Secret or key that the container needs is missing, or its settings contradict.
    ConfigError,
    /// The container's program cannot be started.
    CannotStart,
    /// The container exits again and again.
    CrashLoop,
    /// An init container exits again and again.
    InitCrash,
    /// A sidecar exits again and again.
    SidecarCrash,
    /// The container needs more memory than it may have.
    OomKilled,
    /// A probe gets no good answer.
    ProbeFailing,
    /// The database's schema is not the one that this MLflow works with.
    SchemaMismatch,
    /// The database does not answer.
    DatabaseUnreachable,
    /// The database answers, and refuses the login.
    DatabaseRefused,
    /// No node takes the pod.
    Unschedulable,
    /// A volume cannot be mounted.
    VolumeMount,
    /// The node cannot set the pod up, network included.
    Sandbox,
    /// The node does not answer.
    NodeLost,
    /// The node put the pod out, or did not take it.
    Evicted,
    /// The namespace's quota is used up.
    Quota,
    /// A policy or webhook refuses the pod.
    Admission,
    /// A webhook that has to admit the pod does not answer.
    WebhookUnreachable,
    /// The pod cannot be made for another reason.
    CreateFailed,
    /// The pod does not become ready, and nothing says why.
    NotReady,
    /// The Deployment is paused.
    Paused,
    /// The Deployment wants no pods.
    NoReplicas,
    /// The deadline passed, and nothing says why.
    DeadlineExceeded,
}

impl Code {
    /// What is wrong, to be read after the container's or the pod's name.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::ImageName => "the image's name is invalid",
            Self::ImageNotFound => "the registry does not have the image",
            Self::ImageAbsent => "the node does not have the image and may not pull it",
            Self::ImagePlatform => "the image is not for the node's platform",
            Self::ImageAuth => "the registry refuses the cluster's credentials",
            Self::ImagePull => "the image cannot be pulled",
            Self::ImageChanged => "it runs another image than the one that was applied",
            Self::ConfigError => "its configuration is missing or wrong",
            Self::CannotStart => "its program cannot be started",
            Self::CrashLoop => "it exits again and again",
            Self::InitCrash => "the init container exits again and again",
            Self::SidecarCrash => "the sidecar exits again and again",
            Self::OomKilled => "it needs more memory than its limit",
            Self::ProbeFailing => "its probe gets no good answer",
            Self::SchemaMismatch => "the database's schema is not the one that this MLflow works with",
            Self::DatabaseUnreachable => "the database does not answer",
            Self::DatabaseRefused => "the database refuses the login",
            Self::Unschedulable => "no node takes the pod",
            Self::VolumeMount => "a volume cannot be mounted",
            Self::Sandbox => "the node cannot set the pod up",
            Self::NodeLost => "the pod's node does not answer",
            Self::Evicted => "the node put the pod out",
            Self::Quota => "the namespace's quota is used up",
            Self::Admission => "the cluster's policy refuses the pods",
            Self::WebhookUnreachable => "a webhook that has to admit the pods does not answer",
            Self::CreateFailed => "the pods cannot be made",
            Self::NotReady => "it does not become ready",
            Self::Paused => "the Deployment is paused",
            Self::NoReplicas => "the Deployment wants 0 replicas, so nothing serves",
            Self::DeadlineExceeded => "the new pods are not ready",
        }
    }

    /// What to do about it, as an imperative sentence.
    pub fn hint(self) -> &'static str {
        match self {
            Self::ImageName => "correct the image's name in deploy.toml or --image",
            Self::ImageNotFound => "push it: `cargo xtask build-image --push`, or name one that exists with --image",
            Self::ImageAbsent => "set imagePullPolicy in kubernetes/deployment.yaml to IfNotPresent",
            Self::ImagePlatform => "build for the node's platform: `cargo xtask build-image --push --platform ...`",
            Self::ImageAuth => {
                "give the cluster a pull secret (pull_secret in deploy.toml), or its nodes the right to pull"
            }
            Self::ImagePull => "check that the nodes reach the registry under the image's name",
            Self::ImageChanged => {
                "find the admission webhook that rewrites images: `kubectl get mutatingwebhookconfigurations`"
            }
            Self::ConfigError => "correct what the message names, in deploy.toml or in the Secret that it points at",
            Self::CannotStart => "correct the container's command, or its image",
            Self::CrashLoop | Self::InitCrash => "read the log lines above: they hold its last words",
            Self::SidecarCrash => {
                "read the sidecar's log lines above; for the Cloud SQL proxy check instance and identity"
            }
            Self::OomKilled => "give the server more memory (server.memory in deploy.toml), or fewer workers",
            Self::ProbeFailing => {
                "find out why nothing good answers the probe: the log and `kubectl describe pod` tell; the server's readiness needs the database"
            }
            Self::SchemaMismatch => {
                "deploy the MLflow version that fits the schema, or upgrade the schema after a backup"
            }
            Self::DatabaseUnreachable => {
                "check the database's address in its URI, that it runs, and that the network policy lets pods reach it"
            }
            Self::DatabaseRefused => "correct user, password or database name in the database's URI",
            Self::Unschedulable => {
                "free or add what the message names, or ask for less (server.cpu, server.memory in deploy.toml)"
            }
            Self::VolumeMount => "make what the message names, or correct its name",
            Self::Sandbox => "look at the node: `kubectl describe node`",
            Self::NodeLost => "repair or remove the node; its pods move after five minutes",
            Self::Evicted => "give the nodes more room, or the server a smaller scratch volume",
            Self::Quota => "raise the namespace's ResourceQuota, or ask for less",
            Self::Admission => {
                "change what the message names in kubernetes/deployment.yaml, or have the policy changed"
            }
            Self::WebhookUnreachable => "repair the webhook that the message names, or have its configuration removed",
            Self::CreateFailed => "correct what the message names",
            Self::NotReady => "look at the pod: `kubectl describe pod`",
            Self::Paused => "resume it: `kubectl rollout resume deployment/mlflow`",
            Self::NoReplicas => "set server.replicas in deploy.toml to at least 1",
            Self::DeadlineExceeded => "look at the events above, or raise rollout.deadline in deploy.toml",
        }
    }
}
