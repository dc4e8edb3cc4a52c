//! `lock`: refreshes the locks and shows what moved, or checks that nothing has to.

use std::io;
use std::process::ExitCode;

use mlflow_image::Platform;
use mlflow_image::lock::ImageLock;
use mlflow_image::plan::LAYOUT;

use crate::builders::draft::Options;
use crate::builders::native;
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::{self, Config};
use crate::error::{Error, Kind, Result};
use crate::lock::python::{self, Upgrade};
use crate::lock::{self, Inputs, LockName, Locks, Moved, Set, moved_debs, moved_requirements};
use crate::repo;
use crate::report::Report;
use crate::sources::Mirrors;

/// Refresh the locks in mlflow_server/ and show what moved
///
/// Python pins that still satisfy requirements.in stay, unless --upgrade moves them; Debian
/// packages move to the newest version of their suites, because that is where security fixes are.
#[derive(clap::Args)]
pub struct Args {
    /// Only tell whether the locks follow from requirements.in, overrides.txt and debian.in;
    /// exit code 12 if they don't. Asks no server.
    #[arg(long, conflicts_with_all = ["set", "upgrade", "dry_run", "no_build", "debian_mirror"])]
    check: bool,
    /// Show what would move, write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Move Python packages to their newest versions: those named, or all.
    #[arg(long, value_name = "NAME", num_args = 0.., value_delimiter = ',')]
    upgrade: Option<Vec<String>>,
    /// Which dependencies: what the server uses, or all that MLflow asks for. Recorded in
    /// requirements.lock; the default is what is recorded there.
    #[arg(long)]
    set: Option<Set>,
    /// Leave the layers of image.lock to the next build-image; without it they are built now, so
    /// that the locks foretell the image's digest.
    #[arg(long)]
    no_build: bool,
    /// The Debian mirror: the URL of the folder that holds dists/ and pool/.
    #[arg(long, value_name = "URL")]
    debian_mirror: Option<String>,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let root = repo::root()?;
    let inputs = Inputs::load(&root)?;
    if args.check {
        return check(run, &inputs, &Locks::load(&root)?);
    }
    let cache = Cache::open()?;
    let _held = lock::hold(&cache, &root)?;
    let old = Locks::load(&root)?;
    if run.offline {
        return Err(Error::new(Kind::Usage, "lock asks servers for new versions, and this run is offline")
            .hint("leave out --offline; lock --check needs no network"));
    }
    let config = Config::load(config::LOCAL)?;
    let mirrors = Mirrors::detect(args.debian_mirror.as_deref().or(config.image.debian_mirror.as_deref()))?;
    let upgrade = match args.upgrade {
        None => Upgrade::Nothing,
        Some(names) if names.is_empty() => Upgrade::Everything,
        Some(names) => Upgrade::Only(names),
    };
    let recorded = old.requirements.as_ref().map(|(header, _)| header.set.parse::<Set>()).transpose()?;
    let set = args.set.or(recorded).unwrap_or_default();

    let keys = lock::keyring(&root, &inputs.debian)?;
    let pins = old.requirements.as_ref().map(|(_, requirements)| requirements);
    let debian = lock::debian::resolve(run, &cache, &mirrors, &keys, &inputs.debian, old.debian.as_ref()).await?;
    let resolved = python::resolve(run, &cache, &root, &inputs.python, set, &upgrade, pins).await?;

    let mut moved = moved_requirements(pins, &resolved.requirements);
    moved.extend(moved_debs(old.debian.as_ref(), &debian));
    // The layers stay until a build learns new ones: a layer whose key no longer occurs is not used.
    let layer = old.image.map(|image| image.layer).unwrap_or_default();
    let new = Locks {
        requirements: Some((resolved.header, resolved.requirements)),
        debian: Some(debian),
        image: Some(ImageLock { layout: LAYOUT, wheel: resolved.wheels, layer }),
    };
    let mut answer = Answer { set, dry_run: args.dry_run, changed: !moved.is_empty(), moved, written: Vec::new() };
    if !args.dry_run {
        answer.written = new.write(&root)?;
        if !args.no_build {
            let before = new.image.as_ref().map(ImageLock::to_text);
            build(run, &config).await?;
            let after = Locks::load(&root)?.image.map(|image| image.to_text());
            if before != after && !answer.written.contains(&lock::IMAGE_LOCK) {
                answer.written.push(lock::IMAGE_LOCK);
            }
        }
    }
    run.answer(&answer)
}

/// Builds the layers that image.lock does not foretell yet, for all platforms.
async fn build(run: &Run, config: &Config) -> Result<()> {
    let mut options = Options::new(config);
    options.platforms = Platform::ALL.to_vec();
    native::build(run, config, &options, false).await.map(drop)
}

fn check(run: &Run, inputs: &Inputs, locks: &Locks) -> Result<ExitCode> {
    let problems = lock::problems(inputs, locks);
    let ok = problems.is_empty();
    run.answer(&Verdict { ok, problems })?;
    Ok(ExitCode::from(if ok { 0 } else { Kind::Check.exit_code() }))
}

#[derive(serde::Serialize)]
struct Verdict {
    ok: bool,
    problems: Vec<String>,
}

impl Report for Verdict {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        self.problems.iter().try_for_each(|problem| writeln!(out, "{problem}"))?;
        match self.ok {
            true => writeln!(out, "The locks are up to date."),
            false => writeln!(out, "Refresh the locks with cargo xtask lock."),
        }
    }
}

#[derive(serde::Serialize)]
struct Answer {
    set: Set,
    dry_run: bool,
    changed: bool,
    moved: Vec<Moved>,
    written: Vec<&'static str>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let width = |text: fn(&Moved) -> &str| self.moved.iter().map(|moved| text(moved).len()).max().unwrap_or(0);
        let (name_width, from_width) = (width(|moved| &moved.name), width(from));
        for (lock, title) in [(LockName::Python, "Python packages"), (LockName::Debian, "Debian packages")] {
            let rows: Vec<_> = self.moved.iter().filter(|moved| moved.lock == lock).collect();
            if !rows.is_empty() {
                writeln!(out, "{title}")?;
            }
            for moved in rows {
                writeln!(out, "  {:name_width$}  {:>from_width$} -> {}", moved.name, from(moved), to(moved))?;
            }
        }
        match (self.changed, self.dry_run, self.written.is_empty()) {
            (false, _, true) => writeln!(out, "Nothing moved."),
            (_, true, _) => writeln!(out, "Nothing was written (--dry-run)."),
            (_, false, _) => writeln!(out, "Wrote {}.", self.written.join(", ")),
        }
    }
}

fn from(moved: &Moved) -> &str {
    moved.from.as_deref().unwrap_or("-")
}

fn to(moved: &Moved) -> &str {
    match (&moved.from, &moved.to) {
        (Some(from), Some(to)) if from == to => "the same version, another file",
        (_, to) => to.as_deref().unwrap_or("removed"),
    }
}
