//! `[environment.NAME]` of the kinds `kubernetes` and `gke` -> [`ClusterConfig`].

use std::path::Path;

use crate::config::did_you_mean;
use crate::config::table::Table;
use crate::error::Result;

use super::checks::{self, Unit};
use super::{
    Access, Artifacts, CloudSql, ClusterConfig, ClusterKind, Database, Identity, PROXY_IMAGE, PullSecret,
    RolloutConfig, Secret, ServerConfig,
};

/// MiB of a server with one worker, and what each further one adds: 420 at rest, 230 more for each,
/// and as much again for requests.
const MEMORY: (u32, u32) = (1024, 512);

/// Reads the table of an environment; `table` is finished by the caller.
pub fn read(root: &Path, kind: ClusterKind, table: &mut Table<'_, '_>) -> Result<ClusterConfig> {
    let context = required(table, "context", "the name of a kubeconfig's context: `kubectl config get-contexts`")?;
    let kubeconfig = table.string("kubeconfig", None)?.map(|path| root.join(path));
    let namespace = text(table, "namespace", "mlflow", checks::label)?;
    if namespace.starts_with("kube-") {
        return Err(table.refuse("namespace", format!("{namespace} belongs to Kubernetes")));
    }
    let server = server(table)?;
    let access = access(table)?;
    let rollout = RolloutConfig {
        deadline: table.seconds("deadline", 600, 10..=86_400)?,
        soak: table.seconds("soak", 30, 0..=3_600)?,
        keep: table.integer("keep-releases", Some(10_u16))?.unwrap_or(10).into(),
    };
    if rollout.keep == 0 {
        return Err(table.refuse("keep-releases", "at least 1 is needed to go back to"));
    }
    let pull_secret = pull_secret(table)?;
    let artifacts = artifacts(root, table)?;
    let database = match kind {
        ClusterKind::Kubernetes => uri(root, table)?,
        ClusterKind::Gke => cloud_sql(root, table, &artifacts.identity)?,
    };
    Ok(ClusterConfig { kubeconfig, context, namespace, server, database, artifacts, access, rollout, pull_secret })
}

fn server(table: &mut Table<'_, '_>) -> Result<ServerConfig> {
    let replicas = at_least_one(table, "replicas")?;
    let max_replicas = table.integer::<u32>("max-replicas", None)?;
    if let Some(max) = max_replicas.filter(|max| *max <= replicas) {
        let why = format!("{max} is not more than the {replicas} of replicas, from which the autoscaler starts");
        return Err(table.refuse("max-replicas", why));
    }
    let workers = at_least_one(table, "workers")?;
    let memory = match MEMORY.0 + MEMORY.1 * (u32::from(workers) - 1) {
        whole if whole % 1024 == 0 => format!("{}Gi", whole / 1024),
        other => format!("{other}Mi"),
    };
    let env = table.texts("env")?;
    if let Some((name, why)) = env.keys().find_map(|name| checks::env(name).err().map(|why| (name, why))) {
        return Err(table.refuse(&format!("env.{name}"), why));
    }
    Ok(ServerConfig {
        replicas,
        max_replicas,
        workers,
        cpu: text(table, "cpu", "250m", |text| checks::quantity(text, Unit::Cpus))?,
        memory: text(table, "memory", &memory, |text| checks::quantity(text, Unit::Bytes))?,
        scratch: text(table, "scratch", "2Gi", |text| checks::quantity(text, Unit::Bytes))?,
        env,
    })
}

fn access(table: &mut Table<'_, '_>) -> Result<Access> {
    let hosts = table.strings("hosts", &[])?;
    for host in &hosts {
        checks::host(host).map_err(|why| table.refuse("hosts", why))?;
    }
    let load_balancer = table.boolean("load-balancer", false)?;
    let gateway = optional(table, "gateway", checks::gateway)?;
    if gateway.is_some() && hosts.is_empty() {
        let why = "a Gateway needs the names that it serves, and the server refuses others";
        return Err(table.refuse("gateway", why).hint("add hosts = [\"mlflow.example.com\"]"));
    }
    Ok(Access { hosts, load_balancer, gateway })
}

