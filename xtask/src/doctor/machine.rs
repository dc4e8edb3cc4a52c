//! This machine: what builds an image, and what runs it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::config::{Config, LocalConfig};
use crate::error::{Context as _, Kind, Result};
use crate::local::backend::Backend;
use crate::local::state::Home;
use crate::local::{port, runner};
use crate::process::{self, Program};
use crate::report;

use super::{Check, asked};

/// What the cache takes: 450 MB for a first build for both platforms, 370 MB for an image unpacked here.
const FOR_BUILDS: u64 = 1_000_000_000;

/// What a new server's data and log take, with room for the first artifacts.
const FOR_DATA: u64 = 500_000_000;

/// How long a program may take to say its version.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// A package that any index has, because the image needs it.
const PROBE: &str = "mlflow";

/// What a build needs.
pub(super) async fn builds(run: &Run) -> Vec<Check> {
    let (cargo, resolver, index, disk) = tokio::join!(
        asked("cargo", cargo(run)),
        asked("uv or pip", resolver(run)),
        asked("package index", index(run)),
        asked("disk for builds", async { cache_folder().and_then(|dir| disk("disk for builds", &dir, FOR_BUILDS)) }),
    );
    vec![cargo, resolver, index, disk]
}

/// What a server on this machine needs.
pub(super) async fn local(run: &Run, config: &Config, local: &LocalConfig) -> Vec<Check> {
    let data = async {
        let home = Home::of(&config.env)?;
        disk("disk for data", &local.data.clone().unwrap_or_else(|| home.data_dir()), FOR_DATA)
    };
    let (mut checks, sandbox, data, port) = tokio::join!(
        builds(run),
        asked("sandbox", sandbox(run, local)),
        asked("disk for data", data),
        asked("port", free_port(&config.env, local)),
    );
    checks.extend([sandbox, data, port]);
    checks
}

async fn cargo(run: &Run) -> Result<Check> {
    // Whoever came here by `cargo xtask` has a cargo that builds this program.
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| process::find(&["cargo"]));
    let needed = env!("CARGO_PKG_RUST_VERSION");
    let Some(cargo) = cargo else {
        let fix = format!("install Rust {needed} or newer (https://rustup.rs) to build this program again");
        return Ok(Check::warning("cargo", "it is not installed; this program runs without", fix));
    };
    let fix = format!("make `cargo --version` work, with Rust {needed} or newer, to build this program again");
    Ok(match Program::new(cargo).arg("--version").ask(&run.cancel, ANSWERS_WITHIN).await {
        Ok(answer) => {
            let version = String::from_utf8_lossy(&answer);
            Check::ok("cargo", format!("{}; {needed} or newer is needed", version.trim().trim_start_matches("cargo ")))
        }
        Err(error) if error.kind() == Kind::Interrupted => return Err(error),
        Err(error) => Check::warning("cargo", format!("{error}; this program runs without"), fix),
    })
}

/// What resolves Python packages: uv, or a pip that can install it.
async fn resolver(run: &Run) -> Result<Check> {
    const FIX: &str = "install uv (https://docs.astral.sh/uv/), or a python3 with pip that can install it";
    for (names, args) in [(&["uv"][..], &["--version"][..]), (&["python3", "python"], &["-m", "pip", "--version"])] {
        let Some(program) = process::find(names) else { continue };
        if let Ok(answer) = Program::new(program).args(args).ask(&run.cancel, ANSWERS_WITHIN).await {
            let text = String::from_utf8_lossy(&answer);
            let version: Vec<&str> = text.split_whitespace().take(2).collect();
            return Ok(Check::ok("uv or pip", version.join(" ")));
        }
    }
    Ok(Check::missing("uv or pip", "neither works", FIX))
}

