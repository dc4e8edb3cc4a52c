//! What an environment consists of at Google, in the order in which it can be made. Asks nobody.

use crate::config::infra::{ClusterShape, DATABASE, InfraConfig, SqlLogin};

/// The ranges of the subnetwork, for nodes, pods and services.
pub const RANGES: [(&str, &str); 3] = [("", "10.10.0.0/20"), ("pods", "10.20.0.0/16"), ("services", "10.30.0.0/20")];

/// Who lets services of Google's own network into ours.
pub const NETWORKING: &str = "servicenetworking.googleapis.com";

/// What our repository says of itself, which tells it from one that others have made.
pub const REPOSITORY_TEXT: &str = "Images of the MLflow server";

/// The provider in the workload identity pool.
pub const PROVIDER: &str = "github";

/// Who signs the tokens of GitHub's workflows.
pub const ISSUER: &str = "https://token.actions.githubusercontent.com";

/// What of a workflow's token roles may be granted to.
pub const MAPPING: [(&str, &str); 3] = [
    ("attribute.repository_id", "assertion.repository_id"),
    ("attribute.repository_owner_id", "assertion.repository_owner_id"),
    ("google.subject", "assertion.sub"),
];

/// One thing at Google.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// An API of the project, enabled.
    Api(&'static str),
    /// A service account.
    Account(Account),
    /// The network.
    Network,
    /// Its part in our region.
    Subnetwork,
    /// What the NAT belongs to.
    Router,
    /// The way out for nodes without public addresses.
    Nat,
    /// Addresses for services of Google's own network.
    PeeringRange,
    /// The connection to them.
    Peering,
    /// The artifacts' bucket.
    Bucket,
    /// The registry's repository.
    Repository,
    /// The Cloud SQL instance.
    Instance,
    /// The database in it.
    Database,
    /// The user that the server is.
    User,
    /// The cluster.
    Cluster,
    /// The pool of identities from elsewhere.
    Pool,
    /// GitHub in it.
    Provider,
    /// A role on something.
    Binding(Binding),
}

/// A service account, by its role with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Account {
    /// The server itself.
    Server,
    /// The cluster's nodes, and who pulls images elsewhere.
    Nodes,
    /// Pushes images.
    Build,
    /// Deploys from GitHub.
    Deploy,
    /// Plans from GitHub.
    Plan,
}

/// Who has a role on what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// The object.
    pub on: Object,
    /// The role.
    pub role: &'static str,
    /// Who.
    pub member: Member,
}

/// What roles are granted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// The project.
    Project,
    /// The artifacts' bucket.
    Bucket,
    /// The registry's repository.
    Repository,
    /// A service account.
    Account(Account),
}

/// Who roles are granted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// A service account of ours.
    Account(Account),
    /// The Kubernetes service account of the server.
    Pod,
    /// The workflows of the repository at GitHub.
    Workflows,
    /// Jobs of the repository's environment, which may need an approval.
    Approved,
}

impl Account {
    /// The end of its name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Server => "",
            Self::Nodes => "nodes",
            Self::Build => "build",
            Self::Deploy => "deploy",
            Self::Plan => "plan",
        }
    }

    /// Its name and what it is for, for people.
    pub fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::Server => ("MLflow server", "Reads and writes the artifacts and logs in to the database"),
            Self::Nodes => ("MLflow nodes", "Runs the nodes of the cluster and pulls images"),
            Self::Build => ("MLflow build", "Builds images and pushes them"),
            Self::Deploy => ("MLflow deploy", "Pushes images and deploys, from GitHub"),
            Self::Plan => ("MLflow plan", "Reads, to show what a change would do, from GitHub"),
        }
    }
}

/// The role that owns Cloud SQL's databases, and with them the schema `public`
/// (<https://docs.cloud.google.com/sql/docs/postgres/users>).
pub const DATABASE_ROLE: &str = "cloudsqlsuperuser";

