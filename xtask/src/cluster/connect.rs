//! A connection to the API server of a named context.

use std::time::Duration;

use kube::api::{Api, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::config::cluster::ClusterConfig;
use crate::error::{Context as _, Error, Kind, Result};

use super::failure;
use super::object::ObjectKind;

/// How long a connection to the API server may take to come up.
const CONNECT: Duration = Duration::from_secs(10);

/// How long the API server may be silent in an answer; watches are renewed before this.
const READ: Duration = Duration::from_secs(295);

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

impl Cluster {
    /// Opens the context that the environment names. Nothing is asked yet.
    ///
    /// # Errors
    /// `Config` for a kubeconfig that cannot be read or has no such context; `Tool` and `Auth` for a
    /// plugin that is to log in and is not installed or fails.
    pub async fn connect(config: &ClusterConfig) -> Result<Self> {
        let kubeconfig = read(config)?;
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
