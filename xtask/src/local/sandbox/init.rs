//! Process 1 of the sandbox: sets it up, becomes nobody, starts the program, reaps, and ends with it.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::{set_dumpable, set_pdeathsig};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin};

use crate::local::identity::Identity;
use crate::local::spec::{Answer, Exit, Refusal, Spec};
use crate::process::Program;

use super::namespaces::{self, Privilege};
use super::supervisor::{refusal, signals, tell};

/// Runs the program to its end.
pub fn run(spec: &Spec, privilege: Privilege, supervisor: UnixStream) -> ! {
    let exit = match begin(spec, privilege, &supervisor) {
        Ok(program) => {
            // The identity is the supervisor's business: ids mean something else in here.
            tell(&supervisor, &Answer::Ready(Identity { pid: 1, start: 0, boot: String::new() }));
            let exit = program.map_or(Exit { code: Some(0), signal: None }, reap);
            tell(&supervisor, &Answer::Ended(exit));
            exit
        }
        Err(refusal) => {
            tell(&supervisor, &Answer::Refused(refusal));
            Exit { code: Some(1), signal: None }
        }
    };
    std::process::exit(exit.code.unwrap_or(1))
}

fn begin(spec: &Spec, privilege: Privilege, supervisor: &UnixStream) -> Result<Option<Pid>, Refusal> {
    umask(Mode::from_bits_truncate(0o022));
    namespaces::build(spec, privilege)?;
    namespaces::drop_privileges(spec, privilege)?;
    // In a user namespace the program has this process's user: it must not reach through /proc/1 to
    // what is open or mapped here.
    set_dumpable(false).map_err(|error| refusal("hide from the program", error))?;
    // After the change of user, which resets it (prctl(2), PR_SET_PDEATHSIG).
    set_pdeathsig(Signal::SIGKILL).map_err(|error| refusal("watch the supervisor", error))?;
    let mut fds = [PollFd::new(supervisor.as_fd(), PollFlags::empty())];
    let gone = poll(&mut fds, PollTimeout::ZERO).map_err(|error| refusal("watch the supervisor", error))?;
    if gone > 0 {
        return Err(refusal("watch the supervisor", "it is gone"));
    }
    if spec.command.is_empty() {
        return Ok(None);
    }
    spawn(spec).map(Some)
}

fn spawn(spec: &Spec) -> Result<Pid, Refusal> {
    let fail = |why: &dyn std::fmt::Display| refusal(&format!("start {}", spec.command[0]), why);
    let program = find(&spec.command[0], &spec.env).ok_or_else(|| fail(&"the image has no such program"))?;
    dup2_stdin(File::open("/dev/null").map_err(|error| fail(&error))?).map_err(|error| fail(&error))?;
    let mut command = Program::new(program)
        .args(&spec.command[1..])
        .clear_env()
        .dir(&spec.workdir)
        .into_std()
        .map_err(|error| fail(&error))?;
    command.envs(spec.env.iter().map(|(key, value)| (key, value))).stdin(Stdio::null());
    // The signals that are blocked here would stay blocked in the program.
    let unblock = || Ok(SigSet::empty().thread_set_mask()?);
    // SAFETY: between fork and exec it makes one system call, sigprocmask(2), and allocates nothing.
    unsafe { command.pre_exec(unblock) };
    let child = command.spawn().map_err(|error| fail(&error))?;
    i32::try_from(child.id()).map(Pid::from_raw).map_err(|error| fail(&error))
}

/// As execvp(3) does, with the image's PATH.
fn find(name: &str, env: &[(String, String)]) -> Option<PathBuf> {
    if name.contains('/') {
        return Path::new(name).exists().then(|| name.into());
    }
    let path = env.iter().find(|(key, _)| key == "PATH").map_or("/usr/local/bin:/usr/bin:/bin", |(_, value)| value);
    path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.is_file())
}

fn reap(program: Pid) -> Exit {
    loop {
        match signals().wait() {
            Ok(Signal::SIGTERM | Signal::SIGINT) => {
                // The program alone: it knows how to end its own children.
                let _ = kill(program, Signal::SIGTERM);
            }
            Ok(Signal::SIGCHLD) => {
                while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                    match status {
                        WaitStatus::Exited(pid, code) if pid == program => {
                            return Exit { code: Some(code), signal: None };
                        }
                        WaitStatus::Signaled(pid, signal, _) if pid == program => {
                            return Exit { code: None, signal: Some(signal as i32) };
                        }
                        WaitStatus::StillAlive => break,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}
