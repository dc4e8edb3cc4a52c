//! Backups of a cluster's server: taken while it is written to, read back, and restored beside it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::load::Shape;
use crate::report::Row;
use crate::scenario::Scenario;
use crate::site::{ENV, Site};
use crate::world::World;
use crate::{Result, ensure};

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "db-backup",
    about: "a backup under write load is whole, and a drill restores it beside the live database",
    alone: false,
    needs: None,
    run: db_backup,
}];

/// For an answer of the object store.
const TIMEOUT: Duration = Duration::from_secs(30);

fn db_backup(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let bucket = format!("{}-backups", site.name);
    make_bucket(world, &bucket)?;
    site.set(|settings| settings.lines.push(format!("backup.to = \"gs://{bucket}/mlflow\"")))?;

    let load = site.load(Shape::BUSY)?;
    let backup = site.xtask(&["db", "backup", "--env", ENV, "--json", "--reason", "a test"])?.expect(0)?;
    let count = load.stop();
    ensure!(count.failures.is_empty(), "{} requests failed, first {}", count.failures.len(), count.failures[0]);
    ensure!(count.writes > 0, "nothing was written meanwhile");
    let taken: Value = backup.json()?;
    let id = taken["backup"]["id"].as_str().ok_or("a backup without an id")?.to_owned();
    let dump = &taken["backup"]["databases"][0];
    ensure!(dump["rows"].as_u64().is_some_and(|rows| rows > 0), "nothing was dumped: {dump}");
    let verified = site.xtask(&["db", "verify", &id, "--env", ENV])?.expect(0)?;
    let list = site.xtask(&["db", "backups", "--env", ENV])?.expect(0)?;
    ensure!(list.out.contains(&id) && list.out.contains("a test"), "the list: {}", list.text());

    // As a drill leaves it that was killed.
    let oid = world.database.sql(&site.name, "SELECT oid FROM pg_database WHERE datname = current_database()")?;
    let left = format!("mlflow_drill_{}_dead", oid.trim());
    world.database.create(&left)?;
    let before = content(&site)?;
    let drill = site.xtask(&["db", "drill", "--env", ENV, "--json"])?.expect(0)?;
    let drilled: Value = drill.json()?;
    ensure!(drilled["backup"]["id"] == id.as_str(), "another backup was drilled: {}", drilled["backup"]["id"]);
    ensure!(drilled["leftovers"] == json!([left]), "what was left: {}", drilled["leftovers"]);
    ensure!(content(&site)? == before, "the drill has touched the live database");
    let drills = "SELECT count(*) FROM pg_database WHERE starts_with(datname, 'mlflow_drill_')";
    let stays = world.database.sql(&site.name, drills)?;
    ensure!(stays.trim() == "0", "{stays} databases of drills are left");
    let jobs = world.kube.list(&site.path("batch/v1", "jobs"))?;
    ensure!(jobs.is_empty(), "{} Jobs are left", jobs.len());
    world.give_back(site);
    let bytes = dump["bytes"].as_u64().unwrap_or_default();
    let cause = format!(
        "{} rows, {} kB; {} writes meanwhile; backup {:.0} s, verify {:.0} s, drill {:.0} s",
        dump["rows"],
        bytes / 1_000,
        count.writes,
        backup.seconds,
        verified.seconds,
        drill.seconds
    );
    Ok(Row { exit: Some(0), cause: Some(cause), ..Row::default() })
}

/// How many experiments and runs there are, whatever their state.
fn content(site: &Site<'_>) -> Result<String> {
    let question = "SELECT (SELECT count(*) FROM experiments), (SELECT count(*) FROM runs)";
    site.world.database.sql(&site.name, question)
}

fn make_bucket(world: &World, name: &str) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let request = http.post(format!("{}/storage/v1/b?project=test", world.place.gcs)).json(&json!({ "name": name }));
    // What sends it looks for the runtime as it is made.
    let answer = world.runtime.block_on(async { request.send().await })?;
    ensure!(answer.status().is_success(), "the bucket {name}: {}", answer.status());
    Ok(())
}
