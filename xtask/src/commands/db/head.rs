//! `db head`: the schema that an image's MLflow works with.

use std::io;
use std::process::ExitCode;

use super::Wanted;
use crate::commands::Run;
use crate::config::Config;
use crate::error::Result;
use crate::report::Report;
use crate::schema::{Revisions, Schema};

/// Print the schema that an image's MLflow works with, and no other
///
/// It is read from the image's layers: nothing is started, and no database is asked.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.wanted.env)?;
    let (image, schema) = super::schema_of(run, &config, args.wanted.image).await?;
    let Schema { tracking, login } = &schema;
    run.answer(&Answer { image, tracking: tracking.into(), login: login.as_ref().map(Head::from) })
}

#[derive(serde::Serialize)]
struct Answer {
    image: String,
    tracking: Head,
    login: Option<Head>,
}

#[derive(serde::Serialize)]
struct Head {
    head: String,
    revisions: usize,
}

impl From<&Revisions> for Head {
    fn from(revisions: &Revisions) -> Self {
        Self { head: revisions.head().to_owned(), revisions: revisions.count() }
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{}", self.image)?;
        let mut line = |name: &str, head: &Head| {
            writeln!(out, "  {name:9} {} (the newest of {} revisions)", head.head, head.revisions)
        };
        line("tracking", &self.tracking)?;
        match &self.login {
            Some(login) => line("login", login),
            None => writeln!(out, "  login     not migrated by this MLflow"),
        }
    }
}
