//! What an environment's infrastructure consists of, as far as others need to know it: the contract
//! between whatever made it (terraform, gcloud, people) and `deploy`. No secret is in it.
//!
//! It is the output `contract` of `terraform/`, and the file `.infra/ENV/outputs.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cache;
use crate::config::infra::{DATABASE, InfraConfig, RegistryNames, SqlLogin, tier};
use crate::error::{Context as _, Error, Kind, Result};

/// The version of the contract. Raised when an older program would misread it.
pub const VERSION: u32 = 1;

/// The folder below the repository's root with what this machine knows about environments at Google.
const FOLDER: &str = ".infra";

/// The outputs in that folder.
const FILE: &str = "outputs.json";

/// The way to the cluster in that folder.
const KUBECONFIG: &str = "kubeconfig";

/// The Secret that `infra` keeps in the cluster: a password, the server's JSON key.
pub const SECRET: &str = "mlflow-google";

/// The Secret that `infra` keeps in the cluster to pull images with.
pub const PULL_SECRET: &str = "mlflow-google-pull";

/// The plugin that logs in to clusters of Google's.
pub const GKE_LOGIN: &str = "gke-gcloud-auth-plugin";

/// The keys of [`SECRET`].
pub const PASSWORD_KEY: &str = "password";
/// The server's JSON key in [`SECRET`].
pub const JSON_KEY: &str = "key.json";

/// The contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outputs {
    /// [`VERSION`].
    pub version: u32,
    /// The project's id.
    pub project: String,
    /// The region.
    pub region: String,
    /// The artifacts' bucket, without `gs://`.
    pub bucket: String,
    /// The database.
    pub database: Database,
    /// Where images are pushed to.
    pub registry: Registry,
    /// The service accounts' e-mail addresses.
    pub identities: Identities,
    /// The cluster, where one was made.
    pub cluster: Option<GkeCluster>,
    /// What workflows log in with.
    pub github: Option<GitHub>,
}

/// The database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// `PROJECT:REGION:INSTANCE`.
    pub instance: String,
    /// The database's name.
    pub name: String,
    /// The user that the server is.
    pub user: String,
    /// How it logs in.
    pub login: SqlLogin,
    /// Whether it is reached at a private address.
    pub private_ip: bool,
    /// The machine, which decides how many connections it takes.
    pub tier: String,
    /// The version of PostgreSQL, as `POSTGRES_17`.
    #[serde(rename = "version")]
    pub engine: String,
}

/// Where images are pushed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// The repository, as images' names begin.
    pub repository: String,
}

/// Service accounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identities {
    /// The server: bucket and database.
    pub server: String,
    /// Nodes: pulls images.
    pub pull: String,
}

/// A cluster of Google's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GkeCluster {
    /// Its name.
    pub name: String,
    /// The region or zone.
    pub location: String,
    /// The API server's address.
    pub endpoint: String,
    /// The certificate authority of the address, PEM in base64; `None`: one that everybody trusts.
    pub ca_certificate: Option<String>,
}

/// Workload Identity Federation for GitHub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHub {
    /// The provider's full name.
    pub provider: String,
    /// The account that builds.
    pub build: String,
    /// The account that deploys.
    pub deploy: String,
    /// The account that plans.
    pub plan: String,
}

impl Outputs {
    /// What the outputs are going to be, as far as that follows from the configuration.
    pub fn foretold(infra: &InfraConfig) -> Self {
        let (project, (location, repository)) = (&infra.project, infra.repository());
        Self {
            version: VERSION,
            project: project.clone(),
            region: infra.region.clone(),
            bucket: infra.bucket.clone(),
            database: Database {
                instance: infra.connection_name(),
                name: DATABASE.to_owned(),
                user: infra.database_user(),
                login: infra.sql.login,
                private_ip: infra.sql.private_ip,
                tier: infra.sql.tier.clone(),
                engine: infra.sql.version.clone(),
            },
            registry: Registry {
                repository: match infra.registry {
                    RegistryNames::PkgDev => format!("{location}-docker.pkg.dev/{project}/{repository}"),
                    RegistryNames::GcrIo => format!("{repository}/{project}"),
                },
            },
            identities: Identities { server: infra.account(""), pull: infra.account("nodes") },
            cluster: infra.cluster.as_ref().map(|_| GkeCluster {
                name: infra.name.clone(),
                location: infra.region.clone(),
                endpoint: String::new(),
                ca_certificate: None,
            }),
            github: None,
        }
    }

