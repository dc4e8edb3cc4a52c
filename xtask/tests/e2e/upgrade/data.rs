//! What a server holds before an upgrade, and whether all of it is still there afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mlflow_image::Digest;
use serde_json::{Map, Value, json};

use crate::api::Api;
use crate::site::Site;
use crate::{Result, ensure};

/// How much is made.
#[derive(Clone, Copy)]
pub struct Amount {
    pub runs: u32,
    pub versions: u32,
    pub artifacts: u32,
}

/// What a drill has to bring through.
pub const MUCH: Amount = Amount { runs: 10_000, versions: 100, artifacts: 20 };

/// Enough to see whether any is lost.
pub const LITTLE: Amount = Amount { runs: 200, versions: 5, artifacts: 3 };

/// What is there: each table's rows, and each artifact.
pub struct Content {
    tables: BTreeMap<String, Vec<Map<String, Value>>>,
    /// SHA-256 by path.
    artifacts: BTreeMap<String, Digest>,
}

impl Content {
    /// Rows of all tables.
    pub fn rows(&self) -> usize {
        self.tables.values().map(Vec::len).sum()
    }

    /// How many artifacts.
    pub fn artifacts(&self) -> usize {
        self.artifacts.len()
    }
}

/// Makes it: models and artifacts through the server, which serves; runs in the database, as the server
/// keeps them, for ten thousand requests would take minutes.
///
/// # Errors
/// When server or database refuse.
pub fn make(site: &Site<'_>, amount: Amount) -> Result<Content> {
    let api = Api::of(site)?;
    let experiment = api.experiment("kept")?;
    let Amount { runs, versions, artifacts } = amount;
    let uri = "mlflow-artifacts:/kept";
    site.world.database.sql(
        &site.name,
        &format!(
            "INSERT INTO runs (run_uuid, name, source_type, user_id, status, start_time, end_time, lifecycle_stage, \
             artifact_uri, experiment_id) SELECT md5('run' || n), 'run ' || n, 'LOCAL', 'e2e', 'FINISHED', n, n + 1, \
             'active', '{uri}/' || n, {experiment} FROM generate_series(1, {runs}) n; \
             INSERT INTO params (key, value, run_uuid) SELECT 'p', n::text, md5('run' || n) FROM generate_series(1, {runs}) n; \
             INSERT INTO metrics (key, value, timestamp, step, is_nan, run_uuid) SELECT 'm', n, n, s, false, md5('run' || n) \
             FROM generate_series(1, {runs}) n, generate_series(1, 2) s; \
             INSERT INTO tags (key, value, run_uuid) SELECT 't', 'value ' || n, md5('run' || n) FROM generate_series(1, {runs}) n"
        ),
    )?;
    api.post("registered-models/create", &json!({"name": "kept"}))?;
    for version in 1..=versions {
        let body =
            json!({"name": "kept", "source": format!("{uri}/{version}"), "description": format!("version {version}")});
        api.post("model-versions/create", &body)?;
    }
    let mut kept = BTreeMap::new();
    for number in 1..=artifacts {
        let path = format!("kept/{number}/model.bin");
        let bytes: Vec<u8> = (0..number * 40_000).map(|at| (at.wrapping_mul(number) >> 3).to_le_bytes()[0]).collect();
        kept.insert(path.clone(), Digest::of(&bytes));
        api.put(&path, bytes)?;
    }
    Ok(Content { artifacts: kept, tables: of_database(site)? })
}

/// Columns that a migration on the way takes away, with what they hold.
const DROPPED: [&str; 1] = ["dimension_attributes"];

/// Fails unless every row and every artifact of `before` is there.
///
/// # Errors
/// With what is missing.
pub fn compare(site: &Site<'_>, before: &Content) -> Result<()> {
    let now = of_database(site)?;
    for (table, rows) in &before.tables {
        let found = now.get(table).ok_or_else(|| format!("table {table} is gone"))?;
        let columns = |row: &Map<String, Value>| row.keys().cloned().collect::<BTreeSet<_>>();
        let (Some(old), Some(new)) = (rows.first().map(columns), found.first().map(columns)) else {
            ensure!(rows.is_empty(), "all rows of {table} are gone");
            continue;
        };
        let gone: Vec<_> = old.difference(&new).filter(|column| !DROPPED.contains(&column.as_str())).collect();
        ensure!(gone.is_empty(), "{table} has lost its columns {gone:?}");
        let common: BTreeSet<_> = old.intersection(&new).cloned().collect();
        let mut counts: HashMap<String, i64> = HashMap::new();
        for (rows, sign) in [(found, 1), (rows, -1)] {
            for row in rows {
                let kept = row.iter().filter(|(column, _)| common.contains(*column));
                let kept: Map<String, Value> = kept.map(|(column, value)| (column.clone(), value.clone())).collect();
                *counts.entry(Value::Object(kept).to_string()).or_default() += sign;
            }
        }
        let missing: Vec<_> = counts.iter().filter(|(_, count)| **count < 0).map(|(row, _)| row).collect();
        ensure!(
            missing.is_empty(),
            "{} of {} rows of {table} are gone or changed: {:?}",
            missing.len(),
            rows.len(),
            missing[0]
        );
    }
    let api = Api::of(site)?;
    for (path, digest) in &before.artifacts {
        let bytes = api.artifact(path)?;
        ensure!(Digest::of(&bytes) == *digest, "artifact {path} has changed: {} bytes", bytes.len());
    }
    Ok(())
}

/// The rows of all tables of MLflow's.
fn of_database(site: &Site<'_>) -> Result<BTreeMap<String, Vec<Map<String, Value>>>> {
    let database = &site.world.database;
    let names = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'alembic%'";
    let mut tables = BTreeMap::new();
    for table in database.sql(&site.name, names)?.lines() {
        let rows = database.sql(&site.name, &format!("SELECT to_jsonb(t) FROM {table} t"))?;
        let rows = rows.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
        tables.insert(table.to_owned(), rows);
    }
    Ok(tables)
}
