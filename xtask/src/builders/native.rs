//! The native builder: locks -> layers -> manifest, without docker, and without a network where the
//! caches hold what is needed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use mlflow_image::exclude::Exclude;
use mlflow_image::lock::{DebPackage, LayerInfo, LayerKind, LockedLayer, Wheel};
use mlflow_image::plan::{Format, LayerPlan, Source};
use mlflow_image::{Digest, Platform, layer, layout, overlap};

use super::bytecode::ImagePython;
use super::draft::{Built, Draft, Options, Wanted};
use super::project::{self, Project};
use crate::cache;
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::lock;
use crate::sources::{self, FetchDebsError, Mirrors};

/// Builds the image. With `materialize`, all its blobs, configs and manifests are in
/// [`cache::Cache::blob`] afterwards; without, only the digests are sure to be known.
pub async fn build(run: &Run, config: &Config, options: &Options, materialize: bool) -> Result<Built> {
    let mut draft = Draft::plan(run, config, options).await?;
    let wanted = if materialize { Wanted::All } else { Wanted::Nothing };
    let downloaded = draft.complete(run, &wanted).await?;
    let built = draft.built(downloaded)?;
    if materialize {
        draft.store(&built)?;
    }
    Ok(built)
}

impl Draft {
    /// Builds what [`Self::to_build`] names, after fetching what that needs, and gives the number of
    /// bytes downloaded. Writes image.lock where something new was learned.
    ///
    /// Mirrors drop superseded Debian packages. Where no server has a locked one, debian.lock is
    /// resolved again and the image is another one: with [`Wanted::Blobs`], which name the old one's
    /// layers, that is an error and [`Self::is_resolved_again`].
    pub async fn complete(&mut self, run: &Run, wanted: &Wanted) -> Result<u64> {
        match self.complete_as_locked(run, wanted).await {
            Err(FetchDebsError::Superseded(packages)) if !self.options.locked && !self.resolved_again => {
                self.resolve_again(run, &packages).await?;
                if matches!(wanted, Wanted::Blobs(_)) {
                    return Err(FetchDebsError::Superseded(packages).into());
                }
                Ok(self.complete_as_locked(run, wanted).await?)
            }
            result => Ok(result?),
        }
    }

    /// Whether debian.lock had to be resolved again, so that what was planned before is out of date.
    pub fn is_resolved_again(&self) -> bool {
        self.resolved_again
    }

    async fn resolve_again(&mut self, run: &Run, packages: &[DebPackage]) -> Result<()> {
        let list: Vec<_> = packages.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
        run.ui.warn(format!("no server has {} any more: resolving debian.lock again", list.join(", ")));
        let (_, moved) = lock::refresh_debian(run, &self.cache, &self.project.root, &self.mirrors()?).await?;
        for package in moved {
            run.ui.step("Moved", package.to_string());
        }
        self.project = Project::read(&self.project.root, self.epoch.as_deref())?;
        self.resolved_again = true;
        self.plan_layers()?;
        self.recall()
    }

    async fn complete_as_locked(&mut self, run: &Run, wanted: &Wanted) -> Result<u64, FetchDebsError> {
        let mut downloaded = 0;
        let mut jobs = self.to_build(wanted)?;
        if !jobs.is_empty() {
            let mut python = None;
            if self.options.bytecode && jobs.iter().any(|job| job.kind != LayerKind::Own) {
                downloaded += self.fetch_python(run).await?;
                python = ImagePython::prepare(run, &self.cache, &self.project.debian)?;
                if python.is_none() {
                    self.do_without_bytecode(wanted)?;
                    jobs = self.to_build(wanted)?;
                }
            }
            downloaded += self.fetch(run, &jobs).await?;
            downloaded += self.check_overlaps(run, &jobs).await?;
            self.build_layers(run, jobs, python).await?;
        }
        self.remember(run)?;
        Ok(downloaded)
    }

