//! `deploy` to a cluster.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::Args;
use crate::cache::Cache;
use crate::cluster::deploy::{self, Answer, Options, Wanted};
use crate::cluster::exposure::Exposure;
use crate::cluster::render::{self, Inputs, Manifests, Secrets};
use crate::cluster::rollout::Limits;
use crate::cluster::source::{self, Source};
use crate::cluster::{Cluster, budget, exposure, preflight, smoke};
use crate::commands::Run;
use crate::config::Config;
use crate::config::cluster::{ClusterConfig, Login};
use crate::error::Result;
use crate::provenance::Provenance;

/// Deploys to the cluster of an environment.
pub async fn run(args: &Args, run: &Run, config: &Config, settings: &ClusterConfig) -> Result<ExitCode> {
    let begun = Instant::now();
    let cache = Cache::open()?;
    // What this machine can refuse comes before anything is asked elsewhere.
    let budget = budget::check(settings)?;
    let manifests = Manifests::read(&config.root)?;
    let mut settings = settings.clone();
    settings.access.public_without_login |= args.cluster.public_without_login;
    let settings = &settings;
    if let (Exposure::Public(what), Login::None) = (exposure::check(settings, &manifests)?, &settings.access.login) {
        run.ui.warn(format!("{what} may be reached by everyone, who may read and delete everything without a login"));
    }
    let mut secrets = Secrets::read(settings)?;
    let source = Source::of(args.image.as_deref())?;

    let cluster = Cluster::connect(settings).await?;
    let needs = preflight::Wanted { kinds: &render::kinds(settings), adopt: args.cluster.adopt };
    let observed = preflight::check(&cluster, &needs).await?;
    let mut settings = settings.clone();
    if settings.access.load_balancer {
        // Known from the second deploy on. Clients name them; who names others is refused.
        let (found, port) = smoke::outside(&cluster).await?;
        settings.access.add_hosts(found, port);
    }
    let settings = &settings;
    let image = match args.dry_run {
        true => source::foretell(run, config, &cache, &source, args.locked, settings).await?,
        false => source::publish(run, config, &cache, &source, args.locked, &observed.platforms, settings).await?,
    };
    secrets.pull = image.pull.clone();
    let inputs = Inputs {
        env: &config.env,
        config: settings,
        image: &image.name(),
        version: image.version.as_deref(),
        secrets: &secrets,
    };
    let wanted = Wanted {
        objects: render::render(&manifests, &inputs)?,
        image: image.name(),
        version: image.version,
        provenance: Provenance::of(&config.root),
        restores: None,
        schema: Some(image.schema),
        restore: None,
        tools: None,
        pushed_bytes: image.pushed_bytes,
    };
    let options = Options {
        limits: Limits {
            deadline: args.wait.map_or(settings.rollout.deadline, Duration::from_secs),
            soak: args.cluster.soak.map_or(settings.rollout.soak, Duration::from_secs),
        },
        force: args.cluster.force_conflicts,
        undo: !args.cluster.no_rollback,
        smoke: !args.no_smoke,
        yes: args.yes,
        backup: !args.cluster.without_backup,
        keep: settings.rollout.keep,
        patience: Duration::from_secs(args.cluster.lock_wait),
    };
    for warning in preflight::quota_warnings(&observed.quotas, &wanted.objects, observed.deployment.as_ref()) {
        run.ui.warn(warning);
    }
    budget.into_iter().for_each(|warning| run.ui.warn(warning));
    let course = match args.dry_run {
        true => deploy::foresee(&cluster, &observed, options, &wanted).await?,
        false => deploy::carry_out(run, &cluster, settings, &observed, options, &wanted).await?,
    };
    Answer::new(&config.env, &cluster, &wanted, course, options.backup, begun.elapsed()).give(run)
}
