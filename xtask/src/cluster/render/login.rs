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

/// The manifest's own readiness probe would be asked for a login; another one is the user's.
pub(super) fn probe(container: &mut Container) {
    let action = container.readiness_probe.as_mut().and_then(|probe| probe.http_get.as_mut());
    if let Some(action) = action.filter(|action| action.path.as_deref() == Some(DATABASE_PROBE)) {
        action.path = Some(READY.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::secrets::SecretText;
    use super::super::tests::{IMAGE, container, env, kubernetes, named, objects, root, secrets};
    use super::super::{Inputs, Manifests, SECRET, Secrets, render};
    use crate::cluster::{CONTAINER, ObjectKind};
    use crate::config::cluster::{Login, Secret as Source};
    use crate::error::Kind;

    #[test]
    fn a_login_starts_the_server_in_its_own_way_and_is_in_no_configmap() {
        let mut config = kubernetes();
        let plain = objects(&config, &secrets());
        assert_eq!(container(&plain, "containers", CONTAINER)["command"], Value::Null);
        config.access.login = Login::Basic { password: None };
        let found = objects(&config, &secrets());
        let server = container(&found, "containers", CONTAINER);
        assert_eq!(server["command"], serde_json::json!(["python", "-m", "mlflow_server_login"]));
        assert_eq!(server["args"], serde_json::json!(["server"]));
        assert_eq!(server["readinessProbe"]["httpGet"]["path"], "/ready");
        assert_eq!(server["livenessProbe"]["httpGet"]["path"], "/health");
        let variables = env(server);
        let has = |variable: &str| variables.iter().any(|known| known == variable);
        assert!(has("MLFLOW_AUTH_ADMIN_PASSWORD<mlflow-login/admin-password"), "{variables:?}");
        assert!(has("MLFLOW_FLASK_SERVER_SECRET_KEY<mlflow-login/secret-key"), "{variables:?}");
        // What is made at random is no part of a release.
        assert_eq!(named(&found, ObjectKind::Secret, "mlflow-login"), "");

        config.access.login = Login::Basic { password: Some(Source::Variable("PW".to_owned())) };
        let named_by_user = Secrets { admin: Some(SecretText::new("hunter2hunter2")), ..secrets() };
        let found = objects(&config, &named_by_user);
        let secret = named(&found, ObjectKind::Secret, SECRET);
        assert_ne!(secret, named(&plain, ObjectKind::Secret, SECRET), "a new password is a new release");
        let variables = env(container(&found, "containers", CONTAINER));
        assert!(variables.contains(&format!("MLFLOW_AUTH_ADMIN_PASSWORD<{secret}/admin-password")), "{variables:?}");

        let mut manifests = Manifests::read(&root()).unwrap();
        let pod = manifests.deployment.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
        pod.containers[0].command = Some(vec!["mine".to_owned()]);
        let inputs = Inputs { env: "test", config: &config, image: IMAGE, version: None, secrets: &named_by_user };
        let error = render(&manifests, &inputs).unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
    }
}
