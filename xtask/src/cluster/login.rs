//! The login in a cluster: the Secret that keeps what it needs, and how to log in to the server that runs.
//!
//! MLflow takes the administrator's password from its environment once, when it makes the user; from then
//! on the database's counts. So what was made here stays as it is: no release has a copy of it, nothing
//! prunes it, and a deploy after it was lost would lock everyone out.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EnvVar, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use serde::Serialize;
use serde_json::Value;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::mlflow::Auth;
use crate::secret::Secret as SecretText;

use super::connect::Cluster;
use super::object::{Object, ObjectKind};
use super::{MANAGED_BY, NAME, PREFIX, call, failure, server};

/// The Secret that a deploy makes where it is missing.
pub const SECRET: &str = "mlflow-login";

/// The key with the administrator's password, where the user names no other place.
pub const PASSWORD_KEY: &str = "admin-password";

/// The key with which MLflow signs its forms: the same in all pods, or a form of one is refused by another.
pub const SIGNING_KEY: &str = "secret-key";

/// The key with which oauth2-proxy signs its cookies: the same in all pods, or one does not know who has
/// logged in at another.
pub const COOKIE_KEY: &str = "cookie-secret";

/// The container of oauth2-proxy, where OpenID Connect logs people in.
pub const SIGN_IN_PROXY: &str = "oauth2-proxy";

/// The variable with the administrator's password.
pub const PASSWORD: &str = "MLFLOW_AUTH_ADMIN_PASSWORD";

/// Where MLflow looks for the login's database, where a user says so.
const CONFIG_PATH: &str = "MLFLOW_AUTH_CONFIG_PATH";

/// The administrator (`mlflow_server_login.py` in the image).
pub const ADMIN: &str = "admin";

/// The field manager and the value of the label. Another one than a deploy's, which would prune it.
const MANAGER: &str = "mlflow-on-kubernetes-login";

/// How long one question may take, with its repetitions.
const DEADLINE: Duration = Duration::from_secs(20);

/// Where the administrator's password is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Login {
    /// The Secret's name.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

impl Login {
    /// The login that a Deployment's server asks for; `None`: none.
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let server = server(deployment)?;
        let variable = server.env.iter().flatten().find(|variable: &&EnvVar| variable.name == PASSWORD)?;
        let from = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some(Self { secret: from.name.clone(), key: from.key.clone() })
    }

    /// The command that prints the password, for a person who may read the Secret.
    pub fn command(&self, context: &str, namespace: &str) -> String {
        let Self { secret, key } = self;
        format!(
            "kubectl --context {context} -n {namespace} get secret {secret} -o go-template='{{{{index .data \
             {key:?} | base64decode}}}}'"
        )
    }

    /// Who may log in first, and how to see the password.
    pub fn words(&self, context: &str, namespace: &str) -> String {
        format!("{ADMIN}; the password: {}", self.command(context, namespace))
    }

    /// What to say when the server refuses the password.
    pub fn stale(&self) -> String {
        let Self { secret, key } = self;
        format!(
            "the server refuses the password of {ADMIN} in Secret {secret}, key {key}: MLflow takes it from there when it \
             makes the user and never again. Where the database is older than the Secret, name the password that it knows \
             (admin-password-file, -variable or -secret); to change it, send PATCH /api/2.0/mlflow/users/update-password, \
             then tell the Secret"
        )
    }

    /// User and password.
    ///
    /// # Errors
    /// `Forbidden` for who may not read Secrets, `Check` where the Secret or its key is gone.
    async fn read(&self, cluster: &Cluster) -> Result<Auth> {
        let Self { secret, key } = self;
        let found = get(cluster, secret).await?;
        let password = found.and_then(|found| String::from_utf8(found.data?.remove(key)?.0).ok());
        let password = password.ok_or_else(|| {
            let message = format!("Secret {secret} in namespace {} has no key {key}", cluster.namespace);
            Error::new(Kind::Check, message).hint("the administrator's password is to be there; the server has a login")
        })?;
        Ok(Auth::Basic { username: ADMIN.to_owned(), password })
    }
}

