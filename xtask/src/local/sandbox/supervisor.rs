//! The process outside of the sandbox that stays with the server: starts it, forwards signals,
//! writes down what runs and how it ended. Never has a second thread, so that it may fork.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stdin, fork, setsid};

use crate::cache::{self, Lock};
use crate::error::{Context as _, Error, Kind, Result};
use crate::local::identity::Identity;
use crate::local::spec::{Answer, Ended, Exit, Process, Refusal, Role, Running, Spec};
use crate::report;

use super::{init, namespaces};

/// The program of the hidden command: reads a [`Spec`] from the socket that is its stdin, and is
/// the supervisor from then on.
pub fn supervise() -> Result<ExitCode> {
    let named = || "cannot become a supervisor";
    close_inherited().on_machine(named)?;
    // Fails only for the leader of a process group, which a spawned process is not.
    let _ = setsid();
    // Before anything can be told to stop, and inherited by init: no signal is lost on the way.
    signals().thread_block().on_machine(named)?;
    let caller = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().on_machine(named)?);
    dup2_stdin(std::fs::File::open("/dev/null").on_machine(named)?).on_machine(named)?;

    let mut line = String::new();
    BufReader::new(&caller).read_line(&mut line).on_machine(|| "no specification on stdin")?;
    let spec: Spec = serde_json::from_str(&line).map_err(|error| {
        Error::new(Kind::Usage, "stdin holds no specification of a sandbox")
            .source(error)
            .hint("this command is for internal use; run `cargo xtask deploy`")
    })?;
    match start(&spec) {
        Ok(server) => server.watch(caller, &spec),
        Err(refusal) => {
            tell(&caller, &Answer::Refused(refusal));
            Ok(ExitCode::from(Kind::Machine.exit_code()))
        }
    }
}

/// A sandbox that was started.
struct Server {
    init: Pid,
    /// Ends of it: the lock is init's too, so it is free when the last process of the server is gone.
    _lock: Lock,
    answers: BufReader<UnixStream>,
    identity: Identity,
}

fn start(spec: &Spec) -> std::result::Result<Server, Refusal> {
    let lock = Lock::take(&spec.data.join(".lock"), "this data folder").map_err(|error| Refusal {
        busy: error.kind() == Kind::Locked,
        forbidden: false,
        what: error.lines().join(": "),
        why: "run `cargo xtask down` first".to_owned(),
    })?;
    let identity = Identity::own().ok_or_else(|| refusal("read /proc", Errno::last()))?;
    let privilege = namespaces::enter(spec)?;
    let (ours, theirs) = UnixStream::pair().map_err(|error| refusal("create a socket", error))?;
    // SAFETY: this process has one thread, so the child may go on with everything as it is here.
    match unsafe { fork() }.map_err(|error| refusal("fork", error))? {
        ForkResult::Child => {
            drop(ours);
            init::run(spec, privilege, theirs)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut answers = BufReader::new(ours);
            match super::read(&mut answers).map_err(|error| refusal("hear from init", error))? {
                Some(Answer::Ready(_)) => Ok(Server { init: child, _lock: lock, answers, identity }),
                Some(Answer::Refused(refusal)) => {
                    let _ = waitpid(child, None);
                    Err(refusal)
                }
                _ => Err(refusal("hear from init", "it ended")),
            }
        }
    }
}

impl Server {
    fn watch(mut self, caller: UnixStream, spec: &Spec) -> Result<ExitCode> {
        if let Role::Server { running, release, .. } = &spec.role {
            let record = Running {
                process: Process::Sandbox(self.identity.clone()),
                release: (**release).clone(),
                started_at: report::now(),
            };
            if let Err(error) = write_json(running, &record) {
                let _ = kill(self.init, Signal::SIGKILL);
                let refusal =
                    Refusal { what: error.lines().join(": "), why: String::new(), forbidden: false, busy: false };
                tell(&caller, &Answer::Refused(refusal));
                return Err(error);
            }
        }
        tell(&caller, &Answer::Ready(self.identity.clone()));
        // A server's caller may go; a task's is watched, for a task ends with it.
        let caller = match spec.role {
            Role::Server { .. } => None,
            Role::Task => Some(caller),
        };
        let (exit, stopped) = self.wait(caller.as_ref())?;
        match (&spec.role, caller) {
            (Role::Server { running, ended, release }, _) => {
                let record =
                    Ended { image: release.image, release: release.id.clone(), exit, at: report::now(), stopped };
                write_json(ended, &record)?;
                // Gone already when someone deleted the whole folder.
                let _ = std::fs::remove_file(running);
            }
            (Role::Task, Some(caller)) => tell(&caller, &Answer::Ended(exit)),
            (Role::Task, None) => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Forwards signals until init has ended. Tells how the program ended and whether it was told to.
    fn wait(&mut self, caller: Option<&UnixStream>) -> Result<(Exit, bool)> {
        let named = || "cannot wait for the server";
        let signals = SignalFd::with_flags(&signals(), SfdFlags::SFD_CLOEXEC).on_machine(named)?;
        let mut stopped = false;
        loop {
            let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            if let (Some(caller), false) = (caller, stopped) {
                fds.push(PollFd::new(caller.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other.on_machine(named)?,
            };
            let signalled = fds[0].any().unwrap_or(false);
            if fds.get(1).and_then(PollFd::any).unwrap_or(false) {
                stopped = true;
                let _ = kill(self.init, Signal::SIGKILL);
            }
            if !signalled {
                continue;
            }
            let Some(info) = signals.read_signal().on_machine(named)? else { continue };
            match i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGCHLD) => {
                    if let Some(exit) = self.ended() {
                        return Ok((exit, stopped));
                    }
                }
                Some(Signal::SIGTERM | Signal::SIGINT) => {
                    stopped = true;
                    // It may be gone; then the next signal is SIGCHLD.
                    let _ = kill(self.init, Signal::SIGTERM);
                }
                _ => {}
            }
        }
    }

    fn ended(&mut self) -> Option<Exit> {
        let by_init = match waitpid(self.init, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Exit { code: Some(code), signal: None },
            Ok(WaitStatus::Signaled(_, signal, _)) => Exit { code: None, signal: Some(signal as i32) },
            Err(Errno::ECHILD) => Exit::default(),
            _ => return None,
        };
        // What init saw of the program is better than what init's own end says.
        match super::read(&mut self.answers) {
            Ok(Some(Answer::Ended(exit))) => Some(exit),
            _ => Some(by_init),
        }
    }
}

/// The signals that supervisor and init wait for.
pub(super) fn signals() -> SigSet {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        set.add(signal);
    }
    set
}

pub(super) fn tell(mut socket: &UnixStream, answer: &Answer) {
    // Nobody listens any more: then nobody needs to know.
    if let Ok(line) = serde_json::to_string(answer) {
        let _ = writeln!(socket, "{line}");
    }
}

pub(super) fn refusal(what: &str, why: impl std::fmt::Display) -> Refusal {
    Refusal { what: what.to_owned(), why: why.to_string(), forbidden: false, busy: false }
}

fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).context(Kind::Internal, || "cannot write JSON")?;
    cache::write(path, &text)
}

/// Closes what the starting shell or cargo left open: a pipe held for days would keep its reader waiting.
fn close_inherited() -> std::io::Result<()> {
    use std::os::fd::FromRawFd as _;
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2)
        .collect();
    for fd in open {
        // The folder that was just listed is among them, and closed by now.
        if std::path::Path::new(&format!("/proc/self/fd/{fd}")).symlink_metadata().is_ok() {
            // SAFETY: this process has just begun and has opened nothing of its own above stderr.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    Ok(())
}
