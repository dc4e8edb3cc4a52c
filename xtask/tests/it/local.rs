//! The local server: real sandboxes, real processes. Root or user namespaces are needed; without
//! them the tests are skipped, and fail in CI.

mod engine;
mod images;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::Home;

use images::image;

/// An environment in a home of its own; its server is stopped at the end.
struct World {
    home: Home,
    port: u16,
    /// Run as this user, if not as our own.
    user: Option<&'static str>,
    /// More variables.
    env: Vec<(&'static str, String)>,
}

impl World {
    /// `None` where namespaces are forbidden.
    fn new() -> Option<Self> {
        if !testbed::have_namespaces() {
            assert!(std::env::var_os("CI").is_none(), "this machine forbids namespaces");
            testbed::skip("this machine forbids namespaces");
            return None;
        }
        Some(Self { home: Home::new(), port: testbed::free_port(), user: None, env: Vec::new() })
    }

    fn image(&self, name: &str, settings: &[(&str, &str)]) -> PathBuf {
        image(&self.home.path().join("images"), name, settings)
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_xtask");
        let mut command = match self.user {
            None => self.home.command(program),
            Some(user) => {
                let mut command = self.home.command("setpriv");
                command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups", program]);
                command
            }
        };
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(args).env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn deploy_args<'a>(&self, image: &'a str, port: &'a str) -> Vec<&'a str> {
        vec!["deploy", "--json", "--no-smoke", "--wait", "20", "--image", image, "--port", port]
    }

    /// Deploys and checks the exit code; gives the answer and what was said on stderr.
    fn deploy(&self, image: &Path, code: i32) -> (Value, String) {
        let (image, port) = (format!("oci:{}", image.display()), self.port.to_string());
        answer(&self.run(&self.deploy_args(&image, &port)), code)
    }

    fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn state(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.environment().join("state.json")).unwrap()).unwrap()
    }

    fn pid(&self) -> i64 {
        self.status()["pid"].as_i64().expect("a server runs")
    }

    fn get(&self, path: &str) -> String {
        get(self.port, path).expect("the server answers")
    }

    fn environment(&self) -> PathBuf {
        self.home.path().join("data/mlflow-on-kubernetes/local")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
        } else if let Ok(log) = std::fs::read_to_string(self.environment().join("log/server.log")) {
            eprintln!("the server's log:\n{log}");
        }
    }
}

fn answer(output: &Output, code: i32) -> (Value, String) {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    (serde_json::from_str(&out).unwrap_or(Value::Null), err.into_owned())
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// Waits until `seen` gives something.
fn eventually<T>(what: &str, seen: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn signal(pid: i64, name: &str) {
    assert!(testbed::command("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn data_survives_down_and_up_and_nothing_changed_is_left_alone() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    let (first, _) = world.deploy(&one, 0);
    assert_eq!((first["changed"].as_bool(), first["env"].as_str()), (Some(true), Some("local")));
    assert_eq!(first["url"], format!("http://127.0.0.1:{}", world.port));
    world.get("/write");
    let pid = world.pid();

    let begun = Instant::now();
    let (second, _) = world.deploy(&one, 0);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((second["changed"].as_bool(), &second["image"]), (Some(false), &first["image"]));
    assert_eq!(world.pid(), pid);

    assert!(world.run(&["down"]).status.success());
    assert_eq!(world.run(&["status"]).status.code(), Some(12));
    assert!(get(world.port, "/health").is_err());
    assert!(world.run(&["down"]).status.success(), "nothing runs is no error");
    world.deploy(&one, 0);
    assert_eq!(world.get("/database"), "1\nrow\n");
    assert_ne!(world.pid(), pid);
}

#[test]
fn a_changed_image_replaces_the_server_and_keeps_the_data() {
    let Some(world) = World::new() else { return };
    world.deploy(&world.image("one", &[("SCHEMA", "1")]), 0);
    world.get("/write");
    let (second, _) = world.deploy(&world.image("two", &[("SCHEMA", "2")]), 0);
    assert_eq!(second["changed"], true);
    assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("two", "2\nrow\n"));
}

#[test]
fn when_the_new_one_fails_the_old_one_runs_again_with_its_data() {
    let Some(world) = World::new() else { return };
    world.deploy(&world.image("one", &[("SCHEMA", "1")]), 0);
    world.get("/write");
    type Settings<'a> = &'a [(&'a str, &'a str)];
    let failing: [(&str, Settings<'_>, &str); 4] = [
        ("exits", &[("SCHEMA", "2"), ("BEHAVIOUR", "exit")], "this one cannot work"),
        ("refuses", &[("SCHEMA", "2"), ("MIGRATION", "none")], "ended before it served (exit code 4)"),
        ("half", &[("SCHEMA", "2"), ("MIGRATION", "fails")], "could not be migrated (exit code 1)"),
        ("absent", &[("SCHEMA", "1"), ("PATH", "/nowhere")], "the image has no such program"),
    ];
    for (name, settings, expected) in failing {
        let (error, said) = world.deploy(&world.image(name, settings), 10);
        assert_eq!(error["error"]["kind"], "rolled-back", "{name}");
        assert!(said.contains(expected), "{name}: {said}");
        assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("one", "1\nrow\n"), "{name}");
        assert_eq!(world.status()["proven"], true, "{name}");
    }
    // And the one that is asked for next is not hindered.
    world.deploy(&world.image("two", &[("SCHEMA", "2")]), 0);
    assert_eq!(world.get("/database"), "2\nrow\n");
}

#[test]
fn a_server_that_fails_its_smoke_test_is_undone() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    let two = format!("oci:{}", world.image("two", &[("SCHEMA", "2")]).display());
    let (_, said) = answer(&world.run(&["deploy", "--json", "--image", &two]), 10);
    assert!(said.contains("fails its smoke test"), "{said}");
    assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("one", "1\n"));
}

#[test]
fn with_nothing_to_go_back_to_nothing_serves_and_the_cause_is_told() {
    let Some(world) = World::new() else { return };
    let (_, said) = world.deploy(&world.image("exits", &[("BEHAVIOUR", "exit")]), 11);
    assert!(said.contains("exit code 3") && said.contains("this one cannot work"), "{said}");
    assert_eq!(world.run(&["status"]).status.code(), Some(12));
    let (_, said) = world.deploy(&world.image("sick", &[("BEHAVIOUR", "sick"), ("SCHEMA", "1")]), 11);
    assert!(said.contains("did not serve within 20 s") && said.contains("503"), "{said}");
    assert!(get(world.port, "/health").is_err(), "it is stopped");
}

#[test]
fn a_server_that_died_is_started_again() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    world.get("/write");
    // The supervisor is killed: everything inside must go with it.
    signal(world.pid(), "-KILL");
    eventually("the port is free", || get(world.port, "/health").err());
    let (again, _) = world.deploy(&one, 0);
    assert_eq!(again["changed"], true);
    assert_eq!(world.get("/database"), "1\nrow\n");
}

