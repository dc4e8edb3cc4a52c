//! What a database user that IAM logs in may do in the database: from PostgreSQL 15 on, nobody makes a
//! table in the schema `public` but its owner, and Cloud SQL's databases belong to one role.
//!
//! gcloud has a command for it since 2026 (`sql users assign-roles`); the call behind it is made here, so
//! that older ones are good enough.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Error, Kind, Result};
use crate::google::{Ask, Google, Repeat, Service};

use super::observe::pause;
use super::resources::DATABASE_ROLE;

/// How long Cloud SQL may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// Between two questions.
const BETWEEN: Duration = Duration::from_secs(2);

/// Gives the server's database user the role that owns the database. Roles that it has stay.
///
/// # Errors
/// As [`Google::ask`]; `Remote` when Cloud SQL does not come to an end.
pub async fn grant(run: &Run, infra: &InfraConfig) -> Result<()> {
    let google = Google::connect(run).await?;
    let user = infra.database_user();
    let instance = format!("sql/v1beta4/projects/{}/instances/{}", infra.project, infra.sql.instance);
    let doing = format!("give {user} the database role {DATABASE_ROLE}");
    let body = json!({ "name": user, "instance": infra.sql.instance, "project": infra.project });
    let ask = Ask::put(Service::Sql, format!("{instance}/users"), &body, Repeat::Safe, doing.clone())
        .query("name", &user)
        .query("databaseRoles", DATABASE_ROLE);
    let begun = Instant::now();
    let mut operation = google.ask(&ask).await?.ok_or_else(|| {
        Error::new(Kind::Refused, format!("cannot {doing}: there is no such user")).hint("run the same command again")
    })?;
    while operation["status"] != "DONE" {
        if begun.elapsed() > PATIENCE {
            let message = format!("cannot {doing}: Cloud SQL is not done after {} s", PATIENCE.as_secs());
            return Err(Error::new(Kind::Remote, message).hint("run the same command again"));
        }
        pause(run, BETWEEN).await?;
        let name = operation["name"].as_str().unwrap_or_default();
        let path = format!("sql/v1beta4/projects/{}/operations/{name}", infra.project);
        operation = google.ask(&Ask::get(Service::Sql, path, &*doing)).await?.unwrap_or_default();
    }
    match operation.pointer("/error/errors/0/message").and_then(Value::as_str) {
        None => Ok(()),
        Some(why) => Err(Error::new(Kind::Refused, format!("cannot {doing}")).source(why.to_owned())),
    }
}
