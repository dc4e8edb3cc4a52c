//! `db backup`: takes a backup of the server's database.

use std::io;
use std::process::ExitCode;

use super::Server;
use crate::backup::Taken;
use crate::commands::Run;
use crate::config;
use crate::error::Result;
use crate::report::{self, Report};

/// Take a backup of the database of a cluster's server, while it serves
///
/// A Job of the running server's own pod model counts and dumps all tables in one snapshot, streams the dump to
/// backup.to, and reads it back; or Cloud SQL backs its instance up (backup.method in deploy.toml). The
/// oldest go when there are more than backup.keep.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// Why it is taken; kept with it.
    #[arg(long, value_name = "TEXT", default_value = "by hand")]
    reason: String,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let server = Server::of(&args.env).await?;
    let taken = server.backups(run).take_and_prune(&args.reason, Some(server.settings.backup.keep)).await?;
    run.answer(&Answer { env: args.env, to: server.settings.backup.to, taken })
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    /// Where dumps are.
    to: Option<String>,
    #[serde(flatten)]
    taken: Taken,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Taken { backup, pruned } = &self.taken;
        writeln!(out, "{:10} backup {}", self.env, backup.id)?;
        for dump in &backup.databases {
            let (size, tables) = (report::bytes(dump.bytes), dump.tables.len());
            writeln!(out, "  {:12} {} rows of {tables} tables, {size}, read back", dump.file, dump.rows)?;
            for (store, revision) in &dump.stores {
                writeln!(out, "  {:12} {revision}", store.to_string())?;
            }
        }
        match &self.to {
            Some(to) if !backup.databases.is_empty() => writeln!(out, "  {:12} {to}/{}", "in", backup.id)?,
            _ => writeln!(out, "  {:12} Cloud SQL, the whole instance", "in")?,
        }
        match pruned.len() {
            0 => Ok(()),
            _ => writeln!(out, "  {:12} {}", "deleted", pruned.join(", ")),
        }
    }
}
