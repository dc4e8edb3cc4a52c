//! A program of an image in Linux namespaces.
//!
//! ```text
//! deploy --spawn--> supervisor ==namespaces==> init (pid 1) --spawn--> the server
//!        <--socket--           <--socket--
//! ```
//!
//! The supervisor is this program again, in a session of its own, outside of the sandbox: it
//! forwards signals and writes down how the server ended. init sets the sandbox up, gives up every
//! privilege and reaps. When the supervisor dies, whatever the reason, init dies, and with it every
//! process of its pid namespace.

mod init;
mod namespaces;
mod supervisor;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::cache::{self, Cache};
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::Program;

use super::rootfs;
use super::spec::{Answer, Exit, Refusal, Role, Spec, USER};

pub use supervisor::supervise;

/// How long setting up a sandbox may take: milliseconds, unless the disk is very slow.
const SETUP: Duration = Duration::from_secs(60);

/// What a user can do where the kernel forbids user namespaces.
const ALLOW: &str = "allow user namespaces (sudo sysctl -w user.max_user_namespaces=15000; on Ubuntu also \
    kernel.apparmor_restrict_unprivileged_userns=0; on Debian kernel.unprivileged_userns_clone=1), or run it as root";

/// A sandbox whose program runs.
pub struct Sandbox {
    lines: BufReader<UnixStream>,
}

/// Starts `spec`; what it prints goes to the end of `log`. Returns when the program was started.
///
/// Blocks for some milliseconds.
pub fn start(spec: &Spec, log: &Path) -> Result<Sandbox> {
    let named = || format!("cannot open the log {}", log.display());
    let out = std::fs::File::options().create(true).append(true).open(log).on_machine(named)?;
    let err = out.try_clone().on_machine(named)?;
    let (ours, theirs) = UnixStream::pair().on_machine(|| "cannot create a socket")?;
    // The very binary that runs now, even if a build has replaced its file meanwhile.
    let mut command = Program::new("/proc/self/exe").args(["sandbox"]).clear_env().dir("/").into_std()?;
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(out).stderr(err);
    let mut child = command.spawn().on_machine(|| "cannot start the sandbox")?;
    drop(command);
    let answer = converse(&ours, spec);
    match answer {
        Ok((Answer::Ready(_), lines)) => Ok(Sandbox { lines }),
        Ok((Answer::Refused(refusal), _)) => {
            let _ = child.wait();
            Err(refused(refusal))
        }
        Ok((Answer::Ended(exit), _)) => {
            let _ = child.wait();
            Err(Error::new(Kind::Internal, format!("the sandbox ended before it began ({exit})")))
        }
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

/// Sets up a sandbox without a program: whether this kernel lets us, in some milliseconds.
pub fn probe(cache: &Cache) -> Result<()> {
    let dir = rootfs::scratch(cache)?;
    let (root, data) = (dir.path().join("root"), dir.path().join("data"));
    for dir in [&root, &data] {
        cache::create_dir(dir)?;
    }
    rootfs::mount_points(&root)?;
    let spec = Spec {
        root,
        data,
        command: Vec::new(),
        env: Vec::new(),
        workdir: "/".into(),
        uid: USER,
        gid: USER,
        role: Role::Task,
    };
    let exit = start(&spec, Path::new("/dev/null"))?.wait()?;
    match exit.success() {
        true => Ok(()),
        false => Err(Error::new(Kind::Machine, format!("an empty sandbox ended with {exit}"))),
    }
}

fn converse(socket: &UnixStream, spec: &Spec) -> Result<(Answer, BufReader<UnixStream>)> {
    let talk = || -> std::io::Result<(Option<Answer>, BufReader<UnixStream>)> {
        let mut socket = socket.try_clone()?;
        socket.set_read_timeout(Some(SETUP))?;
        writeln!(socket, "{}", serde_json::to_string(spec)?)?;
        let mut lines = BufReader::new(socket);
        let answer = read(&mut lines)?;
        Ok((answer, lines))
    };
    match talk().on_machine(|| "the sandbox does not answer")? {
        (Some(answer), lines) => Ok((answer, lines)),
        (None, _) => Err(Error::new(Kind::Machine, "the sandbox ended without an answer")),
    }
}

fn read(lines: &mut BufReader<UnixStream>) -> std::io::Result<Option<Answer>> {
    let mut line = String::new();
    match lines.read_line(&mut line)? {
        0 => Ok(None),
        _ => Ok(Some(serde_json::from_str(&line)?)),
    }
}

fn refused(refusal: Refusal) -> Error {
    if refusal.busy {
        return Error::new(Kind::Locked, refusal.what).hint(refusal.why);
    }
    let error = Error::new(Kind::Machine, format!("cannot set up the sandbox: {}", refusal.what)).source(refusal.why);
    if refusal.forbidden { error.hint(ALLOW) } else { error }
}

impl Sandbox {
    /// Waits until a task has ended. Dropping the sandbox before ends the task.
    ///
    /// Blocks.
    pub fn wait(mut self) -> Result<Exit> {
        let named = || "the sandbox was lost";
        self.lines.get_ref().set_read_timeout(None).on_machine(named)?;
        match read(&mut self.lines).on_machine(named)? {
            Some(Answer::Ended(exit)) => Ok(exit),
            Some(Answer::Refused(refusal)) => Err(refused(refusal)),
            Some(Answer::Ready(_)) | None => Err(Error::new(Kind::Machine, named())),
        }
    }

    /// A handle to end a task from elsewhere while [`Sandbox::wait`] blocks.
    pub fn interrupt(&self) -> Result<Interrupt> {
        Ok(Interrupt(self.lines.get_ref().try_clone().on_machine(|| "cannot duplicate a socket")?))
    }
}

/// Ends a task.
pub struct Interrupt(UnixStream);

impl Interrupt {
    /// Ends it: the supervisor sees that nobody waits any more.
    pub fn end(self) {
        // Already closed is as good.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }
}
