//! PostgreSQL: its data folder, and the database of the tests.

use std::time::Duration;

use nix::unistd::User;

use super::error::{Context as _, Error, Kind, Result};
use super::options::Options;
use super::program;
use super::tools::Tools;

const DEADLINE: Duration = Duration::from_secs(120);

/// Name of the database and of the user who owns it.
pub(crate) const DATABASE: &str = "mlflow";
/// The superuser.
pub(crate) const ADMIN: &str = "postgres";

/// The user that PostgreSQL runs as; it refuses root.
pub(crate) fn user() -> Result<(u32, u32)> {
    for name in ["postgres", "nobody"] {
        if let Ok(Some(user)) = User::from_name(name) {
            return Ok((user.uid.as_raw(), user.gid.as_raw()));
        }
    }
    Err(Error::new(Kind::Machine, "this machine has neither a user postgres nor a user nobody"))
}

/// Makes the data folder of the server `name`.
pub(crate) async fn init(
    options: &Options,
    tools: &Tools,
    owner: (u32, u32),
    name: &str,
    password: &str,
) -> Result<()> {
    let (data, secret) = (options.path(name), options.path(format!("{name}-password")));
    let named = || format!("cannot create {}", data.display());
    std::fs::create_dir(&data).on_machine(named)?;
    // initdb reads the password from a file only.
    super::state::write_private(&secret, password.as_bytes())?;
    for path in [&data, &secret] {
        std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).on_machine(named)?;
    }
    let mut initdb = program::command(tools.postgresql.join("initdb"));
    initdb.arg("--pgdata").arg(&data).arg("--pwfile").arg(&secret);
    initdb.args(["--username", ADMIN, "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C.UTF-8"]);
    initdb.uid(owner.0).gid(owner.1).current_dir(&options.root);
    let made = program::read(initdb, b"", DEADLINE).await;
    std::fs::remove_file(&secret).on_machine(|| format!("cannot remove {}", secret.display()))?;
    made?;
    let rules = data.join("pg_hba.conf");
    let text = std::fs::read_to_string(&rules).on_machine(named)?;
    std::fs::write(&rules, format!("{text}host all all 0.0.0.0/0 scram-sha-256\n")).on_machine(named)
}

/// Makes the user and the database of the tests.
pub(crate) async fn create(tools: &Tools, host: &str, admin: &str, password: &str) -> Result<()> {
    let mut psql = program::command(tools.postgresql.join("psql"));
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--host", host, "--username", ADMIN, "postgres"]);
    psql.env("PGPASSWORD", admin);
    program::read(psql, script(password).as_bytes(), DEADLINE).await.map(drop)
}

/// What makes them; for psql's stdin, because it has the password in it.
pub(crate) fn script(password: &str) -> String {
    // Passwords are hexadecimal: nothing has to be quoted.
    format!("CREATE ROLE {DATABASE} LOGIN PASSWORD '{password}';\nCREATE DATABASE {DATABASE} OWNER {DATABASE};\n")
}

/// `postgresql://user:password@host:port/database`.
pub(crate) fn uri(user: &str, password: &str, host: &str, database: &str) -> String {
    format!("postgresql://{user}:{password}@{host}/{database}")
}

/// A password of 144 random bits.
pub(crate) fn password() -> String {
    rand::random::<[u8; 18]>().iter().map(|byte| format!("{byte:02x}")).collect()
}
