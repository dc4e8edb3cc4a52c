//! `db drill`: proves that a backup can be restored, and that a server works with it.

use std::io;
use std::process::ExitCode;

use super::{Chosen, Server};
use crate::backup::drill::{self, Drilled};
use crate::commands::Run;
use crate::error::Result;
use crate::mlflow::smoke::SmokeReport;
use crate::report::{self, Report};

/// Prove that a backup can be restored, beside the live database
///
/// A Job of the running server's own pod model loads the backup into a database of its own on the same server,
/// compares all tables with what was counted, brings it to the image's schema where that is newer, and starts
/// the image's server with it; the smoke test walks through that one. Then all of it is removed. Exit code 0
/// only when everything passed.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    chosen: Chosen,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let Chosen { env, id } = args.chosen;
    let (drilled, smoke) = drill::hold(Server::of(&env).await?.backups(run), id.as_deref()).await?;
    let answer = Answer { env, drilled, smoke };
    run.answer(&answer)?;
    Ok(answer.smoke.error().map_or(ExitCode::SUCCESS, |error| ExitCode::from(error.kind().exit_code())))
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    #[serde(flatten)]
    drilled: Drilled,
    smoke: SmokeReport,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Drilled { backup, migrated, leftovers, seconds } = &self.drilled;
        let end = match self.smoke.error() {
            None => "was restored beside the live database, and serves",
            Some(_) => "was restored beside the live database, but the server does not work with it",
        };
        writeln!(out, "{:10} backup {} {end}", self.env, backup.id)?;
        for dump in &backup.databases {
            let size = report::bytes(dump.bytes);
            writeln!(out, "  {:12} {} rows of {} tables, {size}, as counted", dump.file, dump.rows, dump.tables.len())?;
        }
        if let Some((from, to)) = migrated {
            writeln!(out, "  {:12} from {from} to {to}", "migrated")?;
        }
        for name in leftovers {
            writeln!(out, "  {:12} {name}, which an earlier drill left", "removed")?;
        }
        let times: Vec<String> = seconds.iter().map(|(what, seconds)| format!("{what} {seconds:.1} s")).collect();
        writeln!(out, "  {:12} {}", "took", times.join(", "))?;
        self.smoke.human(out)
    }
}
