//! What a text in `deploy.toml` must look like. Each answers with the reason, without the key.

use std::fmt;
use std::net::IpAddr;

use super::{Client, Peer};

/// A name as Kubernetes has them for namespaces and Services (RFC 1123 label).
pub fn label(text: &str) -> Result<(), String> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&text.len()) && text.bytes().all(inner);
    match fits && !text.starts_with('-') && !text.ends_with('-') {
        true => Ok(()),
        false => Err(format!("{text:?} is not a name: use lower-case letters, digits and '-', at most 63")),
    }
}

/// A name as Kubernetes has them for most objects: labels with dots between (RFC 1123 subdomain).
pub fn subdomain(text: &str) -> Result<(), String> {
    match text.len() <= 253 && text.split('.').all(|part| label(part).is_ok()) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a name: use lower-case letters, digits, '-' and '.'")),
    }
}

/// What a Kubernetes quantity counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// CPUs: `2`, `0.5`, `250m`.
    Cpus,
    /// Bytes: `1Gi`, `512Mi`, `2G`.
    Bytes,
}

/// A positive Kubernetes quantity
/// (<https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>).
pub fn quantity(text: &str, unit: Unit) -> Result<(), String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let positive = number.parse::<f64>().is_ok_and(|number| number > 0.0);
    let (suffixes, example): (&[&str], _) = match unit {
        Unit::Cpus => (&["", "m"], "250m, 0.5 or 2"),
        Unit::Bytes => (&["", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"], "512Mi or 2Gi"),
    };
    match positive && suffixes.contains(&suffix) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a quantity of {unit}: write it like {example}")),
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpus => "CPUs",
            Self::Bytes => "bytes",
        })
    }
}

/// The name of an environment variable. The text is never repeated: it may be the secret itself.
pub fn variable(text: &str) -> Result<(), String> {
    match is_variable(text) {
        true => Ok(()),
        false => Err("it must be the name of an environment variable, not the value".to_owned()),
    }
}

/// Whether the text can name an environment variable.
pub fn is_variable(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The name of a Secret. The text is never repeated: it may be the secret itself.
pub fn secret_name(text: &str) -> Result<(), String> {
    subdomain(text).map_err(|_| "it must be the name of a Secret: lower-case letters, digits, '-' and '.'".to_owned())
}

/// A key in a Secret. The text is never repeated: it may be the secret itself.
pub fn secret_key(text: &str) -> Result<(), String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match (1..=253).contains(&text.len()) && text.bytes().all(good) {
        true => Ok(()),
        false => Err("it must be a key in a Secret: letters, digits, '-', '_' and '.'".to_owned()),
    }
}

/// A path of a file. The text is never repeated: it may be the secret itself.
pub fn file(text: &str) -> Result<(), String> {
    match text.contains("://") || text.contains(char::is_whitespace) || text.trim_start().starts_with('{') {
        true => Err("it must be the path of a file, not its content".to_owned()),
        false => Ok(()),
    }
}

/// A Cloud SQL instance: `PROJECT:REGION:INSTANCE`; the project may be `DOMAIN:PROJECT`.
pub fn instance(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split(':').collect();
    let part = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    match (3..=4).contains(&parts.len()) && parts.iter().all(part) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a Cloud SQL instance: write it as PROJECT:REGION:INSTANCE")),
    }
}

/// The e-mail address of a Google service account.
pub fn service_account(text: &str) -> Result<(), String> {
    let good = text
        .strip_suffix(".gserviceaccount.com")
        .and_then(|rest| rest.split_once('@'))
        .is_some_and(|(name, domain)| !name.is_empty() && !domain.is_empty() && !domain.contains('@'));
    match good {
        true => Ok(()),
        false => Err(format!("{text:?} is not a service account: write it as NAME@PROJECT.iam.gserviceaccount.com")),
    }
}

/// Schemes of artifact stores that several pods can share (`mlflow.store.artifact`). For others than
/// the first the image needs their client in `mlflow_server/requirements.in`.
const STORES: [&str; 9] = ["gs", "s3", "wasbs", "abfss", "hdfs", "viewfs", "r2", "http", "https"];