    /// Refuses wheels that disagree about a file, wherever a layer of wheels is to be learned: once it
    /// is in image.lock, nobody opens the wheels of the other layers again.
    async fn check_overlaps(&self, run: &Run, jobs: &[LayerPlan]) -> Result<u64> {
        let mut downloaded = 0;
        let downloads = self.cache.dir("downloads")?;
        let learned = |job: &&LayerPlan| job.known.is_none() && matches!(job.source, Source::Wheels(_));
        let platforms: std::collections::BTreeSet<Platform> =
            jobs.iter().filter(learned).map(|job| job.platform).collect();
        for platform in platforms {
            let wheels = &self.wheels[&platform];
            downloaded += sources::fetch_wheels(run, &self.cache, &self.project.root, platform, wheels).await?;
            let file = |digest: &Digest| downloads.join(digest.hex());
            tokio::task::block_in_place(|| overlap::check(wheels, &self.project.exclude, &file))?;
        }
        Ok(downloaded)
    }

    /// Plans again where the image's Python does not run and no other will do.
    fn do_without_bytecode(&mut self, wanted: &Wanted) -> Result<()> {
        if self.options.locked || matches!(wanted, Wanted::Blobs(_)) {
            let message = "image.lock foretells layers with .pyc files, which cannot be made on this machine";
            return Err(Error::new(Kind::Machine, message).hint("build on Linux, or with --no-bytecode"));
        }
        self.options.bytecode = false;
        self.plan_layers()?;
        self.recall()
    }

    /// Puts configs, manifests and index into the cache.
    pub fn store(&self, built: &Built) -> Result<()> {
        for document in built.documents() {
            let path = self.cache.blob(&document.digest)?;
            if !layout::holds(&path, &document.digest, document.bytes.len() as u64) {
                cache::write(&path, &document.bytes)?;
            }
        }
        Ok(())
    }

    async fn fetch_python(&self, run: &Run) -> Result<u64, FetchDebsError> {
        let debs = ImagePython::wanted(&self.cache, &self.project.debian)?;
        self.fetch_debs(run, debs).await
    }

    fn mirrors(&self) -> Result<Mirrors> {
        Mirrors::detect(self.options.debian_mirror.as_deref())
    }

    async fn fetch_debs(&self, run: &Run, debs: &[DebPackage]) -> Result<u64, FetchDebsError> {
        sources::fetch_debs(run, &self.cache, &self.mirrors()?, &self.project.debian, debs).await
    }

    async fn fetch(&self, run: &Run, jobs: &[LayerPlan]) -> Result<u64, FetchDebsError> {
        let mut debs: Vec<DebPackage> = Vec::new();
        let mut wheels: BTreeMap<Platform, Vec<Wheel>> = BTreeMap::new();
        for job in jobs {
            match &job.source {
                Source::Debs(packages) => debs.extend(packages.iter().cloned()),
                Source::Wheels(more) => wheels.entry(job.platform).or_default().extend(more.iter().cloned()),
                Source::Own(_) => {}
            }
        }
        let mut downloaded = 0;
        if !debs.is_empty() {
            downloaded += self.fetch_debs(run, &debs).await?;
        }
        for (platform, wheels) in &wheels {
            downloaded += sources::fetch_wheels(run, &self.cache, &self.project.root, *platform, wheels).await?;
        }
        Ok(downloaded)
    }

