//! The builders against each other: what buildah makes of the Dockerfile is what the native builder
//! makes of the locks.

mod cloud_build;
mod contents;
mod store;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::{Home, command, free_port, nightly, skip};

use crate::image;

use contents::Contents;
use store::{BASE, BUILD_BASE, Store};

/// What only one of two installers writes: uv's notes, lists of files with their hashes.
const INSTALLERS_OWN: [&str; 4] = ["RECORD", "INSTALLER", "REQUESTED", "uv_cache.json"];

fn answer(output: &Output) -> Value {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {err}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {err}"))
}

#[test]
fn buildah_and_the_native_builder_make_the_same_server() {
    if !nightly("buildah's image beside the native one") {
        return;
    }
    let Some(store) = Store::get() else { return };
    let native = Contents::read(store.native());
    let built = store.home.path().join("dockerfile");
    let mut program = store.xtask(&store.home, store.project());
    program.args(["build-image", "--json", "--builder", "buildah", "--platform", store::PLATFORM]);
    program.args(["--build-arg", &format!("BASE={BASE}"), "--build-arg", &format!("BUILD_BASE={BUILD_BASE}")]);
    let said = answer(&program.args(["--output", &format!("oci:{}", built.display())]).output().expect("xtask starts"));
    let followed = Contents::read(&built);

    assert_eq!(said["images"][0]["digest"], Value::from(followed.manifest.clone()));
    assert_eq!(said["layers"].as_array().map(Vec::len), Some(followed.layers));
    assert!(native.packages.len() > 50 && native.packages.contains_key("mlflow"), "{:?}", native.packages);
    assert_eq!(followed.packages, native.packages);
    assert_eq!(followed.python, native.python);
    assert!(native.python.starts_with("3.13."), "{}", native.python);
    for key in ["User", "Entrypoint", "Cmd", "ExposedPorts", "Labels", "WorkingDir", "StopSignal"] {
        assert!(!native.config[key].is_null(), "{key}");
        assert_eq!(followed.config[key], native.config[key], "{key}");
    }
    assert_eq!(followed.env(), native.env());

    let ours = |path: &&String| {
        let name = path.rsplit('/').next().unwrap_or(path);
        !INSTALLERS_OWN.contains(&name) && !path.ends_with(".pyc") && !path.ends_with("pyvenv.cfg")
    };
    let only = |these: &Contents, those: &Contents| -> Vec<String> {
        let of = |contents: &Contents, path: &String| contents.files.get(path).cloned();
        these.files.keys().filter(ours).filter(|path| of(those, path) != of(these, path)).cloned().collect()
    };
    assert!(native.files.len() > 5_000, "{}", native.files.len());
    assert_eq!(only(&native, &followed), Vec::<String>::new(), "in the native image, not so in buildah's");
    assert_eq!(only(&followed, &native), Vec::<String>::new(), "in buildah's image, not so in the native one");

    // buildah calls an image by its config's digest.
    serves_as_nobody(store, said["images"][0]["config"].as_str().expect("a digest").trim_start_matches("sha256:"));
}

/// Starts the image in buildah's own sandbox, its user as the image says.
fn serves_as_nobody(store: &Store, image: &str) {
    let container = store.buildah(&["from", image]);
    let id = store.buildah(&["run", &container, "--", "python", "-c", "import os; print(os.getuid(), os.getgid())"]);
    assert_eq!(id, "65532 65532");
    let port = free_port();
    let mut server = store.buildah_command(&["run"]);
    for (name, value) in
        [("HOST", "127.0.0.1"), ("PORT", &port.to_string()), ("BACKEND_STORE_URI", "sqlite:////tmp/m.db")]
    {
        server.arg(format!("--env=MLFLOW_{name}={value}"));
    }
    server.args([&container, "--", "mlflow", "server"]).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut server = Group(server.spawn().expect("buildah starts"));
    let url = format!("http://127.0.0.1:{port}/health");
    let deadline = Instant::now() + Duration::from_secs(180);
    let healthy = || command("curl").args(["--silent", "--fail", "--max-time", "5", &url]).output();
    while healthy().expect("curl starts").stdout != b"OK" {
        assert!(server.0.try_wait().expect("its state").is_none(), "the server ended");
        assert!(Instant::now() < deadline, "{url} did not answer");
        std::thread::sleep(Duration::from_millis(250));
    }
    drop(server);
    store.buildah(&["rm", &container]);
}

