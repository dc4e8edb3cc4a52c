//! Process 1 of the node: its mounts and settings, then its components, until the supervisor dies.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use nix::mount::{MsFlags, mount};

use crate::cluster::control::{Reply, Request, SOCKET};
use crate::cluster::error::{Context as _, Result};

use super::components::Components;

/// Folders with fixed names that containerd, CNI and the kubelet write to; the host's stay untouched.
const PRIVATE: &[&str] = &["/run", "/var/lib", "/var/log", "/dev/shm"];

/// Settings of the whole machine that the kubelet writes when they differ. Each is covered with a
/// file that already holds what it wants.
const SETTINGS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

pub(super) fn run(root: &Path) -> Result<()> {
    let spec = super::read_spec(root)?;
    // Everything here ends with this process, and this process with its supervisor.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    mounts(root)?;
    // Of this network namespace and this UTS namespace.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").on_machine(|| "cannot forward packets")?;
    fs::write("/proc/sys/kernel/hostname", &spec.hostname).on_machine(|| "cannot set the hostname")?;
    let components = Arc::new(Components::new(spec, root));
    let socket = root.join(SOCKET);
    let listener = UnixListener::bind(&socket).on_machine(|| format!("cannot listen on {}", socket.display()))?;
    let serving = components.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            let components = serving.clone();
            std::thread::spawn(move || answer(&connection, &components));
        }
    });
    components.reap()
}

fn answer(connection: &UnixStream, components: &Components) {
    let mut line = String::new();
    if BufReader::new(connection).read_line(&mut line).is_err() {
        return;
    }
    let outcome = match serde_json::from_str(&line) {
        Ok(Request::Start(name)) => components.start(&name).map(|()| Reply::Done),
        Ok(Request::Stop(name, how)) => components.stop(&name, how).map(|()| Reply::Done),
        Ok(Request::Status) => Ok(Reply::Status(components.status())),
        Err(error) => Err(error.to_string()),
    };
    let reply = outcome.unwrap_or_else(Reply::Refused);
    if let Ok(mut text) = serde_json::to_vec(&reply) {
        text.push(b'\n');
        // Who asked may have gone.
        let _ = (&*connection).write_all(&text);
    }
}

fn mounts(root: &Path) -> Result<()> {
    let none = None::<&str>;
    let change = |flags| mount(none, "/", none, flags | MsFlags::MS_REC, none);
    // Cut off from the host's mounts, then shared within: the kubelet needs propagation.
    change(MsFlags::MS_PRIVATE)
        .and_then(|()| change(MsFlags::MS_SHARED))
        .on_machine(|| "cannot make mounts private")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, none).on_machine(|| "cannot mount /proc")?;
    for dir in PRIVATE {
        let (flags, mode) = match *dir {
            "/dev/shm" => (MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=1777,size=256m"),
            _ => (MsFlags::MS_NOSUID, "mode=755,size=256m"),
        };
        mount(Some("tmpfs"), *dir, Some("tmpfs"), flags, Some(mode)).on_machine(|| format!("cannot mount {dir}"))?;
    }
    let folder = root.join("settings");
    fs::create_dir_all(&folder).on_machine(|| format!("cannot create {}", folder.display()))?;
    for (name, value) in SETTINGS {
        let target = Path::new("/proc/sys").join(name);
        if !target.exists() {
            continue;
        }
        let cover = folder.join(name.replace('/', "."));
        fs::write(&cover, format!("{value}\n")).on_machine(|| format!("cannot write {}", cover.display()))?;
        mount(Some(&cover), &target, none, MsFlags::MS_BIND, none)
            .on_machine(|| format!("cannot cover {}", target.display()))?;
    }
    Ok(())
}
