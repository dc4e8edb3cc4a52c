//! `config`: what was resolved for an environment, and from where.

use std::io;
use std::process::ExitCode;

use crate::commands::Run;
use crate::config::{Config, Setting};
use crate::error::Result;
use crate::report::Report;

/// Print the settings of an environment, each with where it came from
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = "local")]
    env: String,
}

pub fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    run.answer(&Answer { env: config.env, settings: config.settings })
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    settings: Vec<Setting>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let width = self.settings.iter().map(|setting| setting.key.len()).max().unwrap_or(0);
        self.settings.iter().try_for_each(|setting| {
            let value = setting.value.as_deref().unwrap_or("-");
            writeln!(out, "{:width$}  {value}  ({})", setting.key, setting.origin)
        })
    }
}
