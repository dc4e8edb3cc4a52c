//! `db status`: what is asked of a cluster, and what is made of its answers.

mod api;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbed::Home;

use crate::image;
use crate::mlflow::envs::Python;
use crate::schema::layout;
use api::{Api, Fate};

const PASSWORD: &str = "a-password-of-the-test-only";

/// A checkout with an environment in the API server's cluster, and a database.
pub struct World {
    pub home: Home,
    project: PathBuf,
    pub python: Python,
    pub api: Api,
}

impl World {
    pub fn new() -> Option<Self> {
        let (python, home) = (Python::server()?, Home::new());
        let api = Api::start(python.interpreter());
        let project = image::project(&home);
        let settings = "[environment.lab]\nkind = \"kubernetes\"\ncontext = \"lab\"\nkubeconfig = \"kubeconfig\"\n\
                        [environment.lab.database]\nuri-variable = \"URI\"\n\
                        [environment.lab.artifacts]\nuri = \"gs://bucket\"\n";
        std::fs::write(project.join("deploy.toml"), settings).unwrap();
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": api.address}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "c", "user": "u"}}],
        });
        std::fs::write(project.join("kubeconfig"), config.to_string()).unwrap();
        Some(Self { home, project, python, api })
    }

    /// Adds to what deploy.toml says.
    pub fn settings(&self, more: &str) {
        let path = self.project.join("deploy.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}{more}")).unwrap();
    }

    pub fn database(&self) -> String {
        format!("sqlite:///{}", self.home.file("mlflow.db").display())
    }

    /// Makes the database's schema, as far as MLflow's own table of it tells.
    fn migrate_to(&self, revision: &str) {
        let program = format!(
            "import sqlite3\nc = sqlite3.connect({:?})\nc.executescript(\"CREATE TABLE IF NOT EXISTS experiments (id int); \
             CREATE TABLE IF NOT EXISTS alembic_version (version_num text); DELETE FROM alembic_version; \
             INSERT INTO alembic_version VALUES ('{revision}')\")",
            self.home.file("mlflow.db")
        );
        let output = self.home.command(self.python.interpreter()).args(["-c", &program]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// An image whose MLflow knows these revisions, the newest last.
    fn image(&self, name: &str, revisions: &[&str]) -> String {
        let site = "usr/lib/python3/dist-packages/mlflow/store/db_migrations/versions";
        let files: Vec<(String, String)> = revisions
            .iter()
            .enumerate()
            .map(|(at, revision)| {
                let follows = at.checked_sub(1).map_or("None".to_owned(), |before| format!("{:?}", revisions[before]));
                let text = format!("revision = {revision:?}\ndown_revision = {follows}\n");
                (format!("{site}/{revision}.py"), text)
            })
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        layout(&self.home.path().join(name), &files)
    }

    fn command(&self, image: &str) -> Command {
        self.xtask(&["db", "status", "--json", "--image", image])
    }

    /// xtask in the checkout.
    pub fn xtask(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(args)
            .env("CARGO_MANIFEST_DIR", &self.project)
            .env("URI", "postgresql://db/x")
            .stdin(Stdio::null());
        command
    }

    fn ask(&self, image: &str) -> Answer {
        let mut command = self.command(image);
        Answer::of(command.args(["--env", "lab"]).output().expect("xtask starts"))
    }

    fn begin(&self, image: &str) -> Child {
        self.command(image)
            .args(["--env", "lab"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("xtask starts")
    }
}

pub struct Answer {
    pub code: Option<i32>,
    pub value: Value,
    pub told: String,
}

impl Answer {
    pub fn of(output: Output) -> Self {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        assert!(!told.contains(PASSWORD) && !String::from_utf8_lossy(&output.stdout).contains(PASSWORD));
        Self { code: output.status.code(), value, told }
    }
}

#[test]
fn a_database_is_compared_with_an_image_through_the_servers_own_pod() {
    let Some(world) = World::new() else { return };
    let images = [world.image("one", &["a1"]), world.image("three", &["a1", "b2", "c3"])];
    let nothing = world.ask(&images[0]);
    assert_eq!(nothing.code, Some(12), "{}", nothing.value);
    assert!(nothing.value["error"]["hint"].as_str().is_some_and(|hint| hint.contains("deploy")), "{}", nothing.value);

    let uri = world.database();
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &uri)]);
    let check = |image: &str, code: i32, verdict: &str, migrations: Option<u64>| {
        let answer = world.ask(image);
        let store = &answer.value["stores"][0];
        assert_eq!(answer.code, Some(code), "{}\n{}", answer.value, answer.told);
        assert_eq!((store["store"].as_str(), store["verdict"].as_str()), (Some("tracking"), Some(verdict)));
        assert_eq!(store["migrations"].as_u64(), migrations, "{store}");
        let (_, left) = world.api.jobs();
        assert_eq!(left, Vec::<String>::new(), "a Job is left");
    };
    check(&images[1], 12, "empty", None);
    world.migrate_to("a1");
    check(&images[0], 0, "same", None);
    check(&images[1], 12, "behind", Some(2));
    world.migrate_to("c3");
    check(&images[0], 14, "ahead", None);
    check(&images[1], 0, "same", None);
    let (made, _) = world.api.jobs();
    assert_eq!(made, 5, "one Job for each question");
}

