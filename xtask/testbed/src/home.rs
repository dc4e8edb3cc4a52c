//! A home folder for one test.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tool;

/// A temporary home: HOME, caches, data and logins of the programs that are started in it.
#[derive(Debug)]
pub struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// An empty home.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("xtask-test-").tempdir().expect("a temporary folder");
        Self { dir }
    }

    /// An empty home below `dir`, its name beginning with `prefix`.
    pub fn new_in(dir: &Path, prefix: &str) -> Self {
        Self { dir: tempfile::Builder::new().prefix(prefix).tempdir_in(dir).expect("a temporary folder") }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A path below it; the folders above it are made.
    pub fn file(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        path
    }

    /// A program in this home, with nothing of the developer's environment but the PATH.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = tool::command(program);
        let home = self.dir.path();
        command.env_clear().current_dir(home);
        for name in ["PATH", "LANG", "TMPDIR"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .env("HOME", home)
            .env("XDG_CACHE_HOME", home.join("cache"))
            .env("XDG_DATA_HOME", home.join("data"))
            .env("XDG_CONFIG_HOME", home.join("config"))
            .env("XDG_RUNTIME_DIR", home.join("run"))
            .env("DOCKER_CONFIG", home.join("docker"))
            .env("KUBECONFIG", home.join("kubeconfig"));
        command
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}
