//! Images of other releases of MLflow: ours, with three other wheels in the lock.

use serde_json::Value;
use testbed::Home;

use crate::run::Running;
use crate::site;
use crate::world::{self, World};
use crate::{Result, ensure};

/// A release: its version, and the SHA-256 of its three wheels.
pub struct Release {
    pub version: &'static str,
    wheels: [(&'static str, &'static str); 3],
}

/// Two migrations behind the locked one.
pub const OLDER: Release = Release {
    version: "3.16.1",
    wheels: [
        ("mlflow", "e4dfe69ceae31dfc7b8480e76ffe6a7f36752bdfac30e058e6430ade1fb5920b"),
        ("mlflow-skinny", "41ec1697710b91d001f8951bdc2d00391a277065ed82268c81706238fa2b918e"),
        ("mlflow-tracing", "b3ab97c7b4f919704e0cbe0653e6e9b89cf1f8a790f8bb1b4cf7f236df258e9e"),
    ],
};

/// With the locked one's schema.
pub const SAME: Release = Release {
    version: "3.17.1",
    wheels: [
        ("mlflow", "726bf7feac25dbdb5b3098bf20b86574393bb75468eef721902ec025e724752f"),
        ("mlflow-skinny", "7374adf971e06f77f861dd8196c50e344557728b643192c665f0603c19a8d146"),
        ("mlflow-tracing", "4f6405e48efdf9330101aa059383103e1e15559664ec792290b9b95556f9e851"),
    ],
};

impl Release {
    /// Builds its image and pushes it; its reference by digest.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn image(&self, world: &World) -> Result<String> {
        let home = Home::new();
        let root = home.path().join("project");
        site::copy_project(&root)?;
        let path = root.join("mlflow_server/requirements.lock");
        let lock = self.lock(&std::fs::read_to_string(&path)?)?;
        std::fs::write(&path, lock)?;
        let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
        world::keep_package_settings(&mut command);
        let platform = world::platform();
        let args = ["build-image", "--json", "--push", "--repository", &world.repository, "--platform", &platform];
        command.args(args).args(["--tag", self.version]);
        command.env("CARGO_MANIFEST_DIR", &root).env("XDG_CACHE_HOME", world::cache_home());
        let what = format!("xtask build-image of MLflow {}", self.version);
        let answer: Value = Running::start(&what, command)?.end(world::BUILD)?.expect(0)?.json()?;
        Ok(answer["image"].as_str().ok_or("build-image names no image")?.to_owned())
    }

    /// The lock with this release's wheels.
    fn lock(&self, lock: &str) -> Result<String> {
        let mut lines: Vec<String> = lock.lines().map(str::to_owned).collect();
        for (name, sha256) in self.wheels {
            let start = format!("{name}==");
            let at = lines.iter().position(|line| line.starts_with(&start)).ok_or("a lock without MLflow")?;
            let end = lines[at..].iter().position(|line| !line.ends_with('\\')).ok_or("a lock that does not end")?;
            ensure!(end > 0, "no hash follows {start}");
            let block = [format!("{name}=={} \\", self.version), format!("    --hash=sha256:{sha256}")];
            lines.splice(at..=at + end, block);
        }
        Ok(lines.join("\n") + "\n")
    }
}