#[test]
fn a_deploy_that_is_killed_anywhere_is_completed_by_the_next() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    let two = world.image("two", &[("SCHEMA", "2")]);
    world.deploy(&one, 0);
    world.get("/write");
    let (image, port) = (format!("oci:{}", two.display()), world.port.to_string());
    for after in [5, 20, 40, 60, 80, 110, 150, 200, 300] {
        let mut child = world
            .command(&world.deploy_args(&image, &port))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(after));
        child.kill().unwrap();
        child.wait().unwrap();
        world.deploy(&two, 0);
        assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("two", "2\nrow\n"), "{after} ms");
        assert_eq!(world.status()["proven"], true, "{after} ms");
        // From the old image again.
        world.deploy(&one, 0);
        assert_eq!(world.get("/database"), "1\nrow\n", "{after} ms");
    }
}

#[test]
fn a_migration_that_is_killed_half_way_is_undone_first() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    world.get("/write");
    for how in ["-KILL", "-INT"] {
        let slow = world.image("slow", &[("SCHEMA", "2"), ("MIGRATION", "slow")]);
        let (image, port) = (format!("oci:{}", slow.display()), world.port.to_string());
        let mut child = world
            .command(&world.deploy_args(&image, &port))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let database = world.environment().join("data/mlflow.db");
        eventually("the migration has begun", || (std::fs::read_to_string(&database).ok()? == "half").then_some(()));
        signal(i64::from(child.id()), how);
        let ended = child.wait().unwrap();
        if how == "-INT" {
            assert_eq!(ended.code(), Some(130));
        }
        assert_eq!(world.status()["running"], false);
        world.deploy(&one, 0);
        assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("one", "1\nrow\n"), "{how}");
    }
}

#[test]
fn two_deploys_at_once_are_refused() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    let slow = world.image("slow", &[("SCHEMA", "2"), ("MIGRATION", "slow")]);
    let (image, port) = (format!("oci:{}", slow.display()), world.port.to_string());
    let mut child =
        world.command(&world.deploy_args(&image, &port)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let database = world.environment().join("data/mlflow.db");
    eventually("the migration has begun", || (std::fs::read_to_string(&database).ok()? == "half").then_some(()));
    let (error, said) = world.deploy(&one, 9);
    assert_eq!(error["error"]["kind"], "locked");
    assert!(said.contains(&format!("(process {})", child.id())), "{said}");
    assert_eq!(world.run(&["down"]).status.code(), Some(9));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_taken_port_is_named_with_its_holder() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    let listener = std::net::TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    let (_, said) = world.deploy(&one, 8);
    assert!(said.contains(&format!("port {} is taken", world.port)), "{said}");
    assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    drop(listener);
    world.deploy(&one, 0);
    // Another port is another server, with the same data.
    world.get("/write");
    let (image, port) = (format!("oci:{}", one.display()), testbed::free_port());
    answer(&world.run(&world.deploy_args(&image, &port.to_string())), 0);
    assert_eq!(get(port, "/database").unwrap(), "1\nrow\n");
    assert!(get(world.port, "/health").is_err());
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let Some(world) = World::new() else { return };
    let one = format!("oci:{}", world.image("one", &[("SCHEMA", "1")]).display());
    let output = world.run(&["deploy", "--dry-run", "--image", &one]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("unpack image") && text.contains("prove that it works"), "{text}");
    assert!(!world.environment().exists());
}

