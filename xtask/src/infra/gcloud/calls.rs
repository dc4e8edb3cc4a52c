//! The calls of gcloud for each resource: what is asked, what makes it, what removes it.

use crate::config::infra::{ClusterShape, DATABASE, InfraConfig, SqlLogin};
use crate::gcloud::Call;

use super::resources::{
    self, Binding, DATABASE_ROLE, ISSUER, MAPPING, NETWORKING, Object, PROVIDER, RANGES, REPOSITORY_TEXT, Resource,
    lifecycle, peering_range, pool,
};

/// What nodes may call; their account's roles are what limits them.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// What tells how a resource is. One call may answer for several.
pub fn question(infra: &InfraConfig, resource: &Resource) -> Call {
    let name = &infra.name;
    let regional = |words: &str| Call::new(words).arg(name).flag("region", &infra.region);
    match resource {
        Resource::Api(_) => Call::new("services list --enabled"),
        Resource::Account(_) => Call::new("iam service-accounts list"),
        Resource::Network => Call::new("compute networks describe").arg(name),
        Resource::Subnetwork => regional("compute networks subnets describe"),
        Resource::Router | Resource::Nat => regional("compute routers describe"),
        Resource::PeeringRange => Call::new("compute addresses describe").arg(peering_range(infra)).arg("--global"),
        Resource::Peering => Call::new("services vpc-peerings list").flag("network", name),
        Resource::Bucket => Call::new("storage buckets describe").arg(url(infra)).arg("--raw"),
        Resource::Repository => repository(infra, "describe"),
        Resource::Instance => Call::new("sql instances describe").arg(&infra.sql.instance),
        Resource::Database => Call::new("sql databases list").flag("instance", &infra.sql.instance),
        Resource::User => Call::new("sql users list").flag("instance", &infra.sql.instance),
        Resource::Cluster => cluster(infra, "describe"),
        Resource::Pool => in_pool(infra, "describe"),
        Resource::Provider => provider(infra, "describe"),
        Resource::Binding(binding) => match binding.on {
            Object::Project => Call::new("projects get-iam-policy").arg(&infra.project),
            Object::Bucket => Call::new("storage buckets get-iam-policy").arg(url(infra)),
            Object::Repository => repository(infra, "get-iam-policy"),
            Object::Account(account) => {
                Call::new("iam service-accounts get-iam-policy").arg(infra.account(account.suffix()))
            }
        },
    }
}

/// What tells the project's number.
pub fn project(infra: &InfraConfig) -> Call {
    Call::new("projects describe").arg(&infra.project)
}

/// What makes it. APIs are enabled together: see [`enable`].
pub fn create(infra: &InfraConfig, resource: &Resource, number: &str) -> Call {
    let name = &infra.name;
    let in_region = |call: Call| call.flag("region", &infra.region);
    match resource {
        Resource::Api(api) => enable(&[api]),
        Resource::Account(account) => {
            let (title, text) = account.texts();
            let address = infra.account(account.suffix());
            let id = address.split('@').next().unwrap_or_default();
            Call::new("iam service-accounts create").arg(id).flag("display-name", title).flag("description", text)
        }
        Resource::Network => Call::new("compute networks create").arg(name).flag("subnet-mode", "custom"),
        Resource::Subnetwork => {
            let [(_, nodes), secondary @ ..] = RANGES;
            let secondary = secondary.map(|(range, addresses)| format!("{range}={addresses}")).join(",");
            in_region(Call::new("compute networks subnets create").arg(name))
                .flag("network", name)
                .flag("range", nodes)
                .flag("secondary-range", secondary)
                .arg("--enable-private-ip-google-access")
        }
        Resource::Router => in_region(Call::new("compute routers create").arg(name)).flag("network", name),
        Resource::Nat => in_region(Call::new("compute routers nats create").arg(name))
            .flag("router", name)
            .arg("--auto-allocate-nat-external-ips")
            .arg("--nat-all-subnet-ip-ranges"),
        Resource::PeeringRange => Call::new("compute addresses create")
            .arg(peering_range(infra))
            .arg("--global")
            .flag("purpose", "VPC_PEERING")
            .flag("prefix-length", 16)
            .flag("network", name),
        Resource::Peering => Call::new("services vpc-peerings connect")
            .flag("service", NETWORKING)
            .flag("network", name)
            .flag("ranges", peering_range(infra)),
        Resource::Bucket => Call::new("storage buckets create")
            .arg(url(infra))
            .flag("location", &infra.region)
            .flag("default-storage-class", "STANDARD")
            .args(["--uniform-bucket-level-access", "--public-access-prevention"])
            .flag("soft-delete-duration", "7d")
            .file("lifecycle-file", lifecycle().to_string()),
        Resource::Repository => labelled(
            infra,
            "labels",
            repository(infra, "create").flag("repository-format", "docker").flag("description", REPOSITORY_TEXT),
        ),
        Resource::Instance => instance(infra),
        Resource::Database => Call::new("sql databases create").arg(DATABASE).flag("instance", &infra.sql.instance),
        Resource::User => {
            let call = Call::new("sql users create").arg(infra.database_user()).flag("instance", &infra.sql.instance);
            match infra.sql.login {
                SqlLogin::Iam => call.flag("type", "CLOUD_IAM_SERVICE_ACCOUNT"),
                SqlLogin::Password => call.flag("type", "BUILT_IN").secret(),
            }
        }
        Resource::Cluster => new_cluster(infra),
        Resource::Pool => {
            let github = infra.github.as_ref().map_or("", |github| &github.repository);
            in_pool(infra, "create")
                .flag("display-name", "GitHub")
                .flag("description", format!("Workflows of {github}"))
        }
        Resource::Provider => provider(infra, "create-oidc")
            .flag("display-name", "GitHub")
            .flag("issuer-uri", ISSUER)
            .flag("attribute-mapping", MAPPING.map(|(to, from)| format!("{to}={from}")).join(","))
            .flag("attribute-condition", resources::condition(infra)),
        Resource::Binding(binding) => policy(infra, binding, "add-iam-policy-binding", number),
    }
}

