//! Taking a testbed down, whole or what is left of it, and making sure that nothing is.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Context as _, Error, Kind, Result};
use super::options::Options;
use super::state::{self, Remains};
use super::{cgroup, kind, lock, network, up};

/// How long the kernel may take to end and release everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `down` has found and removed.
#[derive(Debug)]
pub struct Down {
    /// Whether there was anything.
    pub found: bool,
    /// Whether it was a testbed that was up, not what is left of one.
    pub was_up: bool,
}

/// Takes the testbed down. Where there is none, that is fine too.
pub async fn down(options: &Options) -> Result<Down> {
    options.check()?;
    if kind::exists().await {
        kind::down(options).await?;
        return Ok(Down { found: true, was_up: true });
    }
    if Remains::find(options).is_empty() && !lock::Lock::exists(&options.root) {
        state::unpublish(&options.out);
        return Ok(Down { found: false, was_up: false });
    }
    up::require_root()?;
    let _lock = lock::Lock::take(&options.root)?;
    let (found, was_up) = (!Remains::find(options).is_empty(), up::running(options).is_some());
    clean(options).await?;
    Ok(Down { found, was_up })
}

/// Ends and removes everything, and says what could not be. With the lock held.
pub(crate) async fn clean(options: &Options) -> Result<()> {
    let record = state::record(&options.root);
    let deadline = Instant::now() + PATIENCE;
    let mut remains = Remains::find(options);
    // Everything of the node is in its pid namespace and ends with process 1.
    while !remains.processes.is_empty() && Instant::now() < deadline {
        for pid in &remains.processes {
            match kill(Pid::from_raw(*pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error).on_machine(|| format!("cannot end process {pid}")),
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        remains = Remains::find(options);
    }
    if !remains.processes.is_empty() {
        return Err(left(&remains));
    }
    network::disconnect(options).await?;
    // Below a mount point there are files of somebody else's.
    for point in &remains.mounts {
        umount2(point, MntFlags::MNT_DETACH).on_machine(|| format!("cannot unmount {}", point.display()))?;
    }
    loop {
        cgroup::remove(options);
        let removed = match std::fs::remove_dir_all(&options.root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        let remains = Remains::find(options);
        if remains.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            removed.on_machine(|| format!("cannot remove {}", options.root.display()))?;
            return Err(left(&remains));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if let Some(record) = record {
        state::unpublish(&record.out);
    }
    state::unpublish(&options.out);
    Ok(())
}

fn left(remains: &Remains) -> Error {
    Error::new(Kind::Machine, format!("of the testbed there is still {}", remains.list().join(", ")))
        .hint("run `cargo xtask testbed down` again; a process that hangs in the kernel ends with a restart")
}
