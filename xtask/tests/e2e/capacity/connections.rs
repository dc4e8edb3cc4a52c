//! The connections that a database has, looked at while something else is done.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Result;
use crate::site::Site;

/// How often they are counted.
const INTERVAL: Duration = Duration::from_millis(200);

/// Clients of the database, but for whoever asks.
const QUESTION: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                        AND backend_type = 'client backend' AND pid <> pg_backend_pid();";

/// Counts until it is stopped.
pub struct Connections {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<u64>>>,
}

impl Connections {
    /// Begins to count the connections of a site's database.
    ///
    /// # Errors
    /// When psql cannot be started.
    pub fn watch(site: &Site<'_>) -> Result<Self> {
        let mut session = Session::open(site)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak = peak.max(session.count()?);
                std::thread::sleep(INTERVAL);
            }
            Ok(peak)
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// The most that there were at a time.
    ///
    /// # Errors
    /// When the database has not answered.
    pub fn peak(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().ok_or("nobody counts")?;
        thread.join().map_err(|_| "whoever counted has panicked")?
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// One connection for all questions: a new one each time would be counted, and slow the server down.
struct Session {
    psql: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn open(site: &Site<'_>) -> Result<Self> {
        let mut psql = site.world.database.psql(&site.name);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let questions = psql.stdin.take().ok_or("no input")?;
        let answers = BufReader::new(psql.stdout.take().ok_or("no output")?);
        Ok(Self { psql, questions, answers })
    }

    fn count(&mut self) -> Result<u64> {
        writeln!(self.questions, "{QUESTION}")?;
        self.questions.flush()?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        line.trim().parse().map_err(|_| format!("psql answered {line:?}").into())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
