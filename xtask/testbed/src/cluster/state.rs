//! What a testbed leaves on a machine: the files for its users, and everything that `down` has to
//! find again, whatever happened to the testbed in between.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::cgroup;
use super::error::{Context as _, Result};
use super::network;
use super::options::Options;

/// The context in the kubeconfig.
pub const CONTEXT: &str = "testbed";

/// The files for users, below [`Options::out`]. All but the record hold secrets.
pub const KUBECONFIG: &str = "kubeconfig";
/// `postgresql://` with user and password of the database `mlflow`.
pub const DATABASE_URI: &str = "database-uri";
/// The same for the superuser.
pub const DATABASE_ADMIN_URI: &str = "database-admin-uri";
/// JSON with `registry`, `user` and `password` of the registry that asks for a login.
pub const REGISTRY_LOGIN: &str = "registry-login";
/// JSON: [`Testbed`].
pub const RECORD: &str = "testbed.json";
const FILES: &[&str] = &[KUBECONFIG, DATABASE_URI, DATABASE_ADMIN_URI, REGISTRY_LOGIN, RECORD];

/// A testbed that is up, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Testbed {
    /// `node` or `kind`.
    pub with: String,
    /// The context in the kubeconfig.
    pub context: String,
    /// Path of the kubeconfig.
    pub kubeconfig: PathBuf,
    /// Address of the API server.
    pub api_server: String,
    /// The open registry, as images are named on the host and in the cluster.
    pub registry: String,
    /// The registry that asks for a login.
    pub login_registry: Option<String>,
    /// Host and port of PostgreSQL, as the host and the pods reach it.
    pub database: String,
    /// Address of the fake GCS, for `STORAGE_EMULATOR_HOST`.
    pub gcs: String,
    /// Its bucket, as `gs://` address.
    pub bucket: String,
    /// Address of the fake Google on the host; one made with kind has none.
    pub google: Option<String>,
    /// The same as pods reach it.
    pub google_for_pods: Option<String>,
    /// The project that the fake Google has.
    pub project: Option<String>,
    /// An image with a shell.
    pub busybox: String,
    /// An image with the Cloud SQL Auth Proxy.
    pub cloud_sql_proxy: String,
    /// An image with oauth2-proxy.
    pub oauth2_proxy: String,
    /// A kubectl of the cluster's version.
    pub kubectl: PathBuf,
    /// What runs, in the order in which it was started.
    pub components: Vec<String>,
    /// Program and version.
    pub versions: Vec<(String, String)>,
    /// Where the components' logs are.
    pub logs: PathBuf,
    /// Its folder.
    pub root: PathBuf,
    /// The folder with the files for its users.
    pub out: PathBuf,
    /// Process ids on the host: the supervisor and process 1 of the node.
    pub pids: Vec<i32>,
    /// When it came up, RFC 3339.
    pub since: String,
}

/// Writes a file that only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let named = || format!("cannot write {}", path.display());
    let part = path.with_extension("part");
    std::fs::write(&part, b"").on_machine(named)?;
    std::fs::set_permissions(&part, std::fs::Permissions::from_mode(0o600)).on_machine(named)?;
    std::fs::write(&part, bytes).on_machine(named)?;
    std::fs::rename(&part, path).on_machine(named)
}

/// Copies the users' files from the testbed's folder to where users look for them. They belong to
/// the owner of the checkout, not to root.
pub(crate) fn publish(options: &Options) -> Result<()> {
    let named = || format!("cannot write to {}", options.out.display());
    let owner = options.out.ancestors().find_map(|dir| dir.metadata().ok());
    std::fs::create_dir_all(&options.out).on_machine(named)?;
    let give = |path: &Path| match &owner {
        Some(owner) => std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).on_machine(named),
        None => Ok(()),
    };
    give(&options.out)?;
    for name in FILES {
        let bytes = std::fs::read(options.path("out").join(name)).on_machine(|| format!("cannot read {name}"))?;
        let path = options.out.join(name);
        write_private(&path, &bytes)?;
        give(&path)?;
    }
    Ok(())
}

/// Removes them.
pub(crate) fn unpublish(out: &Path) {
    for name in FILES {
        let _ = std::fs::remove_file(out.join(name));
    }
    // Only if nothing of somebody else's is in it.
    let _ = std::fs::remove_dir(out);
}

/// The record of the testbed in `root`, if it came up.
pub(crate) fn record(root: &Path) -> Option<Testbed> {
    serde_json::from_slice(&std::fs::read(root.join("out").join(RECORD)).ok()?).ok()
}

/// What of a testbed is on the machine, whole or in parts.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    /// Ids of the supervisor and of process 1; everything else ends with them.
    pub(crate) processes: Vec<i32>,
    link: Option<String>,
    cgroups: Vec<PathBuf>,
    /// Mount points on the host. There should never be one.
    pub(crate) mounts: Vec<PathBuf>,
    folder: Option<PathBuf>,
}

impl Remains {
    pub(crate) fn find(options: &Options) -> Self {
        Self {
            processes: processes(options),
            link: network::is_connected(options).then(|| options.host_link()),
            cgroups: cgroup::found(options),
            mounts: mounts(&options.root),
            folder: options.root.exists().then(|| options.root.clone()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list().is_empty()
    }

    /// What there is, each in words.
    pub(crate) fn list(&self) -> Vec<String> {
        let mut list: Vec<String> = self.processes.iter().map(|pid| format!("process {pid}")).collect();
        list.extend(self.link.iter().map(|link| format!("link {link}")));
        list.extend(self.cgroups.iter().map(|dir| format!("cgroup {}", dir.display())));
        list.extend(self.mounts.iter().map(|dir| format!("mount {}", dir.display())));
        list.extend(self.folder.iter().map(|dir| format!("folder {}", dir.display())));
        list
    }
}

/// The supervisor and process 1, known by their arguments: they end with our command and folder.
fn processes(options: &Options) -> Vec<i32> {
    let mut wanted: Vec<&OsStr> = options.supervisor.iter().skip(1).map(|arg| arg.as_os_str()).collect();
    wanted.push(options.root.as_os_str());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let ours = |pid: &i32| {
        // Empty for a process that has ended and was not waited for yet.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        leads_to(&line, &wanted)
    };
    pids.filter(ours).collect()
}

fn leads_to(command_line: &[u8], wanted: &[&OsStr]) -> bool {
    let args: Vec<&[u8]> = command_line.split(|byte| *byte == 0).collect();
    args.windows(wanted.len()).any(|window| window.iter().zip(wanted).all(|(arg, wanted)| *arg == wanted.as_bytes()))
}

fn mounts(root: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    let mut found: Vec<PathBuf> = points.filter(|point| point.starts_with(root)).collect();
    // What is mounted later hides what is below it.
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_by_command_and_folder() {
        let wanted = ["testbed", "node", "/var/tmp/x"].map(OsStr::new);
        for (line, expected) in [
            (&b"/proc/self/exe\0testbed\0node\0/var/tmp/x\0"[..], true),
            (b"/proc/self/exe\0testbed\0node\0/var/tmp/x\0--inside\0", true),
            (b"/proc/self/exe\0testbed\0node\0/var/tmp/xy\0", false),
            (b"vi\0/var/tmp/x\0", false),
            (b"", false),
        ] {
            assert_eq!(leads_to(line, &wanted), expected, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_private_file_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
