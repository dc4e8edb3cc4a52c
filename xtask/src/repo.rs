//! The checkout that this program belongs to.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// The root folder of the repository: where `deploy.toml` and `mlflow_server/` are.
///
/// cargo sets `CARGO_MANIFEST_DIR` for `cargo xtask`; a binary that was copied elsewhere looks
/// upwards from the current folder.
pub fn root() -> Result<PathBuf> {
    let from_cargo = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let start = match from_cargo {
        Some(dir) => dir,
        None => std::env::current_dir()
            .map_err(|error| Error::new(Kind::Machine, "cannot read the current folder").source(error))?,
    };
    start.ancestors().find(|dir| is_root(dir)).map(Path::to_path_buf).ok_or_else(|| {
        Error::new(Kind::Usage, format!("no mlflow_server/requirements.lock above {}", start.display()))
            .hint("run it inside a clone of the repository")
    })
}

fn is_root(dir: &Path) -> bool {
    dir.join("mlflow_server/requirements.in").is_file() && dir.join("Cargo.toml").is_file()
}