/// Whether the user's package index answers. uv and pip know where it is; nothing is installed.
async fn index(run: &Run) -> Result<Check> {
    const NAME: &str = "package index";
    if run.offline {
        return Ok(Check::not_asked(NAME, "--offline"));
    }
    let python = process::find(&["python3", "python"]);
    let asked = match (process::find(&["uv"]), &python) {
        (Some(uv), python) => {
            let dir = tempfile::tempdir().on_machine(|| "cannot create a temporary folder")?;
            let list = dir.path().join("requirements.in");
            cache::write(&list, PROBE.as_bytes())?;
            let program = Program::new(uv).args(["pip", "compile", "--quiet", "--no-deps", "--no-header", "--refresh"]);
            let program = program.args(python.is_some().then_some("--no-python-downloads")).arg(&list);
            program.dir("/").ask(&run.cancel, super::DEADLINE).await
        }
        (None, Some(python)) => {
            let args = ["-m", "pip", "--disable-pip-version-check", "index", "versions", PROBE];
            Program::new(python).args(args).ask(&run.cancel, super::DEADLINE).await
        }
        (None, None) => return Ok(Check::not_asked(NAME, "neither uv nor pip")),
    };
    match asked {
        Ok(_) => Ok(Check::ok(NAME, "it answers")),
        Err(error) if error.kind() == Kind::Interrupted => Err(error),
        Err(error) => {
            let lines = error.lines();
            let said = lines.iter().flat_map(|text| text.lines()).rfind(|line| !line.trim().is_empty());
            let seen = format!("it does not answer: {}", said.unwrap_or_default().trim());
            let fix = "check the network, and the index that uv or pip is told to use; with full caches --offline builds \
                without it";
            Ok(Check::missing(NAME, seen, fix))
        }
    }
}

/// What the image would run in.
async fn sandbox(run: &Run, local: &LocalConfig) -> Result<Check> {
    // The question leaves nothing behind, in a cache of its own.
    let dir = tempfile::tempdir().on_machine(|| "cannot create a temporary folder")?;
    let (backend, instead) = Backend::pick(&Cache::at(dir.path())?, local.sandbox, None, &run.cancel).await?;
    let seen = backend.tool().map_or_else(|| "namespaces".to_owned(), |tool| tool.to_string());
    Ok(match instead {
        None => Check::ok("sandbox", seen),
        Some(why) => Check::ok("sandbox", format!("{seen}, because namespaces do not work: {why}")),
    })
}

async fn free_port(env: &str, local: &LocalConfig) -> Result<Check> {
    let own = runner::running(&Home::of(env)?).await?.map(|running| running.release.port);
    let port = port::choose(local.port, own, own, port::is_free)?;
    Ok(Check::ok(
        "port",
        match own == Some(port) {
            true => format!("{port}, where the last deploy serves"),
            false => format!("{port} is free"),
        },
    ))
}

fn cache_folder() -> Result<PathBuf> {
    cache::cache_dir()
}

/// Whether the disk of a folder, which need not exist, has room.
fn disk(name: &str, dir: &Path, needed: u64) -> Result<Check> {
    let there = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let free = fs4::available_space(there).on_machine(|| format!("cannot look at the disk of {}", there.display()))?;
    let seen = format!("{} free in {}, about {} is needed", report::bytes(free), dir.display(), report::bytes(needed));
    Ok(judge(name, free, needed, seen))
}

fn judge(name: &str, free: u64, needed: u64, seen: String) -> Check {
    const FIX: &str = "free some space, or point XDG_CACHE_HOME / XDG_DATA_HOME at a larger disk";
    match free {
        free if free < needed / 4 => Check::missing(name, seen, FIX),
        // What is in the caches already is not needed again.
        free if free < needed => Check::warning(name, seen, FIX),
        _ => Check::ok(name, seen),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_full_disk_is_missing_and_a_small_one_a_warning() {
        for (free, expected) in [(0, State::Missing), (249, State::Missing), (250, State::Warning), (1_000, State::Ok)]
        {
            assert_eq!(judge("disk", free, 1_000, String::new()).state, expected, "{free}");
        }
    }

    #[test]
    fn the_disk_of_a_folder_that_is_not_there_yet_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let check = disk("disk", &dir.path().join("a/b"), 1).unwrap();
        assert!(check.state == State::Ok && check.seen.contains("a/b"), "{check:?}");
        assert!(!dir.path().join("a").exists());
    }
}
