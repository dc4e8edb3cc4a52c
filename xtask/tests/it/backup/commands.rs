//! The commands, through a cluster's API server, whose Jobs are really run.

use serde_json::{Value, json};

use super::scene::Scene;
use crate::db::{Answer, World};

/// What deploy.toml says of backups.
fn settings(to: &str) -> String {
    format!("[environment.lab.backup]\nto = {to:?}\nkeep = 2\n")
}

#[test]
fn backups_are_taken_listed_and_read_back_through_the_servers_own_pod() {
    let (Some(world), Some(scene)) = (World::new(), Scene::new()) else { return };
    let check = |args: &[&str], code: i32| -> Value {
        let mut command = world.xtask(&[&["db"], args, &["--env", "lab", "--json"]].concat());
        let answer = Answer::of(command.output().expect("xtask starts"));
        assert_eq!(answer.code, Some(code), "{args:?}: {}\n{}", answer.value, answer.told);
        assert_eq!(world.api.jobs().1, Vec::<String>::new(), "a Job is left");
        answer.value
    };
    let hint = |value: &Value| value["error"]["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint(&check(&["backup"], 12)).contains("deploy first"));
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &scene.uri())]);
    // The artifacts have the whole bucket.
    assert!(hint(&check(&["backup"], 3)).contains("to = \"gs://"));
    let folder = world.home.path().join("backups");
    world.settings(&settings(&format!("file://{}", folder.display())));
    assert_eq!(check(&["backups"], 0)["backups"], json!([]));
    assert!(hint(&check(&["verify"], 12)).contains("db backup"));

    let taken = check(&["backup", "--reason=--before $(HOME) it all"], 0);
    let id = taken["backup"]["id"].as_str().unwrap().to_owned();
    assert_eq!(taken["backup"]["reason"], "--before $$(HOME) it all", "this API server does not take one away");
    assert_eq!(
        (&taken["backup"]["method"], &taken["backup"]["image"]),
        (&json!("dump"), &json!("registry/mlflow@sha256:abc"))
    );
    assert_eq!(taken["backup"]["databases"][0]["tables"], scene.rows());
    let verified = check(&["verify"], 0);
    assert_eq!(verified["backup"], taken["backup"]);
    for _ in 0..2 {
        check(&["backup"], 0);
    }
    let list = check(&["backups"], 0)["backups"].clone();
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert!(!list.to_string().contains(&id), "the oldest had to go");
    check(&["verify", &id], 12);
    check(&["verify", "../x"], 2);

    let newest = list[0]["id"].as_str().unwrap();
    let dump = folder.join(newest).join("mlflow.dump");
    let bytes = std::fs::read(&dump).unwrap();
    std::fs::write(&dump, &bytes[..bytes.len() - 1]).unwrap();
    let damaged = check(&["verify"], 12);
    assert!(damaged.to_string().contains("is not what was written"), "{damaged}");
    check(&["verify", list[1]["id"].as_str().unwrap()], 0);

    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &world.database())]);
    assert!(check(&["backup"], 6).to_string().contains("only PostgreSQL is dumped"));
}

#[test]
fn a_server_of_this_machine_has_no_backups_here() {
    let Some(world) = World::new() else { return };
    for command in ["backup", "backups", "verify", "drill"] {
        let mut command = world.xtask(&["db", command, "--env", "local", "--json"]);
        let answer = Answer::of(command.output().expect("xtask starts"));
        assert_eq!(answer.code, Some(2), "{}", answer.value);
    }
}
