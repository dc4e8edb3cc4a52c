//! The only file that starts programs. Arguments are visible to every user of the machine, so
//! secrets go by stdin or environment, and no failure prints a command line.

use std::ffi::{OsStr, OsString};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use xshell::{Cmd, Shell};

use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};

/// How long a program may tidy up after SIGTERM before it is killed.
const TIDY_UP: Duration = Duration::from_secs(10);

/// The first of `names` that is on the PATH.
pub fn find(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names
        .iter()
        .find_map(|name| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| is_executable(file)))
}

fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// The program, or an error that names it and how to get it.
pub fn require(name: &str, how_to_get_it: &str) -> Result<PathBuf> {
    find(&[name])
        .ok_or_else(|| Error::new(Kind::Tool, format!("{name} is not installed")).hint(how_to_get_it.to_owned()))
}

/// The first of `tools` that `open` finds to work. Where none does, `none` is told why each was
/// refused; an interruption ends the search.
pub async fn first_that_works<T: Copy + std::fmt::Display, W>(
    tools: &[T],
    open: impl AsyncFn(T) -> Result<W>,
    none: impl FnOnce(String) -> Error,
) -> Result<W> {
    let mut refused = Vec::new();
    for tool in tools {
        match open(*tool).await {
            Ok(works) => return Ok(works),
            Err(error) if error.kind() == Kind::Interrupted => return Err(error),
            Err(error) => {
                // The last line is what the tool died of; those before are its attempts.
                let lines = error.lines();
                let why = lines.iter().flat_map(|text| text.lines()).rfind(|line| !line.trim().is_empty());
                refused.push(format!("{tool}: {}", why.unwrap_or_default().trim()));
            }
        }
    }
    Err(none(refused.join("; ")))
}

/// All that a program said.
pub struct Said {
    /// How it ended.
    pub status: std::process::ExitStatus,
    /// Its answer.
    pub stdout: Vec<u8>,
    /// What it wrote for people.
    pub stderr: Vec<u8>,
}

/// A program to run to its end, its stderr passed through to the user unless captured.
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    clear_env: bool,
    dir: Option<PathBuf>,
    stdin: Option<Vec<u8>>,
}

