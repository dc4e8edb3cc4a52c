//! buildah in a folder of the bench's own: images, layers, remembered pushes and temporary files.

use std::path::{Path, PathBuf};

use crate::cache;
use crate::error::Result;
use crate::process::{self, Program};

/// Replaces /var/lib for one program, because buildah run by root remembers pushes there.
const PRIVATE: &str = "mount --bind \"$0\" /var/lib && exec \"$@\"";

/// Where one buildah keeps all that it keeps.
pub struct Storage {
    buildah: PathBuf,
    dir: PathBuf,
}

impl Storage {
    /// Prepares an empty storage in `dir`.
    pub fn create(dir: &Path) -> Result<Self> {
        let buildah = process::require("buildah", "Debian, Ubuntu: apt-get install buildah")?;
        for name in ["lib", "tmp", "run", "home"] {
            cache::create_dir(&dir.join(name))?;
        }
        let storage = Self { buildah, dir: dir.to_owned() };
        let quoted = |name: &str| format!("{:?}", dir.join(name).display().to_string());
        let config = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {}\nrunroot = {}\n",
            quoted("storage"),
            quoted("run/containers")
        );
        cache::write(&storage.file("storage.conf"), config.as_bytes())?;
        cache::write(&storage.file("policy.json"), br#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
        Ok(storage)
    }

    /// One command of buildah's. chroot isolation needs no cgroups and no network of its own; it is
    /// the quickest.
    pub fn buildah(&self, command: &str) -> Result<Program> {
        let program = if nix::unistd::geteuid().is_root() {
            Program::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", PRIVATE])
                .arg(self.file("lib"))
                .arg(&self.buildah)
        } else {
            Program::new(&self.buildah)
        };
        let mut program = program
            .env("CONTAINERS_STORAGE_CONF", self.file("storage.conf"))
            .env("BUILDAH_ISOLATION", "chroot")
            .env("HOME", self.file("home"))
            .env("XDG_DATA_HOME", self.file("home/data"))
            .env("XDG_RUNTIME_DIR", self.file("run"))
            .env("TMPDIR", self.file("tmp"))
            .arg(command);
        if ["pull", "build", "from", "push"].contains(&command) {
            program = program.arg("--signature-policy").arg(self.file("policy.json"));
        }
        Ok(program)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // Files of the users that a container had belong to nobody whom we may act for.
        if !nix::unistd::geteuid().is_root() {
            let remove = Program::new(&self.buildah).args(["unshare", "rm", "-rf"]).arg(self.file("storage"));
            // What is left then is named when the folder is removed.
            let _ = remove.read();
        }
    }
}