#[test]
fn a_database_of_this_machine_is_compared_without_a_server() {
    let Some(world) = World::new() else { return };
    let images = [world.image("one", &["a1"]), world.image("three", &["a1", "b2", "c3"])];
    let data = world.home.file("data/x").parent().unwrap().to_owned();
    let settings = format!("[environment.here]\nkind = \"local\"\ndata = {:?}\n", data.display().to_string());
    std::fs::write(world.project.join("deploy.toml"), settings).unwrap();
    let database = data.join("mlflow.db");
    let execute = |script: &str| {
        let program = format!("import sqlite3\nc = sqlite3.connect({database:?})\n{script}\nc.commit()");
        let output = world.home.command(world.python.interpreter()).args(["-c", &program]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let check = |image: &str, code: i32, verdict: &str| {
        let mut command = world.command(image);
        command.args(["--env", "here"]);
        let answer = Answer::of(command.output().expect("xtask starts"));
        assert_eq!(answer.code, Some(code), "{}\n{}", answer.value, answer.told);
        assert_eq!(answer.value["stores"][0]["verdict"], verdict);
        answer.value["stores"][0].clone()
    };
    check(&images[0], 12, "empty");
    assert!(!database.exists(), "asking makes no database");
    // Many tables, some with definitions that overflow their page: their list takes several pages.
    execute(
        "def columns(n): return ', '.join(f'column{m}_{n} text' for m in range(n * 3 + 1))\n\
         for n in range(200): c.execute(f'CREATE TABLE t{n} ({columns(n)})')\n\
         c.execute('CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num))')\n\
         c.execute('CREATE TABLE experiments (id int)')\n\
         c.execute('INSERT INTO experiments VALUES (1)')",
    );
    check(&images[0], 12, "unclear");
    execute("c.execute(\"INSERT INTO alembic_version VALUES ('a1')\")");
    let store = check(&images[0], 0, "same");
    assert_eq!(store["bytes"].as_u64(), Some(database.metadata().unwrap().len()));
    assert!(store["server"].as_str().is_some_and(|server| server.starts_with("sqlite 3.")), "{store}");
    assert_eq!(check(&images[1], 12, "behind")["migrations"], 2);
    execute("c.execute(\"UPDATE alembic_version SET version_num = 'c3'\")");
    check(&images[0], 14, "ahead");
    check(&images[1], 0, "same");
}

#[test]
fn a_pod_that_cannot_ask_is_named_with_its_cause() {
    let Some(world) = World::new() else { return };
    let image = world.image("one", &["a1"]);
    let uri = world.database();
    let check = |uri: &str, fate: Fate, code: i32, expected: &str| {
        world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", uri)]);
        world.api.set(fate);
        let answer = world.ask(&image);
        let text = answer.value["error"].to_string();
        assert!(answer.code == Some(code) && text.contains(expected), "{fate:?}: {:?} {text}", answer.code);
        assert!(answer.value["error"]["hint"].is_string(), "{text}");
        assert_eq!(world.api.jobs().1, Vec::<String>::new(), "a Job is left");
    };
    let policy = "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": x";
    check(&uri, Fate::Refuse(policy), 18, "violates PodSecurity");
    check(&uri, Fate::Wait("CreateContainerConfigError", "secret \"s\" not found"), 18, "secret \\\"s\\\" not found");
    check(&uri, Fate::Wait("InvalidImageName", "no name"), 17, "the image's name is invalid");
    check(&format!("nonsense://ann:{PASSWORD}@h/d"), Fate::Run(0), 6, "Can't load plugin");
}

#[test]
fn two_who_ask_at_once_share_a_job_and_none_is_left() {
    let Some(world) = World::new() else { return };
    world.migrate_to("a1");
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &world.database())]);
    world.api.set(Fate::Run(3_000));
    let image = world.image("one", &["a1"]);
    let first = world.begin(&image);
    world.api.until("a Job is made", |api| api.jobs().0 == 1);
    let second = world.begin(&image);
    for child in [first, second] {
        let answer = Answer::of(child.wait_with_output().unwrap());
        assert_eq!(answer.code, Some(0), "{}\n{}", answer.value, answer.told);
    }
    assert_eq!(world.api.jobs().1, Vec::<String>::new());
}

