//! The schema that an image's MLflow works with, beside what MLflow itself says.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use testbed::{Home, Proxy, Registry};

use crate::image;
use crate::mlflow::envs::Python;
use crate::mlflow::server::Database;

/// What `db status` runs in the cluster.
const STATUS: &str = concat!(include_str!("../../src/schema/stores.py"), include_str!("../../src/schema/status.py"));

/// MLflow's own answer, by alembic, in the form of ours.
const ASK: &str = "
import json
from alembic.script import ScriptDirectory
from mlflow.server.auth.db import utils as login
from mlflow.store.db import utils as tracking

def head(config):
    scripts = ScriptDirectory.from_config(config)
    return {'head': scripts.get_current_head(), 'revisions': len(list(scripts.walk_revisions()))}

print(json.dumps({'tracking': head(tracking._get_alembic_config('')), 'login': head(login._get_alembic_config(''))}))
";

fn head(home: &Home, args: &[&str]) -> Command {
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.args(["db", "head", "--json"]).args(args).stdin(Stdio::null());
    command.env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR"));
    command
}

fn run(mut command: Command) -> (Option<i32>, Value) {
    let Output { status, stdout, stderr } = command.output().expect("xtask starts");
    let err = String::from_utf8_lossy(&stderr);
    (status.code(), serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {err}")))
}

fn answer(command: Command) -> Value {
    let (code, value) = run(command);
    assert_eq!(code, Some(0), "{value}");
    value
}

/// What the locked MLflow says of itself.
fn by_mlflow(home: &Home) -> Option<Value> {
    let python = Python::server()?;
    let mut command = home.command(python.interpreter());
    command.args(["-c", ASK]).env("MLFLOW_DISABLE_TELEMETRY", "true").env("GIT_PYTHON_REFRESH", "quiet");
    let output = command.output().expect("python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn without_image(mut answer: Value) -> Value {
    answer.as_object_mut().expect("an object").remove("image");
    answer
}

fn blobs(home: &Home) -> BTreeSet<String> {
    let folder = home.path().join("cache/mlflow-on-kubernetes/blobs");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn document(layout: &Path, digest: &str) -> Value {
    let file = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    serde_json::from_slice(&std::fs::read(file).expect("a blob")).expect("JSON")
}

/// The digests of the manifests and the config of the layout's only image, and of the layer with MLflow.
fn needed(layout: &Path) -> BTreeSet<String> {
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    let mut digests = vec![index["manifests"][0]["digest"].as_str().unwrap().to_owned()];
    let mut manifest = document(layout, &digests[0]);
    if let Some(inner) = manifest["manifests"][0]["digest"].as_str() {
        digests.push(inner.to_owned());
        manifest = document(layout, inner);
    }
    let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
    let history = document(layout, &config)["history"].as_array().unwrap().clone();
    let made = |layer: &Value, name: &str| layer["created_by"].as_str().unwrap().contains(name);
    // The layer of MLflow, and that of our own files, which lies above it and whose content is not told.
    for layer in (0..history.len()).filter(|n| made(&history[*n], "mlflow==") || made(&history[*n], "/etc/mlflow")) {
        digests.push(manifest["layers"][layer]["digest"].as_str().unwrap().to_owned());
    }
    digests.push(config);
    digests.iter().map(|digest| digest.trim_start_matches("sha256:").to_owned()).collect()
}

#[test]
fn the_head_of_an_image_is_what_its_mlflow_says() {
    let home = Home::new();
    let Some(expected) = by_mlflow(&home) else { return };
    let layout = image::layout();
    let on_disk = answer(head(&home, &["--image", &format!("oci:{}", layout.display())]));
    assert_eq!(without_image(on_disk), expected);

    let home = Home::new();
    let mut built = head(&home, &[]);
    image::keep_package_settings(&mut built);
    built.env("CARGO_MANIFEST_DIR", image::project(&home)).env("XDG_CACHE_HOME", image::cache_home());
    assert_eq!(without_image(answer(built)), expected);

    let Some(registry) = Registry::start() else { return };
    let proxy = Proxy::start(registry.address());
    let reference = format!("{}/team/mlflow:1", proxy.host());
    let pusher = Home::new();
    let mut push = pusher.command(env!("CARGO_BIN_EXE_xtask"));
    push.args(["push-layout", "--json"]).arg(layout).arg(&reference).stdin(Stdio::null());
    answer(push);

    let home = Home::new();
    let first = answer(head(&home, &["--image", &reference]));
    assert_eq!(without_image(first.clone()), expected);
    assert_eq!(blobs(&home), needed(layout), "no more is fetched than may tell it");

    // By its digest it is known from now on: nobody is asked.
    let by_digest = first["image"].as_str().unwrap().to_owned();
    proxy.reset();
    assert_eq!(answer(head(&home, &["--image", &by_digest, "--offline"])), first);
    assert_eq!(proxy.log().len(), 0);

    // What was kept is of no use when it is damaged.
    for file in std::fs::read_dir(home.path().join("cache/mlflow-on-kubernetes/schemas")).unwrap() {
        std::fs::write(file.unwrap().path(), r#"{"tracking":{"b":["a"]},"login":null}"#).unwrap();
    }
    assert_eq!(answer(head(&home, &["--image", &by_digest])), first);
}

/// A layout with one image of these files.
pub fn layout(dir: &Path, files: &[(&str, &str)]) -> String {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let layer = tar.into_inner().unwrap();
    std::fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    let put = |bytes: &[u8]| -> Value {
        let digest = mlflow_image::Digest::of(bytes);
        std::fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": bytes.len() })
    };
    let config = json!({
        "architecture": image::architecture(), "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": [mlflow_image::Digest::of(&layer)] },
    });
    let manifest = json!({ "schemaVersion": 2, "config": put(config.to_string().as_bytes()), "layers": [put(&layer)] });
    let manifest = put(manifest.to_string().as_bytes());
    std::fs::write(dir.join("index.json"), json!({ "manifests": [manifest] }).to_string()).unwrap();
    format!("oci:{}", dir.display())
}

#[test]
fn an_image_that_does_not_tell_its_schema_is_refused() {
    let home = Home::new();
    let check = |name: &str, files: &[(&str, &str)], expected: &str| {
        let image = layout(&home.path().join(name), files);
        let (code, value) = run(head(&home, &["--image", &image]));
        let error = &value["error"];
        let text = format!("{} {}", error["message"], error["causes"]);
        assert!(code == Some(4) && text.contains(expected), "{name}: {code:?} {value}");
        assert!(error["hint"].is_string(), "{name}: {value}");
    };
    let site = "usr/lib/python3/dist-packages/mlflow/store/db_migrations/versions";
    let migration = |name: &str| format!("{site}/{name}.py");
    let (a, b) = (migration("a"), migration("b"));
    let first = "revision = 'a'\ndown_revision = None\n";
    check("none", &[("etc/passwd", "root")], "no MLflow with a database's migrations is in it");
    check("binary", &[(&a, "\u{0}\u{1}revision")], "a.py is no migration");
    check("code", &[(&a, "import os\nrevision = os.environ['X']\ndown_revision = None\n")], "the value is no literal");
    check("heads", &[(&a, first), (&b, "revision = 'b'\ndown_revision = None\n")], "several heads");
    check("gap", &[(&b, "revision = 'b'\ndown_revision = 'a'\n")], "follows revision a, which is not there");

    let good = layout(&home.path().join("good"), &[(&a, first)]);
    let answer = answer(head(&home, &["--image", &good]));
    assert_eq!(answer["tracking"], json!({ "head": "a", "revisions": 1 }));
    assert_eq!(answer["login"], Value::Null);
}

/// Runs a program of the server's Python with this database; its output, and whether it went well.
pub fn python(home: &Home, python: &Python, uri: &str, args: &[&str], change: &dyn Fn(&mut Command)) -> (bool, String) {
    let mut command = home.command(python.interpreter());
    command.args(args).env("MLFLOW_BACKEND_STORE_URI", uri).env("MLFLOW_DISABLE_TELEMETRY", "true");
    command.env("GIT_PYTHON_REFRESH", "quiet").env("PYTHONDONTWRITEBYTECODE", "1");
    change(&mut command);
    let output = command.stdin(Stdio::null()).output().expect("python starts");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// What the stores' databases hold.
pub fn status(home: &Home, with: &Python, uri: &str, change: &dyn Fn(&mut Command)) -> Vec<Value> {
    let (well, text) = python(home, with, uri, &["-c", STATUS], change);
    assert!(well, "{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("mlflow-server-schema "));
    lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn tells_its_schema(home: &Home, with: &Python, uri: &str, engine: &str) {
    let unchanged = |_: &mut Command| {};
    let run = |program: &str| {
        let (well, text) = python(home, with, uri, &["-c", program], &unchanged);
        assert!(well, "{text}");
    };
    let empty = status(home, with, uri, &unchanged).remove(0);
    assert_eq!((&empty["revisions"], &empty["holds"]), (&json!([]), &json!(false)), "{empty}");
    let head = empty["head"].as_str().expect("a head").to_owned();
    assert!(empty["server"].as_str().is_some_and(|server| server.starts_with(engine)), "{empty}");

    let upgrade = "import os, mlflow.store.db.utils as u; e = u.create_sqlalchemy_engine(os.environ['MLFLOW_BACKEND_STORE_URI']); u._initialize_tables(e)";
    run(upgrade);
    let full = status(home, with, uri, &unchanged).remove(0);
    // Tables without anything in them are what a start leaves that was cut short.
    assert_eq!((&full["revisions"], &full["holds"]), (&json!([head]), &json!(false)), "{full}");
    assert!(full["bytes"].as_u64() > empty["bytes"].as_u64(), "{full} {empty}");

    let execute = |statement: &str| {
        run(&format!(
            "import os, sqlalchemy as s\nwith s.create_engine(os.environ['MLFLOW_BACKEND_STORE_URI']).begin() as c:\n \
             c.execute(s.text({statement:?}))"
        ));
    };
    execute("INSERT INTO experiments (experiment_id, name, workspace) VALUES (7, 'kept', 'default')");
    assert_eq!(status(home, with, uri, &unchanged)[0]["holds"], json!(true));
    execute("UPDATE alembic_version SET version_num = '728d730b5ebd'");
    assert_eq!(status(home, with, uri, &unchanged)[0]["revisions"], json!(["728d730b5ebd"]));
    execute("DROP TABLE alembic_version");
    let unclear = status(home, with, uri, &unchanged).remove(0);
    assert_eq!((&unclear["revisions"], &unclear["holds"]), (&json!([]), &json!(true)));

    // The login's store, in the same database.
    let config = home.file("auth.ini");
    let text = format!("[mlflow]\ndefault_permission = READ\ndatabase_uri = {}\n", uri.replace('%', "%%"));
    std::fs::write(&config, text).unwrap();
    let with_login = |command: &mut Command| {
        command.env("MLFLOW_AUTH_CONFIG_PATH", &config);
    };
    let login = status(home, with, uri, &with_login).remove(1);
    assert_eq!((&login["store"], &login["revisions"]), (&json!("login"), &json!([])));
    run(
        "import os, sqlalchemy as s, mlflow.server.auth.db.utils as u; u.migrate(s.create_engine(os.environ['MLFLOW_BACKEND_STORE_URI']), 'head')",
    );
    let login = status(home, with, uri, &with_login).remove(1);
    assert_eq!(login["revisions"], json!([login["head"]]), "{login}");
}

#[test]
fn a_database_tells_its_schema() {
    let Some(with) = Python::server() else { return };
    let home = Home::new();
    tells_its_schema(&home, &with, &format!("sqlite:///{}", home.file("mlflow.db").display()), "sqlite 3");
    let Some(database) = Database::postgresql() else { return };
    let home = Home::new();
    tells_its_schema(&home, &with, &database.uri(&home), "postgresql 1");
}

#[test]
fn a_database_that_cannot_be_asked_is_named_without_its_password() {
    let Some(with) = Python::server() else { return };
    let home = Home::new();
    // Without its patience with a database that may come back.
    let program = STATUS.replace("PATIENCE = 30", "PATIENCE = 0");
    assert_ne!(program, STATUS);
    for (uri, expected) in [
        ("postgresql://ann:hush@127.0.0.1:1/x", "Connection refused"),
        ("nonsense://ann:hush@127.0.0.1/x", "nonsense"),
        ("ann:hush", "Could not parse SQLAlchemy URL"),
    ] {
        let (well, text) = python(&home, &with, uri, &["-c", &program], &|_| {});
        assert!(!well && text.contains(expected) && !text.contains("hush"), "{uri}: {text}");
        assert!(!text.contains("Traceback"), "{uri}: {text}");
    }
}