/// All that an environment consists of; what needs something comes after it.
pub fn resources(infra: &InfraConfig) -> Vec<Resource> {
    let (has_cluster, has_github) = (infra.cluster.is_some(), infra.github.is_some());
    let mut all: Vec<Resource> = infra.apis().into_iter().map(Resource::Api).collect();
    all.extend([Account::Server, Account::Nodes].map(Resource::Account));
    if has_github {
        all.extend([Account::Build, Account::Deploy, Account::Plan].map(Resource::Account));
    }
    if infra.has_network() {
        all.extend([Resource::Network, Resource::Subnetwork]);
    }
    if has_cluster {
        all.extend([Resource::Router, Resource::Nat]);
    }
    if infra.sql.private_ip {
        all.extend([Resource::PeeringRange, Resource::Peering]);
    }
    all.extend([Resource::Bucket, Resource::Repository]);
    let (last, first): (Vec<Binding>, Vec<Binding>) = bindings(infra).into_iter().partition(Binding::is_late);
    // Nodes need their roles from their first minute.
    all.extend(first.into_iter().map(Resource::Binding));
    all.extend([Resource::Instance, Resource::Database, Resource::User]);
    if has_cluster {
        all.push(Resource::Cluster);
    }
    if has_github {
        all.extend([Resource::Pool, Resource::Provider]);
    }
    all.extend(last.into_iter().map(Resource::Binding));
    all
}

/// The roles that are granted, and no others.
fn bindings(infra: &InfraConfig) -> Vec<Binding> {
    use Account::{Build, Deploy, Nodes, Plan, Server};
    let grant = |on, role, account| Binding { on, role, member: Member::Account(account) };
    let federate =
        |account, member| Binding { on: Object::Account(account), role: "roles/iam.workloadIdentityUser", member };
    let mut all = vec![
        grant(Object::Bucket, "roles/storage.objectUser", Server),
        grant(Object::Project, "roles/cloudsql.client", Server),
        grant(Object::Repository, "roles/artifactregistry.reader", Nodes),
    ];
    if infra.sql.login == SqlLogin::Iam {
        all.push(grant(Object::Project, "roles/cloudsql.instanceUser", Server));
    }
    if infra.cluster.is_some() {
        all.push(grant(Object::Project, "roles/container.defaultNodeServiceAccount", Nodes));
        all.push(federate(Server, Member::Pod));
    }
    if infra.github.is_some() {
        all.extend([
            grant(Object::Repository, "roles/artifactregistry.writer", Build),
            grant(Object::Repository, "roles/artifactregistry.writer", Deploy),
            grant(Object::Project, "roles/container.developer", Deploy),
            grant(Object::Project, "roles/viewer", Plan),
            grant(Object::Project, "roles/iam.securityReviewer", Plan),
            federate(Deploy, Member::Approved),
            federate(Plan, Member::Workflows),
        ]);
    }
    all
}

impl Binding {
    /// Whether its member comes into being with the cluster or with the pool.
    fn is_late(&self) -> bool {
        !matches!(self.member, Member::Account(_))
    }

    /// The member as policies have it.
    pub fn member(&self, infra: &InfraConfig, number: &str) -> String {
        match self.member {
            Member::Account(account) => format!("serviceAccount:{}", infra.account(account.suffix())),
            Member::Pod => {
                let (project, namespace) = (&infra.project, &infra.namespace);
                format!("serviceAccount:{project}.svc.id.goog[{namespace}/mlflow]")
            }
            Member::Workflows => {
                let id = infra.github.as_ref().map_or("", |github| &github.repository_id);
                format!("principalSet://iam.googleapis.com/{}/attribute.repository_id/{id}", pool_name(infra, number))
            }
            Member::Approved => {
                let pool = pool_name(infra, number);
                format!("principal://iam.googleapis.com/{pool}/subject/{}", subject(infra))
            }
        }
    }
}

/// How GitHub calls the jobs of the environment that deploys
/// (<https://docs.github.com/en/actions/reference/security/oidc>, "Filtering for a specific environment").
fn subject(infra: &InfraConfig) -> String {
    let github = infra.github.as_ref();
    let (repository, environment) = github.map_or(("", ""), |github| (&github.repository, &github.environment));
    format!("repo:{repository}:environment:{environment}")
}

/// The id of the pool of identities from elsewhere.
pub fn pool(infra: &InfraConfig) -> String {
    format!("{}-github", infra.name)
}

/// The full name of that pool.
pub fn pool_name(infra: &InfraConfig, number: &str) -> String {
    format!("projects/{number}/locations/global/workloadIdentityPools/{}", pool(infra))
}

/// What a workflow's token must say.
pub fn condition(infra: &InfraConfig) -> String {
    let github = infra.github.as_ref();
    let (repository, owner) = github.map_or(("", ""), |github| (&github.repository_id, &github.owner_id));
    format!("assertion.repository_id == '{repository}' && assertion.repository_owner_id == '{owner}'")
}

