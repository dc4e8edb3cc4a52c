//! The arguments of every process of this machine, which everybody on it may read.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{Result, ensure};

/// Between two looks. A process that lives shorter may be missed: no program here that is told a secret
/// ends so soon.
const PAUSE: Duration = Duration::from_millis(15);

/// Looks until it is asked what it has seen.
pub struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look.
    pub fn start() -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeSet::new())));
        let (ends, into) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                look(&into);
                std::thread::sleep(PAUSE);
            }
        });
        Self { stop, seen, thread: Some(thread) }
    }

    /// Fails where one of the secrets was an argument, or where nothing was seen that surely ran.
    ///
    /// # Errors
    /// Naming the program, never the secret.
    pub fn expect_none_of(mut self, secrets: &[&str], surely: &str) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| "the watch has panicked")?;
        }
        let seen = self.seen.lock().expect("no reader panics");
        ensure!(seen.iter().any(|line| line.contains(surely)), "no process with {surely:?} was seen");
        for line in seen.iter() {
            let program = line.split('\0').next().unwrap_or_default();
            let found = secrets.iter().any(|secret| line.contains(secret));
            ensure!(!found, "a secret was an argument of {program}");
        }
        Ok(seen.len())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn look(into: &Mutex<BTreeSet<String>>) {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    let lines = numbers.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines: Vec<String> = lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
    into.lock().expect("no reader panics").extend(lines);
}
