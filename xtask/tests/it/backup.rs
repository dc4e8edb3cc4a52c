//! Backups of a real PostgreSQL: taken, read back, brought back, and what becomes of bad ones.

mod commands;
mod scene;

use std::time::Instant;

use serde_json::{Value, json};
use testbed::google::{Fault, Google, Options, Rule};

use crate::google::{Calls as _, PROJECT, enabled};
use crate::mlflow::server::{Database, Server};
use scene::Scene;

#[test]
fn what_was_backed_up_is_brought_back_and_nothing_else_stays() {
    let Some(scene) = Scene::new() else { return };
    scene.admin(&["CREATE ROLE analyst"]);
    scene.sql(&["GRANT SELECT ON runs TO analyst"]);
    let before = scene.rows();
    let backup = scene.take("one");
    assert_eq!(backup["databases"][0]["tables"], before);
    assert_eq!(
        backup["databases"][0]["rows"].as_u64(),
        Some(before.as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum())
    );
    assert!(before["metrics"].as_u64() == Some(200), "{before}");
    let (content, schema) = (scene.content(), scene.schema());

    scene.sql(&[
        "CREATE TABLE newer (id int REFERENCES experiments (experiment_id))",
        "CREATE VIEW seen AS SELECT * FROM metrics",
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
        "CREATE SEQUENCE lonely",
        "ALTER TABLE runs DROP COLUMN user_id",
        "DELETE FROM tags",
        "UPDATE params SET value = 'wrong'",
    ]);
    let restored = scene.answer(&["restore", "--id", "one"]);
    assert_eq!(restored["restored"]["id"], "one");
    assert_eq!(scene.rows(), before);
    assert_eq!(scene.content(), content, "not only as many rows, but the same");
    // With indices, constraints, triggers and who may read what.
    assert_eq!(scene.schema(), schema);
    assert!(schema.contains("GRANT SELECT ON TABLE public.runs TO analyst"));
    // The next row gets a number that is free.
    scene.make();
}

#[test]
fn a_backup_under_load_is_of_one_moment() {
    let Some(scene) = Scene::new() else { return };
    let load = scene.load();
    // It verifies itself: the archive's rows are those that were counted.
    let backup = scene.take("busy");
    let written = load.stop();
    assert!(written > 0, "nothing was written meanwhile");
    let counted = backup["databases"][0]["tables"].clone();
    assert_ne!(scene.rows(), counted, "the load went on after the snapshot");
    scene.answer(&["restore", "--id", "busy"]);
    assert_eq!(scene.rows(), counted);
    // A run's rows are written in several transactions, but never a metric before its run.
    let orphans = "SELECT count(*) FROM metrics m WHERE NOT EXISTS (SELECT FROM runs r WHERE r.run_uuid = m.run_uuid)";
    assert_eq!(scene.sql(&[orphans]), "0");
}

#[test]
fn a_damaged_backup_is_named_and_never_replaces_anything() {
    let Some(scene) = Scene::new() else { return };
    scene.take("good");
    scene.sql(&["CREATE TABLE newer (id int)"]);
    let (rows, content) = (scene.rows(), scene.content());
    let dump = std::fs::read(scene.file("good/mlflow.dump")).unwrap();
    let half = dump[..dump.len() / 2].to_vec();
    let flipped = {
        let mut bytes = dump.clone();
        let at = bytes.len() - 2_000;
        bytes[at] ^= 0xff;
        bytes
    };
    for (name, bytes, honest, why) in [
        ("garbage", vec![b'x'; dump.len()], false, "is not what was written"),
        ("empty", Vec::new(), false, "is not what was written"),
        ("half", half.clone(), false, "bytes"),
        ("flipped", flipped, false, "sha256"),
        // As if it had been written that way: then PostgreSQL's own reader finds it.
        ("garbage-noted", vec![b'x'; dump.len()], true, "pg_restore"),
        ("half-noted", half, true, "pg_restore"),
    ] {
        scene.forge("good", name, &bytes, |entry, sha256| {
            if honest {
                entry["sha256"] = json!(sha256);
                entry["bytes"] = json!(bytes.len());
            }
        });
        for action in ["verify", "restore"] {
            let failure = scene.failure(&[action, "--id", name]);
            assert_eq!(failure["code"], "damaged", "{action} {name}: {failure}");
            assert!(failure["message"].as_str().unwrap().contains(why), "{action} {name}: {failure}");
        }
        assert_eq!((scene.rows(), scene.content()), (rows.clone(), content.clone()), "{name}");
    }
    std::fs::remove_file(scene.file("good/mlflow.dump")).unwrap();
    assert_eq!(scene.failure(&["restore", "--id", "good"])["code"], "missing", "there is no such file");
    std::fs::write(scene.file("good/manifest.json"), "{}").unwrap();
    assert_eq!(scene.failure(&["verify", "--id", "good"])["code"], "damaged");
    assert_eq!(scene.failure(&["verify", "--id", "none"])["code"], "missing");
    assert_eq!((scene.rows(), scene.content()), (rows, content));
}

