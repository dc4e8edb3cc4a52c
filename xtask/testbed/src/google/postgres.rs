//! The real PostgreSQL behind Cloud SQL.

use std::io::Write as _;
use std::process::Stdio;
use std::str::FromStr as _;

use bytes::Bytes;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls};

use super::core::Core;
use super::failure::{Failure, Outcome};

/// The role that owns databases and that users with a password belong to.
pub(crate) const SUPERUSER: &str = "cloudsqlsuperuser";

/// What a user of a database is to be.
#[derive(Clone, Debug)]
pub(crate) struct User<'a> {
    pub(crate) name: &'a str,
    pub(crate) password: Option<&'a str>,
    /// Roles to be a member of.
    pub(crate) roles: Vec<String>,
    /// Whether it may make databases and roles.
    pub(crate) is_builtin: bool,
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

fn refused(error: &tokio_postgres::Error) -> Failure {
    let detail = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    Failure::invalid(format!("Invalid request: {detail}")).reason("invalid")
}

/// The settings of a connection to it; `None` without one.
pub(crate) fn config(core: &Core) -> Option<Config> {
    let uri = core.options.postgres.as_deref()?;
    Some(Config::from_str(uri).expect("the option is a URI of PostgreSQL"))
}

async fn connect(core: &Core) -> Outcome<Option<Client>> {
    let Some(config) = config(core) else { return Ok(None) };
    let (client, connection) = config.connect(NoTls).await.map_err(|error| refused(&error))?;
    tokio::spawn(connection);
    Ok(Some(client))
}

async fn run(client: &Client, statement: &str) -> Outcome<()> {
    client.batch_execute(statement).await.map_err(|error| refused(&error))
}

async fn exists(client: &Client, question: &str, name: &str) -> Outcome<bool> {
    client.query_opt(question, &[&name]).await.map(|row| row.is_some()).map_err(|error| refused(&error))
}

async fn is_role(client: &Client, name: &str) -> Outcome<bool> {
    exists(client, "SELECT 1 FROM pg_roles WHERE rolname = $1", name).await
}

async fn have_superuser(client: &Client) -> Outcome<()> {
    if !is_role(client, SUPERUSER).await? {
        run(client, &format!("CREATE ROLE {SUPERUSER} CREATEDB CREATEROLE")).await?;
    }
    Ok(())
}

/// Makes a database. One that is there already is taken over.
pub(crate) async fn create_database(core: &Core, name: &str) -> Outcome<()> {
    let Some(client) = connect(core).await? else { return Ok(()) };
    have_superuser(&client).await?;
    if exists(&client, "SELECT 1 FROM pg_database WHERE datname = $1", name).await? {
        return Ok(());
    }
    run(&client, &format!("CREATE DATABASE {} OWNER {SUPERUSER}", identifier(name))).await
}

/// Makes a user, or gives it another password and further roles.
pub(crate) async fn create_user(core: &Core, user: &User<'_>) -> Outcome<()> {
    let Some(client) = connect(core).await? else { return Ok(()) };
    have_superuser(&client).await?;
    let name = identifier(user.name);
    if !is_role(&client, user.name).await? {
        run(&client, &format!("CREATE ROLE {name} LOGIN")).await?;
    }
    if let Some(password) = user.password {
        run(&client, &format!("ALTER ROLE {name} PASSWORD {}", literal(password))).await?;
    }
    if user.is_builtin {
        run(&client, &format!("ALTER ROLE {name} CREATEDB CREATEROLE; GRANT {SUPERUSER} TO {name}")).await?;
    }
    for role in &user.roles {
        run(&client, &format!("GRANT {} TO {name}", identifier(role))).await?;
    }
    Ok(())
}

/// Removes a database, whoever is connected to it.
pub(crate) async fn drop_database(core: &Core, name: &str) -> Outcome<()> {
    let Some(client) = connect(core).await? else { return Ok(()) };
    run(&client, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name))).await
}

/// All of a database, as PostgreSQL's own program gives it; nothing without a server.
pub(crate) async fn dump(core: &Core, name: &str) -> Outcome<Bytes> {
    let Some(config) = config(core) else { return Ok(Bytes::new()) };
    program(&config, "pg_dump", &["--format=custom"], name, Bytes::new()).await
}

/// Puts what [`dump`] gave in the place of a database, whoever is connected to it.
pub(crate) async fn bring_back(core: &Core, name: &str, content: Bytes) -> Outcome<()> {
    let Some(config) = config(core) else { return Ok(()) };
    drop_database(core, name).await?;
    create_database(core, name).await?;
    program(&config, "pg_restore", &["--exit-on-error", "--single-transaction"], name, content).await.map(drop)
}

/// Runs a program of PostgreSQL's; what it prints.
async fn program(config: &Config, program: &str, options: &[&str], name: &str, input: Bytes) -> Outcome<Bytes> {
    let mut command = crate::command(program);
    let host = config.get_hosts().iter().find_map(|host| match host {
        Host::Tcp(host) => Some(host.clone()),
        _ => None,
    });
    command.args(options).arg(format!("--dbname={name}"));
    command
        .env("PGHOST", host.unwrap_or_default())
        .env("PGPORT", config.get_ports().first().unwrap_or(&5432).to_string());
    command.env("PGUSER", config.get_user().unwrap_or_default());
    command.env("PGPASSWORD", String::from_utf8_lossy(config.get_password().unwrap_or_default()).as_ref());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let failed = |why: String| Failure::invalid(format!("Invalid request: {program}: {why}")).reason("invalid");
    let ran = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take();
        let feeding = std::thread::spawn(move || stdin.take().map(|mut stdin| stdin.write_all(&input)));
        let output = child.wait_with_output();
        // A program that has failed may have read a part only; it says so itself.
        let _ = feeding.join();
        output
    });
    let output = ran.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(output.stdout.into()),
        false => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// Removes a user.
pub(crate) async fn drop_user(core: &Core, name: &str) -> Outcome<()> {
    let Some(client) = connect(core).await? else { return Ok(()) };
    run(&client, &format!("DROP ROLE IF EXISTS {}", identifier(name))).await
}