/// A program with all that it started.
struct Group(std::process::Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = command("kill").args(["-TERM", "--", &format!("-{}", self.0.id())]).status();
        std::thread::sleep(Duration::from_secs(1));
        let _ = command("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
    }
}

#[test]
fn an_interrupted_build_leaves_no_program_behind() {
    if !nightly("Ctrl-C while buildah builds") {
        return;
    }
    let Some(store) = Store::get() else { return };
    let (home, marker) = (Home::new(), "271828");
    let project = image::project(&home);
    let text = format!("FROM {BUILD_BASE} AS a\nRUN sleep {marker}\nFROM scratch\nCOPY --from=a /etc/hostname /\n");
    std::fs::write(project.join("mlflow_server/Dockerfile"), text).expect("a file");
    let mut program = store.xtask(&home, &project);
    program.args(["build-image", "--builder", "buildah", "--platform", store::PLATFORM]);
    let child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("xtask starts");
    wait_until("the build's own program runs", || sleeping(marker));
    let _ = command("kill").args(["-TERM", &child.id().to_string()]).status();
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    wait_until("the build's own program has ended", || !sleeping(marker));
}

fn sleeping(marker: &str) -> bool {
    let wanted = format!("sleep\0{marker}\0");
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .into_iter()
        .any(|process| std::fs::read(process.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not in 60 s: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs `build-image` where only the programs in `tools` are on the PATH.
fn with_tools(tools: &[&str], args: &[&str]) -> Output {
    let home = Home::new();
    let project = image::project(&home);
    let path = home.path().join("bin");
    std::fs::create_dir(&path).expect("a folder");
    for tool in tools {
        std::os::unix::fs::symlink(tool, path.join(tool.rsplit('/').next().expect("a name"))).expect("a link");
    }
    let mut program: Command = home.command(env!("CARGO_BIN_EXE_xtask"));
    program.env("CARGO_MANIFEST_DIR", &project).env("PATH", &path).arg("build-image").args(args);
    program.env("DOCKER_HOST", format!("unix://{}/no.sock", home.path().display())).output().expect("xtask starts")
}

#[test]
fn a_machine_without_builders_is_told_what_was_tried() {
    let output = with_tools(&[], &["--builder", "docker"]);
    assert_eq!(output.status.code(), Some(7));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("docker: not installed; podman: not installed; buildah: not installed"), "{err}");
}

#[test]
fn a_docker_without_a_daemon_is_not_used() {
    let Some(docker) = find("docker") else { return skip("docker is not installed") };
    let output = with_tools(&[&docker], &["--builder", "docker"]);
    assert_eq!(output.status.code(), Some(7));
    let err = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(err.contains("docker: ") && err.contains("daemon") && err.contains("podman: not installed"), "{err}");
}

#[test]
fn options_of_the_native_builder_are_refused_with_a_dockerfile() {
    for (args, expected) in [
        (["--builder", "docker", "--no-bytecode"].as_slice(), "--no-bytecode is for --builder native"),
        (&["--builder", "buildah", "--sbom", "x"], "--sbom is for --builder native"),
        (&["--build-arg", "BASE=x"], "--build-arg BASE=x is for the Dockerfile"),
        (&["--builder", "docker", "--build-arg", "NOT_SET"], "the environment has no NOT_SET"),
        (&["--builder", "cloud-build"], "Cloud Build leaves the image in a repository"),
        (&["--builder", "cloud-build", "--push", "--repository", "localhost:5000/a"], "Cloud Build cannot push to"),
    ] {
        let output = with_tools(&[], args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {err}");
        assert!(err.contains(expected), "{args:?}: {err}");
    }
}

#[test]
fn a_gcloud_without_login_is_told_to_log_in() {
    if find("gcloud").is_none() {
        return skip("gcloud is not installed");
    }
    let home = Home::new();
    let mut program = home.command(env!("CARGO_BIN_EXE_xtask"));
    program.env("CARGO_MANIFEST_DIR", image::project(&home)).env("CLOUDSDK_CONFIG", home.path().join("gcloud"));
    program.env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1").args(["build-image", "--builder", "cloud-build", "--push"]);
    let output = program.args(["--repository", "europe-docker.pkg.dev/p-1/r/mlflow"]).output().expect("xtask starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{err}");
    assert!(err.contains("Cloud Build did not take the build") && err.contains("gcloud auth login"), "{err}");
}

fn find(tool: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let file = std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file())?;
    file.to_str().map(str::to_owned)
}
