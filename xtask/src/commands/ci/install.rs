//! The programs that the tests use, from Debian's packages.

use std::path::PathBuf;

use testbed::cluster;

use crate::commands::Run;
use crate::error::{Error, Kind, Result};
use crate::process::{self, Program};

/// The programs that the tests use besides cargo, with their packages.
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
    ("shellcheck", "shellcheck"),
    ("jq", "jq"),
    ("curl", "curl"),
    ("pg_createcluster", "postgresql"),
    ("promtool", "prometheus"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
];

/// Installs what is missing, where that is possible without asking: as root on a Debian host.
pub fn tools(run: &Run) -> Result<()> {
    let missing = |tool: &str| process::find(&[tool]).is_none();
    let wanted = TOOLS.iter().chain(cluster::TOOLS).chain(testbed::terraform::TOOLS).filter(|(tool, _)| missing(tool));
    let mut packages: Vec<String> = wanted.map(|(_, package)| (*package).to_owned()).collect();
    packages.sort_unstable();
    packages.dedup();
    let has_go = has_recent_go();
    if packages.is_empty() && has_go {
        return Ok(());
    }
    if missing("apt-get") {
        let what = packages.iter().map(String::as_str).chain((!has_go).then_some("Go 1.21")).collect::<Vec<_>>();
        run.ui.warn(format!("no apt-get here: tests that need {} are skipped", what.join(", ")));
        return Ok(());
    }
    let apt = || Program::new("apt-get").env("DEBIAN_FRONTEND", "noninteractive");
    apt().args(["update", "-qq"]).run()?;
    if !has_go {
        let names = Program::new("apt-cache").args(["pkgnames", "golang-1."]).read()?;
        match newest_go(&String::from_utf8_lossy(&names)) {
            Some(package) => packages.push(package),
            None => run.ui.warn(format!("no package has a Go that can build the testbed's programs: {}", cluster::GO)),
        }
    }
    if packages.is_empty() {
        return Ok(());
    }
    run.ui.step("Installing", packages.join(" "));
    apt().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages).run().map_err(|error| {
        Error::new(Kind::Tool, error.to_string()).hint("install the packages by hand, or use --no-install")
    })
}

/// Whether there is a Go that can build the testbed's programs.
pub fn has_recent_go() -> bool {
    let is_recent = |go: PathBuf| {
        let version = Program::new(go).arg("version").env("GOTOOLCHAIN", "local").read();
        version.is_ok_and(|text| cluster::is_recent_go(&String::from_utf8_lossy(&text)))
    };
    cluster::go_candidates().into_iter().any(is_recent)
}

/// The newest package with a Go that fetches the version it is asked for: 1.21 or later.
fn newest_go(names: &str) -> Option<String> {
    let minor = |name: &str| name.strip_prefix("golang-1.")?.strip_suffix("-go")?.parse::<u32>().ok();
    let newest = names.lines().filter_map(minor).filter(|minor| *minor >= 21).max()?;
    Some(format!("golang-1.{newest}-go"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_go_that_is_new_enough_is_installed() {
        for (names, expected) in [
            ("golang-1.19-go\ngolang-1.19\n", None),
            ("golang-1.22-go\ngolang-1.24-go\ngolang-1.25-src\ngolang-1.9-go", Some("golang-1.24-go")),
            ("", None),
        ] {
            assert_eq!(newest_go(names).as_deref(), expected, "{names}");
        }
    }
}