#[test]
fn a_restore_that_fails_half_way_leaves_everything() {
    let Some(scene) = Scene::new() else { return };
    scene.take("good");
    scene.sql(&["CREATE TABLE newer (id int)", "INSERT INTO newer VALUES (1)", "DELETE FROM params"]);
    let (rows, content) = (scene.rows(), scene.content());
    let check = |id: &str, code: &str, why: &str| {
        let failure = scene.failure(&["restore", "--id", id]);
        assert_eq!(failure["code"], code, "{failure}");
        assert!(failure["message"].as_str().unwrap().contains(why), "{failure}");
        assert_eq!((scene.rows(), scene.content()), (rows.clone(), content.clone()), "{why}");
    };
    // All is dropped and loaded before the rows are compared.
    let dump = std::fs::read(scene.file("good/mlflow.dump")).unwrap();
    scene.forge("good", "miscounted", &dump, |entry, _| entry["tables"]["runs"] = json!(11));
    check("miscounted", "damaged", "runs: 10 rows, not 11");
    // Someone else's view hangs on a table.
    scene.sql(&["CREATE SCHEMA other", "CREATE VIEW other.seen AS SELECT * FROM runs"]);
    check("good", "database", "other objects depend on");
    scene.sql(&["DROP SCHEMA other CASCADE"]);
    // Whoever owns the database, and so the schema, may drop what is in it.
    scene.admin(&[
        "ALTER DATABASE app OWNER TO mlflow",
        "GRANT ALL ON SCHEMA public TO app",
        "ALTER TABLE newer OWNER TO mlflow",
        "GRANT SELECT ON newer TO app",
    ]);
    check("good", "forbidden", "must be owner of table newer");
    scene.admin(&["ALTER TABLE newer OWNER TO app"]);
    scene.answer(&["restore", "--id", "good"]);
    assert!(scene.rows()["newer"].is_null());
}

