//! `db verify`: reads a backup back whole.

use std::io;
use std::process::ExitCode;

use super::{Chosen, Server};
use crate::backup::Verified;
use crate::commands::Run;
use crate::error::Result;
use crate::report::{self, Report};

/// Read a backup back: its digest, the whole archive, and the rows of each table
///
/// The database is not asked. Exit code 12 where it is not what was written.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let Chosen { env, id } = args.chosen;
    let verified = Server::of(&env).await?.backups(run).verify(id.as_deref()).await?;
    run.answer(&Answer { env, verified })
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
