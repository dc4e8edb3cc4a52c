//! `deploy`: observe -> plan -> execute -> report, for an environment of this machine.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mlflow_image::{Digest, Platform};

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
use crate::mlflow::smoke::CheckReport;
use crate::process::Program;
use crate::report::{self, Report};
use crate::{config, mlflow};

/// How long a server that should be healthy may take to say so.
const HEALTHY: Duration = Duration::from_secs(10);

/// Deploy the server to an environment, prove that it works, undo it when it fails
///
/// Exit code 10: the new server failed and the old one runs again; 11: nothing serves now.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The image: oci:DIR or a registry reference. Default: built from the locks.
    #[arg(long, value_name = "oci:DIR|REF")]
    image: Option<String>,
    /// The port on 127.0.0.1. Default: the last one, else the first free one from 5000.
    #[arg(long)]
    port: Option<u16>,
    /// Print what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Ask no questions. Nothing that this kind of environment does needs one.
    #[arg(long, short)]
    yes: bool,
    /// Fail instead of changing image.lock.
    #[arg(long)]
    locked: bool,
    /// Leave the smoke test out: the server counts as working once it is healthy.
    #[arg(long)]
    no_smoke: bool,
    /// Seconds that the server may take until it serves.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let config = Config::load(&args.env)?;
    let local = config.local()?;
    let home = Home::of(&args.env)?;
    let cache = Cache::open()?;
    let options = Options {
        source: args.image.as_deref().map_or(Ok(Source::Build), str::parse)?,
        locked: args.locked,
        smoke: !args.no_smoke,
        wait: Duration::from_secs(args.wait),
    };
    // A dry run changes nothing, so it may look while another run is at work.
    let lock = if args.dry_run { None } else { Some(home.lock()?) };
    let (backend, observed, mut wanted) = observe(run, &config, local, &home, &cache, &options, &args).await?;
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
        wanted.commit = commit(&config);
        let deploy = Deploy {
            run,
            config: &config,
            cache: &cache,
            home: &home,
            options: &options,
            backend: &backend,
            observed,
            wanted,
        };
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
        by: user(),
        commit: None,
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

/// Who deploys: as the session says, else as this machine knows the user.
fn user() -> String {
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let uid = nix::unistd::getuid();
    let known = || nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    named.or_else(known).unwrap_or_else(|| format!("user {uid}"))
}

/// The checkout's commit, where git is installed and this is a checkout.
fn commit(config: &Config) -> Option<String> {
    let git = Program::new("git").args(["rev-parse", "--verify", "--quiet", "HEAD"]).dir(&config.root);
    let text = String::from_utf8(git.read().ok()?).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
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
