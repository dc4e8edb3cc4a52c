//! The testbed's PostgreSQL: a database for each site.

use std::process::{Command, Stdio};

use url::Url;

use crate::Result;

/// A database server, as its administrator.
#[derive(Clone)]
pub struct Server {
    admin: Url,
}

impl Server {
    /// `admin` is a `postgresql://` URI.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(admin: &str) -> Result<Self> {
        Ok(Self { admin: Url::parse(admin.trim())? })
    }

    /// The URI of a database, with the password.
    pub fn uri(&self, database: &str) -> String {
        let mut uri = self.admin.clone();
        uri.set_path(database);
        uri.into()
    }

    /// The URI of a database at a port where nobody listens.
    pub fn dead_uri(&self, database: &str) -> Result<String> {
        let mut uri = self.admin.clone();
        uri.set_path(database);
        uri.set_port(Some(5499)).map_err(|()| "a URI without a host")?;
        Ok(uri.into())
    }

    /// Runs statements in a database; what they answer, a row a line.
    ///
    /// # Errors
    /// With what psql says.
    pub fn sql(&self, database: &str, statements: &str) -> Result<String> {
        read(self.psql(database).args(["-c", statements]), "psql")
    }

    /// `psql`, connected to a database.
    pub fn psql(&self, database: &str) -> Command {
        // libpq's variables: no secret in the arguments.
        let mut psql = testbed::command("psql");
        self.environment(psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]), database);
        psql
    }

    /// A database that is not there yet.
    ///
    /// # Errors
    /// With what PostgreSQL says.
    pub fn create(&self, database: &str) -> Result<()> {
        self.sql(self.maintenance(), &format!("CREATE DATABASE \"{database}\"")).map(drop)
    }

    /// Removes a database, whoever is connected to it.
    ///
    /// # Errors
    /// With what PostgreSQL says.
    pub fn drop(&self, database: &str) -> Result<()> {
        self.sql(self.maintenance(), &format!("DROP DATABASE IF EXISTS \"{database}\" WITH (FORCE)")).map(drop)
    }

    fn maintenance(&self) -> &str {
        self.admin.path().trim_start_matches('/')
    }

    fn environment<'a>(&self, command: &'a mut Command, database: &str) -> &'a mut Command {
        command
            .env("PGHOST", self.admin.host_str().unwrap_or_default())
            .env("PGPORT", self.admin.port().unwrap_or(5432).to_string())
            .env("PGUSER", self.admin.username())
            .env("PGPASSWORD", self.admin.password().unwrap_or_default())
            .env("PGDATABASE", database)
            .env("PGCONNECT_TIMEOUT", "10")
    }
}

/// Runs a program to its end; what it printed on stdout.
pub fn read(command: &mut Command, what: &str) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start {what}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()),
        false => Err(format!("{what} ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}