impl Program {
    /// A program by path or, without a slash, by name.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), clear_env: false, dir: None, stdin: None }
    }

    /// Adds one argument. Never a secret.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments. Never secrets.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts from an empty environment.
    pub fn clear_env(mut self) -> Self {
        self.clear_env = true;
        self
    }

    /// Runs in this folder.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Feeds stdin; the way to hand over a secret.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Runs it; both streams go to the user's stderr, because stdout is for results.
    pub fn run(self) -> Result<()> {
        let name = self.name();
        let (shell, output_to) = (self.shell()?, duplicate_stderr()?);
        let command = self.command(&shell);
        let mut command = std::process::Command::from(command);
        let status = command.stdout(output_to).status().map_err(|error| spawn_error(&name, error))?;
        if status.success() { Ok(()) } else { Err(Error::new(Kind::Tool, format!("{name} failed ({status})"))) }
    }

    /// Runs it and gives its stdout. What it wrote to stderr is in the error when it fails.
    pub fn read(self) -> Result<Vec<u8>> {
        let name = self.name();
        let shell = self.shell()?;
        let output = self
            .command(&shell)
            .ignore_status()
            .output()
            .map_err(|error| Error::new(Kind::Tool, format!("cannot run {name}")).source(error))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(Error::new(Kind::Tool, format!("{name} failed ({})", output.status)).source(tail(&output.stderr)))
    }

    /// Runs it and gives each line of its stdout as it comes; stderr is the user's.
    pub fn stream(self, mut on_line: impl FnMut(&str)) -> Result<std::process::ExitStatus> {
        let name = self.name();
        let mut command = self.into_std()?;
        let mut child =
            command.stdout(std::process::Stdio::piped()).spawn().map_err(|error| spawn_error(&name, error))?;
        let stdout = child.stdout.take().expect("stdout is piped");
        for line in std::io::BufReader::new(stdout).split(b'\n') {
            let line = line.on_machine(|| format!("cannot read what {name} prints"))?;
            on_line(&String::from_utf8_lossy(&line));
        }
        child.wait().on_machine(|| format!("cannot wait for {name}"))
    }

    /// Runs it to its end with both streams on the user's stderr. When `cancel` says so, it is told
    /// to stop, with all that it has started.
    pub async fn attend(self, cancel: &CancellationToken) -> Result<()> {
        let (name, mut command) = (self.name(), self.into_async()?);
        command.stdout(duplicate_stderr()?).stderr(Stdio::inherit());
        let child = command.spawn().map_err(|error| spawn_error(&name, error))?;
        let status = Group::new(child).wait(&name, cancel).await?;
        if status.success() { Ok(()) } else { Err(Error::new(Kind::Tool, format!("{name} failed ({status})"))) }
    }

    /// Runs it to its end, both streams into the file `out`.
    pub async fn copy(self, cancel: &CancellationToken, out: std::fs::File) -> Result<()> {
        let (name, mut command) = (self.name(), self.into_async()?);
        let both = out.try_clone().on_machine(|| "cannot duplicate a file")?;
        command.stdout(out).stderr(both);
        let child = command.spawn().map_err(|error| spawn_error(&name, error))?;
        let status = Group::new(child).wait(&name, cancel).await?;
        if status.success() { Ok(()) } else { Err(Error::new(Kind::Tool, format!("{name} failed ({status})"))) }
    }

    /// Runs it and gives its stdout, for at most `deadline`. What it wrote to stderr is in the error
    /// when it fails.
    pub async fn ask(self, cancel: &CancellationToken, deadline: Duration) -> Result<Vec<u8>> {
        let name = self.name();
        let said = self.hear(cancel, deadline).await?;
        if said.status.success() {
            return Ok(said.stdout);
        }
        Err(Error::new(Kind::Tool, format!("{name} failed ({})", said.status)).source(tail(&said.stderr)))
    }

    /// Runs it to its end, well or badly, for at most `deadline`, and gives all that it said.
    pub async fn hear(mut self, cancel: &CancellationToken, deadline: Duration) -> Result<Said> {
        let (name, input) = (self.name(), self.stdin.take());
        let mut command = self.into_async()?;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|error| spawn_error(&name, error))?;
        let (mut stdout, mut stderr) =
            (child.stdout.take().expect("stdout is piped"), child.stderr.take().expect("stderr is piped"));
        let stdin = child.stdin.take();
        let mut group = Group::new(child);
        let (mut answer, mut complaint) = (Vec::new(), Vec::new());
        let feed = async {
            if let Some((mut stdin, input)) = stdin.zip(input) {
                // A program that ends without reading says itself what is wrong.
                let _ = stdin.write_all(&input).await;
            }
        };
        let work = async {
            let (out, err, ()) =
                tokio::join!(stdout.read_to_end(&mut answer), stderr.read_to_end(&mut complaint), feed);
            out.and(err).on_machine(|| format!("cannot read what {name} prints"))?;
            group.wait(&name, cancel).await
        };
        let ended = tokio::select! {
            ended = tokio::time::timeout(deadline, work) => ended,
            () = cancel.cancelled() => return Err(Run::interrupted()),
        };
        let Ok(status) = ended else {
            let message = format!("{name} did not answer within {} s", deadline.as_secs());
            return Err(Error::new(Kind::Tool, message).source(tail(&complaint)));
        };
        Ok(Said { status: status?, stdout: answer, stderr: complaint })
    }

    /// Runs it to its end and gives each line of its stdout as it comes, and at the end what it wrote to
    /// stderr. When `cancel` says so it is told to stop, and has `patience` to do so in order.
    pub async fn follow(
        self,
        cancel: &CancellationToken,
        patience: Duration,
        mut on_line: impl FnMut(&str),
    ) -> Result<(std::process::ExitStatus, String)> {
        let (name, mut command) = (self.name(), self.into_async()?);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| spawn_error(&name, error))?;
        let (stdout, mut stderr) =
            (child.stdout.take().expect("stdout is piped"), child.stderr.take().expect("stderr is piped"));
        let mut group = Group::new(child);
        let stop = group.handle();
        let work = async {
            let mut complaint = Vec::new();
            let mut lines = tokio::io::BufReader::new(stdout).split(b'\n');
            let listen = async {
                while let Some(line) = lines.next_segment().await? {
                    on_line(&String::from_utf8_lossy(&line));
                }
                Ok(())
            };
            let (out, err) = tokio::join!(listen, stderr.read_to_end(&mut complaint));
            out.and(err.map(drop)).on_machine(|| format!("cannot read what {name} prints"))?;
            let status = group.child.wait().await.on_machine(|| format!("cannot wait for {name}"))?;
            group.ended = true;
            Ok((status, tail(&complaint)))
        };
        tokio::pin!(work);
        tokio::select! {
            ended = &mut work => ended,
            () = cancel.cancelled() => {
                // As the terminal does: what it has started leaves it to it to end in order.
                stop(Signal::SIGINT);
                // Killed when it does not end: see Drop.
                let _ = tokio::time::timeout(patience, work).await;
                Err(Run::interrupted())
            }
        }
    }

    /// In a process group of its own, so that a signal reaches all that it starts, once.
    fn into_async(self) -> Result<tokio::process::Command> {
        let mut command = tokio::process::Command::from(self.into_std()?);
        command.stdin(Stdio::null()).process_group(0);
        Ok(command)
    }

    /// Hands the program over to the standard library, for what must outlive this process.
    pub fn into_std(self) -> Result<std::process::Command> {
        let shell = self.shell()?;
        Ok(std::process::Command::from(self.command(&shell)))
    }

    fn name(&self) -> String {
        self.path
            .file_name()
            .map_or_else(|| self.path.display().to_string(), |name| name.to_string_lossy().into_owned())
    }

    fn shell(&self) -> Result<Shell> {
        let shell = Shell::new().on_machine(|| "cannot read the current folder")?;
        if let Some(dir) = &self.dir {
            shell.change_dir(dir);
        }
        Ok(shell)
    }

    fn command<'a>(&self, shell: &'a Shell) -> Cmd<'a> {
        let mut command = shell.cmd(&self.path).args(&self.args).quiet();
        if self.clear_env {
            command = command.env_clear();
        }
        command = command.envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(bytes) = &self.stdin {
            command = command.stdin(bytes);
        }
        // xshell's errors would print the whole command line; ours name the program.
        command.set_secret(true);
        command
    }
}

