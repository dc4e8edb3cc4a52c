//! This program's own builder, run as a user runs it: one process, `build-image --push`.

use std::fs;
use std::path::{Path, PathBuf};

use mlflow_image::{Digest, Platform};
use serde::Deserialize;

use super::measure::{self, Cost};
use super::project::Projects;
use super::registry::Registry;
use super::{Case, Outcome};
use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::error::{Context as _, Kind, Result};
use crate::process::Program;

/// Where this program's copy runs, and what it keeps there.
pub struct Ours {
    program: PathBuf,
    dir: PathBuf,
    platform: Platform,
}

/// The part of `build-image --json` that is used here.
#[derive(Deserialize)]
struct Answer {
    digest: Digest,
    downloaded_bytes: u64,
}

impl Ours {
    /// Copies this program, so that a cargo build meanwhile does not change it, and fills a cache
    /// of downloads from the user's own and from the network.
    pub async fn prepare(run: &Run, projects: &Projects, platform: Platform, dir: &Path) -> Result<Self> {
        cache::create_dir(dir)?;
        let program = dir.join("xtask");
        let this = std::env::current_exe().on_machine(|| "cannot find this program's own file")?;
        fs::copy(&this, &program).on_machine(|| format!("cannot copy {}", this.display()))?;
        let ours = Self { program, dir: dir.to_owned(), platform };
        link_all(&Cache::open()?.dir("downloads")?, &ours.downloads("prepared")?)?;
        for case in [Case::Cold, Case::Dependency] {
            run.ui.step("Preparing", format!("downloads, {}", case.title()));
            let mut program = ours.command(&projects.root(case), "prepared");
            program = program.args(run.offline.then_some("--offline"));
            measure::timed(run, "build-image", program, dir).await?;
        }
        projects.forget_layers()?;
        Ok(ours)
    }

    /// Starts a round: caches as after a download, nothing built.
    pub fn begin(&self, round: usize) -> Result<()> {
        link_all(&self.downloads("prepared")?, &self.downloads(&warm(round))?)
    }

    /// The prepared downloads, by digest.
    pub fn prepared(&self) -> Result<Cache> {
        Cache::at(self.cache_home("prepared").join(cache::NAME))
    }

    /// Builds and pushes one case.
    pub async fn build(
        &self,
        run: &Run,
        case: Case,
        round: usize,
        root: &Path,
        registry: &Registry,
    ) -> Result<Outcome> {
        let name = if case == Case::InRegistry { format!("empty-{round}") } else { warm(round) };
        let program =
            self.command(root, &name).args(["--push", "--repository", &registry.repository(), "--tag", registry.tag()]);
        let cost = measure::timed(run, "build-image", program, &self.dir).await?;
        let answer = answer(&cost)?;
        Ok(Outcome { cost, push_seconds: None, downloaded_bytes: Some(answer.downloaded_bytes) })
    }

    /// Builds once more from nothing but the downloads, in other folders and another time zone, and
    /// gives the digest.
    pub async fn digest_of_another_build(&self, run: &Run, projects: &Projects) -> Result<Digest> {
        link_all(&self.downloads("prepared")?, &self.downloads("again")?)?;
        let copies = projects.again(&self.dir.join("other folder"))?;
        let program = self.command(&copies.root(Case::Cold), "again").env("TZ", "Asia/Kathmandu").env("LC_ALL", "C");
        Ok(answer(&measure::timed(run, "build-image", program, &self.dir).await?)?.digest)
    }

    fn command(&self, root: &Path, cache: &str) -> Program {
        Program::new(&self.program)
            .args(["build-image", "--json", "--quiet", "--platform"])
            .arg(self.platform.to_string())
            .env("CARGO_MANIFEST_DIR", root)
            .env("XDG_CACHE_HOME", self.cache_home(cache))
            .env("XDG_DATA_HOME", self.dir.join("data"))
            .env("DOCKER_CONFIG", self.dir.join("docker"))
            .dir(root)
    }

    fn cache_home(&self, name: &str) -> PathBuf {
        self.dir.join("caches").join(name)
    }

    fn downloads(&self, name: &str) -> Result<PathBuf> {
        Cache::at(self.cache_home(name).join(cache::NAME))?.dir("downloads")
    }
}

fn warm(round: usize) -> String {
    format!("warm-{round}")
}

fn answer(cost: &Cost) -> Result<Answer> {
    serde_json::from_str(&cost.stdout).context(Kind::Internal, || "build-image --json did not answer with JSON")
}

/// Gives `to` all files of `from`: hard links, copies where they are on another disk.
fn link_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from).on_machine(|| format!("cannot list {}", from.display()))? {
        let path = entry.on_machine(|| format!("cannot list {}", from.display()))?.path();
        let Some(name) = path.file_name().filter(|name| !name.as_encoded_bytes().starts_with(b".")) else { continue };
        let target = to.join(name);
        if !path.is_file() || target.exists() {
            continue;
        }
        if fs::hard_link(&path, &target).is_err() {
            fs::copy(&path, &target).on_machine(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
