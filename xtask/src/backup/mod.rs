//! Backups of the server's databases: taken, listed, read back, restored, and proven by a drill.
//!
//! `dump` has pods like the server's run PostgreSQL's programs, and streams what they give into a store;
//! `cloud_sql` has Google keep backups of the whole instance. `program` is pure: commands as data, and what
//! their answers mean. Nothing here stops a server: whoever restores has seen to it that none writes.

mod cloud_sql;
pub mod drill;
mod dump;
mod program;

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::cluster::{Cluster, server_image};
use crate::commands::Run;
use crate::config::cluster::{BackupMethod, ClusterConfig};
use crate::error::{Error, Kind, Result};
use crate::schema::Store;

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// Its name. Those of later ones are greater.
    pub id: String,
    /// When it was begun, RFC 3339.
    pub taken: String,
    /// Why it was taken.
    pub reason: String,
    /// The image that the server ran.
    pub image: String,
    /// Who keeps it.
    #[serde(default = "dumped")]
    pub method: BackupMethod,
    /// What was dumped; empty where the whole instance was backed up.
    #[serde(default)]
    pub databases: Vec<Dump>,
}

/// A database's dump, and what was in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// Its file's name, beside the manifest.
    pub file: String,
    /// The schema's revision of each store that it holds.
    pub stores: BTreeMap<Store, String>,
    /// Rows by table.
    pub tables: BTreeMap<String, u64>,
    /// Rows in all.
    pub rows: u64,
    /// The file's size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Backup {
    /// The schema's revision of each store.
    pub fn revisions(&self) -> BTreeMap<Store, String> {
        self.databases.iter().flat_map(|dump| dump.stores.clone()).collect()
    }

    /// Bytes that are kept; `None` where Google does not say.
    pub fn bytes(&self) -> Option<u64> {
        (!self.databases.is_empty()).then(|| self.databases.iter().map(|dump| dump.bytes).sum())
    }
}

/// Of manifests, which a dump alone has.
fn dumped() -> BackupMethod {
    BackupMethod::Dump
}

/// A backup that was brought back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// Which one.
    #[serde(rename(deserialize = "restored"))]
    pub backup: Backup,
    /// How long it took the database.
    pub seconds: f64,
}

/// A backup that was read back whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verified {
    /// Which one.
    #[serde(rename(deserialize = "verified"))]
    pub backup: Backup,
    /// How long reading took.
    pub seconds: f64,
}

/// All that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// The newest first.
    pub backups: Vec<Backup>,
    /// What runs that were killed left, and is no backup.
    pub parts: Vec<String>,
}

/// A backup, and those that it made superfluous.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The new one.
    pub backup: Backup,
    /// Ids of those that were deleted.
    pub pruned: Vec<String>,
}

/// A server, and the way to its databases.
#[derive(Clone, Copy)]
pub struct Server<'a> {
    /// Progress and Ctrl-C.
    pub run: &'a Run,
    /// Where it runs.
    pub cluster: &'a Cluster,
    /// What `deploy.toml` says of it.
    pub settings: &'a ClusterConfig,
    /// Its Deployment, whose pod model the Jobs have.
    pub deployment: &'a Deployment,
}

/// Refuses settings with which no backup can be taken, before anything is done for its sake.
///
/// # Errors
/// `Config` where nobody said where dumps go.
pub fn check(settings: &ClusterConfig) -> Result<()> {
    match settings.backup.method {
        BackupMethod::Dump => dump::wish("take", settings).map(drop),
        BackupMethod::CloudSql => Ok(()),
    }
}

impl Server<'_> {
    /// Takes a backup: counted and dumped in one snapshot, sent away, read back. `reason` is kept with it.
    ///
    /// # Errors
    /// `Image` for an image without pg_dump, or with one older than the database; `Config` where nobody said
    /// where dumps go; `Check` for a database without MLflow's tables; `Forbidden`, `Refused` or `Remote` for
    /// what database and store answer.
    pub async fn take(self, reason: &str) -> Result<Backup> {
        self.take_and_prune(reason, None).await.map(|taken| taken.backup)
    }

    /// The same, and leaves only the newest `keep`.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub async fn take_and_prune(self, reason: &str, keep: Option<usize>) -> Result<Taken> {
        let image = server_image(self.deployment).unwrap_or_default().to_owned();
        let new = New { id: new_id(), reason: reason.to_owned(), image };
        match self.settings.backup.method {
            BackupMethod::Dump => dump::take(self, &new, keep).await,
            BackupMethod::CloudSql => cloud_sql::take(self.run, self.settings, &new, keep).await,
        }
    }

    /// All backups.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub async fn list(self) -> Result<Catalog> {
        match self.settings.backup.method {
            BackupMethod::Dump => dump::list(self).await,
            BackupMethod::CloudSql => cloud_sql::list(self.run, self.settings).await,
        }
    }

    /// Reads a backup back whole: digest, archive, rows of each table; the newest without an id.
    ///
    /// # Errors
    /// `Check` for one that is damaged, or not there; otherwise as [`Self::take`].
    pub async fn verify(self, id: Option<&str>) -> Result<Verified> {
        match self.settings.backup.method {
            BackupMethod::Dump => dump::verify(self, id).await,
            BackupMethod::CloudSql => Err(kept_by_google("read back")),
        }
    }

    /// Brings a backup back. A dump: in one transaction, which holds the lock of migrations; whatever fails
    /// leaves the database as it was. No server may write meanwhile.
    ///
    /// # Errors
    /// `Locked` where a server still uses the tables, or someone migrates; `Check` for a backup that is damaged
    /// or not there; otherwise as [`Self::take`].
    pub async fn restore(self, id: &str) -> Result<Restored> {
        match self.settings.backup.method {
            BackupMethod::Dump => dump::restore(self, id).await,
            BackupMethod::CloudSql => cloud_sql::restore(self.run, self.settings, id).await,
        }
    }
}

/// Google gives nobody its backups to read.
fn kept_by_google(what: &str) -> Error {
    Error::new(Kind::Usage, format!("backups that Cloud SQL keeps cannot be {what}"))
        .hint("set method = \"dump\" in [environment.NAME.backup] of deploy.toml")
}

/// What a new backup is called, and what is noted of it.
#[derive(Clone, Debug)]
struct New {
    id: String,
    reason: String,
    image: String,
}

/// Sorts by time.
fn new_id() -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = OffsetDateTime::now_utc().format(&format).unwrap_or_default();
    format!("{now}-{:06x}", rand::random::<u32>() >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_and_no_other_has_it() {
        let (one, other) = (new_id(), new_id());
        assert_ne!(one, other);
        assert_eq!((one.len(), &one[8..9], &one[15..17]), (23, "T", "Z-"), "{one}");
        assert!(program::is_id(&one));
    }
}
