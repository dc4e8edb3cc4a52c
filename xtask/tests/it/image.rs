//! The image that tests look at, built by the program as its users build it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use testbed::Home;

/// A cache that all tests share: downloads and layers, which are only ever added. Below cargo's
/// target folder, or where `XTASK_TEST_CACHE` says.
pub fn cache_home() -> PathBuf {
    let given = std::env::var_os("XTASK_TEST_CACHE").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
}

/// A copy of what `build-image` reads, because it may write image.lock.
pub fn project(home: &Home) -> PathBuf {
    let root = home.path().join("project");
    copy_project(&root);
    root
}

/// The same in a folder of the caller's.
pub fn copy_project(root: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    copy(&from.join("mlflow_server"), &root.join("mlflow_server"));
    std::fs::copy(from.join("Cargo.toml"), root.join("Cargo.toml")).expect("a copy");
}

/// Runs `build-image` with these arguments, in a project and with the shared cache; its answer.
pub fn build(home: &Home, root: &Path, args: &[&str]) -> Value {
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    keep_package_settings(&mut command);
    command
        .args(["build-image", "--json"])
        .args(args)
        .env("CARGO_MANIFEST_DIR", root)
        .env("XDG_CACHE_HOME", cache_home())
        .stdin(Stdio::null());
    let output = command.output().expect("xtask starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "build-image {args:?}: {err}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("build-image {args:?}: {error}: {err}"))
}

/// Lets a program know where packages come from: the machine's own settings.
pub fn keep_package_settings(command: &mut Command) {
    let kept = ["PIP_", "UV_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    command.envs(std::env::vars_os().filter(|(name, _)| {
        let name = name.to_str().unwrap_or_default().to_ascii_uppercase();
        kept.iter().any(|kept| name.starts_with(kept))
    }));
}

/// OCI's name of this machine's CPU.
pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// This machine's platform.
pub fn platform() -> String {
    format!("linux/{}", architecture())
}

/// The default image of this machine's platform as an OCI layout, built once for all tests of a run.
pub fn layout() -> &'static Path {
    static LAYOUT: OnceLock<PathBuf> = OnceLock::new();
    LAYOUT.get_or_init(|| {
        let home = Home::new();
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("layout-{}", std::process::id()));
        forget_old_layouts();
        let output = format!("oci:{}", dir.display());
        build(&home, &project(&home), &["--platform", &platform(), "--output", &output]);
        dir
    })
}

/// A test program has no end at which it could remove its own.
fn forget_old_layouts() {
    let entries = std::fs::read_dir(env!("CARGO_TARGET_TMPDIR")).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("layout-"));
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

pub fn copy(from: &Path, to: &Path) {
    copy_tree(from, to, &|from, to| {
        std::fs::copy(from, to).expect("a copy");
    });
}

/// Makes the folders of `from` in `to`, and each file with `place`.
pub fn copy_tree(from: &Path, to: &Path, place: &dyn Fn(&Path, &Path)) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder's list").map(|entry| entry.expect("an entry")) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy_tree(&source, &target, place);
        } else {
            place(&source, &target);
        }
    }
}