/// A program and all that it has started; killed when dropped before its end.
struct Group {
    child: tokio::process::Child,
    ended: bool,
}

impl Group {
    fn new(child: tokio::process::Child) -> Self {
        Self { child, ended: false }
    }

    async fn wait(&mut self, name: &str, cancel: &CancellationToken) -> Result<std::process::ExitStatus> {
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = cancel.cancelled() => {
                self.signal(Signal::SIGTERM);
                // Killed when it does not end: see Drop.
                self.ended = tokio::time::timeout(TIDY_UP, self.child.wait()).await.is_ok();
                return Err(Run::interrupted());
            }
        };
        self.ended = true;
        status.on_machine(|| format!("cannot wait for {name}"))
    }

    fn signal(&self, signal: Signal) {
        self.handle()(signal);
    }

    /// What sends signals to it; to be used before its end only.
    fn handle(&self) -> impl Fn(Signal) + use<> {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        move |signal| {
            // It may have ended by itself.
            let _ = id.map(|id| nix::sys::signal::killpg(Pid::from_raw(id), signal));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::SIGKILL);
        }
    }
}

fn tail(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().rev().take(15).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

fn duplicate_stderr() -> Result<std::process::Stdio> {
    use std::os::fd::AsFd as _;
    let fd = std::io::stderr().as_fd().try_clone_to_owned().on_machine(|| "cannot duplicate stderr")?;
    Ok(fd.into())
}

fn spawn_error(name: &str, error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Error::new(Kind::Tool, format!("{name} is not installed"))
            .hint(format!("install {name} and run the same command again"));
    }
    Error::new(Kind::Machine, format!("cannot start {name}")).source(error)
}