/// Whether a server keeps users in its database (`databases` in `schema/stores.py`).
pub fn keeps_users(deployment: &Deployment) -> bool {
    let mut variables = server(deployment).into_iter().flat_map(|server| server.env.iter().flatten());
    variables.any(|variable| [PASSWORD, CONFIG_PATH].contains(&variable.name.as_str()))
}

/// A login by OpenID Connect, which oauth2-proxy asks for in the server's pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignIn {
    /// Who logs people in.
    pub issuer: String,
    /// The proxy's port in the pods.
    pub port: u16,
}

impl SignIn {
    /// The one that a Deployment's server is behind; `None`: none.
    pub fn of(deployment: &Deployment) -> Option<Self> {
        let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
        let proxy = pod.containers.iter().find(|container| container.name == SIGN_IN_PROXY)?;
        let flags = || proxy.args.iter().flatten().filter_map(|flag| flag.strip_prefix("--oidc-issuer-url="));
        let ports = || proxy.ports.iter().flatten().map(|port| port.container_port);
        Some(Self {
            // Of two flags the last one counts.
            issuer: flags().next_back().unwrap_or_default().to_owned(),
            port: ports().find_map(|port| u16::try_from(port).ok())?,
        })
    }
}

/// How to log in to the server that runs; `None`: without.
///
/// # Errors
/// `Forbidden` for who may not read Secrets, `Check` where the password is gone.
pub async fn auth(cluster: &Cluster) -> Result<Option<(Login, Auth)>> {
    match cluster.deployment().await?.as_ref().and_then(Login::of) {
        None => Ok(None),
        Some(login) => {
            let auth = login.read(cluster).await?;
            Ok(Some((login, auth)))
        }
    }
}

/// Makes sure that what these objects need is in the cluster. What is there stays as it is. The
/// namespace exists.
///
/// # Errors
/// `Forbidden` without the right to Secrets, `Refused` where a policy is against it.
pub async fn keep(run: &Run, cluster: &Cluster, objects: &[Object]) -> Result<()> {
    let keys = needed(objects);
    if keys.is_empty() {
        return Ok(());
    }
    let found = get(cluster, SECRET).await?.and_then(|found| found.data).unwrap_or_default();
    let missing: Vec<&str> = keys.iter().copied().filter(|key| !found.contains_key(*key)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run.ui.step("Making", format!("Secret {SECRET}: {}", missing.join(", ")));
    let mut data = found;
    for key in missing {
        data.insert(key.to_owned(), ByteString(SecretText::random().expose().as_bytes().to_vec()));
    }
    let api = cluster.api::<Secret>();
    // Not by force: two deploys at once, of which one has no lock, are not to overrule each other.
    let (params, object) = (PatchParams::apply(MANAGER), object(data));
    let patch = Patch::Apply(&object);
    let kept = call::repeat(DEADLINE, || api.patch(SECRET, &params, &patch)).await;
    kept.map(drop).map_err(|error| failure::explain(cluster, &format!("keep Secret {SECRET}"), error))
}

/// The keys of our Secret that the Deployment among these objects names.
fn needed(objects: &[Object]) -> Vec<&'static str> {
    let Some(deployment) = objects.iter().find(|object| object.kind == ObjectKind::Deployment) else {
        return Vec::new();
    };
    let containers = deployment.value.pointer("/spec/template/spec/containers").and_then(Value::as_array);
    let variables = containers.into_iter().flatten().filter_map(|container| container["env"].as_array()).flatten();
    let named: Vec<&Value> = variables
        .map(|variable| &variable["valueFrom"]["secretKeyRef"])
        .filter(|from| from["name"] == SECRET)
        .collect();
    [PASSWORD_KEY, SIGNING_KEY, COOKIE_KEY]
        .into_iter()
        .filter(|key| named.iter().any(|from| from["key"] == *key))
        .collect()
}

