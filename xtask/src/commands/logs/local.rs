//! `logs` of a server on this machine: one file.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::local::runner;
use crate::local::state::Home;
use crate::report::Report;

use super::Args;

/// Between two looks at the log's end.
const PAUSE: Duration = Duration::from_millis(200);

pub async fn run(args: &Args, run: &Run) -> Result<ExitCode> {
    let home = Home::of(&args.env)?;
    let path = home.log_path();
    let named = || format!("cannot read {}", path.display());
    if !path.exists() {
        return Err(Error::new(Kind::Check, format!("environment {} has no log: nothing was started", args.env))
            .hint(format!("cargo xtask deploy --env {}", args.env)));
    }
    let mut at = path.metadata().on_machine(named)?.len();
    let lines = runner::tail(&home, 0, args.lines).await?;
    run.answer(&Answer { log: path.display().to_string(), lines })?;
    if !args.follow {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(running) = home.running()?
        && runner::follow(&running, &run.cancel).await?
    {
        return Ok(ExitCode::SUCCESS);
    }
    let mut file = std::fs::File::open(&path).on_machine(named)?;
    loop {
        file.seek(SeekFrom::Start(at)).on_machine(named)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).on_machine(named)?;
        at += bytes.len() as u64;
        let mut out = io::stdout().lock();
        if out.write_all(&bytes).and_then(|()| out.flush()).is_err() {
            // The reader of a pipe has seen enough.
            return Ok(ExitCode::SUCCESS);
        }
        drop(out);
        // The next start may have put the log aside.
        if bytes.is_empty()
            && let Ok(meta) = path.metadata()
            && meta.ino() != file.metadata().on_machine(named)?.ino()
        {
            file = std::fs::File::open(&path).on_machine(named)?;
            at = 0;
        }
        tokio::select! {
            () = run.cancel.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

#[derive(serde::Serialize)]
struct Answer {
    log: String,
    lines: Vec<String>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.lines.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}
