//! The node's own processes.
//!
//! ```text
//! up --spawn--> supervisor ==namespaces==> process 1 --spawn--> etcd, kube-apiserver, kubelet ...
//!                  |forwards 127.0.0.1:5050      |<--control.sock-- up, stop, start, status
//! ```
//!
//! The supervisor stays on the host's network and holds a pipe to process 1: when the supervisor
//! dies, whatever the reason, process 1 ends, and the kernel ends everything in its pid namespace.

mod components;
mod init;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};

use nix::sched::{CloneFlags, unshare};
use serde::{Deserialize, Serialize};

use super::components::Component;
use super::error::{Context as _, Result};
use super::forward;
use super::options::{Network, Options};

/// What a node is to be; `node.json` below the testbed's folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub(crate) hostname: String,
    pub(crate) network: Network,
    pub(crate) path: Vec<PathBuf>,
    pub(crate) components: Vec<Component>,
}

/// The spec's name below the testbed's folder.
pub(crate) const SPEC: &str = "node.json";
/// Where the supervisor writes the host's id of process 1.
pub(crate) const PID: &str = "node.pid";
/// The last argument of process 1; the supervisor has none behind the folder.
const INSIDE: &str = "--inside";

/// Starts the supervisor of the testbed in a session of its own. It outlives its starter.
pub(crate) fn spawn(options: &Options) -> Result<Child> {
    let log = open_log(&options.root, "supervisor")?;
    let both = log.try_clone().on_machine(|| "cannot duplicate a file")?;
    let (program, args) =
        options.supervisor.split_first().ok_or("no program").on_machine(|| "cannot start a supervisor")?;
    let mut command = crate::tool::command(program);
    command.args(args).arg(&options.root).env_clear().current_dir("/");
    command.stdin(Stdio::null()).stdout(log).stderr(both);
    command.spawn().on_machine(|| "cannot start the testbed's supervisor")
}

/// Becomes the supervisor of the testbed in the folder `root`, or with `inside` process 1 of its
/// node. `program` is what leads here again, without the folder.
pub fn run(root: &Path, inside: bool, program: &[OsString]) -> ExitCode {
    let ended = if inside { init::run(root) } else { supervise(root, program) };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            // Into the log, which is this process's stderr.
            eprintln!("{error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(root: &Path, program: &[OsString]) -> Result<()> {
    let spec = read_spec(root)?;
    // The starter's terminal may close.
    nix::unistd::setsid().on_machine(|| "cannot begin a session")?;
    forward::serve(&spec.network)?;
    // For the children: the next one is process 1. From here on this process can start no thread.
    unshare(CloneFlags::CLONE_NEWPID).on_machine(|| "cannot create a pid namespace")?;
    let log = open_log(root, "node")?;
    let both = log.try_clone().on_machine(|| "cannot duplicate a file")?;
    let (program, args) = program.split_first().ok_or("no program").on_machine(|| "cannot start the node")?;
    let mut command = crate::tool::command(program);
    command.args(args).arg(root).arg(INSIDE).env_clear();
    command.stdin(Stdio::piped()).stdout(log).stderr(both);
    let flags =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    // SAFETY: between fork and exec it makes one system call and allocates nothing.
    unsafe { command.pre_exec(move || Ok(unshare(flags)?)) };
    let mut child = command.spawn().on_machine(|| "cannot start the node")?;
    // Held open until this process ends, however that happens.
    let _pipe = child.stdin.take();
    std::fs::write(root.join(PID), child.id().to_string()).on_machine(|| "cannot write the node's id")?;
    child.wait().on_machine(|| "cannot wait for the node")?;
    Ok(())
}

fn read_spec(root: &Path) -> Result<Spec> {
    let path = root.join(SPEC);
    let text = std::fs::read(&path).on_machine(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).on_machine(|| format!("{} is damaged", path.display()))
}

fn open_log(root: &Path, name: &str) -> Result<File> {
    let path = root.join("logs").join(format!("{name}.log"));
    File::options().create(true).append(true).open(&path).on_machine(|| format!("cannot open {}", path.display()))
}
