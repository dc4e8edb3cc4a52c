//! What the API server, or the way to it, answered: as an error of ours.

use std::error::Error as StdError;
use std::fmt;

use kube::client::AuthError;
use kube::config::ExecConfig;
use kube::core::Status;

use crate::error::{Error, Kind};

use super::connect::Cluster;

/// What helps against credentials that are refused.
const LOG_IN: &str = "log in again; for GKE: `gcloud auth login`, for others: renew the context's credentials";

/// An error of kube as ours. `doing` names what was tried: `read Deployment/mlflow`.
pub fn explain(cluster: &Cluster, doing: &str, error: kube::Error) -> Error {
    let kind = kind(&error);
    let message = match kind {
        Kind::Auth => format!("cannot {doing}: {} does not accept the context {}", cluster.server, cluster.context),
        Kind::Remote => format!("cannot {doing}: no good answer from the API server {}", cluster.server),
        _ => format!("cannot {doing} in namespace {} of context {}", cluster.namespace, cluster.context),
    };
    let fixed = remedy(kind, &error);
    let error = Error::new(kind, message).source(cause(error));
    match fixed {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What helps.
fn remedy(kind: Kind, error: &kube::Error) -> Option<&'static str> {
    let said = |sign: &str| matches!(error, kube::Error::Api(status) if status.message.contains(sign));
    Some(match kind {
        Kind::Auth => LOG_IN,
        Kind::Forbidden => "ask the cluster's administrator for the right that is named above",
        Kind::Remote if is_untrusted(error) => {
            "this is another server than the kubeconfig trusts: get the context anew, or look for a proxy in between"
        }
        Kind::Remote => "check the network and the context's server address, then run the same command again",
        Kind::Conflict => "see who manages the fields named above; `--force-conflicts` takes them over",
        Kind::Refused if said("exceeded quota") => {
            "free what the quota counts, or ask the cluster's administrator for more of it"
        }
        Kind::Refused if said("failed calling webhook") => {
            "the cluster asks another program whether this may be, and that one does not answer: see to it first"
        }
        Kind::Refused if said("being terminated") => {
            "wait until the namespace is gone, or name another one in deploy.toml"
        }
        Kind::Refused if said("field is immutable") => {
            "undo the change of that field; or delete the object by hand, which stops the server until the next deploy"
        }
        Kind::Refused if matches!(error, kube::Error::Api(status) if is_admission(&status.message)) => {
            "change what the cluster's policy names, in kubernetes/ or deploy.toml, or ask its administrator"
        }
        Kind::Refused if is_missing(error) => return None,
        Kind::Refused => "correct what is named above, in kubernetes/ or deploy.toml",
        _ => return None,
    })
}

/// Why a context's credentials could not be had.
pub fn login(context: &str, plugin: Option<&ExecConfig>, error: kube::Error) -> Error {
    let kube::Error::Auth(auth) = &error else {
        return Error::new(Kind::Config, format!("the context {context:?} of the kubeconfig cannot be used"))
            .source(error);
    };
    let program = program(plugin);
    match auth {
        AuthError::AuthExecStart(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            let installed = plugin.and_then(|plugin| plugin.install_hint.as_deref()).map(str::trim);
            Error::new(Kind::Tool, format!("{program} is not installed; the context {context:?} logs in with it"))
                .hint(installed.unwrap_or("install it, or put it on the PATH").to_owned())
        }
        _ => Error::new(Kind::Auth, format!("cannot log in to the context {context:?}"))
            .source(auth_cause(program, auth))
            .hint(LOG_IN),
    }
}

/// The plugin that logs in, by name.
pub fn program(plugin: Option<&ExecConfig>) -> &str {
    plugin.and_then(|plugin| plugin.command.as_deref()).unwrap_or("the plugin that logs in")
}

/// What a plugin said: kube prints its output as numbers, and its arguments with it.
fn auth_cause(program: &str, error: &AuthError) -> String {
    let AuthError::AuthExecRun { out, .. } = error else { return error.to_string() };
    let said = String::from_utf8_lossy(&out.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    match last {
        Some(last) => format!("{program} failed ({}): {}", out.status, last.trim()),
        // Where it may ask its user, its messages have gone to the terminal.
        None => format!("{program} failed ({}); what it said is above", out.status),
    }
}

/// Which exit code an error of kube stands for.
pub fn kind(error: &kube::Error) -> Kind {
    match error {
        kube::Error::Api(status) => status_kind(status),
        kube::Error::Auth(_) => Kind::Auth,
        kube::Error::InferConfig(_) | kube::Error::InferKubeconfig(_) => Kind::Config,
        kube::Error::BuildRequest(_) | kube::Error::SerdeError(_) => Kind::Internal,
        kube::Error::Service(error) if auth_error(error.as_ref()).is_some() => Kind::Auth,
        _ => Kind::Remote,
    }
}

fn status_kind(status: &Status) -> Kind {
    match status.code {
        401 => Kind::Auth,
        // Whoever comes without credentials may be let in, but not far.
        403 if status.message.contains("\"system:anonymous\"") => Kind::Auth,
        403 if status.message.contains("exceeded quota") || is_admission(&status.message) => Kind::Refused,
        403 => Kind::Forbidden,
        409 => Kind::Conflict,
        400 | 404 | 413 | 422 => Kind::Refused,
        // Fields that the schema does not have are reported as if the server had failed.
        500 if ["failed calling webhook", "failed to create typed patch object"]
            .iter()
            .any(|sign| status.message.contains(sign)) =>
        {
            Kind::Refused
        }
        _ => Kind::Remote,
    }
}

/// Whether the object, its namespace or its kind does not exist; for a kind, kube does not see it.
pub fn is_missing(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether an admission plugin or webhook said no, which is about the object and not about rights.
fn is_admission(message: &str) -> bool {
    ["admission webhook", "violates PodSecurity", "ValidatingAdmissionPolicy", "being terminated"]
        .iter()
        .any(|sign| message.contains(sign))
}

/// A plugin that fails while a request is built comes wrapped.
fn auth_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a AuthError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<AuthError>() {
            return Some(error);
        }
        next = error.source();
    }
    None
}

/// Whether the connection is not the one that the kubeconfig trusts: asking again would not help.
pub fn is_untrusted(error: &kube::Error) -> bool {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error that wraps another error passes it over as its source.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
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
        kube::Error::Auth(error) => auth_cause("the plugin that logs in", &error).into(),
        kube::Error::Service(error) => match auth_error(error.as_ref()) {
            Some(error) => auth_cause("the plugin that logs in", error).into(),
            None => error,
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
    fn a_certificate_of_another_server_is_seen_through_its_wrappings() {
        let check = |error: Box<dyn StdError + Send + Sync>, expected: bool| {
            let error = kube::Error::Service(error);
            assert_eq!(is_untrusted(&error), expected, "{error:?}");
        };
        let untrusted = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        check(Box::new(untrusted()), true);
        check(Box::new(std::io::Error::other(untrusted())), true);
        check(Box::new(std::io::Error::other(std::io::Error::other(untrusted()))), true);
        check(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)), false);
    }

    #[test]
    fn a_plugin_that_fails_is_quoted() {
        use std::os::unix::process::ExitStatusExt as _;
        let plugin = serde_json::from_str::<ExecConfig>(r#"{"command": "login"}"#).unwrap();
        let check = |stderr: &str, expected: &str| {
            let status = std::process::ExitStatus::from_raw(3 << 8);
            let out = std::process::Output { status, stdout: b"a token".to_vec(), stderr: stderr.into() };
            let auth = AuthError::AuthExecRun { cmd: "login --password x".to_owned(), out: Box::new(out) };
            let error = login("prod", Some(&plugin), kube::Error::Auth(auth));
            assert_eq!(error.kind(), Kind::Auth);
            assert_eq!(error.lines(), ["cannot log in to the context \"prod\"", expected]);
        };
        check("\ntrying\nexpired\n\n", "login failed (exit status: 3): expired");
        check("", "login failed (exit status: 3); what it said is above");
        let missing = AuthError::AuthExecStart(std::io::ErrorKind::NotFound.into());
        let error = login("prod", Some(&plugin), kube::Error::Auth(missing));
        assert_eq!(error.kind(), Kind::Tool);
        assert_eq!(error.lines()[0], "login is not installed; the context \"prod\" logs in with it");
    }

    #[test]
    fn an_answer_gives_the_exit_code() {
        let check = |code: u16, message: &str, expected: Kind| {
            let status = Status { code, message: message.to_owned(), ..Status::default() };
            assert_eq!(kind(&kube::Error::Api(Box::new(status))), expected, "{code} {message}");
        };
        check(401, "Unauthorized", Kind::Auth);
        check(403, "deployments.apps is forbidden: User \"a\" cannot create", Kind::Forbidden);
        check(403, "pods is forbidden: User \"system:anonymous\" cannot list", Kind::Auth);
        check(403, "pods \"a\" is forbidden: exceeded quota: q", Kind::Refused);
        check(403, "pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"", Kind::Refused);
        check(409, "Apply failed with 1 conflict", Kind::Conflict);
        check(422, "Deployment.apps \"mlflow\" is invalid", Kind::Refused);
        check(403, "namespace a because it is being terminated", Kind::Refused);
        check(500, "etcdserver: request timed out", Kind::Remote);
        check(500, "failed to create typed patch object: .spec.a: field not declared in schema", Kind::Refused);
        check(500, "Internal error occurred: failed calling webhook \"a\": connection refused", Kind::Refused);
        check(503, "", Kind::Remote);
    }
}
