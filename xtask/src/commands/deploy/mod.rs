//! `deploy`: observe -> plan -> execute -> report.

mod cluster;
mod local;

use std::process::ExitCode;

use crate::commands::Run;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};

/// Deploy the server to an environment, prove that it works, undo it when it fails
///
/// Exit code 10: the new server failed and the old one runs again; 11: nothing serves now. The
/// README lists all of them.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The image: a registry reference or, on this machine, oci:DIR. Default: built from the locks.
    #[arg(long, value_name = "oci:DIR|REF")]
    image: Option<String>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ask no questions: an image of a newer MLflow may migrate the databases, during which nothing serves.
    #[arg(long, short)]
    yes: bool,
    /// Fail instead of changing image.lock.
    #[arg(long)]
    locked: bool,
    /// Leave the smoke test out: the server counts as working once it is healthy.
    #[arg(long)]
    no_smoke: bool,
    /// Seconds that the server may take until it serves [default: 120, and `deadline` in a cluster].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
    /// The port on 127.0.0.1. Default: the last one, else the first free one from 5000.
    #[arg(long, help_heading = "On this machine")]
    port: Option<u16>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What only a cluster needs.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "In a cluster")]
struct ClusterArgs {
    /// Seconds that the new pods must stay up before they are believed [default: `soak` in deploy.toml].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86_400))]
    soak: Option<u64>,
    /// Leave a server that failed as it is, to look at it.
    #[arg(long)]
    no_rollback: bool,
    /// Deploy a server that everyone reaches and that has no login: everyone may read and delete everything.
    #[arg(long)]
    public_without_login: bool,
    /// Make no backup before the databases are migrated.
    #[arg(long)]
    without_backup: bool,
    /// Take over fields that another manager has set.
    #[arg(long)]
    force_conflicts: bool,
    /// Take over a Deployment that another tool made.
    #[arg(long)]
    adopt: bool,
    /// Seconds to wait for another deploy to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

impl ClusterArgs {
    /// The first flag that was given.
    fn given(&self) -> Option<&'static str> {
        let flags = [
            ("--soak", self.soak.is_some()),
            ("--no-rollback", self.no_rollback),
            ("--public-without-login", self.public_without_login),
            ("--without-backup", self.without_backup),
            ("--force-conflicts", self.force_conflicts),
            ("--adopt", self.adopt),
            ("--lock-wait", self.lock_wait > 0),
        ];
        flags.into_iter().find(|(_, given)| *given).map(|(flag, _)| flag)
    }
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let misplaced = |flag: &str, place: &str| {
        Error::new(Kind::Usage, format!("{flag} is for {place}, and environment {} is not", args.env))
            .hint(format!("leave {flag} out, or name another environment with --env"))
    };
    match config.environment()? {
        Environment::Local(local) => match args.cluster.given() {
            Some(flag) => Err(misplaced(flag, "a cluster")),
            None => local::run(&args, run, &config, local).await,
        },
        Environment::Cluster(cluster) => match args.port {
            Some(_) => Err(misplaced("--port", "this machine")),
            None => cluster::run(&args, run, &config, cluster).await,
        },
    }
}