    /// The settings of the environment `env` in `deploy.toml` that follow, by their keys below it.
    pub fn settings(&self, env: &str, infra: &InfraConfig) -> BTreeMap<&'static str, String> {
        let mut settings = BTreeMap::from([
            ("artifacts.uri", format!("gs://{}", self.bucket)),
            ("database.instance", self.database.instance.clone()),
            ("database.name", self.database.name.clone()),
            ("database.user", self.database.user.clone()),
            ("database.private-ip", self.database.private_ip.to_string()),
            ("image.repository", format!("{}/server", self.registry.repository)),
        ]);
        if let Some(connections) = tier::connections(&self.database.tier) {
            settings.insert("database.max-connections", connections.to_string());
        }
        if let Some(cluster) = &self.cluster {
            settings.insert("context", self.context(cluster));
            settings.insert("kubeconfig", format!("{FOLDER}/{env}/{KUBECONFIG}"));
            settings.insert("artifacts.workload-identity", self.identities.server.clone());
        }
        if infra.keys.server {
            settings.remove("artifacts.workload-identity");
            settings.insert("artifacts.key-secret", SECRET.to_owned());
            settings.insert("artifacts.key-secret-key", JSON_KEY.to_owned());
        }
        if self.database.login == SqlLogin::Password {
            settings.insert("database.password-secret", SECRET.to_owned());
            settings.insert("database.password-key", PASSWORD_KEY.to_owned());
        }
        if infra.keys.pull {
            settings.insert("pull-secret-name", PULL_SECRET.to_owned());
        }
        settings
    }

    /// Reads the contract; `what` names the text for messages.
    ///
    /// # Errors
    /// `Input` where it is not the contract, or not of a version that this program knows.
    pub fn parse(text: &[u8], what: &str) -> Result<Self> {
        let refuse = |why: String| {
            Error::new(Kind::Input, format!("{what} does not hold the outputs of an infrastructure")).source(why).hint(
                "it is the object that `cargo xtask infra outputs --json` prints as `outputs`, or terraform's output `contract`",
            )
        };
        let value: Value = serde_json::from_slice(text).map_err(|error| refuse(error.to_string()))?;
        match value.get("version").and_then(Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => {
                let message = format!("{what} has version {version} of the outputs, and this program knows {VERSION}");
                return Err(Error::new(Kind::Input, message).hint("use the checkout that wrote it, or a newer one"));
            }
            None => return Err(refuse("it has no version".to_owned())),
        }
        let outputs: Self = serde_json::from_value(value).map_err(|error| refuse(error.to_string()))?;
        match outputs.mistake() {
            None => Ok(outputs),
            Some(why) => Err(refuse(why)),
        }
    }

    /// The first value that cannot be right.
    fn mistake(&self) -> Option<String> {
        let wrong = |field: &str, value: &str, expected: &str| Some(format!("{field} {value:?} is not {expected}"));
        if self.bucket.is_empty() || self.bucket.contains(['/', ':']) {
            return wrong("bucket", &self.bucket, "a bucket's name");
        }
        if self.database.instance.split(':').count() < 3 {
            return wrong("database.instance", &self.database.instance, "PROJECT:REGION:INSTANCE");
        }
        if self.registry.repository.is_empty() || self.registry.repository.contains("://") {
            return wrong("registry.repository", &self.registry.repository, "a repository, without a scheme");
        }
        if !self.identities.server.ends_with(".gserviceaccount.com") {
            return wrong("identities.server", &self.identities.server, "a service account's address");
        }
        let cluster = self.cluster.as_ref()?;
        if !cluster.endpoint.starts_with("https://") {
            return wrong("cluster.endpoint", &cluster.endpoint, "an https:// address");
        }
        let certificate = cluster.ca_certificate.as_ref()?;
        match STANDARD.decode(certificate).is_ok_and(|pem| pem.starts_with(b"-----BEGIN CERTIFICATE-----")) {
            true => None,
            false => Some("cluster.ca_certificate is not a certificate, PEM in base64".to_owned()),
        }
    }

    /// A kubeconfig for kubectl and for us. Whoever uses it logs in as themselves, through the plugin
    /// that Google's tools use (client-go credential plugins).
    fn kubeconfig(&self, cluster: &GkeCluster) -> Value {
        let name = self.context(cluster);
        let mut server = json!({ "server": cluster.endpoint });
        if let Some(certificate) = &cluster.ca_certificate {
            server["certificate-authority-data"] = json!(certificate);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "",
            "clusters": [{ "name": name, "cluster": server }],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
            "users": [{ "name": name, "user": { "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": GKE_LOGIN,
                "installHint": "install it with: gcloud components install gke-gcloud-auth-plugin",
                "interactiveMode": "Never",
                "provideClusterInfo": true,
            } } }],
        })
    }

    /// The cluster's context, as `gcloud container clusters get-credentials` calls it.
    fn context(&self, cluster: &GkeCluster) -> String {
        format!("gke_{}_{}_{}", self.project, cluster.location, cluster.name)
    }
}