#[test]
fn what_a_killed_run_left_is_taken_up_or_removed() {
    let Some(world) = World::new() else { return };
    world.migrate_to("a1");
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &world.database())]);
    let image = world.image("one", &["a1"]);
    let kill_after_the_start = |made: usize| {
        let mut child = world.begin(&image);
        world.api.until("a Job is made", |api| api.jobs().0 == made);
        child.kill().unwrap();
        child.wait().unwrap();
    };
    // It is under way still.
    world.api.set(Fate::Run(4_000));
    kill_after_the_start(1);
    let joined = world.ask(&image);
    assert_eq!((joined.code, world.api.jobs()), (Some(0), (1, Vec::new())), "{}", joined.told);
    assert!(joined.told.contains("Joining"), "{}", joined.told);
    // It has ended: its answer is of another time.
    world.api.set(Fate::Run(500));
    kill_after_the_start(2);
    world.api.until("the Job ends", Api::has_ended);
    let anew = world.ask(&image);
    assert_eq!((anew.code, world.api.jobs()), (Some(0), (3, Vec::new())), "{}", anew.told);
    // Someone removes it under our hands.
    world.api.set(Fate::Remove);
    let again = world.ask(&image);
    assert_eq!((again.code, world.api.jobs()), (Some(0), (5, Vec::new())), "{}", again.told);
}

#[test]
fn an_api_server_that_is_away_for_a_while_ends_nothing() {
    let Some(world) = World::new() else { return };
    world.migrate_to("a1");
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &world.database())]);
    world.api.set(Fate::Run(1_000));
    let child = world.begin(&world.image("one", &["a1"]));
    world.api.until("a Job is made", |api| api.jobs().0 == 1);
    world.api.away(true);
    // Longer than one question is repeated.
    std::thread::sleep(Duration::from_secs(23));
    world.api.away(false);
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.code, world.api.jobs()), (Some(0), (1, Vec::new())), "{}", answer.told);
    assert!(answer.told.contains("Retrying"), "{}", answer.told);
}

#[test]
fn an_interrupted_run_removes_its_job() {
    let Some(world) = World::new() else { return };
    world.api.deploy(&[("MLFLOW_BACKEND_STORE_URI", &world.database())]);
    world.api.set(Fate::Run(60_000));
    let child = world.begin(&world.image("one", &["a1"]));
    world.api.until("a Job is made", |api| api.jobs().0 == 1);
    interrupt(&child);
    let answer = Answer::of(child.wait_with_output().unwrap());
    assert_eq!((answer.code, world.api.jobs()), (Some(130), (1, Vec::new())), "{}", answer.told);
}

fn interrupt(child: &Child) {
    let status = testbed::command(Path::new("kill")).args(["-INT", &child.id().to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()));
}
