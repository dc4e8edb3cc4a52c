//! The workflows in `.github`: what linters say of them, and what their run steps do, executed as
//! they stand. `cargo xtask` says here what each test wants it to say; the end-to-end tests run the
//! workflows with the real one.

mod ci;
mod deploy;
mod drift;
mod drill;
mod environments;
mod infra;
mod lint;
#[cfg(target_os = "linux")]
mod real;
mod runner;

use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository").to_owned()
}
