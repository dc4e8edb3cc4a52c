//! `[environment.NAME]` of the kinds `kubernetes` and `gke` -> [`ClusterConfig`].

use std::path::Path;

use crate::config::table::Table;
use crate::error::Result;
use crate::gc;

use super::checks::{self, Unit};
use super::{
    Access, Artifacts, BackupConfig, BackupMethod, Client, CloudSql, ClusterConfig, ClusterKind, Database, Egress,
    GcConfig, Identity, Login, Metrics, PROXY_IMAGE, PullSecret, RolloutConfig, Secret, ServerConfig,
};
use super::{iap, oidc};

/// MiB of a server with one worker, and what each further one adds. Measured with MLflow 3.17.2 at
/// PostgreSQL, under load: 350 with one worker, 535 with two, 850 with four; and 370 more in a worker
/// that gives nine answers of 5 MB at a time.
const MEMORY: (u32, u32) = (1024, 512);

/// MiB of the nine processes that MLflow's job execution adds, and the variable that turns it on.
const JOBS: (u32, &str) = (1792, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION");

/// Reads the table of an environment; `table` is finished by the caller.
pub fn read(root: &Path, kind: ClusterKind, namespace: String, table: &mut Table<'_, '_>) -> Result<ClusterConfig> {
    let context = table.required("context", "the name of a kubeconfig's context: `kubectl config get-contexts`")?;
    let kubeconfig = table.string("kubeconfig", None)?.map(|path| root.join(path));
    let server = server(table)?;
    let access = access(root, table)?;
    let metrics = table.choice("metrics", &Metrics::NAMES, "none")?;
    // Behind a login readiness is a route of that module (`mlflow_server_ready.py` in the image).
    let options = server.env.get("MLFLOW_UVICORN_OPTS").filter(|options| !options.contains("mlflow_server_drain"));
    if let (Login::Basic { .. } | Login::Oidc(_), Some(_)) = (&access.login, options) {
        let why = "without --http mlflow_server_drain:DrainingProtocol no probe gets past the login";
        return Err(table.refuse("env.MLFLOW_UVICORN_OPTS", why).hint("add it"));
    }
    if let (Login::Oidc(_), true) = (&access.login, metrics != Metrics::None) {
        let why = "the server listens behind the login only, and whoever fetches metrics has none";
        return Err(table.refuse("metrics", why).hint("leave metrics out"));
    }
    let rollout = RolloutConfig {
        deadline: table.seconds("deadline", 600, 10..=86_400)?,
        soak: table.seconds("soak", 30, 0..=3_600)?,
        migration: table.seconds("migration-deadline", 3_600, 60..=86_400)?,
        keep: table.integer("keep-releases", Some(10_u16))?.unwrap_or(10).into(),
    };
    if rollout.keep == 0 {
        return Err(table.refuse("keep-releases", "at least 1 is needed to go back to"));
    }
    let pull_secret = pull_secret(table)?;
    let gc = gc(table)?;
    let artifacts = artifacts(root, table)?;
    let (database, max_connections) = match kind {
        ClusterKind::Gke => cloud_sql(root, table, &artifacts.identity)?,
        ClusterKind::Kubernetes if speaks_of_cloud_sql(table)? => cloud_sql(root, table, &artifacts.identity)?,
        ClusterKind::Kubernetes => uri(root, table)?,
    };
    let backup = backup(table, &database, &artifacts.uri)?;
    Ok(ClusterConfig {
        kubeconfig,
        context,
        namespace,
        server,
        database,
        max_connections,
        artifacts,
        access,
        metrics,
        rollout,
        pull_secret,
        gc,
        backup,
    })
}

/// The namespace of a server in a cluster.
pub fn namespace(table: &mut Table<'_, '_>) -> Result<String> {
    let namespace = table.checked("namespace", "mlflow", checks::label)?;
    match namespace.starts_with("kube-") {
        true => Err(table.refuse("namespace", format!("{namespace} belongs to Kubernetes"))),
        false => Ok(namespace),
    }
}

fn server(table: &mut Table<'_, '_>) -> Result<ServerConfig> {
    let replicas = at_least_one(table, "replicas")?;
    let max_replicas = table.integer::<u32>("max-replicas", None)?;
    if let Some(max) = max_replicas.filter(|max| *max <= replicas) {
        let why = format!("{max} is not more than the {replicas} of replicas, from which the autoscaler starts");
        return Err(table.refuse("max-replicas", why));
    }
    let workers = at_least_one(table, "workers")?;
    let env = table.texts("env")?;
    let jobs = env.get(JOBS.1).is_some_and(|value| ["true", "1"].contains(&value.to_lowercase().as_str()));
    let memory = MEMORY.0 + MEMORY.1 * (u32::from(workers) - 1) + if jobs { JOBS.0 } else { 0 };
    let memory = match memory {
        whole if whole % 1024 == 0 => format!("{}Gi", whole / 1024),
        other => format!("{other}Mi"),
    };
    if let Some((name, why)) = env.keys().find_map(|name| checks::env(name).err().map(|why| (name, why))) {
        return Err(table.refuse(&format!("env.{name}"), why));
    }
    Ok(ServerConfig {
        replicas,
        max_replicas,
        workers,
        cpu: table.checked("cpu", "250m", |text| checks::quantity(text, Unit::Cpus))?,
        memory: table.checked("memory", &memory, |text| checks::quantity(text, Unit::Bytes))?,
        scratch: table.checked("scratch", "2Gi", |text| checks::quantity(text, Unit::Bytes))?,
        env,
    })
}

fn access(root: &Path, table: &mut Table<'_, '_>) -> Result<Access> {
    let hosts = table.strings("hosts", &[])?;
    for host in &hosts {
        checks::host(host).map_err(|why| table.refuse("hosts", why))?;
    }
    let load_balancer = table.boolean("load-balancer", false)?;
    let gateway = table.optional("gateway", checks::gateway)?;
    if gateway.is_some() && hosts.is_empty() {
        let why = "a Gateway needs the names that it serves, and the server refuses others";
        return Err(table.refuse("gateway", why).hint("add hosts = [\"mlflow.example.com\"]"));
    }
    let gateway_is_internal = table.boolean("gateway-is-internal", false)?;
    if gateway_is_internal && gateway.is_none() {
        return Err(table.refuse("gateway-is-internal", "there is no gateway"));
    }
    let clients = clients(table)?;
    let egress = egress(table)?;
    let login = login(root, table, &hosts)?;
    if matches!(login, Login::Iap(_)) && (gateway.is_none() || load_balancer) {
        let why = "Google's Identity-Aware Proxy stands before a Gateway and before nothing else";
        let hint = "add gateway = \"NAMESPACE/NAME\", one of GKE's, and leave load-balancer out";
        return Err(table.refuse("login", why).hint(hint));
    }
    let public_without_login = table.boolean("public-without-login", false)?;
    Ok(Access { hosts, load_balancer, gateway, gateway_is_internal, clients, egress, login, public_without_login })
}

fn clients(table: &mut Table<'_, '_>) -> Result<Vec<Client>> {
    let texts = table.strings("clients", &[])?;
    let clients = texts.iter().map(|text| checks::client(text).map_err(|why| table.refuse("clients", why)));
    clients.collect()
}

fn egress(table: &mut Table<'_, '_>) -> Result<Egress> {
    let needed = table.choice("egress", &[("open", false), ("needed", true)], "open")?;
    let texts = table.strings("egress-to", &[])?;
    let also: Result<Vec<_>> =
        texts.iter().map(|text| checks::peer(text).map_err(|why| table.refuse("egress-to", why))).collect();
    match (needed, also?) {
        (true, also) => Ok(Egress::Needed { also }),
        (false, also) if also.is_empty() => Ok(Egress::Open),
        (false, _) => Err(table.refuse("egress-to", "egress is open anyway").hint("add egress = \"needed\"")),
    }
}

fn login(root: &Path, table: &mut Table<'_, '_>, hosts: &[String]) -> Result<Login> {
    let wish = table.choice("login", &LoginWish::NAMES, "none")?;
    let file = file(root, table, "admin-password-file")?;
    let variable = variable(table, "admin-password-variable")?;
    let existing = existing(table, "admin-password-secret", "admin-password-key", "password")?;
    let sources =
        [("admin-password-file", file), ("admin-password-variable", variable), ("admin-password-secret", existing)];
    let given = sources.iter().find(|(_, secret)| secret.is_some()).map(|(key, _)| *key);
    let password = at_most_one(table, sources)?;
    if let (LoginWish::None | LoginWish::Oidc | LoginWish::Iap, Some(key)) = (wish, given) {
        let why = "the server has no login with passwords";
        return Err(table.refuse(key, why).hint("add login = \"basic\", or take the key out"));
    }
    for (name, other) in [("oidc", LoginWish::Oidc), ("iap", LoginWish::Iap)] {
        if wish != other && table.raw(name)?.is_some() {
            let hint = format!("add login = {name:?}, or take the table out");
            return Err(table.refuse(name, "the login is another one, and this would be ignored").hint(hint));
        }
    }
    Ok(match wish {
        LoginWish::None => Login::None,
        LoginWish::Basic => Login::Basic { password },
        LoginWish::Oidc => Login::Oidc(Box::new(oidc::read(root, table, hosts)?)),
        LoginWish::Iap => Login::Iap(iap::read(root, table)?),
    })
}

/// `login`, as it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LoginWish {
    None,
    Basic,
    Oidc,
    Iap,
}

