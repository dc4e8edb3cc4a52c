//! `db backups`: lists the backups of the server's database.

use std::io;
use std::process::ExitCode;

use super::Server;
use crate::backup::Catalog;
use crate::commands::Run;
use crate::config;
use crate::error::Result;
use crate::report::{self, Report};

/// List the backups of the database of a cluster's server, the newest first
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let catalog = Server::of(&args.env).await?.backups(run).list().await?;
    run.answer(&Answer { env: args.env, catalog })
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    #[serde(flatten)]
    catalog: Catalog,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Catalog { backups, parts } = &self.catalog;
        if backups.is_empty() {
            writeln!(out, "{:10} no backup yet", self.env)?;
        }
        for backup in backups {
            let size = backup.bytes().map_or_else(|| "whole instance".to_owned(), report::bytes);
            let revisions: Vec<String> =
                backup.revisions().iter().map(|(store, revision)| format!("{store} {revision}")).collect();
            writeln!(out, "{}  {size:>14}  {}  {}", backup.id, revisions.join(", "), backup.reason)?;
        }
        for part in parts {
            writeln!(out, "{part}  is the rest of one that was not finished")?;
        }
        Ok(())
    }
}