fn pull_secret(table: &mut Table<'_, '_>) -> Result<PullSecret> {
    const NAMES: [(&str, PullSecret); 3] =
        [("auto", PullSecret::Auto), ("always", PullSecret::Always), ("never", PullSecret::Never)];
    let text = table.string("pull-secret", Some("auto".to_owned()))?.unwrap_or_default();
    let found = NAMES.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| {
        let names = NAMES.map(|(name, _)| name);
        table.refuse("pull-secret", format!("{text:?} is unknown")).hint(did_you_mean(&text, &names))
    })
}

fn artifacts(root: &Path, table: &mut Table<'_, '_>) -> Result<Artifacts> {
    let mut table = table.nested("artifacts")?;
    let uri = required(&mut table, "uri", "where artifacts are kept: \"gs://BUCKET\"")?;
    checks::artifacts(&uri).map_err(|why| table.refuse("uri", why))?;
    let workload = optional(&mut table, "workload-identity", checks::service_account)?;
    let file = file(root, &mut table, "key-file")?;
    let existing = existing(&mut table, "key-secret", "key-secret-key", "key.json")?;
    let key = at_most_one(&table, [("key-file", file), ("key-secret", existing)])?;
    let identity = match (workload, key) {
        (None, None) => Identity::Ambient,
        (Some(account), None) => Identity::Workload(account),
        (None, Some(key)) => Identity::Key(key),
        (Some(_), Some(_)) => {
            return Err(table.refuse("workload-identity", "there is a key too, and one of them would be ignored"));
        }
    };
    table.finish()?;
    Ok(Artifacts { uri, identity })
}

fn uri(root: &Path, table: &mut Table<'_, '_>) -> Result<Database> {
    let mut table = table.nested("database")?;
    let file = file(root, &mut table, "uri-file")?;
    let variable = variable(&mut table, "uri-variable")?;
    let existing = existing(&mut table, "secret", "key", "uri")?;
    let sources = [("uri-file", file), ("uri-variable", variable), ("secret", existing)];
    let secret = at_most_one(&table, sources)?.ok_or_else(|| {
        table.refuse("uri-file", "nothing says where the database's URI is").hint(
            "set one of uri-file (a file that holds it), uri-variable (an environment variable that holds it) \
             or secret (a Secret of the namespace)",
        )
    })?;
    table.finish()?;
    Ok(Database::Uri(secret))
}

fn cloud_sql(root: &Path, table: &mut Table<'_, '_>, identity: &Identity) -> Result<Database> {
    let mut table = table.nested("database")?;
    let instance = required(&mut table, "instance", "the Cloud SQL instance: \"PROJECT:REGION:INSTANCE\"")?;
    checks::instance(&instance).map_err(|why| table.refuse("instance", why))?;
    let file = file(root, &mut table, "password-file")?;
    let variable = variable(&mut table, "password-variable")?;
    let existing = existing(&mut table, "password-secret", "password-key", "password")?;
    let sources = [("password-file", file), ("password-variable", variable), ("password-secret", existing)];
    let password = at_most_one(&table, sources)?;
    let user = match (&password, identity) {
        (Some(_), _) => Some("mlflow".to_owned()),
        // Cloud SQL knows service accounts without this ending.
        (None, Identity::Workload(account)) => account.strip_suffix(".gserviceaccount.com").map(str::to_owned),
        (None, _) => None,
    };
    let user = table.string("user", user)?.filter(|user| !user.is_empty()).ok_or_else(|| {
        table.refuse("user", "it is missing").hint(
            "name the IAM user, a service account without .gserviceaccount.com; \
             or set password-file, password-variable or password-secret",
        )
    })?;
    if password.is_none() && user.ends_with(".gserviceaccount.com") {
        let why = "Cloud SQL knows service accounts without .gserviceaccount.com";
        return Err(table.refuse("user", why).hint("leave that ending out"));
    }
    let admin_api = optional(&mut table, "admin-api", |text| match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err(format!("{text:?} is not an http:// or https:// address")),
    })?;
    let database = CloudSql {
        instance,
        database: text(&mut table, "name", "mlflow", |text| match text.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(()),
        })?,
        user,
        password,
        proxy_image: text(&mut table, "proxy-image", PROXY_IMAGE, |text| {
            text.parse::<crate::registry::Reference>().map(|_| ()).map_err(|error| error.to_string())
        })?,
        private_ip: table.boolean("private-ip", false)?,
        admin_api,
    };
    table.finish()?;
    Ok(Database::CloudSql(database))
}

