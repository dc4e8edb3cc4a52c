//! podman and buildah with storage, state and configuration in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::{Home, command, require};

/// One of the two programs.
#[derive(Debug)]
pub struct Containers {
    home: Home,
    name: &'static str,
    program: PathBuf,
}

impl Containers {
    /// Prepares an empty storage; `None` where the program is not installed.
    pub fn start(name: &'static str) -> Option<Self> {
        let program = require(name, name)?;
        if name == "podman" {
            require("runc", "runc")?;
        }
        let home = Home::new();
        std::fs::create_dir(home.path().join("run")).expect("a folder");
        std::fs::write(home.file("docker/config.json"), "{}").expect("a file");
        let path = |name: &str| home.path().join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            path("storage"),
            path("runroot")
        );
        std::fs::write(home.path().join("storage.conf"), storage).expect("a file");
        // Locks in files: those in shared memory are the machine's.
        let engine = format!(
            "[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\nlock_type = \"file\"\n\
             static_dir = {:?}\ntmp_dir = {:?}\nvolume_path = {:?}\n",
            path("static"),
            path("tmp"),
            path("volumes")
        );
        std::fs::write(home.path().join("containers.conf"), engine).expect("a file");
        let policy = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        std::fs::write(home.path().join("policy.json"), policy).expect("a file");
        Some(Self { home, name, program })
    }

    /// The program with arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&self.program);
        command
            .env("CONTAINERS_STORAGE_CONF", self.home.path().join("storage.conf"))
            .env("CONTAINERS_CONF", self.home.path().join("containers.conf"))
            .args(args);
        command
    }

    /// A file of its home.
    pub fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs it to its end; the last line of what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        self.finish(&mut self.command(args))
    }

    fn finish(&self, command: &mut Command) -> String {
        let output = command.output().expect("the program starts");
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {:?}: {err}", self.name, command.get_args());
        String::from_utf8_lossy(&output.stdout).trim().lines().last().unwrap_or_default().to_owned()
    }

    /// Reads a layout; gives the image's id. The image's name comes of the path, which must be in
    /// lower case: a relative one is.
    pub fn pull_layout(&self, layout: &Path) -> String {
        let policy = self.file("policy.json").display().to_string();
        let folder = layout.file_name().and_then(|name| name.to_str()).expect("a UTF-8 name");
        let reference = format!("oci:{folder}:latest");
        let mut command = self.command(&["pull", "--quiet", "--signature-policy", &policy, &reference]);
        self.finish(command.current_dir(layout.parent().expect("a parent")))
    }

    /// Pulls an image; gives its id.
    pub fn pull(&self, reference: &str) -> String {
        let policy = self.file("policy.json").display().to_string();
        self.run(&["pull", "--quiet", "--tls-verify=false", "--signature-policy", &policy, reference])
    }

    /// podman: the image's files.
    pub fn mount_image(&self, image: &str) -> PathBuf {
        PathBuf::from(self.run(&["image", "mount", image]))
    }

    /// buildah: the files of a new container.
    pub fn mount_new_container(&self, image: &str) -> PathBuf {
        let policy = self.file("policy.json").display().to_string();
        let container = self.run(&["from", "--quiet", "--pull-never", "--signature-policy", &policy, image]);
        PathBuf::from(self.run(&["mount", &container]))
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        unmount_below(self.home.path());
    }
}

/// Images stay mounted when their reader ends, and the overlay driver leaves a mount of its own.
fn unmount_below(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = |line: &&str| line.split(' ').nth(1).is_some_and(|target| Path::new(target).starts_with(dir));
    // The newest first: they may lie inside others.
    for line in mounts.lines().rev().filter(below) {
        let _ = command("umount").arg("--lazy").arg(line.split(' ').nth(1).unwrap_or_default()).status();
    }
}
