//! The view that the program gets: its own mounts, processes and IPC, the image as read-only root,
//! the host's network, no privileges (namespaces(7), mount_namespaces(7), user_namespaces(7)).

use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, getegid, geteuid, pivot_root, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

use crate::local::spec::{DATA, Refusal, Spec};

type Result<T> = std::result::Result<T, Refusal>;

/// Where the right to make namespaces comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// This is root; the program becomes another user for real.
    Root,
    /// A user namespace, in which the caller goes by the image's user.
    UserNamespace,
}

/// Leaves the user and process namespaces; the next fork is process 1 of the new ones.
pub fn enter(spec: &Spec) -> Result<Privilege> {
    if geteuid().is_root() {
        match unshare(CloneFlags::CLONE_NEWPID) {
            Ok(()) => return Ok(Privilege::Root),
            // Root of a container that may not; a user namespace may still work.
            Err(Errno::EPERM) => {}
            Err(error) => return Err(failed("create a pid namespace", error, Privilege::Root)),
        }
    }
    let privilege = Privilege::UserNamespace;
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|error| {
        let refusal = failed("create a user namespace", error, privilege);
        // unshare(2): ENOSPC is a limit here, no full disk.
        let why = if error == Errno::ENOSPC { "user.max_user_namespaces is reached".to_owned() } else { refusal.why };
        Refusal { forbidden: true, why, ..refusal }
    })?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{} {uid} 1", spec.uid)),
        ("gid_map", format!("{} {gid} 1", spec.gid)),
    ] {
        fs::write(Path::new("/proc/self").join(file), text).map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
            failed(&format!("write {file}"), errno, privilege)
        })?;
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(|error| failed("create a pid namespace", error, privilege))?;
    Ok(privilege)
}

/// Makes the file system of process 1 and enters it.
pub fn build(spec: &Spec, privilege: Privilege) -> Result<()> {
    let fail = |what: String| move |error: Errno| failed(&what, error, privilege);
    let flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    unshare(flags).map_err(fail("create a mount namespace".into()))?;
    mount(None::<&Path>, "/", None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&Path>)
        .map_err(fail("make mounts private".into()))?;

    let root = &spec.root;
    bind(root, root, MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV, privilege)?;
    if mount_flags(root, privilege)?.contains(MsFlags::MS_NOEXEC) {
        return Err(Refusal {
            what: format!("{} is on a file system that is mounted noexec", root.display()),
            why: "point XDG_CACHE_HOME at another one".to_owned(),
            forbidden: false,
            busy: false,
        });
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let fresh = |name: &str, kind: &str, flags: MsFlags, options: &str| -> Result<()> {
        let target = inside(root, name)?;
        mount(Some(kind), &target, Some(kind), flags, Some(options)).map_err(fail(format!("mount {name}")))
    };
    fresh("/proc", "proc", quiet, "")?;
    fresh("/tmp", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777,size=256m")?;
    fresh("/dev", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, "mode=755,size=64k")?;
    devices(&root.join("dev"), privilege)?;
    fresh("/dev/shm", "tmpfs", quiet, "mode=1777,size=256m")?;
    let dev = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(None::<&Path>, &root.join("dev"), None::<&Path>, dev, None::<&Path>)
        .map_err(fail("make /dev read-only".into()))?;

    bind(&spec.data, &inside(root, DATA)?, quiet, privilege)?;
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        if Path::new(file).is_file() {
            bind(Path::new(file), &inside(root, file)?, MsFlags::MS_RDONLY | quiet, privilege)?;
        }
    }

    nix::unistd::chdir(root).map_err(fail("enter the image".into()))?;
    // Old root on top of the new one, then gone: pivot_root(2), "pivot_root(".", ".")".
    pivot_root(".", ".").map_err(fail("change the root".into()))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(fail("leave the host's files".into()))?;
    nix::unistd::chdir("/").map_err(fail("enter the image".into()))
}

/// Gives up every privilege, for good.
pub fn drop_privileges(spec: &Spec, privilege: Privilege) -> Result<()> {
    let fail = |what: &'static str| move |error: Errno| failed(what, error, privilege);
    let fail_io = |what: &'static str| {
        move |error: rustix::io::Errno| failed(what, Errno::from_raw(error.raw_os_error()), privilege)
    };
    for capability in (0..64).map(|n| CapabilitySet::from_bits_retain(1 << n)) {
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The first one that this kernel does not know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(fail_io("empty the capability bounding set")(error)),
        }
    }
    if privilege == Privilege::Root {
        let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
        setgroups(&[gid]).map_err(fail("leave the groups"))?;
        setresgid(gid, gid, gid).map_err(fail("become the image's group"))?;
        setresuid(uid, uid, uid).map_err(fail("become the image's user"))?;
    }
    clear_ambient_capability_set().map_err(fail_io("clear the ambient capabilities"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .map_err(fail_io("drop the capabilities"))?;
    set_no_new_privs(true).map_err(fail_io("set no_new_privs"))
}

fn devices(dev: &Path, privilege: Privilege) -> Result<()> {
    let io =
        |what: &str, error: std::io::Error| failed(what, Errno::from_raw(error.raw_os_error().unwrap_or(0)), privilege);
    for name in ["null", "zero", "full", "random", "urandom"] {
        let target = dev.join(name);
        fs::write(&target, "").map_err(|error| io("create a device", error))?;
        bind(&Path::new("/dev").join(name), &target, MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, privilege)?;
    }
    for (name, target) in [("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")] {
        std::os::unix::fs::symlink(format!("/proc/self/{target}"), dev.join(name))
            .map_err(|error| io("fill /dev", error))?;
    }
    fs::create_dir(dev.join("shm")).map_err(|error| io("fill /dev", error))
}

/// Mounts `source` at `target` with `flags` added to those that its file system has: a user
/// namespace may not take any of them away (mount_namespaces(7), "Restrictions").
fn bind(source: &Path, target: &Path, flags: MsFlags, privilege: Privilege) -> Result<()> {
    let fail = |error| failed(&format!("mount {}", source.display()), error, privilege);
    mount(Some(source), target, None::<&Path>, MsFlags::MS_BIND, None::<&Path>).map_err(fail)?;
    let flags = mount_flags(target, privilege)? | flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(None::<&Path>, target, None::<&Path>, flags, None::<&Path>).map_err(fail)
}

fn mount_flags(path: &Path, privilege: Privilege) -> Result<MsFlags> {
    let found = statvfs(path).map_err(|error| failed(&format!("look at {}", path.display()), error, privilege))?;
    let pairs = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let set = pairs.iter().filter(|(found_flag, _)| found.flags().contains(*found_flag));
    Ok(set.fold(MsFlags::empty(), |all, (_, flag)| all | *flag))
}

/// The mount point `path` of the image. A link there would lead the mount out of the image.
fn inside(root: &Path, path: &str) -> Result<PathBuf> {
    let mut target = root.to_path_buf();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        target.push(part);
        match target.symlink_metadata() {
            Ok(meta) if !meta.is_symlink() => {}
            Ok(_) => return Err(super::supervisor::refusal(&format!("mount {path}"), "the image has a link there")),
            Err(error) => return Err(super::supervisor::refusal(&format!("mount {path}"), error)),
        }
    }
    Ok(target)
}

fn failed(what: &str, error: Errno, privilege: Privilege) -> Refusal {
    let denied = matches!(error, Errno::EPERM | Errno::EACCES);
    Refusal {
        what: what.to_owned(),
        why: error.desc().to_owned(),
        forbidden: privilege == Privilege::UserNamespace && denied,
        busy: false,
    }
}
