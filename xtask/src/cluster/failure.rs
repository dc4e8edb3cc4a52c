//! What the API server, or the way to it, answered: as an error of ours.

use std::error::Error as StdError;
use std::fmt;

use kube::core::Status;

use crate::error::{Error, Kind};

use super::connect::Cluster;

/// An error of kube as ours. `doing` names what was tried: `read Deployment/mlflow`.
pub fn explain(cluster: &Cluster, doing: &str, error: kube::Error) -> Error {
    let kind = kind(&error);
    let message = match kind {
        Kind::Remote => format!("cannot {doing}: no good answer from the API server {}", cluster.server),
        _ => format!("cannot {doing} in namespace {} of context {}", cluster.namespace, cluster.context),
    };
    let fixed = match kind {
        Kind::Auth => Some("log in again; for GKE: `gcloud auth login`, for others: renew the context's credentials"),
        Kind::Forbidden => Some("ask the cluster's administrator for the right that is named above"),
        Kind::Remote => Some("check the network and the context's server address, then run the same command again"),
        Kind::Conflict => Some("see who manages the fields named above; `--force-conflicts` takes them over"),
        _ => None,
    };
    let error = Error::new(kind, message).source(cause(error));
    match fixed {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Which exit code an error of kube stands for.
pub fn kind(error: &kube::Error) -> Kind {
    match error {
        kube::Error::Api(status) => status_kind(status),
        kube::Error::Auth(_) => Kind::Auth,
        kube::Error::InferConfig(_) | kube::Error::InferKubeconfig(_) => Kind::Config,
        kube::Error::BuildRequest(_) | kube::Error::SerdeError(_) => Kind::Internal,
        // A plugin that fails while a request is built comes wrapped.
        kube::Error::Service(error) if is_auth(error.as_ref()) => Kind::Auth,
        _ => Kind::Remote,
    }
}

fn status_kind(status: &Status) -> Kind {
    match status.code {
        401 => Kind::Auth,
        403 if status.message.contains("exceeded quota") || is_admission(&status.message) => Kind::Refused,
        403 => Kind::Forbidden,
        409 => Kind::Conflict,
        400 | 404 | 413 | 422 => Kind::Refused,
        500 if status.message.contains("failed calling webhook") => Kind::Refused,
        _ => Kind::Remote,
    }
}

/// Whether an admission plugin or webhook said no, which is about the object and not about rights.
fn is_admission(message: &str) -> bool {
    ["admission webhook", "violates PodSecurity", "ValidatingAdmissionPolicy", "being terminated"]
        .iter()
        .any(|sign| message.contains(sign))
}

fn is_auth(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<kube::client::AuthError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// kube prints the whole status twice: the server's own sentence says it, or its list of causes.
fn cause(error: kube::Error) -> Box<dyn StdError + Send + Sync> {
    match error {
        kube::Error::Api(status) => match Lines::chain(causes(&status)) {
            Some(lines) => Box::new(lines),
            None if status.message.is_empty() => format!("it answered {} {}", status.code, status.reason).into(),
            None => status.message.clone().into(),
        },
        other => Box::new(other),
    }
}

/// What a status blames, a line for each field.
pub fn causes(status: &Status) -> Vec<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let mut lines: Vec<String> = causes
        .filter(|cause| !cause.message.is_empty())
        .map(|cause| match cause.field.as_str() {
            "" | "<nil>" => cause.message.clone(),
            field => format!("{}: {}", field.trim_start_matches('.'), cause.message),
        })
        .collect();
    lines.dedup();
    lines
}

/// Several lines as a chain of causes, so that each is printed on its own line.
#[derive(Debug)]
pub struct Lines {
    line: String,
    next: Option<Box<Lines>>,
}

impl Lines {
    /// The chain of these lines; `None` for none.
    pub fn chain(lines: Vec<String>) -> Option<Self> {
        lines.into_iter().rev().fold(None, |next, line| Some(Self { line, next: next.map(Box::new) }))
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl StdError for Lines {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.next.as_deref().map(|next| next as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_gives_the_exit_code() {
        let check = |code: u16, message: &str, expected: Kind| {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            assert_eq!(kind(&kube::Error::Api(Box::new(status))), expected, "{code} {message}");
        };
        check(401, "Unauthorized", Kind::Auth);
        check(403, "deployments.apps is forbidden: User \"a\" cannot create", Kind::Forbidden);
        check(403, "pods \"a\" is forbidden: exceeded quota: q", Kind::Refused);
        check(403, "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", Kind::Refused);
        check(409, "Apply failed with 1 conflict", Kind::Conflict);
        check(422, "Deployment.apps \"mlflow\" is invalid", Kind::Refused);
        check(403, "namespace a because it is being terminated", Kind::Refused);
        check(500, "etcdserver: request timed out", Kind::Remote);
        check(500, "Internal error occurred: failed calling webhook \"a\": connection refused", Kind::Refused);
        check(503, "", Kind::Remote);
    }
}
