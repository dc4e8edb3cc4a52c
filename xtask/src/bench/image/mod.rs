//! `bench image`: our builder beside its peers, on the same locks, in one run.
//!
//! Prepare (downloads, base images; untimed) -> rounds of cases, the contenders taking turns ->
//! report. Everything is in one temporary folder.

mod measure;
mod ours;
mod peer;
mod project;
mod registry;
mod report;
mod storage;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use mlflow_image::lock::Wheel;
use mlflow_image::{Digest, Platform};

use self::measure::Cost;
use self::ours::Ours;
use self::peer::{BaseArgs, Inputs, Peer};
use self::project::Projects;
use self::registry::{Image, Registry};
use self::report::{Answer, Figure, LeftOut};
use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::repo;
use crate::sources::uv;

/// Measure the image builder beside buildah and docker, on the same locks, in one run
///
/// Timed is what a user waits for: build and push, from the start of the program to its end, to an
/// empty registry on this machine (`docker-registry`, one for each builder). CPU seconds are those
/// of the program and all its children (getrusage); docker's daemon cannot be counted. Bytes pushed
/// are counted on the way to the registry, request bodies only.
///
/// Not timed: downloads (wheels, Debian packages, base images and uv are on this machine before),
/// resolving versions, starting the registry, cargo's own start. The peers find the wheels in their
/// build image, and have buildah's quickest isolation (chroot).
///
/// Cases: cold (downloads are there, no layer and no .pyc is), unchanged, in-registry (caches empty
/// of everything, the registry holds the image; peers build without their layer cache), dependency
/// (certifi one version back), own-file (one line more in a file of mlflow_server/rootfs). The
/// builders take turns within each case.
#[derive(clap::Args)]
pub struct Args {
    /// Only this case; repeatable. cold runs always: the others start from it.
    #[arg(long, value_name = "CASE")]
    only: Vec<Case>,
    /// Only this builder; repeatable [default: those that work here].
    #[arg(long, value_name = "NAME")]
    builder: Vec<Contender>,
    /// How often each case is run.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    runs: u16,
    /// Fail when a promise of this project is missed.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    bases: BaseArgs,
}

/// What changed since the build before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// Nothing was built yet.
    Cold,
    /// Nothing.
    Unchanged,
    /// Nothing, but all caches are lost.
    InRegistry,
    /// One small dependency's version.
    Dependency,
    /// One of our own files.
    OwnFile,
}

impl Case {
    /// In the order in which they are run.
    const ALL: [Self; 5] = [Self::Cold, Self::Unchanged, Self::InRegistry, Self::Dependency, Self::OwnFile];

    fn title(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Unchanged => "nothing changed",
            Self::InRegistry => "empty caches, image in the registry",
            Self::Dependency => "one dependency changed",
            Self::OwnFile => "own file changed",
        }
    }

    /// Whether a peer may use no layer of an earlier build.
    fn is_fresh(self) -> bool {
        matches!(self, Self::Cold | Self::InRegistry)
    }
}

/// Who builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contender {
    /// This program.
    Native,
    /// buildah, with mlflow_server/Dockerfile.
    Buildah,
    /// docker, with mlflow_server/Dockerfile.
    Docker,
    /// buildah, with the seed's recipe: `FROM python` and `pip install`.
    Seed,
}

impl Contender {
    const ALL: [Self; 4] = [Self::Native, Self::Buildah, Self::Docker, Self::Seed];

    fn title(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Buildah => "buildah, 2 stages",
            Self::Docker => "docker, 2 stages",
            Self::Seed => "buildah, seed",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Buildah => "buildah",
            Self::Docker => "docker",
            Self::Seed => "seed",
        }
    }
}

/// What one build and push cost, as its builder saw it.
struct Outcome {
    cost: Cost,
    push_seconds: Option<f64>,
    downloaded_bytes: Option<u64>,
}

