//! Servers that cannot come up: their database, their configuration, their resources.

use serde_json::json;

use super::trial::{End, Expected, FATAL, Within, settled, trial};
use crate::Result;
use crate::report::Row;
use crate::world::World;

/// The new release alone is told of another database: the old server is not concerned.
pub fn database_unreachable(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let dead = world.database.dead_uri(&site.name)?;
    site.set(|settings| settings.database_uri = dead)?;
    let expected = Expected {
        exit: 10,
        cause: &["the database does not answer"],
        sign: &["log: "],
        log: Some("OperationalError"),
        // A database that restarts is back in 25 s.
        within: Within::Seconds(40.0),
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

pub fn secret_key(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let object = json!({
        "metadata": { "name": "database" },
        "stringData": { "uri": world.database.uri(&site.name) },
    });
    world.kube.create(&site.path("v1", "secrets"), &object)?;
    site.set(|settings| settings.database = vec!["secret = \"database\"".into(), "key = \"url\"".into()])?;
    let expected = Expected {
        exit: 10,
        cause: &["its configuration is missing or wrong", "url", "database"],
        sign: &["CreateContainerConfigError", "couldn't find key"],
        log: None,
        within: FATAL,
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    world.kube.delete(&site.path("v1", "secrets/database"))?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

/// Google's own proxy as a sidecar, with an API that nobody listens for.
pub fn sidecar(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let sidecar = format!(
        "initContainers:\n      - name: sql\n        image: {}\n        restartPolicy: Always\n        args: [--token, none, \
         --run-connection-test, --sqladmin-api-endpoint, 'http://127.0.0.1:1', 'project:region:instance']\n        \
         securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}\n",
        world.place.cloud_sql_proxy
    );
    site.edit("kubernetes/deployment.yaml", &[("initContainers:\n", &sidecar)])?;
    let expected = Expected {
        exit: 10,
        cause: &["the sidecar exits again and again", "127.0.0.1:1"],
        sign: &["sql Error: exit code"],
        log: None,
        within: Within::Seconds(40.0),
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

/// A schema that this MLflow does not know, as after an upgrade and an image from before it.
pub fn newer_schema(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let version = world.database.sql(&site.name, "SELECT version_num FROM alembic_version")?;
    world.database.sql(&site.name, "UPDATE alembic_version SET version_num = 'ffffffffffff'")?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "schema".into())))?;
    let expected = Expected {
        exit: 10,
        cause: &["the database's schema is not the one that this MLflow works with"],
        sign: &["log: "],
        log: Some("schema gate: the tracking database has schema ffffffffffff"),
        // Whoever waits for a migration is given a moment.
        within: Within::Seconds(25.0),
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[]);
    world.database.sql(&site.name, &format!("UPDATE alembic_version SET version_num = '{version}'"))?;
    let row = row?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

pub fn unschedulable(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    site.deadline(20)?;
    site.set(|settings| settings.memory = "900Gi".into())?;
    let expected = Expected {
        exit: 10,
        cause: &["no node takes the pod", "Insufficient memory"],
        sign: &["Unschedulable", "FailedScheduling"],
        log: None,
        within: Within::Deadline,
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}
