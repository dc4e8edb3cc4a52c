//! A containerd of the test's own: root, state and socket in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use testbed::{Home, Service, command, require, run};

use crate::image;

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    // Ends before the folder goes.
    service: Service,
    home: Home,
    ctr: PathBuf,
    tar: PathBuf,
    mounts: std::sync::Mutex<Vec<PathBuf>>,
}

impl Containerd {
    /// Starts one; `None` where none is installed.
    pub fn start() -> Option<Self> {
        let program = require("containerd", "containerd")?;
        let (ctr, tar) = (require("ctr", "containerd")?, require("tar", "tar")?);
        require("runc", "runc")?;
        let home = Home::new();
        // runc keeps its sockets there.
        std::fs::create_dir(home.path().join("run")).expect("a folder");
        let path = |name: &str| home.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("sock"),
            path("ttrpc")
        );
        std::fs::write(home.path().join("config.toml"), config).expect("a file");
        let mut command = home.command(program);
        command.args(["--config", &path("config.toml"), "--log-level", "warn"]);
        let service = Service::start(command, home.path().join("log"));
        let containerd = Self { service, home, ctr, tar, mounts: std::sync::Mutex::default() };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !containerd.ctr(&["version"]).output().is_ok_and(|output| output.status.success()) {
            assert!(Instant::now() < deadline, "containerd does not answer: {}", containerd.service.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(containerd)
    }

    /// `ctr` that talks to it.
    pub fn ctr(&self, args: &[&str]) -> Command {
        let mut command = command(&self.ctr);
        command.arg("--address").arg(self.home.path().join("sock")).args(["--namespace", "test"]).args(args);
        command
    }

    /// A file of its home.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs `ctr` to its end.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.ctr(args).output().expect("ctr starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {args:?}: {err}\n{}", self.service.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Imports and unpacks a layout; gives the image's name.
    pub fn import(&self, layout: &Path) -> String {
        let archive = self.file("image.tar");
        let archive = archive.to_str().expect("a UTF-8 path");
        run(&self.tar, &["-cf", archive, "-C", layout.to_str().expect("a UTF-8 path"), "."]);
        self.run(&["images", "import", "--base-name", "test/mlflow", "--platform", &image::platform(), archive]);
        self.run(&["images", "ls", "--quiet"]).trim().to_owned()
    }

    /// Pulls from a registry that speaks plain HTTP.
    pub fn pull(&self, reference: &str) -> String {
        self.run(&["images", "pull", "--plain-http", "--platform", &image::platform(), reference]);
        reference.to_owned()
    }

    /// The image's files, read only.
    pub fn mount(&self, image: &str) -> PathBuf {
        let target = self.file("mount");
        std::fs::create_dir(&target).expect("a folder");
        self.run(&["images", "mount", "--platform", &image::platform(), image, target.to_str().expect("a UTF-8 path")]);
        self.mounts.lock().expect("the mounts").push(target.clone());
        target
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for mount in self.mounts.lock().into_iter().flat_map(|mounts| mounts.clone()) {
            let _ = command("umount").arg(mount).status();
        }
    }
}
