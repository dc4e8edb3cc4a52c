//! What must not be in a state, an argument or a file: the database user's password, JSON keys. They
//! are made here, told to Google or asked of it, and put into the cluster's Secret.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::cluster::credentials::{self, Held};
use crate::cluster::render::{self, Manifests};
use crate::cluster::{Cluster, apply, preflight};
use crate::commands::Run;
use crate::config::Config;
use crate::config::infra::{InfraConfig, SqlLogin};
use crate::error::Result;
use crate::google::{Google, keys};
use crate::outputs::{self, Outputs};
use crate::registry::Secret;

/// The user name that Google's registries expect beside a JSON key.
const KEY_USER: &str = "_json_key";

/// The secrets of an environment.
pub struct Secrets {
    infra: InfraConfig,
    held: Held,
    /// The password that is to be in force.
    password: Option<(Secret, u64)>,
}

impl Secrets {
    /// What the cluster holds, and a new password where one is wanted and there is none. `found` is what
    /// is known of the infrastructure.
    ///
    /// # Errors
    /// Where there is a cluster that cannot be asked: a new password would lock the server out.
    pub async fn find(config: &Config, infra: &InfraConfig, found: Option<&Outputs>) -> Result<Self> {
        let mut secrets = Self::none(infra);
        if !infra.has_secrets() {
            return Ok(secrets);
        }
        // A cluster that has still to be made holds nothing.
        let is_there = infra.cluster.is_none() || found.is_some_and(|found| found.cluster.is_some());
        if let (true, Some(settings)) = (is_there, config.foretold()) {
            let cluster = Cluster::connect(settings).await.map_err(credentials::unseen)?;
            secrets.held = credentials::look(&cluster).await.map_err(credentials::unseen)?;
        }
        if infra.sql.login == SqlLogin::Password {
            secrets.password = Some(secrets.held.password.clone().unwrap_or_else(|| (Secret::random(), now())));
        }
        Ok(secrets)
    }

    /// Nothing that would have to be looked for.
    pub fn none(infra: &InfraConfig) -> Self {
        Self { infra: infra.clone(), held: Held::default(), password: None }
    }

    /// The password, and its version.
    pub fn password(&self) -> Option<(&Secret, u64)> {
        self.password.as_ref().map(|(password, version)| (password, *version))
    }

    /// The password, where the cluster does not hold it.
    pub fn new_password(&self) -> Option<&Secret> {
        self.password.as_ref().filter(|_| self.held.password.is_none()).map(|(password, _)| password)
    }

    /// A plan that was made before counts with this version: a password that the cluster does not hold
    /// gets it.
    pub fn choose(&mut self, version: Option<u64>) {
        if let (Some(version), Some((_, ours)), None) = (version, &mut self.password, &self.held.password) {
            *ours = version;
        }
    }

    /// Makes the cluster hold what is wanted; whether that changed anything. The infrastructure exists,
    /// and its outputs are noted.
    ///
    /// # Errors
    /// Where a key cannot be made or stored. A key that could not be stored is deleted again.
    pub async fn place(&self, run: &Run, env: &str) -> Result<bool> {
        if !self.infra.has_secrets() {
            return Ok(false);
        }
        let mut wanted = self.held.clone();
        wanted.password.clone_from(&self.password);
        let config = Config::load(env)?;
        let settings = config.cluster()?;
        let cluster = Cluster::connect(settings).await?;
        let mut made = Vec::new();
        let google = OnceCell::new();
        let stored = async {
            if self.infra.keys.server && wanted.key.is_none() {
                let (account, key) = self.make_key(run, connected(run, &google).await?, "").await?;
                wanted.key = Some((key.json, key.id.clone()));
                made.push((account, key.id));
            }
            if self.infra.keys.pull && wanted.pull.is_none() {
                let (account, key) = self.make_key(run, connected(run, &google).await?, "nodes").await?;
                let registry = outputs::read(&config.root, env)?.map(|found| found.registry.repository);
                wanted.pull = Some((docker_config(&registry.unwrap_or_default(), &key.json), key.id.clone()));
                made.push((account, key.id));
            }
            if wanted == self.held {
                return Ok(false);
            }
            namespace(run, &config, &cluster).await?;
            run.ui.step("Keeping", format!("secrets in namespace {} of {}", cluster.namespace, cluster.context));
            credentials::store(&cluster, &wanted).await.map(|()| true)
        }
        .await;
        if let (Err(_), Some(google)) = (&stored, google.get()) {
            discard(run, google, &made).await;
        }
        stored
    }

    async fn make_key(&self, run: &Run, google: &Google, role: &str) -> Result<(String, keys::Key)> {
        let account = self.infra.account(role);
        run.ui.step("Making", format!("a key of {account}"));
        // Keys that an interrupted run has made, and that nobody holds, are left to people: they may be
        // somebody's after all.
        let others = keys::list(google, &account).await?;
        if !others.is_empty() {
            run.ui.warn(format!(
                "{account} has {} keys that the cluster does not hold: gcloud iam service-accounts keys list \
                 --iam-account={account} --managed-by=user",
                others.len()
            ));
        }
        let key = keys::create(google, &account).await?;
        Ok((account, key))
    }
}

/// Google, asked for the first time or again.
async fn connected<'a>(run: &Run, google: &'a OnceCell<Google>) -> Result<&'a Google> {
    google.get_or_try_init(|| Google::connect(run)).await
}

/// Deletes keys that nobody holds.
async fn discard(run: &Run, google: &Google, made: &[(String, String)]) {
    for (account, id) in made {
        if let Err(error) = keys::delete(google, account, id).await {
            let why = error.lines().join(": ");
            run.ui.warn(format!("key {id} of {account} could not be stored, and is not deleted either: {why}"));
        }
    }
}

/// The namespace, as a deploy makes it.
async fn namespace(run: &Run, config: &Config, cluster: &Cluster) -> Result<()> {
    if preflight::namespace(cluster).await? != preflight::NamespaceState::Missing {
        return Ok(());
    }
    let manifests = Manifests::read(&config.root)?;
    let object = render::namespace(&manifests, &config.env, config.cluster()?)?;
    run.ui.step("Creating", format!("namespace {}", cluster.namespace));
    let objects: Vec<_> = object.into_iter().collect();
    apply::apply(cluster, &objects, false).await?;
    Ok(())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What kubelet pulls from a registry of Google's with.
fn docker_config(repository: &str, key: &Secret) -> Secret {
    let registry = repository.split('/').next().unwrap_or_default();
    let auth = STANDARD.encode(format!("{KEY_USER}:{}", key.expose()));
    Secret::new(json!({ "auths": { registry: { "auth": auth } } }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::infra::tests::gke;

    #[test]
    fn a_plans_version_is_for_a_password_that_nobody_has() {
        let mut secrets = Secrets::none(&gke());
        secrets.choose(Some(7));
        assert!(secrets.password().is_none());
        secrets.password = Some((Secret::new("new"), 1));
        secrets.choose(Some(7));
        assert_eq!(secrets.password().unwrap().1, 7);
        secrets.held.password = Some((Secret::new("old"), 3));
        secrets.choose(Some(9));
        assert_eq!(secrets.password().unwrap().1, 7);
    }

    #[test]
    fn a_pull_secret_holds_the_key() {
        let config = docker_config("europe-docker.pkg.dev/p/mlflow", &Secret::new("{}"));
        let value: serde_json::Value = serde_json::from_str(config.expose()).unwrap();
        let auth = STANDARD.encode("_json_key:{}");
        assert_eq!(value, json!({ "auths": { "europe-docker.pkg.dev": { "auth": auth } } }));
    }
}