/// Enables APIs.
pub fn enable(apis: &[&str]) -> Call {
    Call::new("services enable").args(apis.iter().copied())
}

/// Gives a resource what it cannot be made with.
pub fn finish(infra: &InfraConfig, resource: &Resource) -> Call {
    match resource {
        Resource::User => Call::new("sql users assign-roles")
            .arg(infra.database_user())
            .flag("instance", &infra.sql.instance)
            .flag("type", "CLOUD_IAM_SERVICE_ACCOUNT")
            .flag("database-roles", DATABASE_ROLE),
        _ => labelled(infra, "update-labels", Call::new("storage buckets update").arg(url(infra)).arg("--versioning")),
    }
}

/// Brings back what was deleted, and whose name is taken for 30 days.
pub fn undelete(infra: &InfraConfig, resource: &Resource) -> Call {
    match resource {
        Resource::Provider => provider(infra, "undelete"),
        _ => in_pool(infra, "undelete"),
    }
}

/// Lets the instance be deleted.
pub fn unprotect(infra: &InfraConfig) -> Call {
    Call::new("sql instances patch").arg(&infra.sql.instance).arg("--no-deletion-protection")
}

/// Gives the database user another password.
pub fn set_password(infra: &InfraConfig) -> Call {
    Call::new("sql users set-password").arg(infra.database_user()).flag("instance", &infra.sql.instance).secret()
}

/// What removes it. APIs stay enabled.
pub fn delete(infra: &InfraConfig, resource: &Resource, number: &str) -> Call {
    let name = &infra.name;
    let regional = |words: &str| Call::new(words).arg(name).flag("region", &infra.region);
    match resource {
        Resource::Api(api) => Call::new("services disable").arg(*api),
        Resource::Account(account) => Call::new("iam service-accounts delete").arg(infra.account(account.suffix())),
        Resource::Network => Call::new("compute networks delete").arg(name),
        Resource::Subnetwork => regional("compute networks subnets delete"),
        Resource::Router => regional("compute routers delete"),
        Resource::Nat => regional("compute routers nats delete").flag("router", name),
        Resource::PeeringRange => Call::new("compute addresses delete").arg(peering_range(infra)).arg("--global"),
        // Of our side: Cloud SQL keeps its own for days after the last instance, and refuses until then.
        Resource::Peering => {
            Call::new("compute networks peerings delete servicenetworking-googleapis-com").flag("network", name)
        }
        Resource::Bucket => Call::new("storage rm --recursive").arg(url(infra)),
        Resource::Repository => repository(infra, "delete"),
        Resource::Instance => Call::new("sql instances delete")
            .arg(&infra.sql.instance)
            .arg("--enable-final-backup")
            .flag("final-backup-retention-days", 30),
        Resource::Database => Call::new("sql databases delete").arg(DATABASE).flag("instance", &infra.sql.instance),
        Resource::User => {
            Call::new("sql users delete").arg(infra.database_user()).flag("instance", &infra.sql.instance)
        }
        Resource::Cluster => cluster(infra, "delete"),
        Resource::Pool => in_pool(infra, "delete"),
        Resource::Provider => provider(infra, "delete"),
        Resource::Binding(binding) => policy(infra, binding, "remove-iam-policy-binding", number),
    }
}

