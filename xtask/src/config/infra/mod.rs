//! `[environment.NAME.infra]`: what `infra` makes at Google.

mod checks;
mod read;
pub mod tier;

use std::collections::BTreeMap;

pub use read::read;

/// The resources of one environment at Google. Every name follows from this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InfraConfig {
    /// What makes them.
    pub via: Via,
    /// The project's id.
    pub project: String,
    /// The region of everything that has one.
    pub region: String,
    /// What names begin with.
    pub name: String,
    /// The artifacts' bucket.
    pub bucket: String,
    /// The Cloud SQL instance.
    pub sql: SqlConfig,
    /// Whether database and cluster refuse to be deleted.
    pub deletion_protection: bool,
    /// How images are named.
    pub registry: RegistryNames,
    /// The cluster to make; `None`: there is one already, or none at Google.
    pub cluster: Option<ClusterShape>,
    /// The namespace whose service account `mlflow` acts as the server's account.
    pub namespace: String,
    /// The service accounts' JSON keys to make.
    pub keys: KeysConfig,
    /// The repository whose workflows may plan and deploy.
    pub github: Option<GitHubConfig>,
    /// The bucket of terraform's state; `None`: a file of this machine.
    pub state_bucket: Option<String>,
    /// Labels of what can have labels.
    pub labels: BTreeMap<String, String>,
}

/// What makes the resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// terraform, from `terraform/`.
    Terraform,
    /// The Google Cloud CLI.
    Gcloud,
}

impl Via {
    /// As the command line and `deploy.toml` have it.
    pub const NAMES: [(&str, Self); 2] = [("terraform", Self::Terraform), ("gcloud", Self::Gcloud)];
}

/// The Cloud SQL instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlConfig {
    /// Its name. The name of a deleted instance cannot be used again for a week.
    pub instance: String,
    /// `POSTGRES_17` and the like.
    pub version: String,
    /// `ENTERPRISE` or `ENTERPRISE_PLUS`.
    pub edition: String,
    /// The machine: `db-custom-1-3840`.
    pub tier: String,
    /// `ZONAL` or `REGIONAL`.
    pub availability: String,
    /// The disk's first size in GB; it grows by itself.
    pub disk_gb: u32,
    /// How the server logs in.
    pub login: SqlLogin,
    /// Whether it is reached at an address of the project's own network, and has no other.
    pub private_ip: bool,
}

/// How the server logs in to Cloud SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SqlLogin {
    /// As its service account.
    Iam,
    /// With a password.
    Password,
}

/// How images are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistryNames {
    /// `REGION-docker.pkg.dev/PROJECT/NAME`.
    PkgDev,
    /// `gcr.io/PROJECT`, as Container Registry had them; kept in Artifact Registry's location `us`.
    GcrIo,
}

/// The cluster to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterShape {
    /// Google keeps the nodes.
    Autopilot,
    /// One pool of nodes of our own choice.
    Standard {
        /// The machine type: `e2-standard-2`.
        node_type: String,
        /// Nodes in each zone.
        node_count: u32,
        /// Whether they may be taken away at any time.
        spot: bool,
    },
}

/// The JSON keys to make, for clusters outside Google. Off by default: they do not expire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeysConfig {
    /// Of the server's account: bucket and database.
    pub server: bool,
    /// Of the account that pulls images.
    pub pull: bool,
}

impl KeysConfig {
    /// Whether there is any.
    pub fn any(self) -> bool {
        self.server || self.pull
    }
}

/// The repository whose workflows may plan and deploy. The ids are what Google compares: a name can be
/// given up and taken by someone else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitHubConfig {
    /// `OWNER/REPOSITORY`.
    pub repository: String,
    /// GitHub's id of the repository.
    pub repository_id: String,
    /// GitHub's id of its owner.
    pub owner_id: String,
    /// The environment of GitHub whose jobs alone may deploy: who approves them is said there.
    pub environment: String,
}

