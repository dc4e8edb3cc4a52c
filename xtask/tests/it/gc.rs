//! What deleted runs still hold is freed: by the program in a real server's place, and through a cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testbed::{Home, nightly};

use crate::db::{Answer, World};
use crate::mlflow::envs::Python;
use crate::mlflow::server::{Database, Server};

/// What the CronJob and `gc` run in the cluster.
const COLLECT: &str = include_str!("../../src/gc/collect.py");

const MONTH: &str = "2592000";

fn program(home: &Home, python: &Python) -> Command {
    let mut command = home.command(python.interpreter());
    command.env("MLFLOW_DISABLE_TELEMETRY", "true").env("GIT_PYTHON_REFRESH", "quiet");
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    command
}

/// A server with things deleted at several times.
struct Scene {
    server: Server,
    python: Python,
    uri: String,
    ids: BTreeMap<String, String>,
}

impl Scene {
    fn new(database: &Database) -> Option<Self> {
        let (python, server) = (Python::server()?, Server::start(database)?);
        let uri = database.uri(&server.home);
        let mut scene = Self { server, python, uri, ids: BTreeMap::new() };
        let made = scene.script(&["make", &scene.server.url(), &scene.uri, scene.artifacts().to_str().unwrap()]);
        scene.ids = serde_json::from_value(made).unwrap();
        Some(scene)
    }

    fn artifacts(&self) -> PathBuf {
        self.server.home.path().join("artifacts")
    }

    fn script(&self, args: &[&str]) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow/gc_scene.py");
        let output = program(&self.server.home, &self.python).arg(script).args(args).output().expect("python starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {err}\nserver:\n{}", self.server.log_tail());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Rows of each table, and the files.
    fn content(&self) -> (Value, Vec<PathBuf>) {
        (self.script(&["rows", &self.uri]), files(&self.artifacts()))
    }

