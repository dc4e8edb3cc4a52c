//! MLflow's own login in the Deployment.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::pod::{Names, set_secret, wrong};
use crate::cluster::CONTAINER;
use crate::cluster::login::{PASSWORD, PASSWORD_KEY, SECRET, SIGNING_KEY};
use crate::config::cluster::{Login, Secret};
use crate::error::Result;
use crate::mlflow::DATABASE_PROBE;

/// What the server's container runs: a module of the image.
const COMMAND: [&str; 3] = ["python", "-m", "mlflow_server_login"];

/// Asks the database, and nobody who they are (`mlflow_server_ready.py` in the image). Behind a login no
/// other route does, and a probe cannot read a Secret.
const READY: &str = "/ready";

/// Puts the server behind the login that is wanted.
///
/// # Errors
/// `Input` where the manifest's container has a command of its own.
pub fn set(pod: &mut PodSpec, login: &Login, names: &Names) -> Result<()> {
    let Login::Basic { password } = login else { return Ok(()) };
    let Some(container) = pod.containers.iter_mut().find(|container| container.name == CONTAINER) else {
        return Ok(());
    };
    if container.command.is_some() {
        let message = format!("container {CONTAINER} has a command of its own");
        return Err(wrong(message).hint("take it out, or take login out of deploy.toml: the login starts the server"));
    }
    container.command = Some(COMMAND.map(str::to_owned).to_vec());
    // With a command, Kubernetes leaves the image's arguments out.
    container.args.get_or_insert_with(|| vec!["server".to_owned()]);
    let env = container.env.get_or_insert_default();
    let kept = |key: &str| Secret::Existing { name: SECRET.to_owned(), key: key.to_owned() };
    let password = password.clone().unwrap_or_else(|| kept(PASSWORD_KEY));
    set_secret(env, PASSWORD, &password, PASSWORD_KEY, names);
    set_secret(env, "MLFLOW_FLASK_SERVER_SECRET_KEY", &kept(SIGNING_KEY), SIGNING_KEY, names);
    probe(container);
    Ok(())
}

/// The manifest's own probe would be asked for a login; another one is the user's.
fn probe(container: &mut Container) {
    let action = container.readiness_probe.as_mut().and_then(|probe| probe.http_get.as_mut());
    if let Some(action) = action.filter(|action| action.path.as_deref() == Some(DATABASE_PROBE)) {
        action.path = Some(READY.to_owned());
    }
}