impl InfraConfig {
    /// The e-mail address of one of our service accounts; `role` is empty for the server's.
    pub fn account(&self, role: &str) -> String {
        let dash = if role.is_empty() { "" } else { "-" };
        format!("{}{dash}{role}@{}.iam.gserviceaccount.com", self.name, self.project)
    }

    /// `PROJECT:REGION:INSTANCE`.
    pub fn connection_name(&self) -> String {
        format!("{}:{}:{}", self.project, self.region, self.sql.instance)
    }

    /// The database user that the server is.
    pub fn database_user(&self) -> String {
        match self.sql.login {
            SqlLogin::Iam => format!("{}@{}.iam", self.name, self.project),
            SqlLogin::Password => DATABASE.to_owned(),
        }
    }

    /// Whether there is a network of our own: for private addresses, or for a cluster's nodes.
    pub fn has_network(&self) -> bool {
        self.sql.private_ip || self.cluster.is_some()
    }

    /// The location and the name of the registry's repository.
    pub fn repository(&self) -> (&str, &str) {
        match self.registry {
            RegistryNames::PkgDev => (&self.region, &self.name),
            RegistryNames::GcrIo => ("us", "gcr.io"),
        }
    }

    /// The APIs that are called, by us or by what is made.
    pub fn apis(&self) -> Vec<&'static str> {
        let mut apis = vec![
            "serviceusage.googleapis.com",
            "cloudresourcemanager.googleapis.com",
            "iam.googleapis.com",
            "iamcredentials.googleapis.com",
            "storage.googleapis.com",
            "sqladmin.googleapis.com",
            "artifactregistry.googleapis.com",
        ];
        if self.has_network() {
            apis.push("compute.googleapis.com");
        }
        if self.cluster.is_some() {
            apis.push("container.googleapis.com");
        }
        if self.sql.private_ip {
            apis.push("servicenetworking.googleapis.com");
        }
        if self.github.is_some() {
            apis.push("sts.googleapis.com");
        }
        apis
    }

    /// Whether secrets go into the cluster: a password, or keys.
    pub fn has_secrets(&self) -> bool {
        self.keys.any() || self.sql.login == SqlLogin::Password
    }
}

/// The database, and with a password its user.
pub const DATABASE: &str = "mlflow";

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An infrastructure with a cluster, as kind `gke` has it by default.
    pub fn gke() -> InfraConfig {
        InfraConfig {
            via: Via::Terraform,
            project: "my-project".to_owned(),
            region: "europe-west1".to_owned(),
            name: "mlflow".to_owned(),
            bucket: "my-project-mlflow".to_owned(),
            sql: SqlConfig {
                instance: "mlflow".to_owned(),
                version: "POSTGRES_17".to_owned(),
                edition: "ENTERPRISE".to_owned(),
                tier: "db-custom-1-3840".to_owned(),
                availability: "ZONAL".to_owned(),
                disk_gb: 10,
                login: SqlLogin::Iam,
                private_ip: true,
            },
            deletion_protection: true,
            registry: RegistryNames::PkgDev,
            cluster: Some(ClusterShape::Autopilot),
            namespace: "mlflow".to_owned(),
            keys: KeysConfig::default(),
            github: None,
            state_bucket: None,
            labels: BTreeMap::new(),
        }
    }

    /// An infrastructure for a cluster elsewhere, as kind `kubernetes` has it by default.
    pub fn kubernetes() -> InfraConfig {
        let mut infra = gke();
        infra.cluster = None;
        infra.sql.private_ip = false;
        infra
    }

    #[test]
    fn accounts_and_users_are_named_after_the_infrastructure() {
        let mut infra = gke();
        assert_eq!(infra.account(""), "mlflow@my-project.iam.gserviceaccount.com");
        assert_eq!(infra.account("nodes"), "mlflow-nodes@my-project.iam.gserviceaccount.com");
        assert_eq!(infra.database_user(), "mlflow@my-project.iam");
        infra.sql.login = SqlLogin::Password;
        assert_eq!((infra.database_user().as_str(), infra.has_secrets()), ("mlflow", true));
    }
}
