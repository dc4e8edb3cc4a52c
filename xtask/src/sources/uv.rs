//! uv: found on the PATH, else installed by pip into the cache at a pinned version. It knows the
//! user's indices, mirrors and logins, so that this program knows none.

use std::path::PathBuf;

use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program};

/// The version that is installed where there is none.
const PINNED: &str = "0.13.9";

/// The oldest version whose answers are understood: pylock.toml, manylinux platforms, overrides.
const OLDEST: [u32; 3] = [0, 8, 0];

/// The digests of the pinned version's wheels for all hosts, in pip's format.
const REQUIREMENT: &str = include_str!("uv.txt");

/// Finds or installs uv.
pub async fn program(run: &Run, cache: &Cache) -> Result<PathBuf> {
    let (run, cache) = (run.clone(), cache.clone());
    blocking(move || locate(&run, &cache)).await
}

/// Runs uv to its end and gives its stdout. Offline, uv answers from its own cache.
pub async fn read(run: &Run, cache: &Cache, args: Vec<String>, stdin: String) -> Result<String> {
    let uv = program(run, cache).await?;
    let offline = run.offline;
    let answer = blocking(move || {
        // uv wants an interpreter, of any version, and would fetch one of the image's version.
        let has_python = process::find(&["python3", "python"]).is_some();
        let program = Program::new(uv)
            .arg("--no-progress")
            .args(offline.then_some("--offline"))
            .args(has_python.then_some("--no-python-downloads"))
            .args(args);
        program.stdin(stdin).read().map_err(explain(offline))
    });
    let answer = tokio::select! {
        answer = answer => answer?,
        () = run.cancel.cancelled() => return Err(Run::interrupted()),
    };
    String::from_utf8(answer).context(Kind::Tool, || "uv answered with something that is not text")
}

/// Runs blocking work beside the async tasks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context(Kind::Internal, || "a blocking task ended early")?
}

fn explain(offline: bool) -> impl FnOnce(Error) -> Error {
    move |error| {
        let error = Error::new(error.kind(), "uv could not resolve the Python packages").source(error);
        match offline {
            true => error.hint("run it once without --offline, so that the caches hold what it needs"),
            false => error.hint("read uv's message above; indices and logins are set as for any other use of uv"),
        }
    }
}

fn locate(run: &Run, cache: &Cache) -> Result<PathBuf> {
    if let Some(found) = process::find(&["uv"]) {
        match version_of(found.clone()) {
            Some(version) if version >= OLDEST => return Ok(found),
            // A shim that points at nothing, or a uv of long ago: our own is better.
            _ => run.ui.step("Skipping", format!("{}: not a uv of {OLDEST:?} or newer", found.display())),
        }
    }
    install(run, cache)
}

fn version_of(uv: PathBuf) -> Option<[u32; 3]> {
    let answer = Program::new(uv).arg("--version").read().ok()?;
    parse_version(&String::from_utf8(answer).ok()?)
}

/// `uv 0.13.9 (x86_64-unknown-linux-gnu)`.
fn parse_version(text: &str) -> Option<[u32; 3]> {
    let mut numbers = text.strip_prefix("uv ")?.split_whitespace().next()?.split('.').map(|number| {
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        number[..digits].parse().ok()
    });
    Some([numbers.next()??, numbers.next()??, numbers.next()??])
}

fn install(run: &Run, cache: &Cache) -> Result<PathBuf> {
    let tools = cache.dir("tools")?;
    let home = tools.join(format!("uv-{PINNED}"));
    let uv = home.join("bin/uv");
    if uv.is_file() {
        return Ok(uv);
    }
    let missing = || Error::new(Kind::Tool, "uv is not installed");
    if run.offline {
        return Err(missing().hint(format!("install uv {PINNED}, or run it once without --offline")));
    }
    let python = process::find(&["python3", "python"])
        .ok_or_else(|| missing().hint("install uv, or a python3 with pip that can install it"))?;
    run.ui.step("Installing", format!("uv {PINNED} into the cache"));
    let target =
        tempfile::Builder::new().prefix(".part-").tempdir_in(&tools).on_machine(|| "cannot write to the cache")?;
    let list = target.path().join("uv.txt");
    crate::cache::write(&list, REQUIREMENT.as_bytes())?;
    Program::new(python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(target.path().join("uv"))
        .arg("-r")
        .arg(&list)
        .read()
        .map_err(|error| missing().source(error).hint("install uv, or make `python3 -m pip install uv` work"))?;
    match std::fs::rename(target.path().join("uv"), &home) {
        Ok(()) => Ok(uv),
        // Another run was faster.
        Err(_) if uv.is_file() => Ok(uv),
        Err(error) => Err(error).on_machine(|| format!("cannot write {}", home.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers() {
        for (text, expected) in [
            ("uv 0.13.9 (x86_64-unknown-linux-gnu)\n", Some([0, 13, 9])),
            ("uv 0.7.22\n", Some([0, 7, 22])),
            ("uv 1.0.0-rc1", Some([1, 0, 0])),
            ("uv", None),
            ("pip 24.1", None),
            ("uv 0.13", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
        assert!([0, 7, 22] < OLDEST && [0, 13, 9] >= OLDEST);
    }

    #[test]
    fn the_pinned_version_is_the_hashed_one() {
        let found = mlflow_image::lock::Requirements::parse("uv.txt", REQUIREMENT).unwrap();
        assert_eq!((found.0.len(), found.0[0].name.as_str(), found.0[0].version.as_str()), (1, "uv", PINNED));
    }
}