impl LoginWish {
    const NAMES: [(&str, Self); 4] =
        [("none", Self::None), ("basic", Self::Basic), ("oidc", Self::Oidc), ("iap", Self::Iap)];
}

fn pull_secret(table: &mut Table<'_, '_>) -> Result<PullSecret> {
    let name = table.optional("pull-secret-name", checks::secret_name)?;
    let default = if name.is_some() { "never" } else { "auto" };
    let wish = table.choice("pull-secret", &PullSecretWish::NAMES, default)?;
    match (wish, name) {
        (PullSecretWish::Never, name) => Ok(name.map_or(PullSecret::Never, PullSecret::Existing)),
        (PullSecretWish::Auto, None) => Ok(PullSecret::Auto),
        (PullSecretWish::Always, None) => Ok(PullSecret::Always),
        (_, Some(name)) => {
            let why = format!("the pods pull with the Secret {name} of pull-secret-name, and one would be ignored");
            Err(table.refuse("pull-secret", why).hint("keep one of the two keys"))
        }
    }
}

/// `pull-secret`, as it is written.
#[derive(Clone, Copy)]
enum PullSecretWish {
    Auto,
    Always,
    Never,
}

impl PullSecretWish {
    const NAMES: [(&str, Self); 3] = [("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)];
}

fn gc(table: &mut Table<'_, '_>) -> Result<GcConfig> {
    let mut table = table.nested("gc")?;
    let default = GcConfig::default();
    let schedule = table.optional("schedule", checks::schedule)?;
    let age = table.checked("older-than", &gc::words(default.older_than), |text| gc::duration(text).map(drop))?;
    let dry_run = table.boolean("dry-run", default.dry_run)?;
    if dry_run && schedule.is_none() {
        let why = "there is no schedule that it could be about";
        return Err(table.refuse("dry-run", why).hint("add schedule = \"0 3 * * 0\", or run cargo xtask gc --dry-run"));
    }
    let deadline = table.seconds("deadline", 3_600, 60..=86_400)?;
    table.finish()?;
    let older_than = gc::duration(&age).unwrap_or(default.older_than);
    Ok(GcConfig { schedule, older_than, dry_run, deadline })
}

fn backup(table: &mut Table<'_, '_>, database: &Database, artifacts: &str) -> Result<BackupConfig> {
    let mut table = table.nested("backup")?;
    let by_google = database.cloud_sql().is_some();
    let method = table.choice("method", &BackupMethod::NAMES, if by_google { "cloud-sql" } else { "dump" })?;
    if method == BackupMethod::CloudSql && !by_google {
        return Err(table.refuse("method", "the database is no Cloud SQL instance").hint("write method = \"dump\""));
    }
    let to = table.string("to", checks::beside(artifacts))?;
    if let Some(Err(why)) = to.as_deref().map(|to| checks::backups(to, artifacts)) {
        return Err(table.refuse("to", why));
    }
    let keep: usize = table.integer("keep", Some(10_u16))?.unwrap_or(10).into();
    if keep == 0 {
        return Err(table.refuse("keep", "at least 1 is needed to go back to"));
    }
    let deadline = table.seconds("deadline", 3_600, 60..=86_400)?;
    table.finish()?;
    Ok(BackupConfig { method, to, keep, deadline })
}

fn artifacts(root: &Path, table: &mut Table<'_, '_>) -> Result<Artifacts> {
    let mut table = table.nested("artifacts")?;
    let uri = table.required("uri", "where artifacts are kept: \"gs://BUCKET\"")?;
    checks::artifacts(&uri).map_err(|why| table.refuse("uri", why))?;
    if table.says(&["workload-identity", "key-file", "key-secret"]) {
        table.forget_made();
    }
    let workload = table.optional("workload-identity", checks::service_account)?;
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

/// Any cluster can have the Auth Proxy, with a key.
fn speaks_of_cloud_sql(table: &mut Table<'_, '_>) -> Result<bool> {
    let table = table.nested("database")?;
    let uri = ["uri-file", "uri-variable", "secret"].into_iter().find(|key| table.says(&[key]));
    match (table.says(&["instance"]), uri) {
        (true, Some(uri)) => {
            let why = format!("{uri} is set too, and one of them would be ignored");
            Err(table.refuse("instance", why).hint("keep one"))
        }
        (says, uri) => Ok(says || (table.has_made("instance") && uri.is_none())),
    }
}

fn uri(root: &Path, table: &mut Table<'_, '_>) -> Result<(Database, Option<u32>)> {
    let mut table = table.nested("database")?;
    table.forget_made();
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
    let max_connections = table.integer("max-connections", None)?;
    table.finish()?;
    Ok((Database::Uri(secret), max_connections))
}

fn cloud_sql(root: &Path, table: &mut Table<'_, '_>, identity: &Identity) -> Result<(Database, Option<u32>)> {
    let mut table = table.nested("database")?;
    let instance = table.required("instance", "the Cloud SQL instance: \"PROJECT:REGION:INSTANCE\"")?;
    checks::instance(&instance).map_err(|why| table.refuse("instance", why))?;
    if table.says(&["password-file", "password-variable", "password-secret"]) {
        table.forget_made();
    }
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
    let admin_api = table.optional("admin-api", |text| match url::Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        _ => Err(format!("{text:?} is not an http:// or https:// address")),
    })?;
    let database = CloudSql {
        instance,
        database: table.checked("name", "mlflow", |text| match text.is_empty() {
            true => Err("it is empty".to_owned()),
            false => Ok(()),
        })?,
        user,
        password,
        proxy_image: table.checked("proxy-image", PROXY_IMAGE, |text| {
            text.parse::<crate::registry::Reference>().map(|_| ()).map_err(|error| error.to_string())
        })?,
        private_ip: table.boolean("private-ip", false)?,
        admin_api,
    };
    if table.says(&["instance"]) {
        table.forget_made();
    }
    let max_connections = table.integer("max-connections", None)?;
    table.finish()?;
    Ok((Database::CloudSql(database), max_connections))
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

pub(super) fn file(root: &Path, table: &mut Table<'_, '_>, key: &str) -> Result<Option<Secret>> {
    Ok(table.optional(key, checks::file)?.map(|path| Secret::File(root.join(path))))
}

pub(super) fn variable(table: &mut Table<'_, '_>, key: &str) -> Result<Option<Secret>> {
    Ok(table.optional(key, checks::variable)?.map(Secret::Variable))
}

/// A Secret that someone else keeps, and the key in it.
pub(super) fn existing(
    table: &mut Table<'_, '_>,
    name_key: &str,
    key_key: &str,
    default: &str,
) -> Result<Option<Secret>> {
    let name = table.optional(name_key, checks::secret_name)?;
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

pub(super) fn at_most_one<const N: usize>(
    table: &Table<'_, '_>,
    sources: [(&str, Option<Secret>); N],
) -> Result<Option<Secret>> {
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
