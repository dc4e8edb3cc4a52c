//! A connection to the API server of a named context.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, DynamicObject};
use kube::config::{ExecConfig, KubeConfigOptions, Kubeconfig};

use crate::config::cluster::ClusterConfig;
use crate::error::{Context as _, Error, Kind, Result};
use crate::outputs::GKE_LOGIN;
use crate::process;

use super::object::ObjectKind;
use super::{NAME, call, failure};

/// How long a connection to the API server may take to come up.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the API server may be silent in an answer; watches are renewed before this.
const READ: Duration = Duration::from_secs(295);

/// How long one question to the API server may take, with its repetitions.
const QUESTION: Duration = Duration::from_secs(20);

/// How long a plugin may take to log in; some open a browser.
const LOGIN: Duration = Duration::from_secs(120);

/// The cluster of an environment, and the namespace in it.
#[derive(Clone)]
pub struct Cluster {
    /// Speaks to the API server as the context's user.
    pub client: kube::Client,
    /// The same, for port-forwards and logs: what they read may be silent for any time.
    pub streams: kube::Client,
    /// The context's name.
    pub context: String,
    /// The API server's address.
    pub server: String,
    /// The namespace of the environment.
    pub namespace: String,
}

/// A namespace and the context that leads to it, for people.
pub fn place(context: &str, namespace: &str) -> String {
    format!("namespace {namespace} of context {context}")
}

impl Cluster {
    /// Where it is, for people.
    pub fn place(&self) -> String {
        place(&self.context, &self.namespace)
    }

    /// The server's Deployment; `None`: nothing is deployed.
    ///
    /// # Errors
    /// What the API server answers.
    pub async fn deployment(&self) -> Result<Option<Deployment>> {
        let api = self.api::<Deployment>();
        let found = call::repeat(QUESTION, || api.get_opt(NAME)).await;
        found.map_err(|error| failure::explain(self, &format!("read Deployment/{NAME}"), error))
    }

    /// Opens the context that the environment names. Nothing is asked yet.
    ///
    /// # Errors
    /// `Config` for a kubeconfig that cannot be read or has no such context; `Tool` and `Auth` for a
    /// plugin that is to log in and is not installed or fails.
    pub async fn connect(config: &ClusterConfig) -> Result<Self> {
        let mut kubeconfig = read(config)?;
        log_in_ourselves(&mut kubeconfig);
        let names: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if !names.contains(&config.context.as_str()) {
            let error = Error::new(Kind::Config, format!("the kubeconfig has no context {:?}", config.context));
            return Err(error.hint(match names.is_empty() {
                true => "it has none at all: set kubeconfig in deploy.toml, or KUBECONFIG".to_owned(),
                false => crate::config::did_you_mean(&config.context, &names),
            }));
        }
        let options = KubeConfigOptions { context: Some(config.context.clone()), ..KubeConfigOptions::default() };
        let unusable = || format!("the context {:?} of the kubeconfig cannot be used", config.context);
        let mut settings =
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.context(Kind::Config, unusable)?;
        settings.connect_timeout = Some(CONNECT);
        settings.read_timeout = Some(READ);
        settings.default_namespace.clone_from(&config.namespace);
        let server = settings.cluster_url.to_string();
        let plugin = settings.auth_info.exec.clone();
        // A plugin that logs in is run here, and may wait for its user. It keeps what it has got.
        let opened = tokio::task::spawn_blocking(move || {
            let client = kube::Client::try_from(settings.clone())?;
            settings.read_timeout = None;
            Ok((client, kube::Client::try_from(settings)?))
        });
        let (client, streams) = match tokio::time::timeout(LOGIN, opened).await {
            Ok(Ok(Ok(clients))) => clients,
            Ok(Ok(Err(error))) => return Err(failure::login(&config.context, plugin.as_ref(), error)),
            Ok(Err(panicked)) => return Err(Error::new(Kind::Internal, unusable()).source(panicked)),
            Err(_) => {
                let message =
                    format!("{} did not log in within {} s", failure::program(plugin.as_ref()), LOGIN.as_secs());
                return Err(Error::new(Kind::Auth, message).hint("run it by hand to see what it waits for"));
            }
        };
        Ok(Self { client, streams, context: config.context.clone(), server, namespace: config.namespace.clone() })
    }

    /// The objects of a kind: in our namespace, or in none where the kind has none.
    pub fn objects(&self, kind: ObjectKind) -> Api<DynamicObject> {
        let resource = kind.resource();
        match kind.is_namespaced() {
            true => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// Typed objects of our namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

fn read(config: &ClusterConfig) -> Result<Kubeconfig> {
    let Some(path) = &config.kubeconfig else {
        return Kubeconfig::read()
            .context(Kind::Config, || "cannot read the kubeconfig")
            .map_err(|error| error.hint("set kubeconfig in deploy.toml, or KUBECONFIG"));
    };
    let named = || format!("cannot read the kubeconfig {}", path.display());
    Kubeconfig::read_from(path).context(Kind::Config, named).map_err(|error| match path.exists() {
        true => error,
        false => error.hint("the file that kubeconfig in deploy.toml names does not exist"),
    })
}

/// Lets this program log in to clusters of Google's where Google's plugin is not installed.
fn log_in_ourselves(kubeconfig: &mut Kubeconfig) {
    let Ok(own) = std::env::current_exe() else { return };
    let plugins = kubeconfig.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()?.exec.as_mut());
    plugins.for_each(|plugin| stand_in(plugin, &|program| is_installed(program), &own));
}

/// Whether a plugin can be started: by its path, or by its name.
fn is_installed(program: &str) -> bool {
    match program.contains('/') {
        true => Path::new(program).is_file(),
        false => process::find(&[program]).is_some(),
    }
}

/// Puts `own` in the place of Google's plugin, if that is what the context logs in with and it is not
/// there. A kubeconfig of gcloud's may name it by its path.
fn stand_in(plugin: &mut ExecConfig, is_there: &dyn Fn(&str) -> bool, own: &Path) {
    let Some(command) = plugin.command.as_deref() else { return };
    let is_googles = Path::new(command).file_name().is_some_and(|name| name == GKE_LOGIN);
    if is_googles && !is_there(command) {
        plugin.command = Some(own.display().to_string());
        plugin.args = Some(vec!["google-login".to_owned()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_stands_in_for_a_plugin_of_googles_that_is_missing() {
        let check = |command: &str, installed: bool, replaced: bool| {
            let text = serde_json::json!({ "command": command, "args": ["x"] });
            let mut plugin: ExecConfig = serde_json::from_value(text).unwrap();
            stand_in(&mut plugin, &|_| installed, Path::new("/opt/xtask"));
            let found = (plugin.command.as_deref().unwrap(), plugin.args.unwrap()[0].clone());
            let expected = if replaced { ("/opt/xtask", "google-login") } else { (command, "x") };
            assert_eq!(found, (expected.0, expected.1.to_owned()), "{command} {installed}");
        };
        check(GKE_LOGIN, false, true);
        check(GKE_LOGIN, true, false);
        check("/usr/lib/google-cloud-sdk/bin/gke-gcloud-auth-plugin", false, true);
        check("kubelogin", false, false);
        check("gke-gcloud-auth-plugin-of-mine", false, false);
    }
}
