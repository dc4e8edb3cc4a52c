//! The testbed itself: a real node with addresses of its own, beside whatever a developer runs.
//! Needs root, the node's programs and, the first time, Go. One test, because a node takes seconds
//! and most of a core.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::Home;
use testbed::cluster::{self, Module, Silent, TOOLS};

/// A testbed of this test's own; taken down at the end, whatever happens.
struct World {
    home: Home,
    go: PathBuf,
    name: String,
    args: Vec<String>,
}

impl World {
    /// `None` where this machine cannot run one.
    fn new() -> Option<Self> {
        let missing = |why: &str| {
            assert!(std::env::var_os("CI").is_none(), "{why}");
            testbed::skip(why);
        };
        if !testbed::is_root() {
            missing("a testbed's node needs root");
            return None;
        }
        for (tool, package) in TOOLS.iter().chain([&("runc", "runc"), &("psql", "postgresql-client")]) {
            testbed::require(tool, package)?;
        }
        let Some(go) = testbed::cluster::go_candidates().into_iter().next() else {
            missing(testbed::cluster::GO);
            return None;
        };
        let id = std::process::id();
        let name = format!("tb-{id}");
        let root = PathBuf::from("/var/tmp").join(&name);
        let home = Home::new();
        let args = [
            ("--root", root.display().to_string()),
            ("--name", name.clone()),
            ("--out", home.path().join("out").display().to_string()),
            ("--programs", programs().display().to_string()),
            ("--link", format!("10.203.{}.{}", id / 64 % 256, id % 64 * 4)),
            ("--pods", format!("10.247.{}.0", id % 256)),
            ("--services", format!("10.{}.0.0", 128 + id % 64)),
            ("--registry-port", testbed::free_port().to_string()),
            ("--login-registry-port", testbed::free_port().to_string()),
            ("--google-port", testbed::free_port().to_string()),
        ];
        let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        Some(Self { home, go, name, args })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        // Where Go's modules come from is the machine's business, and building Kubernetes a second
        // time because HOME is another is nobody's.
        let go =
            testbed::command(&self.go).args(["env", "GOENV", "GOMODCACHE", "GOCACHE"]).output().expect("go starts");
        let go = String::from_utf8(go.stdout).expect("paths");
        command.envs(["GOENV", "GOMODCACHE", "GOCACHE"].into_iter().zip(go.lines()));
        command.envs(std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("GO") || name.starts_with("SSL_CERT_") || name.to_ascii_uppercase().ends_with("_PROXY")
        }));
        command.arg("testbed").args(args).arg("--json").args(&self.args);
        command.env("CARGO_MANIFEST_DIR", env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Value {
        let output = self.command(args).output().expect("xtask starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {err}"))
    }

    fn fail(&self, args: &[&str]) -> i32 {
        let output = self.command(args).output().expect("xtask starts");
        assert!(!output.status.success(), "{args:?} was to fail: {}", String::from_utf8_lossy(&output.stdout));
        output.status.code().expect("an exit code")
    }

    /// Everything on this machine that has our name.
    fn traces(&self) -> BTreeSet<String> {
        let names = |dir: &str| {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&self.name));
        let mut found: BTreeSet<String> = names("/var/tmp")
            .into_iter()
            .chain(names("/sys/class/net"))
            .chain(names("/sys/fs/cgroup"))
            .chain(names("/sys/fs/cgroup").iter().flat_map(|dir| names(&dir.display().to_string())))
            .filter(ours)
            .map(|path| path.display().to_string())
            .collect();
        let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
        found.extend(mounts.lines().filter(|line| line.contains(&self.name)).map(str::to_owned));
        for process in names("/proc") {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&format!("/{} ", self.name)) || line.contains(&format!("/{}/", self.name)) {
                found.insert(format!("{}: {line}", process.display()));
            }
        }
        if self.home.path().join("out").exists() {
            found.insert("the users' files".to_owned());
        }
        found
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
    }
}

/// A program of the testbed; built the first time.
pub fn program(module: &Module) -> Option<PathBuf> {
    if cluster::go_candidates().is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{}", cluster::GO);
        testbed::skip(cluster::GO);
        return None;
    }
    let repo = Path::new(env!("CARGO_MANIFEST_DIR"));
    let options = cluster::Options::new(repo, programs(), Vec::new());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let built = runtime.block_on(cluster::provide(module, &options, &Silent)).expect("the program is built");
    Some(built.join(module.name))
}

/// The user's own: what is built there has a name that says what is in it.
pub fn programs() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("mlflow-on-kubernetes/testbed")
}

fn run(command: &mut Command) -> Output {
    command.output().expect("a program starts")
}

