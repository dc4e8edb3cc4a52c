//! `rollback`: an earlier release again, verified as a deploy is.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cluster::deploy::{self, Answer, Options, Wanted};
use crate::cluster::release::{self, Release, State};
use crate::cluster::render;
use crate::cluster::rollout::Limits;
use crate::cluster::{Cluster, preflight};
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::provenance::Provenance;

/// Go back to an earlier release of a cluster's server, proven as a deploy is
///
/// When that fails, the release that serves now is restored. Exit codes as for deploy.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long)]
    env: String,
    /// The release to go back to [default: the one that served before].
    #[arg(long, value_name = "NUMBER")]
    to: Option<u64>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Leave the smoke test out.
    #[arg(long)]
    no_smoke: bool,
    /// Seconds to wait for another run to end.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    lock_wait: u64,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let config = Config::load(&args.env)?;
    let settings = config.cluster()?;
    let cluster = Cluster::connect(settings).await?;
    let needs = preflight::Wanted { kinds: &render::kinds(settings), adopt: false };
    let observed = preflight::check(&cluster, &needs).await?;
    let releases = release::list(&cluster).await?;
    let target = choose(&releases, args.to)?;
    let wanted = Wanted {
        objects: release::objects(&cluster, target).await?,
        image: target.image.clone(),
        version: target.version.clone(),
        provenance: Provenance::of(&config.root),
        restores: Some(target.number),
        pushed_bytes: 0,
    };
    let options = Options {
        limits: Limits { deadline: settings.rollout.deadline, soak: settings.rollout.soak },
        force: true,
        undo: true,
        smoke: !args.no_smoke,
        keep: settings.rollout.keep,
        patience: Duration::from_secs(args.lock_wait),
    };
    let course = match args.dry_run {
        true => deploy::foresee(&cluster, &observed, options, &wanted).await?,
        false => deploy::carry_out(run, &cluster, &observed, options, &wanted).await?,
    };
    Answer::new(&args.env, &cluster, &wanted, course, begun.elapsed()).give(run)
}

/// The release that was asked for, else the proven one before the newest: before a release that is
/// still pending, that is the one it would have replaced.
fn choose(releases: &[Release], to: Option<u64>) -> Result<&Release> {
    let proven: Vec<&Release> = releases.iter().filter(|release| release.state == State::Deployed).collect();
    let known = || proven.iter().map(|release| release.number.to_string()).collect::<Vec<_>>().join(", ");
    let Some(to) = to else {
        let newest_is_pending = releases.last().is_some_and(|release| release.state == State::Pending);
        let mut back = proven.iter().rev().copied();
        let target = if newest_is_pending { back.next() } else { back.nth(1) };
        return target.ok_or_else(|| {
            Error::new(Kind::Check, "there is no earlier release to go back to")
                .hint("`cargo xtask status` lists the releases")
        });
    };
    match releases.iter().find(|release| release.number == to) {
        Some(release) if release.state == State::Deployed => Ok(release),
        Some(_) => {
            Err(Error::new(Kind::Check, format!("release {to} was never proven"))
                .hint(format!("these were: {}", known())))
        }
        None => {
            Err(Error::new(Kind::Check, format!("there is no release {to}"))
                .hint(format!("these are proven: {}", known())))
        }
    }
}