fn policy(infra: &InfraConfig, binding: &Binding, verb: &str, number: &str) -> Call {
    let call = match binding.on {
        Object::Project => Call::new(&format!("projects {verb}")).arg(&infra.project),
        Object::Bucket => Call::new(&format!("storage buckets {verb}")).arg(url(infra)),
        Object::Repository => repository(infra, verb),
        Object::Account(account) => {
            Call::new(&format!("iam service-accounts {verb}")).arg(infra.account(account.suffix()))
        }
    };
    let call = call.flag("member", binding.member(infra, number)).flag("role", binding.role);
    // A policy that has conditions elsewhere makes gcloud ask about one.
    call.when(!matches!(binding.on, Object::Bucket | Object::Repository), "--condition=None")
}

fn instance(infra: &InfraConfig) -> Call {
    let sql = &infra.sql;
    // Labels of instances are not in gcloud's general release.
    let words = if infra.labels.is_empty() { "sql instances create" } else { "beta sql instances create" };
    let call = Call::new(words)
        .arg(&sql.instance)
        .flag("region", &infra.region)
        .flag("database-version", &sql.version)
        .flag("edition", sql.edition.to_lowercase().replace('_', "-"))
        .flag("tier", &sql.tier)
        .flag("availability-type", &sql.availability)
        .flag("storage-size", format!("{}GB", sql.disk_gb))
        .args(["--storage-auto-increase", "--activation-policy=ALWAYS", "--connector-enforcement=REQUIRED"])
        .args(["--backup", "--enable-point-in-time-recovery"])
        .flag("retained-backups-count", 7)
        .flag("retained-transaction-log-days", 7)
        .when(infra.deletion_protection, "--deletion-protection")
        .when(sql.login == SqlLogin::Iam, "--database-flags=cloudsql.iam_authentication=on");
    let call = match sql.private_ip {
        true => call.arg("--no-assign-ip").flag("network", network(infra)),
        false => call.arg("--assign-ip"),
    };
    labelled(infra, "labels", call)
}

fn new_cluster(infra: &InfraConfig) -> Call {
    let verb = if infra.cluster == Some(ClusterShape::Autopilot) { "create-auto" } else { "create" };
    let call = cluster(infra, verb)
        .flag("network", &infra.name)
        .flag("subnetwork", &infra.name)
        .flag("cluster-secondary-range-name", RANGES[1].0)
        .flag("services-secondary-range-name", RANGES[2].0)
        .args(["--enable-private-nodes", "--enable-dns-access", "--release-channel=regular"])
        .flag("service-account", infra.account("nodes"))
        .flag("scopes", SCOPE);
    let call = match &infra.cluster {
        Some(ClusterShape::Standard { node_type, node_count, spot }) => call
            .args(["--enable-ip-alias", "--enable-dataplane-v2"])
            .flag("workload-pool", format!("{}.svc.id.goog", infra.project))
            .flag("workload-metadata", "GKE_METADATA")
            .flag("machine-type", node_type)
            .flag("num-nodes", node_count)
            .when(*spot, "--spot")
            .args(["--enable-autorepair", "--enable-autoupgrade"])
            .args(["--shielded-secure-boot", "--shielded-integrity-monitoring"]),
        _ => call,
    };
    labelled(infra, "labels", call)
}

fn labelled(infra: &InfraConfig, flag: &str, call: Call) -> Call {
    if infra.labels.is_empty() {
        return call;
    }
    let labels: Vec<String> = infra.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    call.flag(flag, labels.join(","))
}

/// The network's full name.
pub fn network(infra: &InfraConfig) -> String {
    format!("projects/{}/global/networks/{}", infra.project, infra.name)
}

fn url(infra: &InfraConfig) -> String {
    format!("gs://{}", infra.bucket)
}

fn repository(infra: &InfraConfig, verb: &str) -> Call {
    let (location, name) = infra.repository();
    Call::new("artifacts repositories").arg(verb).arg(name).flag("location", location)
}

fn cluster(infra: &InfraConfig, verb: &str) -> Call {
    Call::new("container clusters").arg(verb).arg(&infra.name).flag("location", &infra.region)
}

fn in_pool(infra: &InfraConfig, verb: &str) -> Call {
    Call::new("iam workload-identity-pools").arg(verb).arg(pool(infra)).flag("location", "global")
}

fn provider(infra: &InfraConfig, verb: &str) -> Call {
    Call::new("iam workload-identity-pools providers")
        .arg(verb)
        .arg(PROVIDER)
        .flag("location", "global")
        .flag("workload-identity-pool", pool(infra))
}
