//! A subtree of the control groups of our own: the kubelet touches nothing of the host's, and what
//! it leaves can be removed whole.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Context as _, Result};
use super::options::Options;

const ROOT: &str = "/sys/fs/cgroup";

/// The roots of all hierarchies: one with cgroup v2, several with v1, among them often one of v2
/// without controllers, in which runc makes groups as well.
fn hierarchies() -> Vec<PathBuf> {
    if is_v2() {
        return vec![ROOT.into()];
    }
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    // Links are second names.
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> =
        folders.map(|entry| entry.path()).filter(|dir| dir.join("cgroup.procs").exists()).collect();
    found.sort();
    found
}

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Makes the subtree: with v1 it has to exist in every hierarchy before the kubelet starts.
pub(crate) fn create(options: &Options) -> Result<()> {
    if is_v2() {
        // Untested on a v2 host. A controller is available in a group only if its parent passes it
        // on; systemd does at the root, a bare container may not.
        let control = Path::new(ROOT).join("cgroup.subtree_control");
        let named = || format!("cannot pass control groups on in {}", control.display());
        let available = fs::read_to_string(Path::new(ROOT).join("cgroup.controllers")).on_machine(named)?;
        let passed = fs::read_to_string(&control).on_machine(named)?;
        for controller in missing(&available, &passed) {
            fs::write(&control, format!("+{controller}")).on_machine(|| format!("{}: {controller}", named()))?;
        }
    }
    for hierarchy in hierarchies() {
        let dir = hierarchy.join(&options.name);
        fs::create_dir_all(&dir).on_machine(|| format!("cannot create {}", dir.display()))?;
        // A new cpuset of v1 is empty and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !is_v2()
                && let Ok(value) = fs::read_to_string(hierarchy.join(file))
            {
                fs::write(dir.join(file), value).on_machine(|| format!("cannot write {file} in {}", dir.display()))?;
            }
        }
    }
    Ok(())
}

/// The controllers that the kubelet needs, are there and not passed on.
fn missing<'a>(available: &'a str, passed: &str) -> Vec<&'a str> {
    let needed = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"];
    let is_passed = |name: &str| passed.split_ascii_whitespace().any(|word| word == name);
    available.split_ascii_whitespace().filter(|name| needed.contains(name) && !is_passed(name)).collect()
}

/// What exists of the subtree.
pub(crate) fn found(options: &Options) -> Vec<PathBuf> {
    hierarchies().into_iter().map(|hierarchy| hierarchy.join(&options.name)).filter(|dir| dir.exists()).collect()
}

/// Removes what can be: all of it, once the last process in it is gone.
pub(crate) fn remove(options: &Options) {
    for dir in found(options) {
        remove_tree(&dir);
    }
}

/// A group can be removed when it is empty; its files go with it.
fn remove_tree(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_tree(&entry.path());
    }
    // Fails while a process is on its way out; the caller tries again.
    let _ = fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_needed_controllers_that_are_not_passed_on_are() {
        assert_eq!(missing("cpuset cpu io memory rdma misc", "cpu memory"), ["cpuset", "io"]);
        assert_eq!(missing("cpu memory", "memory cpu"), Vec::<&str>::new());
    }
}
