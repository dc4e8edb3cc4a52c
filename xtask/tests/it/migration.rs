//! What makes and migrates a database, and what holds servers back until that is done: the programs of the
//! cluster's pods, with the locked MLflow and a real PostgreSQL.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::Home;

use crate::mlflow::envs::Python;
use crate::mlflow::server::Database;
use crate::schema::{python, status};

const MIGRATE: &str = concat!(include_str!("../../src/schema/stores.py"), include_str!("../../src/schema/migrate.py"));
const GATE: &str = include_str!("../../src/schema/gate.py");

/// The revision of MLflow 3.16.1: two before the locked one's.
const OLDER: &str = "b7e2c1a4d9f3";

/// Makes the tracking store of an older MLflow, with an experiment in it.
const MAKE_OLDER: &str = "
import os, sys, sqlalchemy
from alembic import command
from mlflow.store.db import utils
from mlflow.store.tracking.dbmodels.initial_models import Base
engine = sqlalchemy.create_engine(os.environ['MLFLOW_BACKEND_STORE_URI'])
Base.metadata.create_all(engine)
config = utils._get_alembic_config(os.environ['MLFLOW_BACKEND_STORE_URI'])
command.upgrade(config, sys.argv[1])
with engine.begin() as connection:
    connection.execute(sqlalchemy.text(\"INSERT INTO experiments (experiment_id, name, lifecycle_stage, workspace) VALUES (7, 'kept', 'active', 'default')\"))
";

struct Scene {
    home: Home,
    python: Python,
    /// With a password, that must be nowhere.
    uri: String,
    _database: Database,
}

/// Nobody may see it.
const PASSWORD: &str = "hush-hush";

impl Scene {
    fn new() -> Option<Self> {
        let (python, database) = (Python::server()?, Database::postgresql()?);
        let home = Home::new();
        let uri = database.uri(&home).replace("mlflow@", &format!("mlflow:{PASSWORD}@"));
        Some(Self { home, python, uri, _database: database })
    }

    fn run(&self, args: &[&str]) -> (bool, String) {
        let (well, text) = python(&self.home, &self.python, &self.uri, args, &|_| {});
        assert!(!text.contains(PASSWORD), "{text}");
        (well, text)
    }

    fn older(&self) {
        let (well, text) = self.run(&["-c", MAKE_OLDER, OLDER]);
        assert!(well, "{text}");
    }

    /// What was done with each store: what, from where, and where it is now.
    fn migrate(&self, args: &[&str], change: &dyn Fn(&mut Command)) -> Vec<(String, Value, Value)> {
        let args = [&["-c", MIGRATE], args].concat();
        let (well, text) = python(&self.home, &self.python, &self.uri, &args, change);
        assert!(well && !text.contains(PASSWORD), "{text}");
        done(&text)
    }

    fn revision(&self) -> Value {
        status(&self.home, &self.python, &self.uri, &|_| {})[0]["revisions"].clone()
    }

    fn sql(&self, statement: &str) -> String {
        let program = "import os, sys, sqlalchemy as s\nwith s.create_engine(os.environ['MLFLOW_BACKEND_STORE_URI']).begin() as c:\n \
                       r = c.execute(s.text(sys.argv[1]))\n print(r.fetchall() if r.returns_rows else '')";
        let (well, text) = self.run(&["-c", program, statement]);
        assert!(well, "{text}");
        text.trim().to_owned()
    }

    fn start(&self, args: &[&str]) -> Process {
        let mut command = self.home.command(self.python.interpreter());
        command.args(args).env("MLFLOW_BACKEND_STORE_URI", &self.uri).env("MLFLOW_DISABLE_TELEMETRY", "true");
        command.env("GIT_PYTHON_REFRESH", "quiet").env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Process { child, lines }
    }
}

fn done(text: &str) -> Vec<(String, Value, Value)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("mlflow-server-migration "));
    let answers = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    answers
        .map(|found| (found["did"].as_str().unwrap().to_owned(), found["before"].clone(), found["revisions"].clone()))
        .collect()
}

struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn ends(&mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().expect("its end") {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn servers_wait_until_what_is_empty_is_made() {
    let Some(scene) = Scene::new() else { return };
    let mut gate = scene.start(&["-c", GATE]);
    let told = gate.line();
    assert!(told.starts_with("schema gate: the tracking database has no schema yet"), "{told}");
    let made = scene.migrate(&[], &|_| {});
    let head = made[0].2[0].as_str().expect("a revision").to_owned();
    assert_eq!(made, [("made".to_owned(), json!([]), json!([head]))]);
    assert!(told.contains(&head), "{told}");
    assert_eq!(gate.ends(), Some(0));
    assert_eq!(scene.migrate(&["--migrate"], &|_| {}), [("nothing".to_owned(), json!([head]), json!([head]))]);

    // A login is made beside it; the gate of a server with a login waits for that one, too.
    let with_login = |command: &mut Command| {
        command.env("MLFLOW_AUTH_ADMIN_PASSWORD", "of the test only");
    };
    let made = scene.migrate(&[], &with_login);
    assert_eq!((made[0].0.as_str(), made[1].0.as_str(), &made[1].1), ("nothing", "made", &json!([])));
    let (well, text) = python(&scene.home, &scene.python, &scene.uri, &["-c", GATE], &with_login);
    assert!(well, "{text}");
    scene.sql("UPDATE alembic_version_auth SET version_num = 'other'");
    let mut command = scene.home.command(scene.python.interpreter());
    command.args(["-c", GATE]).env("MLFLOW_BACKEND_STORE_URI", &scene.uri);
    with_login(&mut command);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python starts");
    let lines = BufReader::new(child.stdout.take().expect("its output"));
    let mut gate = Process { child, lines };
    let told = gate.line();
    assert!(told.starts_with("schema gate: the login database has schema other"), "{told}");
}

#[test]
fn what_is_behind_is_migrated_only_when_that_is_said() {
    let Some(scene) = Scene::new() else { return };
    scene.older();
    let mut gate = scene.start(&["-c", GATE]);
    let told = gate.line();
    assert!(told.contains(&format!("has schema {OLDER}, and this MLflow works with")), "{told}");
    let before = json!([OLDER]);
    assert_eq!(scene.migrate(&[], &|_| {}), [("left".to_owned(), before.clone(), before.clone())]);
    assert_eq!(scene.revision(), before);
    let done = scene.migrate(&["--migrate"], &|_| {});
    assert_eq!((done[0].0.as_str(), &done[0].1), ("migrated", &before));
    assert_ne!(done[0].2, before);
    assert_eq!(gate.ends(), Some(0));
    assert_eq!(scene.sql("SELECT name FROM experiments"), "[('kept',)]");

    // Another MLflow's revision has no way to here.
    scene.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'");
    let other = json!(["ffffffffffff"]);
    assert_eq!(scene.migrate(&["--migrate"], &|_| {}), [("left".to_owned(), other.clone(), other)]);
}

#[test]
fn a_migration_that_fails_half_way_has_changed_nothing() {
    let Some(scene) = Scene::new() else { return };
    scene.older();
    // After some of the way's statements PostgreSQL refuses.
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'public'";
    let before = scene.sql(columns);
    scene.sql(
        "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
         IF (SELECT count(*) FROM pg_event_trigger_ddl_commands()) > 0 \
         AND nextval('ddl') > 3 THEN RAISE EXCEPTION 'no more of this'; END IF; END $$; \
         CREATE SEQUENCE ddl; CREATE EVENT TRIGGER refuse ON ddl_command_end EXECUTE FUNCTION refuse()",
    );
    let (well, text) = scene.run(&["-c", MIGRATE, "--migrate"]);
    assert!(!well && text.contains("no more of this") && !text.contains("Traceback"), "{text}");
    scene.sql("DROP EVENT TRIGGER refuse");
    assert_eq!(scene.revision(), json!([OLDER]));
    assert_eq!(scene.sql(columns), before);
    assert_eq!(scene.migrate(&["--migrate"], &|_| {})[0].0, "migrated");
}

#[test]
fn two_migrations_do_not_meet() {
    let Some(scene) = Scene::new() else { return };
    let mut both = [scene.start(&["-c", MIGRATE]), scene.start(&["-c", MIGRATE])];
    let did = both.each_mut().map(|process| {
        let line = process.line();
        assert_eq!(process.ends(), Some(0), "{line}");
        done(&line)[0].0.clone()
    });
    assert!(did.contains(&"made".to_owned()) && did.contains(&"nothing".to_owned()), "{did:?}");
}

#[test]
fn a_gate_says_what_it_waits_for_and_ends_when_it_is_told_to() {
    let Some(scene) = Scene::new() else { return };
    let mut command = scene.home.command(scene.python.interpreter());
    command
        .args(["-c", GATE])
        .env("MLFLOW_BACKEND_STORE_URI", format!("postgresql+psycopg://a:{PASSWORD}@127.0.0.1:1/x"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("python starts");
    let lines = BufReader::new(child.stdout.take().expect("its output"));
    let mut gate = Process { child, lines };
    let told = gate.line();
    assert!(
        told.starts_with("schema gate: (psycopg") && told.contains("OperationalError) ") && told.contains("refused"),
        "{told}"
    );
    assert!(!told.contains(PASSWORD), "{told}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(gate.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a signal");
    assert_eq!(gate.ends(), Some(143));
}