    /// What became of each thing, by its name in the scene; the sums; the exit code.
    fn collect(&self, args: &[&str]) -> (BTreeMap<String, String>, Value, Option<i32>) {
        let mut command = program(&self.server.home, &self.python);
        command.args(["-c", COLLECT, "--older-than"]).args(args).env("MLFLOW_BACKEND_STORE_URI", &self.uri);
        command.env("MLFLOW_ARTIFACTS_DESTINATION", self.artifacts());
        let output = command.output().expect("python starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let (sums, things) =
            lines.split_last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let name = |id: &Value| {
            let known = self.ids.iter().find(|(_, known)| *id == known.as_str());
            known.map_or(id.to_string(), |(name, _)| name.clone())
        };
        let ends = things.iter().map(|thing| {
            let state = thing["artifacts"].as_str().unwrap_or("-");
            (name(&thing["id"]), format!("{} {state}", thing["end"].as_str().unwrap()))
        });
        (ends.collect(), sums.clone(), output.status.code())
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn frees_what_is_deleted_long_enough(database: &Database) {
    let Some(scene) = Scene::new(database) else { return };
    let holds = |name: &str| {
        let id = &scene.ids[name];
        files(&scene.artifacts()).iter().any(|file| file.iter().any(|part| part.to_str() == Some(id)))
    };
    let expected = [
        ("old", "deleted deleted"),
        ("bare", "deleted absent"),
        ("absent", "deleted absent"),
        ("refused", "refused refused"),
        ("foreign", "refused refused"),
        ("used", "kept -"),
        ("old-model", "deleted deleted"),
        ("gone-run", "deleted deleted"),
        ("gone-model", "deleted deleted"),
        ("gone-trace", "deleted deleted"),
        ("gone", "deleted -"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, end)| (name.to_owned(), end.to_owned())).into();

    let before = scene.content();
    let (mut foreseen, sums, _) = scene.collect(&[MONTH, "--dry-run"]);
    // Only the deletion itself tells.
    assert_eq!(foreseen.insert("refused".to_owned(), expected["refused"].clone()).unwrap(), "deleted deleted");
    assert_eq!(foreseen, expected);
    assert_eq!((&sums["dry_run"], &sums["runs"], &sums["bytes"]), (&json!(true), &json!(5), &json!(32)));
    assert_eq!(scene.content(), before, "a dry run changes nothing");

    let (ends, sums, code) = scene.collect(&[MONTH]);
    assert_eq!((ends, code), (expected, Some(1)), "what is refused is a failure, after the rest is done");
    let sum = |name: &str| sums[name].as_u64().unwrap();
    let counts = ["runs", "models", "traces", "experiments", "kept", "refused", "files", "bytes"].map(sum);
    assert_eq!(counts, [4, 2, 2, 1, 1, 2, 5, 27], "{sums}");
    for (name, left) in [
        ("live", true),
        ("young", true),
        ("fresh-run", true),
        ("used", true),
        ("foreign", true),
        ("live-model", true),
        ("old", false),
        ("old-model", false),
        ("gone", false),
    ] {
        assert_eq!(holds(name), left, "{name}");
    }

    // What was refused is found again, and nothing else.
    let folder = scene.artifacts().join(&scene.ids["lab"]).join(&scene.ids["refused"]);
    std::fs::remove_file(folder.join("artifacts")).unwrap();
    std::fs::rename(folder.join("elsewhere"), folder.join("artifacts")).unwrap();
    let (ends, sums, code) = scene.collect(&[MONTH, "--answer"]);
    assert_eq!((ends["refused"].as_str(), ends.len(), code), ("deleted deleted", 3, Some(0)), "{ends:?}");
    assert_eq!(sums["refused"], 1, "the sums tell what the exit code does not");
    let after = scene.content();
    let (ends, sums, code) = scene.collect(&[MONTH]);
    assert_eq!(ends.keys().map(String::as_str).collect::<Vec<_>>(), ["foreign", "used"]);
    assert_eq!((&sums["runs"], &sums["files"], code), (&json!(0), &json!(0), Some(1)));
    assert_eq!(scene.content(), after);
}

#[test]
fn what_is_deleted_long_enough_is_freed_on_sqlite() {
    if !nightly("the same on SQLite") {
        return;
    }
    frees_what_is_deleted_long_enough(&Database::sqlite());
}

#[test]
fn what_is_deleted_long_enough_is_freed_on_postgresql() {
    let Some(database) = Database::postgresql() else { return };
    frees_what_is_deleted_long_enough(&database);
}

#[test]
fn a_server_that_cannot_be_served_is_named_without_its_password() {
    let (Some(python), home) = (Python::server(), Home::new()) else { return };
    let empty = format!("sqlite:///{}", home.file("empty.db").display());
    for (uri, workspaces, expected) in [
        (empty.as_str(), "false", "the database has no tables of MLflow's"),
        (empty.as_str(), "true", "workspaces"),
        ("nonsense://ann:hush@127.0.0.1/x", "false", "nonsense"),
    ] {
        let mut command = program(&home, &python);
        command.args(["-c", COLLECT, "--older-than", MONTH]).env("MLFLOW_BACKEND_STORE_URI", uri);
        let output = command.env("MLFLOW_ENABLE_WORKSPACES", workspaces).output().expect("python starts");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{uri}: {text}");
        assert!(text.contains(expected) && !text.contains("hush") && !text.contains("Traceback"), "{uri}: {text}");
    }
}

/// A deleted run with an artifact of five bytes, whose folder is given.
const DELETED_RUN: &str = "
import os, sys
from pathlib import Path
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore(sys.argv[1], 'mlflow-artifacts:/')
run = store.create_run('0', 'ann', 0, [], 'run')
folder = Path(sys.argv[2], '0', run.info.run_id, 'artifacts')
folder.mkdir(parents=True)
(folder / 'file').write_text('12345')
store.delete_run(run.info.run_id)
print(folder)
";

#[test]
fn what_is_deleted_is_freed_through_the_servers_own_pod() {
    let Some(world) = World::new() else { return };
    let artifacts = world.home.path().join("artifacts").display().to_string();
    let deleted_run = || {
        let mut command = program(&world.home, &world.python);
        let output = command.args(["-c", DELETED_RUN, &world.database(), &artifacts]).output().expect("python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
    };
    let check = |args: &[&str], code: i32| {
        let mut command = world.xtask(&["gc", "--env", "lab", "--json"]);
        let answer = Answer::of(command.args(args).output().expect("xtask starts"));
        assert_eq!(answer.code, Some(code), "{args:?}: {}\n{}", answer.value, answer.told);
        assert_eq!(world.api.jobs().1, Vec::<String>::new(), "a Job is left");
        answer.value
    };
    let now = ["--older-than", "0s"];
    let nothing = check(&[], 12);
    assert!(nothing["error"]["hint"].as_str().is_some_and(|hint| hint.contains("deploy")), "{nothing}");

    let folder = deleted_run();
    let uri = world.database();
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &uri), ("MLFLOW_ARTIFACTS_DESTINATION", &artifacts)]);
    assert_eq!(check(&["--yes"], 0)["runs"], 0, "it was deleted a moment ago");
    let dry = check(&[&now[..], &["--dry-run"]].concat(), 0);
    assert_eq!((&dry["runs"], &dry["bytes"], &dry["dry_run"]), (&json!(1), &json!(5), &json!(true)));
    let unasked = check(&now, 2);
    assert!(unasked["error"]["hint"].as_str().is_some_and(|hint| hint.contains("--yes")), "{unasked}");
    assert!(folder.is_dir(), "nobody agreed");
    let freed = check(&[&now[..], &["--yes"]].concat(), 0);
    assert_eq!((&freed["runs"], &freed["bytes"], &freed["dry_run"]), (&json!(1), &json!(5), &json!(false)));
    assert!(!folder.exists());
    assert_eq!(check(&now, 0)["runs"], 0, "nothing to free, nothing to ask");

    let folder = deleted_run();
    std::fs::rename(&folder, folder.with_file_name("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", &folder).unwrap();
    let refused = check(&[&now[..], &["--yes"]].concat(), 12);
    assert_eq!((&refused["refused"], &refused["left"][0]["end"]), (&json!(1), &json!("refused")), "{refused}");
}

#[test]
fn the_server_of_this_machine_is_not_served() {
    let Some(world) = World::new() else { return };
    let mut command = world.xtask(&["gc", "--env", "local", "--json"]);
    let answer = Answer::of(command.output().expect("xtask starts"));
    assert_eq!(answer.code, Some(2), "{}", answer.value);
}