    async fn build_layers(&mut self, run: &Run, mut jobs: Vec<LayerPlan>, python: Option<ImagePython>) -> Result<()> {
        // The largest first, so that no thread is left with a large one at the end.
        jobs.sort_by_key(|job| job.inputs().iter().map(|(_, size)| size).sum::<u64>());
        let (downloads, blobs) = (self.cache.dir("downloads")?, self.cache.dir("blobs")?);
        let (memory, exclude) = (self.cache.dir("layers")?, self.project.exclude.clone());
        let (format, run) = (self.options.format, run.clone());
        let work = move || {
            let bar = run.ui.count("Building layers", jobs.len() as u64);
            let queue = Mutex::new(jobs);
            let failed = AtomicBool::new(false);
            let site = Site { downloads, blobs, memory, exclude, format, python };
            let worker = || -> Result<Vec<(Digest, LayerInfo)>> {
                let mut done = Vec::new();
                loop {
                    let next = queue.lock().map_or(None, |mut queue| queue.pop());
                    let Some(job) = next else { return Ok(done) };
                    if run.cancel.is_cancelled() || failed.load(Ordering::Relaxed) {
                        return Ok(done);
                    }
                    let info = site.build(&job).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
                    bar.inc(1);
                    done.push((job.key, info));
                }
            };
            let threads = std::thread::available_parallelism().map_or(2, usize::from);
            std::thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
                let mut done = Vec::new();
                for worker in workers {
                    match worker.join() {
                        Ok(result) => done.extend(result?),
                        Err(panic) => std::panic::resume_unwind(panic),
                    }
                }
                if run.cancel.is_cancelled() { Err(Run::interrupted()) } else { Ok(done) }
            })
        };
        let done: BTreeMap<Digest, LayerInfo> = tokio::task::spawn_blocking(work)
            .await
            .context(Kind::Internal, || "building the layers was cut short")??
            .into_iter()
            .collect();
        for plan in self.images.iter_mut().flat_map(|(_, plans)| plans) {
            if let Some(info) = done.get(&plan.key) {
                plan.known = Some(*info);
            }
        }
        Ok(())
    }

    /// Writes what was learned into image.lock, if it is about this form of image.
    fn remember(&mut self, run: &Run) -> Result<()> {
        if !self.options.is_locked_form() {
            return Ok(());
        }
        let mut lock = self.project.image.clone();
        for (platform, plans) in &self.images {
            let locked = plans.iter().filter(|plan| plan.kind != LayerKind::Own).filter_map(|plan| {
                let info = plan.known?;
                Some(LockedLayer { name: plan.name.clone(), kind: plan.kind, key: plan.key, info })
            });
            lock.layer.insert(*platform, locked.collect());
            lock.wheel.insert(*platform, self.wheels[platform].clone());
        }
        if lock == self.project.image {
            return Ok(());
        }
        project::write_image_lock(&self.project.root, &lock)?;
        self.project.image = lock;
        run.ui
            .step("Updated", "mlflow_server/image.lock: commit it, so that others know the image before they build it");
        Ok(())
    }
}

/// What the threads that build layers share.
struct Site {
    downloads: PathBuf,
    blobs: PathBuf,
    memory: PathBuf,
    exclude: Exclude,
    format: Format,
    python: Option<ImagePython>,
}

impl Site {
    /// Builds one layer into the cache and compares it with what was foretold.
    fn build(&self, plan: &LayerPlan) -> Result<LayerInfo> {
        let named = || format!("cannot write layer {}", plan.name);
        let temporary = tempfile::Builder::new().prefix(".part-").tempfile_in(&self.blobs).on_machine(named)?;
        let mut out = std::io::BufWriter::with_capacity(1 << 18, temporary);
        let file = |digest: &Digest| self.downloads.join(digest.hex());
        let inputs = layer::Inputs {
            file: &file,
            exclude: &self.exclude,
            compiler: self.python.as_ref().map(|python| python as _),
            format: self.format,
        };
        let info = layer::write(plan, &inputs, &mut out)?;
        let temporary = out.into_inner().map_err(|error| error.into_error()).on_machine(named)?;
        let memory = self.memory.join(plan.key.hex());
        if let Some(foretold) = plan.known
            && foretold != info
        {
            // Nothing is lost when it is not there.
            let _ = std::fs::remove_file(&memory);
            return Err(mismatch(plan, &foretold, &info));
        }
        cache::set_default_mode(temporary.as_file(), temporary.path())?;
        temporary.persist(self.blobs.join(info.digest.hex())).map_err(|error| error.error).on_machine(named)?;
        let text = serde_json::to_vec(&info).context(Kind::Internal, || "a layer's digests are not JSON")?;
        cache::write(&memory, &text)?;
        Ok(info)
    }
}

fn mismatch(plan: &LayerPlan, foretold: &LayerInfo, found: &LayerInfo) -> Error {
    let (name, platform) = (&plan.name, plan.platform);
    Error::new(
        Kind::Input,
        format!("layer {name} ({platform}) is {}, but image.lock foretold {}", found.digest, foretold.digest),
    )
    .hint("the lock is wrong or this build is not reproducible: remove the layer's line from image.lock, build again, compare")
}
