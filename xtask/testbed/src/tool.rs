//! Programs that tests need.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A program to start. Tests may start programs directly.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the rule is for the program, whose secrets must not reach an argv")]
    Command::new(program)
}

/// The program's path, or `None` where it is not installed: the test then returns, counted as
/// skipped. In CI (`CI` is set) a missing program is a failure.
pub fn require(tool: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file());
    if found.is_none() {
        let why = format!("{tool} is not installed (Debian: apt install {package})");
        assert!(std::env::var_os("CI").is_none(), "{why}");
        skip(&why);
    }
    found
}

/// Counts the running test as skipped: a line on stderr and in the file that `cargo xtask test`
/// names in `XTASK_SKIPPED`.
pub fn skip(why: &str) {
    tell("SKIPPED", "XTASK_SKIPPED", why);
}

/// Tells that the running test, which counts as one that ran, has left out a part: a line on stderr and
/// in the file that `cargo xtask test` names in `XTASK_LEFT_OUT`.
pub fn leave_out(what: &str) {
    tell("LEFT OUT", "XTASK_LEFT_OUT", what);
}

/// Whether what takes too long for each commit is wanted: `cargo xtask test --nightly` sets `XTASK_NIGHTLY`
/// to 1. Where it is not, the running test tells that it has left out this part.
///
/// # Panics
/// Where the variable is neither 1 nor 0.
pub fn nightly(part: &str) -> bool {
    let wanted = std::env::var("XTASK_NIGHTLY").unwrap_or_default();
    assert!(["", "0", "1"].contains(&wanted.as_str()), "XTASK_NIGHTLY={wanted}: it is 1 or 0");
    if wanted != "1" {
        leave_out(&format!("{part}; cargo xtask test --nightly runs it"));
    }
    wanted == "1"
}

fn tell(word: &str, variable: &str, why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unknown");
    eprintln!("{word} {test}: {why}");
    if let Some(path) = std::env::var_os(variable)
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        // One write, so that tests that run side by side do not mix their lines.
        let _ = file.write_all(format!("{test}\t{why}\n").as_bytes());
    }
}

/// Runs a program to its end and gives what it printed; panics with both streams when it fails.
pub fn run(program: &Path, args: &[&str]) -> String {
    let output = command(program).args(args).stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{} {args:?}: {}", program.display(), text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{}\n{out}\n{err}", output.status)
}

/// Whether this machine lets a test mount a small file system of its own.
pub fn have_namespaces() -> bool {
    let unshare = command("unshare").args(namespace_flags()).args(["sh", "-c", "mount -t tmpfs none /mnt"]).output();
    unshare.is_ok_and(|output| output.status.success())
}

/// `unshare`'s flags for a private mount namespace; with a user namespace where we are not root.
pub(crate) fn namespace_flags() -> &'static [&'static str] {
    if is_root() { &["--mount"] } else { &["--user", "--map-root-user", "--mount"] }
}

/// Whether this is root.
pub fn is_root() -> bool {
    command("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0\n"))
}
