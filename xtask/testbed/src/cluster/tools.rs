//! The programs that the machine has to provide.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{Error, Kind, Result};
use super::program;

/// The programs that a node needs besides those that are built, with their Debian packages.
pub const TOOLS: &[(&str, &str)] = &[
    ("etcd", "etcd-server"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("docker-registry", "docker-registry"),
    ("busybox", "busybox-static"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
];

/// Where the found programs are.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    /// Folders in the order in which the components look for programs.
    pub(crate) path: Vec<PathBuf>,
    pub(crate) runc: PathBuf,
    pub(crate) cni: PathBuf,
    pub(crate) postgresql: PathBuf,
    pub(crate) busybox: PathBuf,
    /// What `containerd --version` says.
    pub(crate) containerd: String,
}

/// Finds them, or names all that are missing at once.
pub(crate) async fn find() -> Result<Tools> {
    let mut missing: Vec<(&str, &str)> =
        TOOLS.iter().filter(|(name, _)| program::find(name).is_none()).copied().collect();
    let runc = working_runc().await;
    if runc.is_none() {
        missing.push(("a runc that starts", "runc"));
    }
    let cni = ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from).into_iter().find(|dir| {
        ["bridge", "host-local", "portmap", "loopback"].iter().all(|name| program::is_executable(&dir.join(name)))
    });
    if cni.is_none() {
        missing.push(("the CNI plugins", "containernetworking-plugins"));
    }
    let postgresql = newest_postgresql();
    if postgresql.is_none() {
        missing.push(("PostgreSQL", "postgresql"));
    }
    let (Some(runc), Some(cni), Some(postgresql), true) = (runc, cni, postgresql, missing.is_empty()) else {
        return Err(refuse(&missing));
    };
    let mut version = program::command("containerd");
    version.arg("--version");
    Ok(Tools {
        path: program::search_path(),
        runc,
        cni,
        postgresql,
        busybox: program::find("busybox").unwrap_or_default(),
        containerd: program::read(version, b"", Duration::from_secs(20)).await?,
    })
}

fn refuse(missing: &[(&str, &str)]) -> Error {
    let names: Vec<&str> = missing.iter().map(|(name, _)| *name).collect();
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    Error::new(Kind::Tool, format!("a testbed needs {}", names.join(", ")))
        .hint(format!("install the Debian packages: apt-get install {}", packages.join(" ")))
}

/// The first that starts at all: one that was packaged for a newer Debian than the host's does not.
async fn working_runc() -> Option<PathBuf> {
    for runc in program::all("runc") {
        let mut command = program::command(&runc);
        command.arg("--version");
        if program::read(command, b"", Duration::from_secs(20)).await.is_ok() {
            return Some(runc);
        }
    }
    None
}

/// Debian keeps each major version in a folder of its own, none of them in the PATH.
fn newest_postgresql() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| ["initdb", "postgres", "psql", "pg_isready"].iter().all(|name| bin.join(name).is_file()))
        .collect();
    found.sort();
    found.pop().map(|(_, bin)| bin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_named_at_once_with_its_package() {
        let error = refuse(&[("containerd", "containerd"), ("etcd", "etcd-server"), ("containerd-shim", "containerd")]);
        assert_eq!(error.to_string(), "a testbed needs containerd, etcd, containerd-shim");
        let hint = error.hint.as_deref();
        assert_eq!(hint, Some("install the Debian packages: apt-get install containerd etcd-server"));
    }
}
