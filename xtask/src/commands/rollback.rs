//! `rollback`: an earlier release again, verified as a deploy is.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::cluster::deploy::{self, Answer, Options, Wanted};
use crate::cluster::release::{self, Release, State};
use crate::cluster::render;
use crate::cluster::rollout::Limits;
use crate::cluster::{Cluster, preflight, server_image};
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::provenance::Provenance;
use crate::registry::{Access, Client, CredentialSource, Reference};
use crate::schema::{self, Schema};

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
    /// Bring the databases back, too, to the backup that was made when they were migrated after that
    /// release, or to this one. What was written since is in another backup, which is made first.
    #[arg(long, value_name = "BACKUP", num_args = 0..=1)]
    restore: Option<Option<String>>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ask no questions.
    #[arg(long, short)]
    yes: bool,
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
    let restore = match &args.restore {
        None => None,
        Some(Some(backup)) => Some(backup.clone()),
        Some(None) => Some(backup_of(&releases, target)?),
    };
    let live = cluster.deployment().await?;
    let wanted = Wanted {
        objects: release::objects(&cluster, target).await?,
        image: target.image.clone(),
        version: target.version.clone(),
        provenance: Provenance::of(&config.root),
        restores: Some(target.number),
        schema: schema(run, target).await,
        restore,
        tools: live.as_ref().and_then(server_image).map(str::to_owned),
        pushed_bytes: 0,
    };
    let options = Options {
        limits: Limits { deadline: settings.rollout.deadline, soak: settings.rollout.soak },
        force: true,
        undo: true,
        smoke: !args.no_smoke,
        yes: args.yes,
        backup: true,
        keep: settings.rollout.keep,
        patience: Duration::from_secs(args.lock_wait),
    };
    let course = match args.dry_run {
        true => deploy::foresee(&cluster, &observed, options, &wanted).await?,
        false => deploy::carry_out(run, &cluster, settings, &observed, options, &wanted).await?,
    };
    Answer::new(&args.env, &cluster, &wanted, course, options.backup, begun.elapsed()).give(run)
}

/// What the release's MLflow knows about its databases. Its image may be gone: its pods find out then.
async fn schema(run: &Run, release: &Release) -> Option<Schema> {
    let read = async || {
        let cache = Cache::open()?;
        let reference = Reference::parse(&release.image)?;
        let client = Client::connect(run, &cache, &reference, Access::Pull, CredentialSource::Machine)?;
        schema::image::in_registry(&client, &cache).await
    };
    match read().await {
        Ok(schema) => Some(schema),
        Err(error) => {
            let why = error.lines().join(": ");
            run.ui
                .warn(format!("whether the databases fit release {} shows when its pods start: {why}", release.number));
            None
        }
    }
}

/// The backup that was made when the databases were migrated away from a release: the first after it.
fn backup_of(releases: &[Release], target: &Release) -> Result<String> {
    let mut after = releases.iter().filter(|release| release.number > target.number);
    after.find_map(|release| release.backup.clone()).ok_or_else(|| {
        let message =
            format!("no release after {} has migrated the databases: there is nothing to restore", target.number);
        Error::new(Kind::Check, message)
            .hint("leave --restore out; or name a backup: cargo xtask db backups lists them")
    })
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