/// Asks until the answer is as expected.
fn soon(mut command: impl FnMut() -> Command, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let output = run(&mut command());
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if said == expected {
            return;
        }
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "got {said:?}, want {expected:?}: {err}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_testbed_comes_up_works_survives_faults_and_leaves_nothing() {
    let Some(world) = World::new() else { return };
    assert_eq!(world.traces(), BTreeSet::new());
    assert_eq!(world.run(&["down"])["found"], false, "down of nothing is fine");
    assert_eq!(world.fail(&["status"]), 12);

    // Killed in the middle; what is left is found and removed by the next.
    let mut killed = world.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("xtask starts");
    let deadline = Instant::now() + Duration::from_secs(1800);
    while !world.traces().iter().any(|trace| trace.contains("etcd")) {
        assert!(Instant::now() < deadline && killed.try_wait().expect("a state").is_none(), "{:?}", world.traces());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(world.fail(&["up"]), 9, "two at once");
    killed.kill().expect("a signal");
    killed.wait().expect("its end");

    let up = world.run(&["up"]);
    assert_eq!(up["already"], false);
    assert_eq!(world.run(&["up"])["already"], true);
    let text = |key: &str| up[key].as_str().unwrap_or_else(|| panic!("{key}: {up}")).to_owned();
    let kubectl = |args: &[&str]| {
        let mut command = world.home.command(text("kubectl"));
        command.env("KUBECONFIG", text("kubeconfig")).args(args);
        command
    };

    let image = format!("--image={}", text("busybox"));
    let made =
        run(&mut kubectl(&["run", "p", &image, "--restart=Never", "--", "/bin/sh", "-c", "echo works; sleep 600"]));
    assert!(made.status.success(), "{made:?}");
    soon(|| kubectl(&["logs", "p"]), "works");
    soon(|| kubectl(&["exec", "p", "--", "/bin/echo", "exec"]), "exec");

    // The other registry gives its images to pods with the login that was written.
    let login = std::fs::read(world.home.path().join("out/registry-login")).expect("the login");
    let login: Value = serde_json::from_slice(&login).expect("JSON");
    let [registry, user, password] = ["registry", "user", "password"].map(|key| login[key].as_str().expect("a text"));
    let shell = testbed::require("busybox", "busybox-static").expect("busybox");
    let image = testbed::cluster::Image::busybox(shell, &["sh", "sleep"]).entrypoint(&["/bin/sleep", "600"]);
    let runtime = tokio::runtime::Runtime::new().expect("an async runtime");
    runtime.block_on(image.push(registry, "private/shell:1", None)).expect_err("a push without a login");
    runtime.block_on(image.push(registry, "private/shell:1", Some((user, password)))).expect("a push");
    let server = format!("--docker-server={registry}");
    let (name, word) = (format!("--docker-username={user}"), format!("--docker-password={password}"));
    let made = run(&mut kubectl(&["create", "secret", "docker-registry", "login", &server, &name, &word]));
    assert!(made.status.success(), "{made:?}");
    let image = format!("--image={registry}/private/shell:1");
    let with_login = r#"{"spec":{"imagePullSecrets":[{"name":"login"}]}}"#;
    for pod in [&["run", "refused", &image][..], &["run", "welcome", &image, "--overrides", with_login]] {
        let made = run(&mut kubectl(pod));
        assert!(made.status.success(), "{made:?}");
    }
    let kubectl = &kubectl;
    let phase = |pod| move || kubectl(&["get", "pod", pod, "-o", "jsonpath={.status.phase}"]);
    soon(phase("welcome"), "Running");
    let waits = "jsonpath={.status.containerStatuses[0].state.waiting.reason}";
    soon(|| kubectl(&["get", "pod", "refused", "-o", waits]), "ImagePullBackOff");

    // PostgreSQL, from the host.
    let uri = std::fs::read_to_string(world.home.path().join("out/database-uri")).expect("the URI");
    let psql = || {
        let mut command = world.home.command("psql");
        // The test's own throw-away password may be in its arguments.
        command.args(["-At", "-c", "select current_user", uri.trim()]);
        command
    };
    soon(psql, "mlflow");

    for component in ["apiserver", "kubelet", "containerd", "postgres", "registry"] {
        world.run(&["stop", component, "--kill"]);
        let status = world.run(&["status"]);
        let components = status["components"].as_array().expect("components");
        let found = components.iter().find(|found| found["name"] == component).expect("the component");
        assert_eq!(found["pid"], Value::Null, "{component} is gone");
        world.run(&["start", component]);
    }
    // The kubelet complains for some seconds about a containerd that was away.
    let complaints = || {
        let status = world.run(&["status"]);
        let components = status["components"].as_array().expect("components").iter();
        components.filter(|component| !component["complaint"].is_null()).cloned().collect::<Vec<_>>()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(complaint) = complaints().first() {
        assert!(Instant::now() < deadline, "{complaint}");
        std::thread::sleep(Duration::from_millis(200));
    }
    soon(|| kubectl(&["exec", "p", "--", "/bin/echo", "still there"]), "still there");
    soon(psql, "mlflow");
    assert_eq!(world.fail(&["stop", "nonsense"]), 2);

    assert_eq!(world.run(&["down"])["was_up"], true);
    assert_eq!(world.traces(), BTreeSet::new());
}