/// The name of the addresses for services of Google's own network.
pub fn peering_range(infra: &InfraConfig) -> String {
    format!("{}-services", infra.name)
}

/// The bucket's rules, as its lifecycle has them.
pub fn lifecycle() -> serde_json::Value {
    serde_json::json!({ "rule": [
        { "action": { "type": "Delete" }, "condition": { "daysSinceNoncurrentTime": 30, "isLive": false } },
        { "action": { "type": "AbortIncompleteMultipartUpload" }, "condition": { "age": 7 } },
    ] })
}

impl Resource {
    /// What has to exist for this to exist; asking for the one is pointless without the other.
    pub fn parent(&self) -> Option<Self> {
        match self {
            Self::Subnetwork | Self::Router | Self::Peering => Some(Self::Network),
            Self::Nat => Some(Self::Router),
            Self::Database | Self::User => Some(Self::Instance),
            Self::Provider => Some(Self::Pool),
            Self::Binding(binding) => match binding.on {
                Object::Project => None,
                Object::Bucket => Some(Self::Bucket),
                Object::Repository => Some(Self::Repository),
                Object::Account(account) => Some(Self::Account(account)),
            },
            _ => None,
        }
    }

    /// The API that knows it; `None` for APIs themselves.
    pub fn api(&self) -> Option<&'static str> {
        Some(match self {
            Self::Api(_) => return None,
            Self::Account(_) | Self::Pool | Self::Provider => "iam.googleapis.com",
            Self::Network | Self::Subnetwork | Self::Router | Self::Nat | Self::PeeringRange => {
                "compute.googleapis.com"
            }
            Self::Peering => NETWORKING,
            Self::Bucket => "storage.googleapis.com",
            Self::Repository => "artifactregistry.googleapis.com",
            Self::Instance | Self::Database | Self::User => "sqladmin.googleapis.com",
            Self::Cluster => "container.googleapis.com",
            Self::Binding(binding) => match binding.on {
                Object::Project => "cloudresourcemanager.googleapis.com",
                Object::Bucket => "storage.googleapis.com",
                Object::Repository => "artifactregistry.googleapis.com",
                Object::Account(_) => "iam.googleapis.com",
            },
        })
    }

    /// For people.
    pub fn title(&self, infra: &InfraConfig) -> String {
        let name = &infra.name;
        match self {
            Self::Api(api) => format!("API {api}"),
            Self::Account(account) => format!("service account {}", infra.account(account.suffix())),
            Self::Network => format!("network {name}"),
            Self::Subnetwork => format!("subnetwork {name}"),
            Self::Router => format!("router {name}"),
            Self::Nat => format!("NAT {name}"),
            Self::PeeringRange => format!("address range {}", peering_range(infra)),
            Self::Peering => format!("peering of {name} with {NETWORKING}"),
            Self::Bucket => format!("bucket {}", infra.bucket),
            Self::Repository => {
                let (location, repository) = infra.repository();
                format!("repository {repository} in {location}")
            }
            Self::Instance => format!("Cloud SQL instance {}", infra.sql.instance),
            Self::Database => format!("database {DATABASE}"),
            Self::User => format!("database user {}", infra.database_user()),
            Self::Cluster => match infra.cluster {
                Some(ClusterShape::Standard { .. }) => format!("cluster {name}"),
                _ => format!("Autopilot cluster {name}"),
            },
            Self::Pool => format!("workload identity pool {}", pool(infra)),
            Self::Provider => format!("workload identity provider {PROVIDER}"),
            Self::Binding(binding) => {
                let on = match binding.on {
                    Object::Project => format!("project {}", infra.project),
                    Object::Bucket => format!("bucket {}", infra.bucket),
                    Object::Repository => format!("repository {}", infra.repository().1),
                    Object::Account(account) => short(infra, account),
                };
                let member = match binding.member {
                    Member::Account(account) => short(infra, account),
                    Member::Pod => format!("pods of {}/mlflow", infra.namespace),
                    Member::Workflows => {
                        let github = infra.github.as_ref();
                        format!("workflows of {}", github.map_or("", |github| &github.repository))
                    }
                    Member::Approved => subject(infra),
                };
                format!("{} on {on} for {member}", binding.role)
            }
        }
    }
}

fn short(infra: &InfraConfig, account: Account) -> String {
    let address = infra.account(account.suffix());
    address.split('@').next().unwrap_or_default().to_owned()
}