/// What one build and push cost, as the registry saw it.
struct Sample {
    outcome: Outcome,
    pushed_bytes: u64,
    image: Image,
    layers_kept: usize,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let wants = |contender: Contender| args.builder.is_empty() || args.builder.contains(&contender);
    let cases: Vec<Case> = Case::ALL
        .into_iter()
        .filter(|case| *case == Case::Cold || args.only.is_empty() || args.only.contains(case))
        .collect();
    let platform = Platform::host();
    let registry = registry::program()?;
    let work = tempfile::Builder::new()
        .prefix("xtask-bench-")
        .tempdir()
        .on_machine(|| "cannot make a temporary folder: set TMPDIR to a disk with some gigabytes free")?;
    let stage = Stage::prepare(run, &args, work.path(), platform, &wants).await?;
    let mut samples: BTreeMap<(Case, Contender), Vec<Sample>> = BTreeMap::new();
    let measured = stage.rounds(run, &args, &cases, &registry, &mut samples).await;
    stage.tidy_up().await;
    measured?;
    let mut reproducible = reproducible(&samples);
    if wants(Contender::Native) {
        run.ui.step("Building", "once more from nothing, for the digest");
        let digest = stage.ours.digest_of_another_build(run, &stage.projects).await?;
        let all = samples.get(&(Case::Cold, Contender::Native)).into_iter().flatten();
        reproducible.insert(Contender::Native, all.map(|sample| sample.image.digest).all(|one| one == digest));
    }
    let figures: Vec<Figure> = samples.iter().map(|((case, contender), all)| figure(*case, *contender, all)).collect();
    let ratios = report::ratios(&figures);
    let answer = Answer {
        platform,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        runs: usize::from(args.runs),
        bars: report::bars(&figures, &ratios),
        ratios,
        figures,
        reproducible,
        left_out: stage.left_out,
    };
    let missed = answer.bars.iter().filter(|bar| !bar.met).count();
    let code = run.answer(&answer)?;
    remove(work)?;
    if args.check && missed > 0 {
        return Err(Error::new(Kind::Check, format!("{missed} promises missed")));
    }
    Ok(code)
}

/// All that is ready before anything is timed.
struct Stage {
    dir: PathBuf,
    platform: Platform,
    projects: Projects,
    ours: Ours,
    takes_part: bool,
    peers: Vec<(Contender, Peer)>,
    left_out: Vec<LeftOut>,
}

impl Stage {
    async fn prepare(
        run: &Run,
        args: &Args,
        dir: &Path,
        platform: Platform,
        wants: &dyn Fn(Contender) -> bool,
    ) -> Result<Self> {
        let (root, cache) = (repo::root()?, Cache::open()?);
        let projects = Projects::make(run, &cache, &root, &dir.join("projects")).await?;
        let ours = Ours::prepare(run, &projects, platform, &dir.join("native")).await?;
        let (mut peers, mut left_out) = (Vec::new(), Vec::new());
        let wheels = projects.wheels(platform)?;
        let folder = dir.join("wheels");
        write_wheels(&ours.prepared()?, &wheels, &folder)?;
        let versions: Vec<String> = wheels
            .iter()
            .filter(|wheel| wheel.name == project::DEPENDENCY)
            .map(|wheel| format!("{}=={}", wheel.name, wheel.version))
            .collect();
        let [before, after] = versions.as_slice() else {
            return Err(Error::new(Kind::Internal, format!("{} has not two versions", project::DEPENDENCY)));
        };
        let uv = uv::program(run, &cache).await?;
        let inputs = Inputs { root: &root, wheels: &folder, uv: &uv, bases: &args.bases, dependency: [before, after] };
        for contender in Contender::ALL.into_iter().filter(|one| *one != Contender::Native && wants(*one)) {
            match Peer::prepare(run, contender, &inputs, &dir.join(contender.name())).await {
                Ok(peer) => peers.push((contender, peer)),
                Err(error) if error.kind() == Kind::Interrupted => return Err(error),
                // Who was asked for by name must not be missing.
                Err(error) if !args.builder.is_empty() => return Err(error),
                Err(error) => {
                    let why = error.lines().join(": ").replace('\n', " | ");
                    run.ui.warn(format!("{} is left out: {why}", contender.title()));
                    left_out.push(LeftOut { contender, why });
                }
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            platform,
            projects,
            ours,
            takes_part: wants(Contender::Native),
            peers,
            left_out,
        })
    }