/// The folder with what this machine knows about an environment at Google. Nothing in it is secret,
/// and all of it can be had again with `infra outputs`.
pub fn folder(root: &Path, env: &str) -> PathBuf {
    root.join(FOLDER).join(env)
}

/// The outputs that this machine has noted for an environment.
///
/// # Errors
/// `Input` where the file holds something else.
pub fn read(root: &Path, env: &str) -> Result<Option<Outputs>> {
    let path = folder(root, env).join(FILE);
    let named = path.display().to_string();
    match std::fs::read(&path) {
        Ok(text) => Outputs::parse(&text, &named)
            .map(Some)
            .map_err(|error| error.hint(format!("run `cargo xtask infra outputs --env {env}` to write it again"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).on_machine(|| format!("cannot read {named}")),
    }
}

/// Notes the outputs of an environment, and the way to its cluster.
pub fn write(root: &Path, env: &str, outputs: &Outputs) -> Result<()> {
    let dir = folder(root, env);
    // Last, so that outputs are never there without the way to their cluster.
    if let Some(cluster) = &outputs.cluster {
        let kubeconfig = outputs.kubeconfig(cluster);
        cache::write(&dir.join(KUBECONFIG), format!("{kubeconfig:#}\n").as_bytes())?;
    }
    let text = serde_json::to_string_pretty(outputs).context(Kind::Internal, || "cannot write the outputs")?;
    cache::write(&dir.join(FILE), format!("{text}\n").as_bytes())
}

/// Forgets what was noted, because nothing of it is left.
pub fn forget(root: &Path, env: &str) -> Result<()> {
    for name in [FILE, KUBECONFIG] {
        let path = folder(root, env).join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).on_machine(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contract() -> Value {
        json!({
            "version": 1, "project": "my-project", "region": "europe-west1", "bucket": "my-project-mlflow",
            "database": {
                "instance": "my-project:europe-west1:mlflow", "name": "mlflow", "user": "mlflow@my-project.iam",
                "login": "iam", "private_ip": true, "tier": "db-custom-1-3840", "version": "POSTGRES_17",
            },
            "registry": { "repository": "europe-west1-docker.pkg.dev/my-project/mlflow" },
            "identities": {
                "server": "mlflow@my-project.iam.gserviceaccount.com",
                "pull": "mlflow-nodes@my-project.iam.gserviceaccount.com",
            },
            "cluster": {
                "name": "mlflow", "location": "europe-west1", "endpoint": "https://10.0.0.1", "ca_certificate": null,
            },
            "github": null,
        })
    }

    #[test]
    fn what_is_no_contract_is_refused_with_the_field() {
        let check = |pointer: &str, value: Value, expected: &str| {
            let mut contract = contract();
            match pointer {
                "" => contract = value,
                _ => *contract.pointer_mut(pointer).unwrap() = value,
            }
            let error = Outputs::parse(contract.to_string().as_bytes(), "outputs.json").unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            let text = error.lines().join(" | ");
            assert!(text.contains(expected), "{pointer}: {text:?} should contain {expected:?}");
        };
        check("", json!({}), "no version");
        check("", json!("x"), "no version");
        check("/version", json!(2), "has version 2 of the outputs, and this program knows 1");
        check("/bucket", json!("gs://b"), "bucket");
        check("/database/instance", json!("mlflow"), "PROJECT:REGION:INSTANCE");
        check("/database/login", json!("magic"), "magic");
        check("/database", json!({}), "missing field");
        check("/registry/repository", json!("https://a/b"), "without a scheme");
        check("/identities/server", json!("me@example.com"), "service account");
        check("/cluster/endpoint", json!("10.0.0.1"), "https://");
        check("/cluster/ca_certificate", json!("bm9uZQ=="), "PEM");
        let contract = contract();
        let outputs = Outputs::parse(contract.to_string().as_bytes(), "x").unwrap();
        assert_eq!(serde_json::to_value(&outputs).unwrap(), contract);
    }

    #[test]
    fn what_is_noted_is_read_again_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::parse(contract().to_string().as_bytes(), "x").unwrap();
        assert!(read(dir.path(), "e").unwrap().is_none());
        write(dir.path(), "e", &outputs).unwrap();
        assert_eq!(read(dir.path(), "e").unwrap().unwrap(), outputs);
        let kubeconfig = kube::config::Kubeconfig::read_from(folder(dir.path(), "e").join(KUBECONFIG)).unwrap();
        assert_eq!(kubeconfig.contexts[0].name, "gke_my-project_europe-west1_mlflow");
        std::fs::write(folder(dir.path(), "e").join(FILE), "{").unwrap();
        assert!(read(dir.path(), "e").unwrap_err().hint_text().unwrap().contains("infra outputs --env e"));
        forget(dir.path(), "e").unwrap();
        forget(dir.path(), "e").unwrap();
        assert!(read(dir.path(), "e").unwrap().is_none());
    }
}
