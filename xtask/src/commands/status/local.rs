//! `status` of a server on this machine.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mlflow_image::Digest;

use crate::commands::Run;
use crate::config::LocalConfig;
use crate::error::{Kind, Result};
use crate::local::deploy::url;
use crate::local::spec::Process;
use crate::local::state::{Home, Release};
use crate::local::{runner, server};
use crate::mlflow;
use crate::report::{self, Report};

/// How long a server may take to answer.
const HEALTHY: Duration = Duration::from_secs(5);

pub async fn run(env: &str, run: &Run, local: &LocalConfig) -> Result<ExitCode> {
    let home = Home::of(env)?;
    let state = home.state()?;
    let running = runner::running(&home).await?;
    let healthy = match &running {
        Some(running) => mlflow::wait_until_healthy(run, &url(&running.release)?, HEALTHY, || true).await.is_ok(),
        None => false,
    };
    // Once it is proven, more is known of it than when it was started.
    let proven = |release: &&Release| running.as_ref().is_none_or(|running| running.release.id == release.id);
    let release = state.current.as_ref().filter(proven).or(running.as_ref().map(|running| &running.release));
    let data =
        release.map(|release| release.data.clone()).or_else(|| local.data.clone()).unwrap_or_else(|| home.data_dir());
    let ended = if running.is_none() { runner::ended(&home).await? } else { None };
    let answer = Answer {
        env: env.to_owned(),
        running: running.is_some(),
        healthy,
        proven: running.is_some() && state.pending.is_none(),
        url: release.filter(|_| running.is_some()).map(|release| release.url.clone()),
        image: release.map(|release| release.image),
        source: release.map(|release| release.source.clone()),
        version: release.and_then(|release| release.version.clone()),
        since: running.as_ref().map(|running| running.started_at.clone()),
        by: release.map(|release| release.by.clone()),
        commit: release.and_then(|release| release.commit.clone()),
        pid: running.as_ref().and_then(|running| match &running.process {
            Process::Sandbox(identity) => Some(identity.pid),
            Process::Container(_) => None,
        }),
        process: running.as_ref().map(|running| running.process.to_string()),
        database_bytes: server::database(&data).metadata().map_or(0, |meta| meta.len()),
        artifact_bytes: folder_size(&data.join("artifacts")),
        data: data.display().to_string(),
        ended: ended.map(|ended| format!("{} at {}", ended.exit, ended.at)),
    };
    run.answer(&answer)?;
    Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::from(Kind::Check.exit_code()) })
}

/// Bytes of the files below `dir`; what cannot be read counts nothing.
fn folder_size(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => folder_size(&entry.path()),
        Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |meta| meta.len()),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    running: bool,
    healthy: bool,
    proven: bool,
    url: Option<String>,
    image: Option<Digest>,
    source: Option<String>,
    version: Option<String>,
    since: Option<String>,
    by: Option<String>,
    commit: Option<String>,
    pid: Option<i32>,
    process: Option<String>,
    data: String,
    database_bytes: u64,
    artifact_bytes: u64,
    ended: Option<String>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let what = match (self.running, self.healthy, self.proven) {
            (false, ..) => "nothing runs",
            (true, false, _) => "runs, but does not serve",
            (true, true, false) => "serves, but was not proven: run deploy again",
            (true, true, true) => "serves",
        };
        writeln!(out, "{:10} {what}", self.env)?;
        let mut line = |name: &str, value: Option<String>| match value {
            Some(value) => writeln!(out, "  {name:9} {value}"),
            None => Ok(()),
        };
        line("url", self.url.clone())?;
        line("image", self.image.map(|image| image.to_string()))?;
        line("from", self.source.clone())?;
        line("mlflow", self.version.clone())?;
        line("since", self.since.clone())?;
        line("by", self.by.clone())?;
        line("commit", self.commit.clone())?;
        line("runs as", self.process.clone())?;
        line("ended", self.ended.clone())?;
        let (database, artifacts) = (report::bytes(self.database_bytes), report::bytes(self.artifact_bytes));
        line("data", Some(format!("{} (database {database}, artifacts {artifacts})", self.data)))
    }
}
