//! `cargo xtask`: takes an MLflow tracking server from nothing to a verified deployment.
//!
//! `main` parses, runs and maps the outcome to an exit code. Everything else is in [`commands`].

mod backup;
mod bench;
mod builders;
mod cache;
mod cli;
mod cluster;
mod commands;
mod config;
mod doctor;
mod error;
mod gc;
mod gcloud;
mod github;
mod google;
mod infra;
mod local;
mod lock;
mod mlflow;
mod outputs;
mod process;
mod provenance;
mod registry;
mod repo;
mod report;
mod schema;
mod secret;
mod signing;
mod sources;
mod ui;
mod verify;

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    let ui = ui::Ui::new(&cli.output);
    match commands::run(cli, &ui) {
        Ok(code) => code,
        Err(error) => ui.fail(&error),
    }
}