#[test]
fn a_restore_waits_for_a_migration() {
    let Some(scene) = Scene::new() else { return };
    scene.take("good");
    let migration = scene.start(&["SELECT pg_advisory_lock(hashtext('mlflow-on-kubernetes'))", "SELECT pg_sleep(4)"]);
    scene.until("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "1");
    let begun = Instant::now();
    scene.answer(&["restore"]);
    assert!(begun.elapsed().as_secs() >= 2, "{:?}", begun.elapsed());
    migration.end();
}

#[test]
fn a_store_that_refuses_leaves_no_half_backup() {
    let Some(scene) = Scene::new() else { return };
    // Less than the dump takes: what a full disk does.
    let full = scene.limited(20_000, &["take", "--id", "full"]);
    assert_eq!(full["failure"]["code"], "room", "{full}");
    assert_eq!(scene.files(), Vec::<String>::new());
    let elsewhere = scene.run_to("file:///proc/backups", &["take", "--id", "x"]);
    assert_eq!(elsewhere["failure"]["code"], "missing", "{elsewhere}");
    // Between the dump and its manifest someone pulls the plug: it does not count, and the next prunes it.
    scene.take("20260101");
    std::fs::remove_file(scene.file("20260101/manifest.json")).unwrap();
    let taken = scene.answer(&["take", "--id", "20260102"]);
    assert_eq!(taken["pruned"], json!([]));
    let list = scene.answer(&["list"]);
    let ids = |list: &Value| -> Vec<String> {
        list["backups"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((ids(&list), &list["parts"]), (vec!["20260102".to_owned()], &json!(["20260101"])));
    scene.take("20260103");
    let taken = scene.answer(&["take", "--id", "20260104", "--keep", "2"]);
    assert_eq!(taken["pruned"], json!(["20260102"]));
    let list = scene.answer(&["list"]);
    assert_eq!((ids(&list), &list["parts"]), (vec!["20260104".to_owned(), "20260103".to_owned()], &json!([])));
    assert_eq!(scene.failure(&["take", "--id", "20260104"])["code"], "taken");
}

#[test]
fn a_bucket_of_googles_is_written_and_read_as_a_stream() {
    let Some(scene) = Scene::new() else { return };
    let google = Google::start(Options { projects: vec![enabled()], ..Options::default() });
    google.ask("POST", &format!("storage/storage/v1/b?project={PROJECT}"), json!({ "name": "kept" }));
    let to = "gs://kept/mlflow-backups";
    let objects = || {
        let list = google.ask("GET", "storage/storage/v1/b/kept/o", Value::Null);
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let refused = Rule {
        service: "storage".to_owned(),
        method: "PUT".to_owned(),
        path: "/upload/resumable".to_owned(),
        skip: 0,
        times: 9,
        fault: Fault::PermissionDenied,
    };
    google.fail(&refused);
    let failed = scene.run_at(&google, to, &["take", "--id", "one"]);
    assert_eq!(failed["failure"]["code"], "forbidden", "{failed}");
    google.clear_faults();
    assert_eq!(objects(), Vec::<String>::new(), "no part of it is an object");

    let taken = scene.run_at(&google, to, &["take", "--id", "one"]);
    assert_eq!(taken["backup"]["id"], "one", "{taken}");
    assert_eq!(objects(), ["mlflow-backups/one/manifest.json", "mlflow-backups/one/mlflow.dump"]);
    let (rows, content) = (scene.rows(), scene.content());
    scene.sql(&["DELETE FROM metrics", "DELETE FROM params"]);
    let restored = scene.run_at(&google, to, &["restore"]);
    assert_eq!(restored["restored"]["id"], "one", "{restored}");
    assert_eq!((scene.rows(), scene.content()), (rows, content));
    let nowhere = scene.run_at(&google, "gs://none/x", &["list"]);
    assert_eq!(nowhere["failure"]["code"], "missing", "{nowhere}");
}

#[test]
fn another_store_is_reached_as_mlflow_reaches_it() {
    let (Some(scene), Some(server)) = (Scene::new(), Server::start(&Database::sqlite())) else { return };
    let to = format!("{}/api/2.0/mlflow-artifacts/artifacts/backups", server.url());
    let small = scene.run_to(&to, &["take", "--id", "one", "--scratch", "20k"]);
    assert_eq!(small["failure"]["code"], "room", "{small}");
    assert!(small["failure"]["hint"].as_str().unwrap().contains("scratch"), "{small}");
    let taken = scene.run_to(&to, &["take", "--id", "one", "--scratch", "1Gi"]);
    assert_eq!(taken["backup"]["id"], "one", "{taken}");
    let rows = scene.rows();
    scene.sql(&["DELETE FROM metrics"]);
    let restored = scene.run_to(&to, &["restore"]);
    assert_eq!((&restored["restored"]["id"], scene.rows()), (&json!("one"), rows), "{restored}");
    assert_eq!(scene.run_to(&to, &["list"])["backups"][0]["id"], "one");
}

#[test]
fn an_image_that_cannot_dump_is_named_with_the_fix() {
    let Some(scene) = Scene::new() else { return };
    let failure = scene.with_programs(None, &["take", "--id", "x"]);
    assert_eq!(failure["code"], "image", "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("deploy this version's image"), "{failure}");
    let failure = scene.with_programs(Some("pg_dump (PostgreSQL) 9.6.24"), &["take", "--id", "x"]);
    assert_eq!(failure["code"], "image", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("cannot dump it"), "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("postgresql-client"), "{failure}");
    assert_eq!(scene.files(), Vec::<String>::new());
}

#[test]
fn a_database_that_is_none_of_mlflows_is_named_without_its_password() {
    let Some(scene) = Scene::empty() else { return };
    assert_eq!(scene.failure(&["take", "--id", "x"])["code"], "empty");
    for (uri, code) in [
        ("sqlite:////tmp/none.db", "database"),
        ("nonsense://ann:hush@127.0.0.1/x", "database"),
        ("no uri", "database"),
    ] {
        let answer = scene.run_with(uri, &["take", "--id", "x"]);
        assert_eq!(answer["failure"]["code"], code, "{uri}: {answer}");
        assert!(!answer.to_string().contains("hush"), "{answer}");
    }
}

#[test]
fn a_drill_needs_the_right_to_make_a_database_and_removes_what_others_left() {
    let Some(scene) = Scene::new() else { return };
    scene.take("good");
    let oid = scene.sql(&["SELECT oid FROM pg_database WHERE datname = current_database()"]);
    let left = format!("mlflow_drill_{oid}_dead");
    scene.admin(&[&format!("CREATE DATABASE {left} OWNER app"), "CREATE DATABASE mlflow_drill_1_other OWNER app"]);
    scene.admin(&["ALTER ROLE app NOCREATEDB"]);
    let failure = scene.failure(&["drill"]);
    assert_eq!(failure["code"], "forbidden", "{failure}");
    assert!(failure["hint"].as_str().unwrap().contains("CREATEDB"), "{failure}");
    let drills = "SELECT datname FROM pg_database WHERE datname LIKE 'mlflow_drill_%'";
    assert_eq!(scene.sql(&[drills]), "mlflow_drill_1_other", "only another environment's is left");
    // As on Cloud SQL: a role that it belongs to may. The server ends at once, and nothing stays.
    scene.admin(&["CREATE ROLE cloudsqlsuperuser CREATEDB", "GRANT cloudsqlsuperuser TO app"]);
    let failure = scene.failure(&["drill", "--server", "/bin/echo", "no server"]);
    assert_eq!(failure["code"], "server", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("no server"), "{failure}");
    assert_eq!(scene.sql(&[drills]), "mlflow_drill_1_other");
    scene.forge("good", "broken", b"x", |_, _| {});
    assert_eq!(scene.failure(&["drill", "--id", "broken"])["code"], "damaged");
    assert_eq!(scene.sql(&[drills]), "mlflow_drill_1_other");
}
