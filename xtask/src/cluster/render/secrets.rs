//! The values of secrets, from where `deploy.toml` says they are. They end in a Secret of the
//! namespace and nowhere else.

use std::path::Path;

use serde_json::Value;

use crate::config::cluster::{ClusterConfig, Database, Identity, Login, Secret};
use crate::error::{Context as _, Error, Kind, Result};

pub use crate::registry::Secret as SecretText;

/// The fewest characters of a password of MLflow's users.
const SHORTEST: usize = 12;

/// The values that the environment's Secret holds. What someone else's Secret holds is not here.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// The database's URI, or for Cloud SQL its user's password.
    pub database: Option<SecretText>,
    /// A Google service account's key: JSON.
    pub key: Option<SecretText>,
    /// The first administrator's password.
    pub admin: Option<SecretText>,
    /// The secret by which the issuer of OpenID Connect, or Google's IAP, is asked to log people in.
    pub client: Option<SecretText>,
    /// Credentials of registries, as in Docker's `config.json`.
    pub pull: Option<SecretText>,
}

impl Secrets {
    /// Reads files and environment variables. `pull` is left empty.
    ///
    /// # Errors
    /// `Config`, naming the key in `deploy.toml`: no such file or variable, or a value that cannot
    /// work. No value is ever part of a message.
    pub fn read(config: &ClusterConfig) -> Result<Self> {
        Self::find(config, &|name| std::env::var(name).ok())
    }

