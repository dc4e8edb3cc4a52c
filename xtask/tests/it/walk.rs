//! The main walk with the real image: from an empty home to a proven server, down, and the same
//! again offline.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testbed::Home;

use crate::image;

/// An empty home with a copy of the project. Its server is stopped at the end.
struct World {
    home: Home,
    root: std::path::PathBuf,
}

impl World {
    fn new() -> Self {
        let home = Home::new();
        let root = image::project(&home);
        Self { home, root }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        // Where packages come from is the machine's setting.
        let kept = ["PIP_", "UV_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
        let setting = |name: &std::ffi::OsStr| {
            let upper = name.to_string_lossy().to_uppercase();
            kept.iter().any(|kept| upper.starts_with(kept))
        };
        command.envs(std::env::vars_os().filter(|(name, _)| setting(name)));
        command.args(args).env("CARGO_MANIFEST_DIR", &self.root).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Value {
        let output = self.command(args).arg("--json").output().expect("xtask starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {err}"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let down = self.command(&["down"]).output();
        if std::thread::panicking() {
            let log = self.home.path().join("data/mlflow-on-kubernetes/local/log/server.log");
            eprintln!("the server's log:\n{}", fs::read_to_string(log).unwrap_or_default());
            return;
        }
        assert!(down.is_ok_and(|down| down.status.success()));
    }
}

/// Gives the home the downloads that all tests share, by links: they are only ever added.
fn lend_downloads(world: &World) {
    image::layout();
    let from = image::cache_home().join("mlflow-on-kubernetes/downloads");
    let to = world.home.path().join("cache/mlflow-on-kubernetes/downloads");
    fs::create_dir_all(&to).expect("a folder");
    for entry in fs::read_dir(from).expect("downloads").map(|entry| entry.expect("an entry")) {
        let target = to.join(entry.file_name());
        if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

fn passed(answer: &Value) -> usize {
    let checks = answer["checks"].as_array().expect("checks");
    assert!(checks.iter().all(|check| check["ok"] == true), "{answer}");
    checks.len()
}

#[test]
fn from_an_empty_home_to_a_proven_server_and_again_offline() {
    if !testbed::have_namespaces() {
        assert!(std::env::var_os("CI").is_none(), "this machine forbids namespaces");
        testbed::skip("this machine forbids namespaces");
        return;
    }
    let world = World::new();
    lend_downloads(&world);
    let port = testbed::free_port().to_string();

    let first = world.run(&["deploy", "--port", &port]);
    assert_eq!((first["changed"].as_bool(), first["env"].as_str()), (Some(true), Some("local")));
    assert_eq!(first["url"], format!("http://127.0.0.1:{port}"));
    assert!(passed(&first) >= 8, "{first}");

    let status = world.run(&["status"]);
    assert_eq!((status["healthy"].as_bool(), status["proven"].as_bool()), (Some(true), Some(true)));
    assert_eq!((&status["image"], &status["version"]), (&first["image"], &first["version"]));
    let who = testbed::run(Path::new("/usr/bin/id"), &["-un"]);
    assert_eq!(status["by"], who.trim());

    let second = world.run(&["deploy"]);
    assert_eq!((second["changed"].as_bool(), &second["image"]), (Some(false), &first["image"]));
    assert_eq!(world.run(&["status"])["pid"], status["pid"]);

    assert_eq!(world.run(&["down"])["stopped"], true);
    let offline = world.run(&["--offline", "deploy"]);
    assert_eq!((offline["changed"].as_bool(), &offline["image"]), (Some(true), &first["image"]));
    assert_eq!(offline["url"], first["url"]);
    assert_eq!(passed(&offline), passed(&first));
    assert!(passed(&world.run(&["smoke", "--env", "local"])) >= 8);

    // Everything gone but the caches: the image is unpacked again, nothing is downloaded.
    world.run(&["down", "--delete-data", "--yes"]);
    fs::remove_dir_all(world.home.path().join("cache/mlflow-on-kubernetes/roots")).expect("unpacked images");
    let again = world.run(&["--offline", "deploy", "--no-smoke"]);
    assert_eq!((again["changed"].as_bool(), &again["image"]), (Some(true), &first["image"]));
}
