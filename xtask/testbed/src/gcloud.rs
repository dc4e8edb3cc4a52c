//! gcloud without its start, for tests that call it hundreds of times: half of each call's time is
//! Python loading the same modules.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::tool;

/// What serves calls, and under the name `gcloud` makes them.
const SCRIPT: &str = include_str!("../gcloud/warm.py");

/// How long gcloud may take to be loaded.
const PATIENCE: Duration = Duration::from_secs(120);

/// A gcloud whose modules are loaded; ends with this process, or when it is dropped.
#[derive(Debug)]
pub struct Gcloud {
    dir: tempfile::TempDir,
    server: Child,
}

impl Gcloud {
    /// Loads the gcloud that is installed at `path`.
    pub fn load(path: &Path) -> Self {
        let path = path.canonicalize().expect("gcloud's path");
        let root = path.ancestors().nth(2).expect("gcloud is in the folder bin of its own");
        let bundled = root.join("platform/bundledpythonunix/bin/python3");
        let (python, flags) = match bundled.is_file() {
            true => (bundled, None),
            // As gcloud's own script calls others.
            false => ("python3".into(), Some("-S")),
        };
        let dir = tempfile::Builder::new().prefix("gcloud-").tempdir().expect("a temporary folder");
        let script = dir.path().join("warm.py");
        std::fs::write(&script, SCRIPT).expect("a file");
        let caller = dir.path().join("gcloud");
        std::fs::write(&caller, format!("#!/usr/bin/env -S {} -ISs\n{SCRIPT}", python.display())).expect("a file");
        std::fs::set_permissions(&caller, std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let mut server = tool::command(&python);
        server.args(flags).arg(script).arg(dir.path().join("socket")).stdin(Stdio::piped()).stdout(Stdio::null());
        server.env("CLOUDSDK_ROOT_DIR", root).env("CLOUDSDK_CONFIG", dir.path().join("config"));
        if flags.is_none() {
            server.env("CLOUDSDK_PYTHON_SITEPACKAGES", "1");
        }
        let mut gcloud = Self { server: server.spawn().expect("Python starts"), dir };
        let deadline = Instant::now() + PATIENCE;
        while !gcloud.dir.path().join("socket").exists() {
            let ended = gcloud.server.try_wait().expect("it is a child");
            assert!(ended.is_none() && Instant::now() < deadline, "gcloud cannot be loaded: {ended:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        gcloud
    }

    /// What makes programs find this one.
    pub fn environment(&self) -> Vec<(String, OsString)> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.dir.path().to_owned()).chain(std::env::split_paths(&path));
        vec![
            ("PATH".to_owned(), std::env::join_paths(path).expect("a folder without a colon")),
            ("TESTBED_GCLOUD".to_owned(), self.dir.path().join("socket").into()),
        ]
    }
}

impl Drop for Gcloud {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