    fn find(config: &ClusterConfig, vars: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let (prefix, secret) = match &config.database {
            Database::Uri(secret) => ("database.uri", Some(secret)),
            Database::CloudSql(cloud) => ("database.password", cloud.password.as_ref()),
        };
        let mut database = value(prefix, secret, vars)?;
        if let (Database::Uri(_), Some((key, text))) = (&config.database, &database) {
            let uri = database_uri(text.expose()).map_err(|why| {
                let message = format!("{key} does not name a database that the server can use: {why}");
                Error::new(Kind::Config, message).hint("write it as postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
            })?;
            database = Some((key.clone(), SecretText::new(uri)));
        }
        let secret = match &config.artifacts.identity {
            Identity::Key(secret) => Some(secret),
            Identity::Ambient | Identity::Workload(_) => None,
        };
        let key = value("artifacts.key", secret, vars)?;
        if let Some((name, text)) = &key {
            let parsed: Option<Value> = serde_json::from_str(text.expose()).ok();
            if !parsed.is_some_and(|key| key.get("type").is_some_and(Value::is_string)) {
                let message = format!("{name} is not a Google service account's key");
                return Err(Error::new(Kind::Config, message)
                    .hint("it is the JSON file that `gcloud iam service-accounts keys create` writes"));
            }
        }
        let admin = admin(config, vars)?;
        let client = match &config.access.login {
            Login::Oidc(oidc) => value("oidc.client-secret", Some(&oidc.client_secret), vars)?,
            Login::Iap(iap) => value("iap.client-secret", iap.client.as_ref().map(|client| &client.secret), vars)?,
            Login::None | Login::Basic { .. } => None,
        };
        let text = |found: Option<(String, SecretText)>| found.map(|(_, text)| text);
        Ok(Self { database: text(database), key: text(key), admin, client: text(client), pull: None })
    }
}

/// The administrator's password, as MLflow takes it (`mlflow.utils.validation._validate_password`).
fn admin(config: &ClusterConfig, vars: &dyn Fn(&str) -> Option<String>) -> Result<Option<SecretText>> {
    let Login::Basic { password } = &config.access.login else { return Ok(None) };
    let Some((key, text)) = value("admin-password", password.as_ref(), vars)? else { return Ok(None) };
    match text.expose().chars().count() < SHORTEST {
        true => {
            let message = format!("{key}: the password has fewer than {SHORTEST} characters, and MLflow refuses it");
            Err(Error::new(Kind::Config, message)
                .hint("take a longer one, or leave the key out: one is made at random"))
        }
        false => Ok(Some(text)),
    }
}

/// A secret's value, and the key in `deploy.toml` that says where it is.
fn value(
    prefix: &str,
    secret: Option<&Secret>,
    vars: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(String, SecretText)>> {
    let (key, text) = match secret {
        None | Some(Secret::Existing { .. }) => return Ok(None),
        Some(Secret::File(path)) => (format!("{prefix}-file"), file(&format!("{prefix}-file"), path)?),
        Some(Secret::Variable(name)) => {
            let key = format!("{prefix}-variable");
            let text = vars(name).ok_or_else(|| {
                Error::new(Kind::Config, format!("{key}: the environment variable {name} is not set"))
                    .hint(format!("export {name}, or name another source in deploy.toml"))
            })?;
            (key, text)
        }
    };
    let text = text.trim();
    match text.is_empty() {
        true => Err(Error::new(Kind::Config, format!("{key}: what it names is empty"))),
        false => Ok(Some((key, SecretText::new(text)))),
    }
}

fn file(key: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .context(Kind::Config, || format!("{key}: cannot read {}", path.display()))
        .map_err(|error| error.hint("write the file, or name another source in deploy.toml"))
}

/// The URI as SQLAlchemy wants it, or the reason why it cannot work. Neither repeats the text.
fn database_uri(text: &str) -> Result<String, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("it is not a URI")?;
    if rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("it has a space or a line break in it; in a password write %20");
    }
    let (dialect, driver) = scheme.split_once('+').unwrap_or((scheme, "psycopg2"));
    match (dialect, driver) {
        ("postgresql", "psycopg2") => {}
        // libpq's other name for it, which SQLAlchemy refuses.
        ("postgres", "psycopg2") => {}
        ("postgresql" | "postgres", "psycopg") => {
            return Err("the driver psycopg (3) breaks MLflow's SQL, which compares integers with text");
        }
        ("postgresql" | "postgres", _) => return Err("the image has no such driver, only psycopg2"),
        ("sqlite", _) => return Err("an SQLite file cannot be shared by pods"),
        ("mysql" | "mariadb" | "mssql" | "oracle", _) => return Err("the image has a client for PostgreSQL only"),
        _ => return Err("it is not a PostgreSQL URI"),
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    match place.rsplit_once('/') {
        Some((_, name)) if !name.is_empty() => {}
        _ if query.contains("dbname=") => {}
        _ => return Err("it names no database: the path is empty"),
    }
    let scheme = if scheme == "postgres" || scheme == "postgresql" { "postgresql" } else { "postgresql+psycopg2" };
    Ok(format!("{scheme}://{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::render::tests::{cloud_sql, kubernetes};

    #[test]
    fn a_database_uri_is_checked_without_being_repeated() {
        for (text, expected) in [
            ("postgresql://u:hunter2@db:5432/mlflow", Ok("postgresql://u:hunter2@db:5432/mlflow")),
            ("postgres://u:hunter2@db/mlflow", Ok("postgresql://u:hunter2@db/mlflow")),
            ("postgresql+psycopg2://u@db/mlflow", Ok("postgresql+psycopg2://u@db/mlflow")),
            ("postgresql:///mlflow?host=/run/pg", Ok("postgresql:///mlflow?host=/run/pg")),
            ("postgresql+psycopg://u:hunter2@db/mlflow", Err("psycopg (3)")),
            ("postgresql+asyncpg://u:hunter2@db/mlflow", Err("no such driver")),
            ("mysql+pymysql://u:hunter2@db/mlflow", Err("PostgreSQL only")),
            ("sqlite:///mlflow.db", Err("SQLite")),
            ("hunter2", Err("not a URI")),
            ("postgresql://u:hunter2@db:5432", Err("no database")),
            ("postgresql://u:hunter2@db:5432/", Err("no database")),
            ("postgresql://u:hunter 2@db/mlflow", Err("space")),
            ("https://u:hunter2@db/mlflow", Err("not a PostgreSQL")),
        ] {
            match (database_uri(text), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(found), Err(expected)) => {
                    assert!(found.contains(expected) && !found.contains("hunter"), "{text}: {found}");
                }
                (found, expected) => panic!("{text}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn a_missing_source_is_named_and_no_value_is_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let vars = |name: &str| (name == "URI").then(|| "mysql://u:hunter2@db/mlflow\n".to_owned());
        let check = |config: &ClusterConfig, expected: &str| {
            let error = Secrets::find(config, &vars).unwrap_err();
            let text = format!("{} {:?} {error:?}", error.lines().join(": "), error.hint_text());
            assert_eq!(error.kind(), Kind::Config);
            assert!(text.contains(expected) && !text.contains("hunter2"), "{text} should contain {expected:?}");
        };
        let mut config = kubernetes();
        config.database = Database::Uri(Secret::Variable("NOT_SET".to_owned()));
        check(&config, "database.uri-variable: the environment variable NOT_SET is not set");
        config.database = Database::Uri(Secret::Variable("URI".to_owned()));
        check(&config, "database.uri-variable does not name a database");
        config.database = Database::Uri(Secret::File(path.clone()));
        check(&config, "database.uri-file: cannot read");
        std::fs::write(&path, "\n").unwrap();
        check(&config, "database.uri-file: what it names is empty");
        let mut config = cloud_sql();
        config.artifacts.identity = Identity::Key(Secret::File(path.clone()));
        std::fs::write(&path, "hunter2").unwrap();
        check(&config, "artifacts.key-file is not a Google service account's key");
        let mut config = kubernetes();
        config.database = Database::Uri(Secret::Existing { name: "db".to_owned(), key: "uri".to_owned() });
        config.access.login = Login::Basic { password: Some(Secret::File(path.clone())) };
        check(&config, "admin-password-file: the password has fewer than 12 characters");
    }

    #[test]
    fn the_end_of_a_line_is_no_part_of_a_secret() {
        let vars = |_: &str| Some("postgresql://u:hunter2@db/mlflow\n".to_owned());
        let mut config = kubernetes();
        config.database = Database::Uri(Secret::Variable("URI".to_owned()));
        let secrets = Secrets::find(&config, &vars).unwrap();
        assert_eq!(secrets.database.as_ref().unwrap().expose(), "postgresql://u:hunter2@db/mlflow");
        assert!(!format!("{secrets:?}").contains("hunter2"));
        config.database = Database::Uri(Secret::Existing { name: "a".to_owned(), key: "b".to_owned() });
        assert!(Secrets::find(&config, &vars).unwrap().database.is_none());
    }
}