#[test]
fn data_is_deleted_only_when_asked_for() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    let refused = world.run(&["down", "--delete-data"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(world.get("/name"), "one");
    assert!(world.run(&["down", "--delete-data", "--yes"]).status.success());
    assert!(!world.environment().join("data").exists());
    world.deploy(&world.image("two", &[("SCHEMA", "2")]), 0);
    assert_eq!(world.get("/database"), "2\n");
}

#[test]
fn the_data_that_is_deleted_is_what_was_deployed() {
    let Some(mut world) = World::new() else { return };
    let elsewhere = world.home.path().join("elsewhere");
    world.env.push(("XTASK_DATA", elsewhere.display().to_string()));
    world.deploy(&world.image("one", &[("SCHEMA", "1")]), 0);
    world.env.clear();
    let (answer, _) = answer(&world.run(&["down", "--delete-data", "--yes", "--json"]), 0);
    assert_eq!(answer["data"], elsewhere.display().to_string());
    assert!(!elsewhere.exists());
}

#[test]
fn a_full_disk_is_named_leaves_the_old_server_alone_and_the_next_run_finishes() {
    let Some(world) = World::new() else { return };
    let one = world.image("one", &[("SCHEMA", "1")]);
    world.deploy(&one, 0);
    world.get("/write");
    let pid = world.pid();
    let roots = world.home.path().join("cache/mlflow-on-kubernetes/roots");
    let data = world.environment().join("data");
    let two = world.image("two", &[("SCHEMA", "2")]);
    // In a mount namespace of its own, where this folder is a small disk.
    for (folder, size, expected) in [
        (&roots, "128k", ["No space left on device", "free some space"]),
        (&data, "8m", ["are needed", "nothing was changed"]),
    ] {
        let (image, port) = (format!("oci:{}", two.display()), world.port.to_string());
        let inner = world.command(&world.deploy_args(&image, &port));
        let mut command = world.home.command("unshare");
        command.args(if testbed::is_root() { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
        command.args(["sh", "-c", "mount -t tmpfs -o size=$0 none \"$1\" && shift && exec \"$@\"", size]);
        command.arg(folder).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let (error, said) = answer(&command.output().unwrap(), 8);
        assert_eq!(error["error"]["kind"], "machine", "{said}");
        for expected in expected {
            assert!(said.contains(expected), "{expected}: {said}");
        }
        assert_eq!((world.pid(), world.get("/name").as_str()), (pid, "one"), "{said}");
        assert_eq!(world.status()["proven"], true);
    }
    world.deploy(&two, 0);
    assert_eq!((world.get("/name").as_str(), world.get("/database").as_str()), ("two", "2\nrow\n"));
}

#[test]
fn where_nothing_can_run_it_every_reason_is_told() {
    let Some(world) = World::new() else { return };
    let one = format!("oci:{}", world.image("one", &[("SCHEMA", "1")]).display());
    let inner = world.command(&["deploy", "--json", "--image", &one]);
    let mut command = world.home.command("unshare");
    // A user namespace that allows none below it, no capabilities, and no docker or podman on the PATH.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
        exec setpriv --bounding-set=-all --inh-caps=-all env PATH=/nowhere \"$@\"";
    command
        .args(["--user", "--map-root-user", "sh", "-c", script, "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (error, said) = answer(&command.output().unwrap(), 8);
    assert_eq!(error["error"]["kind"], "machine", "{said}");
    for expected in [
        "create a user namespace: user.max_user_namespaces is reached",
        "docker: docker is not installed",
        "podman: podman is not installed",
        "hint",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    // Asked for by name, the reason is that one's alone.
    let mut command = world.command(&["deploy", "--json", "--image", &one]);
    let (error, said) = answer(&command.env("XTASK_SANDBOX", "docker").env("PATH", "/nowhere").output().unwrap(), 7);
    assert_eq!(error["error"]["kind"], "tool", "{said}");
    assert!(said.contains("docker is not installed") && !said.contains("podman"), "{said}");
}

#[test]
fn nobody_can_run_it_without_root() {
    let Some(mut world) = World::new() else { return };
    if !testbed::command("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n") {
        // Then every other test here is the proof.
        return;
    }
    world.user = Some("nobody");
    let one = world.image("one", &[("SCHEMA", "1")]);
    let own = testbed::command("chown").args(["-R", "nobody:nogroup"]).arg(world.home.path()).status().unwrap();
    assert!(own.success());
    let reachable = world.run(&["--version"]);
    if !reachable.status.success() {
        testbed::skip("this checkout cannot be read by another user");
        return;
    }
    world.deploy(&one, 0);
    world.get("/write");
    assert_eq!(world.deploy(&one, 0).0["changed"], false);
    world.deploy(&world.image("two", &[("SCHEMA", "2")]), 0);
    assert_eq!(world.get("/database"), "2\nrow\n");
}
