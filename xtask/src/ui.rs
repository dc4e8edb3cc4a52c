//! The one place that writes to the terminal: results on stdout, everything else on stderr.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::OutputArgs;
use crate::error::{Context as _, Error, Kind, Result};
use crate::github::Workflow;
use crate::report::{self, Report};

/// How often a bar's state is printed as a line where stderr is not a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Decides what is printed, where and in which form. Cheap to clone; shared between tasks.
#[derive(Clone)]
pub struct Ui {
    json: bool,
    quiet: bool,
    colour: bool,
    bars: Option<MultiProgress>,
    workflow: Option<Workflow>,
}

impl Ui {
    /// Reads the flags, `NO_COLOR` (<https://no-color.org>) and whether stderr is a terminal.
    pub fn new(args: &OutputArgs) -> Self {
        let terminal = io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let bars = (terminal && !args.quiet).then(MultiProgress::new);
        Self { json: args.json, quiet: args.quiet, colour, bars, workflow: Workflow::from_env() }
    }

    /// A `Ui` that prints nothing but results; for tests.
    #[cfg(test)]
    pub fn silent() -> Self {
        Self { json: false, quiet: true, colour: false, bars: None, workflow: None }
    }

    /// Whether answers are printed as JSON.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the command's answer on stdout.
    pub fn result(&self, report: &impl Report) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        } else {
            report.human(&mut out)?;
        }
        // The summary page is a courtesy: without it the answer is still the answer.
        let _ = self.workflow.as_ref().map(|workflow| workflow.summarize(report));
        out.flush()
    }

    /// A step that begins: `verb` is padded and coloured as cargo does.
    pub fn step(&self, verb: &str, what: impl AsRef<str>) {
        if !self.quiet {
            self.line("32;1", verb, what.as_ref());
        }
    }

    /// Text that a part of the program writes for a person, as it is.
    pub fn show(&self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) {
        let mut text = Vec::new();
        if self.quiet || write(&mut text).is_err() {
            return;
        }
        let text = String::from_utf8_lossy(&text);
        match &self.bars {
            // Failing to draw progress is no reason to stop the work.
            Some(bars) => drop(bars.println(text.trim_end())),
            None => drop(write!(io::stderr(), "{text}")),
        }
    }

    /// Asks the user whether to go on; `flag` is what answers yes beforehand.
    ///
    /// # Errors
    /// `Usage` where nobody can answer; `Interrupted` for any other answer than yes.
    pub fn confirm(&self, question: &str, flag: &str) -> Result<()> {
        if !io::stdin().is_terminal() {
            let message = format!("{question} Nobody is here to answer: stdin is no terminal");
            return Err(Error::new(Kind::Usage, message).hint(format!("add {flag}")));
        }
        let asked = write!(io::stderr(), "{question} [y/N] ").and_then(|()| io::stderr().flush());
        asked.on_machine(|| "cannot write to stderr")?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer).on_machine(|| "cannot read from stdin")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Error::new(Kind::Interrupted, "not agreed to: nothing was done")),
        }
    }

    /// Something the user should know, printed even with `--quiet`.
    pub fn warn(&self, what: impl AsRef<str>) {
        self.line("33;1", "warning", what.as_ref());
    }

    /// Prints the error with its causes and hint; with `--json` also as an object on stdout.
    pub fn fail(&self, error: &Error) -> ExitCode {
        let lines = error.lines();
        self.line("31;1", "error", &lines[0]);
        for cause in &lines[1..] {
            self.line("0", "because", cause);
        }
        if let Some(hint) = error.hint_text() {
            self.line("36;1", "hint", hint);
        }
        if let Some(workflow) = &self.workflow {
            // Nothing is left to report to when stderr is closed.
            let _ = writeln!(io::stderr(), "{}", workflow.annotate(error));
        }
        if self.json {
            let value = serde_json::json!({
                "error": { "kind": error.kind(), "message": lines[0], "causes": lines[1..], "hint": error.hint_text() }
            });
            // Nothing is left to report to when stdout is closed.
            let _ = writeln!(io::stdout(), "{value:#}");
        }
        ExitCode::from(error.kind().exit_code())
    }

    /// A progress bar over `total` bytes.
    pub fn bytes(&self, label: impl Into<String>, total: u64) -> Bar {
        let style = "{prefix:>12} {msg} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec}";
        self.bar(label.into(), total, style, true)
    }

    /// A progress bar over `total` things.
    pub fn count(&self, label: impl Into<String>, total: u64) -> Bar {
        self.bar(label.into(), total, "{prefix:>12} {msg} [{bar:24}] {pos}/{len}", false)
    }

    fn bar(&self, label: String, total: u64, style: &str, is_bytes: bool) -> Bar {
        let (verb, what) = label.split_once(' ').unwrap_or((&label, ""));
        let shown = match &self.bars {
            Some(bars) => bars.add(ProgressBar::new(total)),
            None => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden()),
        };
        // The styles are constants of this file.
        shown.set_style(ProgressStyle::with_template(style).expect("a valid bar style").progress_chars("=> "));
        shown.set_prefix(verb.to_owned());
        shown.set_message(what.to_owned());
        let lines = (self.bars.is_none() && !self.quiet).then(|| self.clone());
        Bar {
            inner: Arc::new(BarInner {
                shown,
                label,
                total: AtomicU64::new(total),
                done: AtomicU64::new(0),
                is_bytes,
                last: Mutex::new(Instant::now()),
                lines,
            }),
        }
    }

    fn line(&self, colour: &str, verb: &str, what: &str) {
        let text =
            if self.colour { format!("\x1b[{colour}m{verb:>12}\x1b[0m {what}") } else { format!("{verb:>12} {what}") };
        match &self.bars {
            // Failing to draw progress is no reason to stop the work.
            Some(bars) => drop(bars.println(text)),
            None => drop(writeln!(io::stderr(), "{text}")),
        }
    }
}

/// A progress bar; a line every ten seconds where there is no terminal. Removed when dropped.
#[derive(Clone)]
pub struct Bar {
    inner: Arc<BarInner>,
}

struct BarInner {
    shown: ProgressBar,
    label: String,
    total: AtomicU64,
    done: AtomicU64,
    is_bytes: bool,
    last: Mutex<Instant>,
    lines: Option<Ui>,
}

impl Bar {
    /// Adds to what is done.
    pub fn inc(&self, n: u64) {
        let bar = &self.inner;
        bar.shown.inc(n);
        let done = bar.done.fetch_add(n, Ordering::Relaxed) + n;
        let Some(ui) = &bar.lines else { return };
        let Ok(mut last) = bar.last.try_lock() else { return };
        if last.elapsed() >= LINE_INTERVAL {
            *last = Instant::now();
            let total = bar.total.load(Ordering::Relaxed);
            let state = if bar.is_bytes {
                format!("{} of {}", report::bytes(done), report::bytes(total))
            } else {
                format!("{done} of {total}")
            };
            let (verb, what) = bar.label.split_once(' ').unwrap_or((&bar.label, ""));
            ui.step(verb, format!("{what} ({state})"));
        }
    }

    /// Takes back what a failed attempt had counted.
    pub fn dec(&self, n: u64) {
        self.inner.shown.dec(n);
        self.inner.done.fetch_sub(n, Ordering::Relaxed);
    }
}

impl Drop for BarInner {
    fn drop(&mut self) {
        self.shown.finish_and_clear();
    }
}
