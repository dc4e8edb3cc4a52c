//! buildah with a storage of its own, and base images in it that come from no registry.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use testbed::{Home, require, run, skip};

/// The native builder's base layer as an image.
pub const BASE: &str = "localhost/base";
/// Debian with Python and pip.
pub const BUILD_BASE: &str = "localhost/build-base";
/// The platform of the tests.
pub const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
/// The Debian release that both bases are made of.
const SUITE: &str = "trixie";

/// The storage, shared by the tests of one run.
pub struct Store {
    /// Where everything is.
    pub home: Home,
    buildah: PathBuf,
    project: PathBuf,
    native: PathBuf,
}

impl Store {
    /// The storage with both bases and the native image; `None` where something is missing, which
    /// counts the test as skipped.
    pub fn get() -> Option<&'static Self> {
        static STORE: OnceLock<Option<Store>> = OnceLock::new();
        STORE.get_or_init(Self::make).as_ref()
    }

    fn make() -> Option<Self> {
        let (buildah, debootstrap) = (require("buildah", "buildah")?, require("debootstrap", "debootstrap")?);
        if run(Path::new("/usr/bin/id"), &["-u"]).trim() != "0" {
            skip("debootstrap needs root");
            return None;
        }
        forget_old();
        let home = Home::new_in(&tmp(), &format!("buildah-{}-", std::process::id()));
        // buildah insists on the file that DOCKER_CONFIG names.
        std::fs::write(home.file("docker/config.json"), "{}").expect("a file");
        let storage = home.path().join("storage");
        let text = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n",
            storage.display()
        );
        std::fs::write(home.path().join("storage.conf"), text).expect("a file");
        let project = crate::image::project(&home);
        let native = home.path().join("native");
        let store = Self { home, buildah, project, native };
        let mut program = store.xtask(&store.home, &store.project);
        program.args(["build-image", "--json", "--platform", PLATFORM]);
        let output =
            program.args(["--output", &format!("oci:{}", store.native.display())]).output().expect("xtask starts");
        let base = super::answer(&output)["layers"].as_array().and_then(|layers| {
            layers.iter().find(|layer| layer["kind"] == "base")?["digest"].as_str().map(str::to_owned)
        });
        let base = store.native.join("blobs/sha256").join(base.expect("a base layer").replace("sha256:", ""));
        store.import(&base, BASE, "");
        // Debian forbids its own pip to install beside packages; in a throw-away stage it may.
        store.import(&debian(&debootstrap), BUILD_BASE, "ENV PIP_BREAK_SYSTEM_PACKAGES=1\n");
        Some(store)
    }

    /// An image of what is in a tar, without a label of buildah's.
    fn import(&self, tar: &Path, name: &str, more: &str) {
        let folder = tempfile::tempdir_in(self.home.path()).expect("a folder");
        std::fs::copy(tar, folder.path().join("root.tar")).expect("a copy");
        std::fs::write(folder.path().join("Dockerfile"), format!("FROM scratch\nADD root.tar /\n{more}"))
            .expect("a file");
        let context = folder.path().to_str().expect("UTF-8");
        self.buildah(&["build", "--quiet", "--identity-label=false", "--tag", name, context]);
    }

    /// The checkout that the images are built from.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// The native image's OCI layout.
    pub fn native(&self) -> &Path {
        &self.native
    }

    /// Runs buildah and gives what it printed.
    pub fn buildah(&self, args: &[&str]) -> String {
        let output = self.buildah_command(args).stdin(Stdio::null()).output().expect("buildah starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "buildah {args:?}: {err}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// buildah with this storage.
    pub fn buildah_command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&self.buildah);
        command.args(args);
        self.own(&mut command);
        command
    }

    /// xtask whose buildah has this storage, with the cache that the tests share.
    pub fn xtask(&self, home: &Home, project: &Path) -> Command {
        let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
        // Where packages come from is the machine's setting.
        for (name, value) in std::env::vars_os() {
            let kept = ["PIP_", "UV_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
            let upper = name.to_string_lossy().to_uppercase();
            if kept.iter().any(|kept| upper.starts_with(kept)) {
                command.env(name, value);
            }
        }
        command.env("CARGO_MANIFEST_DIR", project).env("XDG_CACHE_HOME", cache()).stdin(Stdio::null());
        self.own(&mut command);
        command
    }

    fn own(&self, command: &mut Command) {
        // Its sandbox needs neither cgroups nor a network of its own.
        command
            .env("CONTAINERS_STORAGE_CONF", self.home.path().join("storage.conf"))
            .env("BUILDAH_ISOLATION", "chroot");
    }
}

/// A Debian with pip as a tar, made once for all runs.
fn debian(debootstrap: &Path) -> PathBuf {
    let tar = cache().join(format!("debian-{SUITE}-pip.tar"));
    if tar.is_file() {
        return tar;
    }
    std::fs::create_dir_all(cache()).expect("a folder");
    let folder = tempfile::Builder::new().prefix("debootstrap-").tempdir_in(tmp()).expect("a folder");
    let root = folder.path().join("root");
    let text = root.to_str().expect("UTF-8");
    run(debootstrap, &["--variant=minbase", "--include=python3,python3-pip", SUITE, text]);
    let part = folder.path().join("part.tar");
    let leave_out = ["--exclude=./var/cache/apt", "--exclude=./var/lib/apt/lists", "--exclude=./dev"];
    run(
        Path::new("/bin/tar"),
        &[&["-C", text], leave_out.as_slice(), &["-cf", part.to_str().expect("UTF-8"), "."]].concat(),
    );
    std::fs::copy(&part, tar.with_extension("part")).expect("room in the cache");
    std::fs::rename(tar.with_extension("part"), &tar).expect("a name in the cache");
    tar
}

fn tmp() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Downloads, layers and the Debian; only ever added to.
fn cache() -> PathBuf {
    std::env::var_os("XTASK_TEST_CACHE").map_or_else(|| tmp().join("cache"), PathBuf::from)
}

/// A test program has no end at which it could remove what its tests shared.
fn forget_old() {
    for entry in std::fs::read_dir(tmp()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix("buildah-")?.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            unmount_below(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A build that was interrupted, as a test does, leaves its file system mounted.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    // The last mounted first: some lie within others, and go with them.
    for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(point).starts_with(dir) {
            let _ = testbed::command("umount").args(["--lazy", point]).stderr(Stdio::null()).status();
        }
    }
}
