//! `ci`: exactly what CI runs.

use std::process::ExitCode;

use crate::commands::{Run, test};
use crate::error::{Error, Kind, Result};
use crate::process::{self, Program};
use crate::repo;

/// The programs that the tests use besides cargo, with their Debian packages.
const TOOLS: &[(&str, &str)] = &[
    ("skopeo", "skopeo"),
    ("umoci", "umoci"),
    ("buildah", "buildah"),
    ("podman", "podman"),
    ("containerd", "containerd"),
    ("runc", "runc"),
    ("docker-registry", "docker-registry"),
    ("debootstrap", "debootstrap"),
    ("setpriv", "util-linux"),
    ("openssl", "openssl"),
    ("pg_createcluster", "postgresql"),
];

/// Run exactly what CI runs: formatting, clippy, the tests
#[derive(clap::Args)]
pub struct Args {
    /// Do not install missing tools with apt-get.
    #[arg(long)]
    no_install: bool,
}

pub fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let root = repo::root()?;
    if !args.no_install {
        install_tools(run)?;
    }
    let cargo = || Program::new(test::cargo()).dir(&root);
    run.ui.step("Checking", "formatting");
    cargo().args(["fmt", "--all", "--check"]).run().map_err(|error| explain(error, "run `cargo fmt --all`"))?;
    run.ui.step("Checking", "clippy");
    cargo()
        .args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
        .run()
        .map_err(|error| explain(error, "mend what clippy names"))?;
    run.ui.step("Running", "tests");
    let outcome = test::execute(None)?;
    run.answer(&outcome)?;
    if outcome.failed > 0 {
        return Err(Error::new(Kind::Check, format!("{} tests failed", outcome.failed)));
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(error: Error, hint: &str) -> Error {
    Error::new(Kind::Check, error.to_string()).hint(hint)
}

/// Installs what is missing, where that is possible without asking: as root on a Debian host.
fn install_tools(run: &Run) -> Result<()> {
    let missing: Vec<&str> =
        TOOLS.iter().filter(|(tool, _)| process::find(&[tool]).is_none()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if process::find(&["apt-get"]).is_none() {
        run.ui.warn(format!("no apt-get here: tests that need {} are skipped", missing.join(", ")));
        return Ok(());
    }
    run.ui.step("Installing", missing.join(" "));
    let apt = || Program::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    apt().args(["update", "-qq"]).run()?;
    apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing).run().map_err(|error| {
        Error::new(Kind::Tool, error.to_string()).hint("install the packages by hand, or use --no-install")
    })
}
