//! Upgrades of MLflow: with another schema, with the same one, and with everything that can go wrong.

mod data;
mod faults;
mod releases;

use serde_json::json;

use data::MUCH;
use releases::{OLDER, SAME};

use crate::load::{Count, Shape};
use crate::report::{Row, tenths};
use crate::scenario::Scenario;
use crate::site::{ENV, Site};
use crate::world::World;
use crate::{Result, ensure};

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "upgrade-faults",
        about: "upgrades that fail, one after the other: nothing is lost, the old server serves, the last one completes",
        // It restarts the database and fills its disk.
        alone: true,
        needs: Some("postgres"),
        run: faults::faults,
    },
    Scenario {
        name: "upgrade",
        about: "from an older schema to the current one, and between two releases with the same one, with data",
        alone: false,
        needs: None,
        run: upgrade,
    },
];

/// A site where an older MLflow serves.
fn older<'w>(world: &'w World, name: &str) -> Result<Site<'w>> {
    let image = OLDER.image(world)?;
    let mut site = Site::new(world, name)?;
    site.set(|settings| settings.deadline = 300)?;
    site.deploy(&["--image", &image])?.expect(0)?;
    Ok(site)
}

fn upgrade(world: &World) -> Result<Row> {
    let site = older(world, "upgrade")?;
    let before = data::make(&site, MUCH)?;
    let schema = revision(&site)?;

    // Nobody is asked here, so it must be said.
    let refused = site.deploy(&[])?.expect(2)?;
    ensure!(refused.said().contains("--yes"), "nothing says how to agree:\n{}", refused.said());
    ensure!(refused.said().contains("nothing serves for about"), "the downtime is not shown:\n{}", refused.said());
    let dry = site.deploy(&["--dry-run"])?.expect(0)?;
    ensure!(dry.out.contains("migrated from"), "the dry run does not show the migration:\n{}", dry.out);
    ensure!(revision(&site)? == schema, "a dry run or a refusal has migrated");

    let probe = site.load(Shape::PROBE)?;
    let migrated = site.deploy(&["--yes", "--json"])?.expect(0)?;
    let probe = probe.stop();
    let answer = migrated.json()?;
    ensure!(answer["schema"]["action"] == "migrate", "it was not migrated: {answer}");
    ensure!(revision(&site)? != schema, "the schema is still {schema}");
    data::compare(&site, &before)?;
    let backups = site.xtask(&["db", "backups", "--env", ENV, "--json"])?.expect(0)?.json()?;
    let backup = &backups["backups"][0];
    let size: u64 =
        backup["databases"].as_array().into_iter().flatten().filter_map(|dump| dump["bytes"].as_u64()).sum();
    ensure!(size > 0, "there is no backup: {backups}");

    // The release before has another schema: it cannot run, and nothing is tried.
    let back = site.xtask(&["rollback", "--env", ENV])?.expect(14)?;
    ensure!(back.said().contains("rollback --restore"), "the way back is not named:\n{}", back.said());
    data::compare(&site, &before)?;

    // Between releases with the same schema the server is never away.
    let probe_same = site.load(Shape::PROBE)?;
    for image in [SAME.image(world)?, world.image.clone()] {
        let deployed = site.deploy(&["--image", &image, "--json"])?.expect(0)?.json()?;
        ensure!(deployed["schema"]["action"] == "none", "the same schema was changed: {deployed}");
    }
    let probe_same = probe_same.stop();
    ensure!(probe_same.failures.is_empty(), "the server failed to answer: {:?}", probe_same.failures);
    data::compare(&site, &before)?;

    // Back with the data of before, and what was written since is in a backup of its own.
    let restored = site.xtask(&["rollback", "--env", ENV, "--to", "1", "--restore", "--yes"])?.expect(0)?;
    ensure!(revision(&site)? == schema, "the schema is not {schema} again");
    data::compare(&site, &before)?;
    let backups = site.xtask(&["db", "backups", "--env", ENV, "--json"])?.expect(0)?.json()?;
    ensure!(
        backups["backups"].as_array().is_some_and(|all| all.len() == 2),
        "what was written since is lost: {backups}"
    );
    let row = Row {
        notes: vec![
            format!(
                "MLflow {} -> the locked one: {:.0} s, {:.1} s without a good answer",
                OLDER.version,
                migrated.seconds,
                downtime(&probe)
            ),
            format!("backup: {size} bytes; {} rows and {} artifacts compared", before.rows(), before.artifacts()),
            format!(
                "MLflow {} and the locked one, to and fro: 0 of {} requests failed",
                SAME.version, probe_same.requests
            ),
            format!("back to MLflow {} with its data: {:.0} s", OLDER.version, restored.seconds),
        ],
        figures: Some(json!({
            "downtime_seconds": tenths(downtime(&probe)),
            "migration_seconds": tenths(migrated.seconds),
            "restore_seconds": tenths(restored.seconds),
            "backup_bytes": size,
            "rows": before.rows(),
            "artifacts": before.artifacts(),
        })),
        ..Row::default()
    };
    site.close()?;
    Ok(row)
}

/// Seconds from the first request without a good answer to the last one.
fn downtime(count: &Count) -> f64 {
    match (count.failures.first(), count.failures.last()) {
        (Some(first), Some(last)) => last.at.since(first.at),
        _ => 0.0,
    }
}

/// The revision that the tracking database notes.
fn revision(site: &Site<'_>) -> Result<String> {
    site.world.database.sql(&site.name, "SELECT version_num FROM alembic_version")
}
