//! `xtask` as a user runs it, with the time of each line that it prints.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::stamp::Stamp;
use crate::{Result, ensure};

/// A line of stderr.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was printed.
    pub at: Stamp,
    /// Without the padding of its verb.
    pub text: String,
}

/// A program at work.
pub struct Running {
    what: String,
    child: Child,
    begun: (Stamp, Instant),
    lines: Arc<Mutex<Vec<Line>>>,
    readers: Vec<JoinHandle<()>>,
    out: Arc<Mutex<String>>,
}

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// What was run.
    pub what: String,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it printed on stdout.
    pub out: String,
    /// What it printed on stderr.
    pub lines: Vec<Line>,
    /// When it was started.
    pub started: Stamp,
    /// How long it ran, in seconds.
    pub seconds: f64,
}

impl Running {
    /// Starts a program; `what` names it in messages.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(what: &str, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start {what}: {error}"))?;
        let (lines, out) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(String::new())));
        let (mut stdout, stderr) = (child.stdout.take().ok_or("no stdout")?, child.stderr.take().ok_or("no stderr")?);
        let (to, whole) = (Arc::clone(&lines), Arc::clone(&out));
        let readers = vec![
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
                    let line = Line { at: Stamp::now(), text: line.trim_start().to_owned() };
                    to.lock().expect("no reader panics").push(line);
                }
            }),
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = stdout.read(&mut buffer) {
                    whole.lock().expect("no reader panics").push_str(&String::from_utf8_lossy(&buffer[..read]));
                }
            }),
        ];
        Ok(Self { what: what.to_owned(), child, begun: (Stamp::now(), Instant::now()), lines, readers, out })
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lines.lock().expect("no reader panics").clone()
    }

    /// Waits until stdout contains `part`.
    ///
    /// # Errors
    /// When the program ends first, or the deadline passes.
    pub fn wait_for_answer(&mut self, part: &str, deadline: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.out.lock().expect("no reader panics").contains(part) {
            ensure!(self.is_running() && begun.elapsed() < deadline, "{} did not answer {part:?}", self.what);
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits for a line that contains `part`.
    ///
    /// # Errors
    /// When the program ends first, or the deadline passes.
    pub fn wait_for(&mut self, part: &str, deadline: Duration) -> Result<Line> {
        let begun = Instant::now();
        loop {
            if let Some(line) = self.lines().into_iter().find(|line| line.text.contains(part)) {
                return Ok(line);
            }
            if self.child.try_wait()?.is_some() || begun.elapsed() > deadline {
                let said: Vec<String> = self.lines().into_iter().map(|line| line.text).collect();
                return Err(format!("{} did not print {part:?}, but:\n{}", self.what, said.join("\n")).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.is_running(), "{} had ended before it got {signal}", self.what);
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it has to be killed, because that takes longer than `deadline`.
    pub fn end(self, deadline: Duration) -> Result<Ran> {
        let (ran, late) = self.wait(deadline)?;
        ensure!(!late, "{} did not end within {} s:\n{}", ran.what, deadline.as_secs(), ran.said());
        Ok(ran)
    }

    /// Waits for its end, and kills it when that takes longer than `patience`.
    pub fn stop(self, patience: Duration) -> Option<Ran> {
        self.wait(patience).ok().map(|(ran, _)| ran)
    }

    fn wait(mut self, deadline: Duration) -> Result<(Ran, bool)> {
        let limit = Instant::now() + deadline;
        let mut late = false;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > limit && !late {
                late = true;
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let seconds = self.begun.1.elapsed().as_secs_f64();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let ran = Ran {
            what: self.what.clone(),
            code: status.code(),
            out: self.out.lock().expect("no reader panics").clone(),
            lines: self.lines(),
            started: self.begun.0,
            seconds,
        };
        Ok((ran, late))
    }
}

/// A scenario that fails leaves nothing at work.
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ran {
    /// What it printed on stderr, with the time since its start.
    pub fn said(&self) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&format!("{:7.2} {}\n", line.at.since(self.started), line.text));
        }
        text
    }

    /// The lines of stdout.
    pub fn out_lines(&self) -> impl Iterator<Item = &str> {
        self.out.lines().filter(|line| !line.trim().is_empty())
    }

    /// Both streams as one text.
    pub fn text(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.text.as_str()).collect();
        format!("{}\n{}", lines.join("\n"), self.out)
    }

    /// The first line of stderr that contains one of these, in any case.
    pub fn first(&self, parts: &[&str]) -> Option<&Line> {
        let found = |line: &&Line| {
            let text = line.text.to_lowercase();
            parts.iter().any(|part| text.contains(&part.to_lowercase()))
        };
        self.lines.iter().find(found)
    }

    /// The lines of stderr that contain this, in any case.
    pub fn all(&self, part: &str) -> impl Iterator<Item = &Line> + Clone {
        let part = part.to_lowercase();
        self.lines.iter().filter(move |line| line.text.to_lowercase().contains(&part))
    }

    /// Fails unless it ended with this code.
    pub fn expect(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == Some(code),
            "{} ended with {:?} instead of {code}:\n{}{}",
            self.what,
            self.code,
            self.said(),
            self.out
        );
        Ok(self)
    }

    /// The answer of `--json`.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).map_err(|error| format!("{}: {error}: {}", self.what, self.out).into())
    }
}
