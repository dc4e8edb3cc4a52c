//! `deploy` on this machine.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlflow_image::{Digest, Platform};

use super::Args;
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::{Config, LocalConfig};
use crate::error::Result;
use crate::local::backend::Backend;
use crate::local::deploy::{Deploy, Done, Options, release_id, url};
use crate::local::plan::{self, Observed, Step};
use crate::local::source::Source;
use crate::local::state::{Home, Release};
use crate::local::{port, rootfs, runner, server};
use crate::mlflow::{self, smoke::CheckReport};
use crate::provenance::Provenance;
use crate::report::{self, Report};

/// How long a server that should be healthy may take to say so.
const HEALTHY: Duration = Duration::from_secs(10);

/// How long a server may take until it serves, unless the user says otherwise.
const WAIT: Duration = Duration::from_secs(120);

/// Deploys to this machine.
pub async fn run(args: &Args, run: &Run, config: &Config, local: &LocalConfig) -> Result<ExitCode> {
    let begun = Instant::now();
    let home = Home::of(&args.env)?;
    let cache = Cache::open()?;
    let options = Options {
        source: args.image.as_deref().map_or(Ok(Source::Build), str::parse)?,
        locked: args.locked,
        smoke: !args.no_smoke,
        wait: args.wait.map_or(WAIT, Duration::from_secs),
    };
    // A dry run changes nothing, so it may look while another run is at work.
    let lock = if args.dry_run { None } else { Some(home.lock()?) };
    let (backend, observed, wanted) = observe(run, config, local, &home, &cache, &options, args).await?;
    let steps = plan::plan(&observed, &wanted, options.smoke);
    let mut answer = Answer {
        env: args.env.clone(),
        image: wanted.image,
        url: wanted.url.clone(),
        changed: !steps.is_empty(),
        dry_run: args.dry_run,
        version: wanted.version.clone(),
        data: wanted.data.display().to_string(),
        checks: Vec::new(),
        steps: steps.clone(),
        seconds: 0.0,
    };
    if args.dry_run {
        answer.changed = false;
    } else if steps.is_empty() {
        answer.version = observed.state.current.and_then(|release| release.version);
    } else {
        let deploy =
            Deploy { run, config, cache: &cache, home: &home, options: &options, backend: &backend, observed, wanted };
        let Done { steps, release, checks } = deploy.execute(steps).await?;
        (answer.steps, answer.checks, answer.version) = (steps, checks, release.version);
        if let Err(error) = prune(&cache, &backend).await {
            run.ui.warn(format!("old images are not removed: {error}"));
        }
    }
    drop(lock);
    answer.seconds = report::seconds(begun.elapsed());
    run.answer(&answer)
}

async fn observe(
    run: &Run,
    config: &Config,
    local: &LocalConfig,
    home: &Home,
    cache: &Cache,
    options: &Options,
    args: &Args,
) -> Result<(Backend, Observed, Release)> {
    let state = home.state()?;
    let data = local.data.clone().unwrap_or_else(|| home.data_dir());
    let running = match args.dry_run {
        true => runner::running(home).await?,
        false => runner::alive(home, &data).await?,
    };
    let backend = Backend::choose(run, cache, local.sandbox, running.as_ref()).await?;
    let running = running.map(|running| running.release);
    let image = options.source.digest(run, config, cache, Platform::host(), options.locked).await?;
    let last = state.current.as_ref().map(|release| release.port);
    let own = running.as_ref().map(|release| release.port);
    let asked = args.port.or(local.port);
    let port = port::choose(asked, own.or(last), own, port::is_free)?;
    if let Some(last) = last.filter(|last| *last != port && asked.is_none()) {
        run.ui.warn(format!("port {last} of the last deploy is taken: {port} is used instead"));
    }
    let Provenance { by, commit, .. } = Provenance::of(&config.root);
    let installed = backend.open(cache, &image).await?;
    let wanted = Release {
        id: release_id(),
        image,
        source: options.source.to_string(),
        version: installed.as_ref().and_then(|image| image.version().map(str::to_owned)),
        port,
        url: format!("http://127.0.0.1:{port}"),
        workers: local.workers,
        data,
        at: report::now(),
        by,
        commit,
        engine: backend.tool(),
    };
    let same = running.as_ref().is_some_and(|running| running.same_server(&wanted));
    let healthy = same
        && state.pending.is_none()
        && mlflow::wait_until_healthy(run, &url(&wanted)?, HEALTHY, || true).await.is_ok();
    let database = server::database(&wanted.data).exists();
    // A build or a pull finds by itself what is there already.
    let fetched = matches!(options.source, Source::Layout(_));
    let observed = Observed { state, running, healthy, database, fetched, installed: installed.is_some() };
    Ok((backend, observed, wanted))
}

/// Removes unpacked images that no environment of this user names.
async fn prune(cache: &Cache, backend: &Backend) -> Result<()> {
    let mut keep = Vec::new();
    for home in Home::all()? {
        let state = home.state()?;
        let pending = state.pending.into_iter().flat_map(|pending| [Some(pending.release), pending.replaces]).flatten();
        let running = home.running()?.map(|running| running.release);
        for release in [state.current, state.previous, running].into_iter().flatten().chain(pending) {
            keep.push(release.image);
        }
    }
    if let Backend::Engine(engine) = backend {
        engine.prune(&keep).await?;
    }
    let keep: Vec<_> = keep.iter().map(|image| rootfs::path(cache, image)).collect::<Result<_>>()?;
    rootfs::prune(cache, &keep)
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    image: Digest,
    url: String,
    changed: bool,
    dry_run: bool,
    version: Option<String>,
    data: String,
    checks: Vec<CheckReport>,
    steps: Vec<Step>,
    seconds: f64,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        if self.dry_run {
            if self.steps.is_empty() {
                writeln!(out, "nothing would be changed")?;
            }
            return self.steps.iter().enumerate().try_for_each(|(n, step)| writeln!(out, "{}. {step}", n + 1));
        }
        let version = self.version.as_deref().map_or(String::new(), |version| format!(" (MLflow {version})"));
        match self.changed {
            true => writeln!(out, "image {}{version} serves environment {}", self.image.short(), self.env)?,
            false => writeln!(
                out,
                "nothing changed: image {}{version} serves environment {} already",
                self.image.short(),
                self.env
            )?,
        }
        let passed = self.checks.iter().filter(|check| check.ok).count();
        if !self.checks.is_empty() {
            writeln!(out, "{passed} of {} checks passed", self.checks.len())?;
        }
        writeln!(out, "data: {}", self.data)?;
        writeln!(out, "{}", self.url)
    }
}