    async fn rounds(
        &self,
        run: &Run,
        args: &Args,
        cases: &[Case],
        program: &Path,
        samples: &mut BTreeMap<(Case, Contender), Vec<Sample>>,
    ) -> Result<()> {
        let ours = self.takes_part.then_some(Contender::Native);
        let contenders: Vec<Contender> = ours.into_iter().chain(self.peers.iter().map(|(one, _)| *one)).collect();
        for round in 1..=usize::from(args.runs) {
            let dir = self.dir.join(format!("round-{round}"));
            let projects = self.projects.again(&dir.join("projects"))?;
            self.ours.begin(round)?;
            let mut registries = BTreeMap::new();
            for contender in &contenders {
                let registry = Registry::start(run, program, &dir.join(contender.name())).await?;
                registries.insert(*contender, (registry, BTreeSet::new()));
            }
            for case in cases {
                for contender in &contenders {
                    let (registry, known) = registries.get_mut(contender).expect("a registry for each contender");
                    run.ui.step(
                        "Measuring",
                        format!("{}, {}, run {round} of {}", case.title(), contender.title(), args.runs),
                    );
                    let root = projects.root(*case);
                    let sample = self.sample(run, *case, *contender, round, &root, registry, known).await?;
                    samples.entry((*case, *contender)).or_default().push(sample);
                }
            }
            drop(registries);
            let _ = std::fs::remove_dir_all(&dir);
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "a case in a round, and what it is measured with")]
    async fn sample(
        &self,
        run: &Run,
        case: Case,
        contender: Contender,
        round: usize,
        root: &Path,
        registry: &Registry,
        known: &mut BTreeSet<Digest>,
    ) -> Result<Sample> {
        registry.take_pushed_bytes();
        let peer = self.peers.iter().find(|(one, _)| *one == contender);
        let outcome = match peer {
            Some((_, peer)) => peer.build(run, root, case.is_fresh(), case == Case::Dependency, registry).await?,
            None => self.ours.build(run, case, round, root, registry).await?,
        };
        let pushed_bytes = registry.take_pushed_bytes();
        let image = registry.image(self.platform).await?;
        let layers_kept = image.layers.iter().filter(|layer| known.contains(layer)).count();
        known.extend(&image.layers);
        Ok(Sample { outcome, pushed_bytes, image, layers_kept })
    }

    async fn tidy_up(&self) {
        for (_, peer) in &self.peers {
            peer.tidy_up().await;
        }
    }
}

/// Gives the wheels their names again.
fn write_wheels(cache: &Cache, wheels: &[Wheel], to: &Path) -> Result<()> {
    cache::create_dir(to)?;
    for wheel in wheels {
        let from = cache.download(&wheel.sha256)?;
        std::fs::copy(&from, to.join(&wheel.file)).on_machine(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Whether all builds from nothing gave one digest; needs two of them.
fn reproducible(samples: &BTreeMap<(Case, Contender), Vec<Sample>>) -> BTreeMap<Contender, bool> {
    let mut digests: BTreeMap<Contender, Vec<Digest>> = BTreeMap::new();
    for ((case, contender), all) in samples {
        if case.is_fresh() {
            digests.entry(*contender).or_default().extend(all.iter().map(|sample| sample.image.digest));
        }
    }
    digests.retain(|_, all| all.len() > 1);
    digests.into_iter().map(|(contender, all)| (contender, all.iter().all(|one| *one == all[0]))).collect()
}

fn figure(case: Case, contender: Contender, samples: &[Sample]) -> Figure {
    let of = |value: &dyn Fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    let all_seconds = of(&|sample| sample.outcome.cost.seconds);
    let all_cpu_seconds = of(&|sample| sample.outcome.cost.cpu_seconds);
    let push: Option<Vec<f64>> = samples.iter().map(|sample| sample.outcome.push_seconds).collect();
    let downloaded = samples.iter().map(|sample| sample.outcome.downloaded_bytes);
    let last = samples.last();
    Figure {
        case,
        contender,
        seconds: report::median(&all_seconds),
        cpu_seconds: (contender != Contender::Docker).then(|| report::median(&all_cpu_seconds)),
        push_seconds: push.map(|push| report::median(&push)),
        pushed_bytes: samples.iter().map(|sample| sample.pushed_bytes).max().unwrap_or(0),
        downloaded_bytes: downloaded.max().flatten(),
        size: last.map_or(0, |sample| sample.image.size),
        layers: last.map_or(0, |sample| sample.image.layers.len()),
        layers_kept: last.map_or(0, |sample| sample.layers_kept),
        digests: samples.iter().map(|sample| sample.image.digest).collect(),
        all_seconds,
        all_cpu_seconds,
    }
}

fn remove(work: tempfile::TempDir) -> Result<()> {
    let path = work.path().to_owned();
    work.close().on_machine(|| format!("cannot remove {}", path.display()))
}