/// Where artifacts are kept. The text is repeated only as far as it can hold no password.
pub fn artifacts(text: &str) -> Result<(), String> {
    let scheme = text.split_once("://").filter(|(_, rest)| !rest.is_empty()).map(|(scheme, _)| scheme);
    match scheme {
        None | Some("file") => {
            Err("it is a folder, and pods do not share one: choose a store such as gs://BUCKET".to_owned())
        }
        Some(scheme) if !STORES.contains(&scheme) => {
            Err(format!("{scheme:?} is not a kind of artifact store: use one of {}", STORES.join(", ")))
        }
        Some("http" | "https") if text.contains('@') => {
            Err("it must hold no credentials: everyone who may look at ConfigMaps can read it".to_owned())
        }
        Some(_) => Ok(()),
    }
}

/// Where backups go unless someone says so: beside the artifacts. `None` where those have a whole bucket.
pub fn beside(artifacts: &str) -> Option<String> {
    let (scheme, rest) = artifacts.split_once("://")?;
    let (bucket, path) = rest.trim_end_matches('/').split_once('/')?;
    (!["http", "https"].contains(&scheme)).then(|| format!("{scheme}://{bucket}/{path}-backups"))
}

/// Where backups go: a store, or a folder that all pods share; not where clients of the server read.
pub fn backups(text: &str, of_artifacts: &str) -> Result<(), String> {
    match text.strip_prefix("file://") {
        Some(folder) if folder.len() > 1 && folder.starts_with('/') => {}
        Some(_) => return Err("it must name a folder of the pods': file:///PATH".to_owned()),
        None => artifacts(text)?,
    }
    let parts =
        |text: &'_ str| -> Vec<String> { text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect() };
    let (here, there) = (parts(text), parts(of_artifacts));
    if here.iter().any(|part| part == ".." || part == ".") {
        return Err("it must be a plain path".to_owned());
    }
    if here.starts_with(&there) {
        return Err("all clients of the server read what is below artifacts.uri, and a backup holds password \
                    hashes: name a place outside of it"
            .to_owned());
    }
    match there.starts_with(&here) {
        true => Err("the artifacts are below it, and would all be listed: name a place of their own".to_owned()),
        false => Ok(()),
    }
}

/// A host that clients name: a DNS name or address, perhaps with a port, perhaps `*.` before it.
pub fn host(text: &str) -> Result<(), String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let (name, port) = match name.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (name, None),
    };
    let good = |part: &str| {
        (1..=63).contains(&part.len())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    match name.split('.').all(good) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a host: write it like mlflow.example.com, without https:// and path")),
    }
}

/// A Gateway: `NAMESPACE/NAME`.
pub fn gateway(text: &str) -> Result<(), String> {
    let parts = text.split_once('/');
    match parts.is_some_and(|(namespace, name)| label(namespace).is_ok() && subdomain(name).is_ok()) {
        true => Ok(()),
        false => Err(format!("{text:?} is not a Gateway: write it as NAMESPACE/NAME")),
    }
}

/// When a CronJob runs: five fields, or a word for them
/// (<https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>). What the fields hold the
/// API server checks in a deploy's dry run.
pub fn schedule(text: &str) -> Result<(), String> {
    const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    let field = |field: &str| field.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"*/,-?".contains(&byte));
    let fields: Vec<&str> = text.split_whitespace().collect();
    match WORDS.contains(&text) || (fields.len() == 5 && fields.into_iter().all(field)) {
        true => Ok(()),
        false => Err(format!("{text:?} is no schedule: write it like \"0 3 * * 0\" (Sundays at three) or @daily")),
    }
}

/// Who may open a connection: `namespace:NAME`, or a range of addresses.
pub fn client(text: &str) -> Result<Client, String> {
    match text.split_once(':') {
        Some(("namespace", name)) => label(name).map(|()| Client::Namespace(name.to_owned())),
        _ if is_range(text) => Ok(Client::Addresses(text.to_owned())),
        _ => Err(format!("{text:?} is no client: write it as namespace:NAME or as a range such as 10.0.0.0/8")),
    }
}

/// Where pods may go: `RANGE:PORT`, or the port of one address.
pub fn peer(text: &str) -> Result<Peer, String> {
    let parts = text.rsplit_once(':').and_then(|(range, port)| Some((range, port.parse::<u16>().ok()?)));
    let (range, port) = parts.filter(|(_, port)| *port > 0).ok_or_else(|| no_peer(text))?;
    let range = match range.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("{address}/32"),
        Ok(IpAddr::V6(address)) => format!("{address}/128"),
        Err(_) => range.to_owned(),
    };
    match is_range(&range) {
        true => Ok(Peer { range, port }),
        false => Err(no_peer(text)),
    }
}