async fn get(cluster: &Cluster, name: &str) -> Result<Option<Secret>> {
    let api = cluster.api::<Secret>();
    let found = call::repeat(DEADLINE, || api.get_opt(name)).await;
    found.map_err(|error| failure::explain(cluster, &format!("read Secret {name}"), error))
}

fn object(data: BTreeMap<String, ByteString>) -> Secret {
    let labels = [("app.kubernetes.io/name", NAME), (MANAGED_BY, MANAGER)];
    let note = (format!("{PREFIX}/user"), ADMIN.to_owned());
    Secret {
        metadata: ObjectMeta {
            name: Some(SECRET.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            annotations: Some([note].into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::CONTAINER;
    use super::*;

    fn deployment(env: Value) -> Object {
        let containers = json!([{ "name": "other" }, { "name": CONTAINER, "env": env }]);
        let value = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": { "name": NAME },
            "spec": { "selector": {}, "template": { "spec": { "containers": containers } } },
        });
        Object { kind: ObjectKind::Deployment, value }
    }

    fn from(variable: &str, secret: &str, key: &str) -> Value {
        json!({ "name": variable, "valueFrom": { "secretKeyRef": { "name": secret, "key": key } } })
    }

    #[test]
    fn the_deployment_says_what_is_needed_and_where_the_password_is() {
        let signing = || from("MLFLOW_FLASK_SERVER_SECRET_KEY", SECRET, SIGNING_KEY);
        let login = |secret: &str, key: &str| Some(Login { secret: secret.to_owned(), key: key.to_owned() });
        for (env, keys, expected) in [
            (json!([]), &[][..], None),
            (
                json!([from(PASSWORD, SECRET, PASSWORD_KEY), signing()]),
                &[PASSWORD_KEY, SIGNING_KEY],
                login(SECRET, PASSWORD_KEY),
            ),
            (json!([from(PASSWORD, "own", "pw"), signing()]), &[SIGNING_KEY], login("own", "pw")),
        ] {
            let object = deployment(env);
            assert_eq!(needed(std::slice::from_ref(&object)), keys);
            let typed: Deployment = serde_json::from_value(object.value).unwrap();
            assert_eq!(Login::of(&typed), expected);
        }
        assert_eq!(needed(&[]), [""; 0]);
    }

    #[test]
    fn the_deployment_says_who_logs_people_in() {
        let cookie = from("OAUTH2_PROXY_COOKIE_SECRET", SECRET, COOKIE_KEY);
        let mut object = deployment(json!([]));
        let containers = object.value.pointer_mut("/spec/template/spec/containers").unwrap().as_array_mut().unwrap();
        let args = json!(["--oidc-issuer-url=https://a", "--x", "--oidc-issuer-url=https://b"]);
        let ports = json!([{ "containerPort": 4180 }]);
        containers.push(json!({ "name": SIGN_IN_PROXY, "args": args, "ports": ports, "env": [cookie] }));
        assert_eq!(needed(std::slice::from_ref(&object)), [COOKIE_KEY]);
        let typed: Deployment = serde_json::from_value(object.value).unwrap();
        let expected = SignIn { issuer: "https://b".to_owned(), port: 4180 };
        assert_eq!((SignIn::of(&typed), Login::of(&typed)), (Some(expected), None));
    }

    #[test]
    fn a_deploy_prunes_other_secrets_only() {
        let labels = object(BTreeMap::new()).metadata.labels.unwrap();
        assert_ne!(labels[MANAGED_BY], crate::cluster::MANAGER);
    }

    #[test]
    fn the_password_is_printed_by_a_command_and_not_by_us() {
        let login = Login { secret: SECRET.to_owned(), key: PASSWORD_KEY.to_owned() };
        assert_eq!(
            login.command("c", "n"),
            "kubectl --context c -n n get secret mlflow-login -o go-template='{{index .data \"admin-password\" | \
             base64decode}}'"
        );
    }
}
