//! `db verify`: reads a backup back whole.

use std::io;
use std::process::ExitCode;

use super::Server;
use crate::backup::{self, Verified};
use crate::commands::Run;
use crate::config;
use crate::error::Result;
use crate::report::{self, Report};

/// Read a backup back: its digest, the whole archive, and the rows of each table
///
/// The database is not asked. Exit code 12 where it is not what was written.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The backup [default: the newest].
    id: Option<String>,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let Server { settings, cluster, deployment } = Server::of(&args.env).await?;
    let verified = backup::verify(run, &cluster, &settings, &deployment, args.id.as_deref()).await?;
    run.answer(&Answer { env: args.env, verified })
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    #[serde(flatten)]
    verified: Verified,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Verified { backup, seconds } = &self.verified;
        writeln!(out, "{:10} backup {} is whole", self.env, backup.id)?;
        for dump in &backup.databases {
            let size = report::bytes(dump.bytes);
            writeln!(out, "  {:12} {} rows of {} tables, {size}", dump.file, dump.rows, dump.tables.len())?;
            writeln!(out, "  {:12} {}", "SHA-256", dump.sha256)?;
        }
        writeln!(out, "  {:12} {seconds:.1} s", "in")
    }
}