fn no_peer(text: &str) -> String {
    format!("{text:?} is no address with a port: write it as 10.0.0.1:8080 or 10.0.0.0/8:443; policies know no names")
}

/// A range of addresses (CIDR).
fn is_range(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// Variables that other keys of `deploy.toml` set, and those keys.
const OWNED: [(&str, &str); 10] = [
    ("MLFLOW_BACKEND_STORE_URI", "database"),
    ("MLFLOW_ARTIFACTS_DESTINATION", "artifacts.uri"),
    ("MLFLOW_WORKERS", "workers"),
    ("MLFLOW_SERVER_ALLOWED_HOSTS", "hosts"),
    ("GOOGLE_APPLICATION_CREDENTIALS", "artifacts.key-file or artifacts.key-secret"),
    ("PGPASSWORD", "database"),
    ("MLFLOW_AUTH_ADMIN_USERNAME", "login"),
    ("MLFLOW_HOST", ""),
    ("MLFLOW_PORT", ""),
    // It moves /health too.
    ("MLFLOW_STATIC_PREFIX", ""),
];

/// How the names of variables end that hold a secret.
const SECRET: [&str; 7] =
    ["PASSWORD", "PASSPHRASE", "TOKEN", "SECRET", "SECRET_KEY", "SECRET_ACCESS_KEY", "PRIVATE_KEY"];

/// A variable for the server.
pub fn env(name: &str) -> Result<(), String> {
    if !is_variable(name) {
        return Err("it is not the name of an environment variable".to_owned());
    }
    match OWNED.iter().find(|(owned, _)| *owned == name) {
        Some((_, "")) => return Err("probes and the Service rely on the image's value".to_owned()),
        Some((_, key)) => return Err(format!("set {key} instead")),
        None => {}
    }
    match SECRET.iter().any(|end| name.ends_with(end)) {
        true => Err("everyone who may look at ConfigMaps can read it: keep it in a Secret of your own and add an \
                     envFrom with it to the container mlflow in kubernetes/deployment.yaml"
            .to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (text, unit, good) in [
            ("250m", Unit::Cpus, true),
            ("0.5", Unit::Cpus, true),
            ("2", Unit::Cpus, true),
            ("0", Unit::Cpus, false),
            ("-1", Unit::Cpus, false),
            ("1Gi", Unit::Cpus, false),
            ("1Gi", Unit::Bytes, true),
            ("512Mi", Unit::Bytes, true),
            ("1.5G", Unit::Bytes, true),
            ("512m", Unit::Bytes, false),
            ("1GB", Unit::Bytes, false),
            ("Gi", Unit::Bytes, false),
            ("", Unit::Bytes, false),
            ("1.2.3Gi", Unit::Bytes, false),
        ] {
            assert_eq!(quantity(text, unit).is_ok(), good, "{text} {unit}");
        }
    }

    #[test]
    fn names_and_hosts() {
        for (check, text, good) in [
            (label as fn(&str) -> Result<(), String>, "mlflow", true),
            (label, "ml-flow-1", true),
            (label, "-a", false),
            (label, "A", false),
            (label, "a.b", false),
            (label, "", false),
            (subdomain, "a.b-c", true),
            (subdomain, "a..b", false),
            (instance, "p:europe-west1:db", true),
            (instance, "example.com:p:europe-west1:db", true),
            (instance, "p:db", false),
            (instance, "p::db", false),
            (instance, "p/r/i", false),
            (service_account, "a@p.iam.gserviceaccount.com", true),
            (service_account, "a@p.iam", false),
            (service_account, "@p.iam.gserviceaccount.com", false),
            (host, "mlflow.example.com", true),
            (host, "mlflow.example.com:8443", true),
            (host, "*.example.com", true),
            (host, "10.0.0.1", true),
            (host, "https://mlflow.example.com", false),
            (host, "mlflow.example.com/ui", false),
            (host, "a,b", false),
            (host, "*", false),
            (gateway, "infra/external", true),
            (gateway, "external", false),
            (gateway, "a/b/c", false),
            (schedule, "0 3 * * 0", true),
            (schedule, "*/15 0-6,22 1 JAN-MAR ?", true),
            (schedule, "@weekly", true),
            (schedule, "@every 1h", false),
            (schedule, "TZ=UTC 0 3 * * 0", false),
            (schedule, "0 3 * *", false),
            (schedule, "", false),
        ] {
            assert_eq!(check(text).is_ok(), good, "{text:?}: {:?}", check(text));
        }
    }

    #[test]
    fn clients_and_peers() {
        let namespace = |name: &str| Some(Client::Namespace(name.to_owned()));
        for (text, expected) in [
            ("namespace:research", namespace("research")),
            ("namespace:", None),
            ("namespace:A", None),
            ("10.0.0.0/8", Some(Client::Addresses("10.0.0.0/8".to_owned()))),
            ("fd00::/8", Some(Client::Addresses("fd00::/8".to_owned()))),
            ("10.0.0.1", None),
            ("10.0.0.0/33", None),
            ("research", None),
        ] {
            assert_eq!(client(text).ok(), expected, "{text}");
        }
        let to = |range: &str, port| Some(Peer { range: range.to_owned(), port });
        for (text, expected) in [
            ("10.0.0.1:8080", to("10.0.0.1/32", 8080)),
            ("10.0.0.0/8:443", to("10.0.0.0/8", 443)),
            ("[fd00::1]:443", to("fd00::1/128", 443)),
            ("db.example.com:5432", None),
            ("10.0.0.1", None),
            ("10.0.0.1:0", None),
            ("10.0.0.1:70000", None),
        ] {
            assert_eq!(peer(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn stores_must_be_shared_and_hold_no_password() {
        for (text, why) in [
            ("gs://bucket/path", ""),
            ("https://artifacts.example.com/x", ""),
            ("https://me:pw@artifacts.example.com/x", "no credentials"),
            ("s3://bucket", ""),
            ("wasbs://box@account.blob.core.windows.net/path", ""),
            ("/data", "do not share"),
            ("file:///data", "do not share"),
            ("gs://", "do not share"),
            ("gcs://bucket", "\"gcs\" is not a kind of artifact store"),
        ] {
            let found = artifacts(text).err().unwrap_or_default();
            assert!(found.contains(why) && found.is_empty() == why.is_empty(), "{text}: {found}");
            assert!(!found.contains("pw"), "{found}");
        }
    }

    #[test]
    fn backups_lie_beside_the_artifacts() {
        for (artifacts, expected) in [
            ("gs://b/mlflow", Some("gs://b/mlflow-backups")),
            ("gs://b/a/c/", Some("gs://b/a/c-backups")),
            ("gs://b", None),
            ("gs://b/", None),
            ("s3://b/mlflow", Some("s3://b/mlflow-backups")),
            ("https://h/mlflow", None),
        ] {
            let found = beside(artifacts);
            assert_eq!(found.as_deref(), expected, "{artifacts}");
            assert!(found.is_none_or(|found| backups(&found, artifacts).is_ok()), "{artifacts}");
        }
        for (to, artifacts, why) in [
            ("gs://other", "gs://b", ""),
            ("gs://b/backups", "gs://b/mlflow", ""),
            ("file:///mnt/backups", "gs://b", ""),
            ("gs://b", "gs://b", "password hashes"),
            ("gs://b/x", "gs://b", "password hashes"),
            ("gs://b//mlflow/x", "gs://b/mlflow/", "password hashes"),
            ("gs://b/", "gs://b/mlflow", "would all be listed"),
            ("gs://b/mlflow/../x", "gs://b/mlflow", "plain path"),
            ("file://mnt", "gs://b", "file:///PATH"),
            ("/mnt/backups", "gs://b", "do not share"),
            ("gcs://b/x", "gs://b", "not a kind"),
        ] {
            let found = backups(to, artifacts).err().unwrap_or_default();
            assert!(found.contains(why) && found.is_empty() == why.is_empty(), "{to}: {found}");
        }
    }

    #[test]
    fn variables_that_are_ours_or_secret_are_refused() {
        for (name, why) in [
            ("STORAGE_EMULATOR_HOST", ""),
            ("MLFLOW_GCS_UPLOAD_CHUNK_SIZE", ""),
            ("MLFLOW_PORT", "rely on"),
            ("MLFLOW_STATIC_PREFIX", "rely on"),
            ("MLFLOW_AUTH_ADMIN_USERNAME", "set login"),
            ("MLFLOW_BACKEND_STORE_URI", "set database"),
            ("AWS_SECRET_ACCESS_KEY", "envFrom"),
            ("A-B", "not the name"),
            ("1A", "not the name"),
        ] {
            let found = env(name).err().unwrap_or_default();
            assert!(found.contains(why) && found.is_empty() == why.is_empty(), "{name}: {found}");
        }
    }
}