type Check = fn(&str) -> Result<(), String>;

fn required(table: &mut Table<'_, '_>, key: &str, what: &str) -> Result<String> {
    let value = table.string(key, None)?.filter(|value| !value.is_empty());
    value.ok_or_else(|| table.refuse(key, "it is missing").hint(format!("set it: {what}")))
}

fn optional(table: &mut Table<'_, '_>, key: &str, check: Check) -> Result<Option<String>> {
    let value = table.string(key, None)?;
    match value.as_deref().map(check) {
        Some(Err(why)) => Err(table.refuse(key, why)),
        _ => Ok(value),
    }
}

fn text(table: &mut Table<'_, '_>, key: &str, default: &str, check: Check) -> Result<String> {
    let value = table.string(key, Some(default.to_owned()))?.unwrap_or_default();
    check(&value).map(|()| value).map_err(|why| table.refuse(key, why))
}

fn at_least_one<T>(table: &mut Table<'_, '_>, key: &str) -> Result<T>
where
    T: TryFrom<i64> + ToString + From<u8> + PartialOrd,
{
    let value = table.integer(key, Some(T::from(1)))?.unwrap_or(T::from(1));
    match value >= T::from(1) {
        true => Ok(value),
        false => Err(table.refuse(key, "at least 1 is needed")),
    }
}

fn file(root: &Path, table: &mut Table<'_, '_>, key: &str) -> Result<Option<Secret>> {
    Ok(optional(table, key, checks::file)?.map(|path| Secret::File(root.join(path))))
}

fn variable(table: &mut Table<'_, '_>, key: &str) -> Result<Option<Secret>> {
    Ok(optional(table, key, checks::variable)?.map(Secret::Variable))
}

/// A Secret that someone else keeps, and the key in it.
fn existing(table: &mut Table<'_, '_>, name_key: &str, key_key: &str, default: &str) -> Result<Option<Secret>> {
    let name = optional(table, name_key, checks::secret_name)?;
    let key = table.string(key_key, name.as_ref().map(|_| default.to_owned()))?;
    if let Some(Err(why)) = key.as_deref().map(checks::secret_key) {
        return Err(table.refuse(key_key, why));
    }
    match (name, key) {
        (None, None) => Ok(None),
        (None, Some(_)) => Err(table.refuse(key_key, format!("it is a key in a Secret, but {name_key} is missing"))),
        (Some(name), key) => Ok(Some(Secret::Existing { name, key: key.unwrap_or_default() })),
    }
}

fn at_most_one<const N: usize>(table: &Table<'_, '_>, sources: [(&str, Option<Secret>); N]) -> Result<Option<Secret>> {
    let mut given = sources.into_iter().filter_map(|(key, secret)| secret.map(|secret| (key, secret)));
    let first = given.next();
    match (&first, given.next()) {
        (Some((first, _)), Some((second, _))) => {
            let why = format!("{second} is set too, and one of them would be ignored");
            Err(table.refuse(first, why).hint("keep one"))
        }
        _ => Ok(first.map(|(_, secret)| secret)),
    }
}
