//! Backups by pg_dump, in pods like the server's.

use serde::de::DeserializeOwned;

use super::program::{self, Wish};
use super::{Catalog, New, Restored, Server, Taken, Verified};
use crate::cluster::job;
use crate::config::cluster::ClusterConfig;
use crate::error::{Error, Kind, Result};

/// What the Jobs are called.
const TASK: &str = "backup";

/// See [`Server::take_and_prune`].
pub async fn take(server: Server<'_>, new: &New, keep: Option<usize>) -> Result<Taken> {
    let New { id, reason, image } = new;
    let wish = wish("take", server.settings)?;
    let wish = Wish { id: Some(id), reason: Some(reason), image: Some(image), keep, ..wish };
    ask(server, &wish, "back the database up").await
}

/// See [`Server::list`].
pub async fn list(server: Server<'_>) -> Result<Catalog> {
    ask(server, &wish("list", server.settings)?, "list the backups").await
}

/// See [`Server::verify`].
pub async fn verify(server: Server<'_>, id: Option<&str>) -> Result<Verified> {
    let wish = Wish { id: known(id)?, ..wish("verify", server.settings)? };
    ask(server, &wish, "read the backup back").await
}

/// See [`Server::restore`].
pub async fn restore(server: Server<'_>, id: &str) -> Result<Restored> {
    let wish = Wish { id: known(Some(id))?, ..wish("restore", server.settings)? };
    ask(server, &wish, "restore the backup").await
}

/// What every action is told.
///
/// # Errors
/// `Config` where nobody said where dumps go.
pub fn wish<'a>(action: &'static str, settings: &'a ClusterConfig) -> Result<Wish<'a>> {
    let to = settings.backup.to.as_deref().ok_or_else(|| {
        let message = "nothing says where dumps go: the artifacts have the whole bucket, and all clients read that";
        Error::new(Kind::Config, message)
            .hint("name another bucket: to = \"gs://BUCKET/PATH\" in [environment.NAME.backup] of deploy.toml")
    })?;
    Ok(Wish { action, to, scratch: &settings.server.scratch, ..Wish::default() })
}

/// An id, if it can be one.
///
/// # Errors
/// `Usage` for one that cannot.
pub fn known(id: Option<&str>) -> Result<Option<&str>> {
    match id.filter(|id| !program::is_id(id)) {
        None => Ok(id),
        Some(id) => {
            Err(Error::new(Kind::Usage, format!("{id:?} is no backup's id")).hint("cargo xtask db backups lists them"))
        }
    }
}

async fn ask<T: DeserializeOwned>(server: Server<'_>, wish: &Wish<'_>, what: &str) -> Result<T> {
    let task = job::Task { name: TASK, command: wish.command(), deadline: server.settings.backup.deadline };
    let job = job::build(server.deployment, &task)?;
    program::read(what, &job::run(server.run, server.cluster, &job, what).await?)
}
