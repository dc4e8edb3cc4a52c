//! Runs one program to its end and says what that cost.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, killpg};
use nix::sys::time::TimeVal;
use nix::unistd::Pid;

use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::Program;

/// How long a program may tidy up after Ctrl-C.
const GRACE: Duration = Duration::from_secs(8);

/// Longer than any build: a peer that waits for an answer that never comes ends here.
const DEADLINE: Duration = Duration::from_secs(1800);

/// What one program cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// Wall time in seconds.
    pub seconds: f64,
    /// User and system time in seconds, with all descendants that were waited for.
    pub cpu_seconds: f64,
    /// What it wrote to stdout.
    pub stdout: String,
}

/// Runs `program`, named `name` in errors. Its output goes to files in `logs`. After Ctrl-C it is ended with
/// all its children. Only one may run at a time: CPU seconds are those of all children.
pub async fn timed(run: &Run, name: &str, program: Program, logs: &Path) -> Result<Cost> {
    let (out, err) = (logs.join("stdout"), logs.join("stderr"));
    let create = |path: &Path| File::create(path).on_machine(|| format!("cannot write {}", path.display()));
    let mut command = program.into_std()?;
    command.stdin(Stdio::null()).stdout(create(&out)?).stderr(create(&err)?).process_group(0);
    let mut command = tokio::process::Command::from(command);
    let (before, begun) = (children()?, Instant::now());
    let mut child = command
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Error::new(Kind::Tool, format!("cannot start {name}")).source(error))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let status = tokio::select! {
        status = child.wait() => status.on_machine(|| format!("cannot wait for {name}"))?,
        () = run.cancel.cancelled() => {
            end(group, &mut child).await;
            return Err(Error::new(Kind::Interrupted, "interrupted"));
        }
        () = tokio::time::sleep(DEADLINE) => {
            end(group, &mut child).await;
            return Err(failed(format!("{name} did not end within {} minutes", DEADLINE.as_secs() / 60), &err));
        }
    };
    let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), children()? - before);
    if !status.success() {
        return Err(failed(format!("{name} failed ({status})"), &err));
    }
    let stdout = std::fs::read(&out).on_machine(|| format!("cannot read {}", out.display()))?;
    Ok(Cost { seconds, cpu_seconds, stdout: String::from_utf8_lossy(&stdout).into_owned() })
}

async fn end(group: Option<Pid>, child: &mut tokio::process::Child) {
    // A group that is gone needs no signal.
    let signal = |signal| group.is_some_and(|group| killpg(group, signal).is_ok());
    signal(Signal::SIGTERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        signal(Signal::SIGKILL);
        let _ = child.wait().await;
    }
    // What the leader left behind.
    signal(Signal::SIGKILL);
}

fn failed(message: String, log: &Path) -> Error {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let tail: Vec<&str> = text.lines().rev().filter(|line| !line.trim().is_empty()).take(12).collect();
    Error::new(Kind::Tool, message).source(tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

/// CPU seconds of all children that have ended and were waited for (getrusage(2), RUSAGE_CHILDREN).
fn children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).on_machine(|| "cannot read the CPU time of child processes")?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
