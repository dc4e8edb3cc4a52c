//! An image as far as the locks tell: its layers, which of them are known, and, once all are, its
//! manifests. Nothing is built here.

use std::collections::BTreeMap;

use mlflow_image::lock::{LayerInfo, LayerKind, Wheel};
use mlflow_image::manifest::{self, Document};
use mlflow_image::plan::{self, Format, LayerPlan, PlanInputs, Source};
use mlflow_image::sbom::{self, Contents, Subject};
use mlflow_image::{Digest, Platform, layer, layout};

use super::bytecode;
use super::project::Project;
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::sources;

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// For which platforms, in any order.
    pub platforms: Vec<Platform>,
    /// How layers are compressed.
    pub format: Format,
    /// Whether layers hold .pyc files.
    pub bytecode: bool,
    /// Refuse to change image.lock and debian.lock.
    pub locked: bool,
    /// The Debian mirror to ask first: the URL of the folder that holds `dists/` and `pool/`.
    pub debian_mirror: Option<String>,
}

impl Options {
    /// What the configuration says, in the form that image.lock foretells.
    pub fn new(config: &Config) -> Self {
        let platforms = config.image.platforms.clone();
        let debian_mirror = config.image.debian_mirror.clone();
        Self { platforms, format: Format::default(), bytecode: true, locked: false, debian_mirror }
    }

    /// Whether image.lock is about images of this form.
    pub fn is_locked_form(&self) -> bool {
        self.format == Format::default() && self.bytecode
    }
}

/// An image whose layers are planned and perhaps known.
pub struct Draft {
    /// What it is built from.
    pub project: Project,
    /// The form in which it is built.
    pub options: Options,
    /// The layers of each platform, lowest first.
    pub images: Vec<(Platform, Vec<LayerPlan>)>,
    /// The wheels of each platform.
    pub wheels: BTreeMap<Platform, Vec<Wheel>>,
    /// Where blobs and downloads are.
    pub cache: Cache,
    pub(super) epoch: Option<String>,
    pub(super) resolved_again: bool,
}

/// A finished image: all its digests, and its documents.
#[derive(Clone, Debug)]
pub struct Built {
    /// The index over all platforms; its digest is the image's.
    pub index: Document,
    /// One image for each platform.
    pub images: Vec<BuiltImage>,
    /// Bytes of wheels and packages that were downloaded for it.
    pub downloaded_bytes: u64,
}

/// The image of one platform.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    /// The platform.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Document,
    /// Its configuration.
    pub config: Document,
    /// Its layers, lowest first.
    pub layers: Vec<BuiltLayer>,
}

/// A finished layer.
#[derive(Clone, Debug)]
pub struct BuiltLayer {
    /// For people.
    pub name: String,
    /// What it is made of.
    pub kind: LayerKind,
    /// Digests and size.
    pub info: LayerInfo,
}

/// Which blobs must be in the cache when a draft is complete.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// Only those that had to be built to know their digests.
    Nothing,
    /// These.
    Blobs(Vec<Digest>),
    /// All.
    All,
}

impl Built {
    /// The image's digest.
    pub fn digest(&self) -> Digest {
        self.index.digest
    }

    /// Configs, manifests and the index, in the order in which a registry accepts them.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        self.images.iter().flat_map(|image| [&image.config, &image.manifest]).chain([&self.index])
    }

    /// The layers of all platforms, each once.
    pub fn layers(&self) -> Vec<LayerInfo> {
        let mut layers: Vec<LayerInfo> = Vec::new();
        for layer in self.images.iter().flat_map(|image| &image.layers) {
            if !layers.iter().any(|seen| seen.digest == layer.info.digest) {
                layers.push(layer.info);
            }
        }
        layers
    }
}

impl Draft {
    /// Reads the locks and plans. Touches the network only where image.lock does not name the
    /// wheels of the requirements.
    pub async fn plan(run: &Run, config: &Config, options: &Options) -> Result<Self> {
        let cache = Cache::open()?;
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
        let project = Project::read(&config.root, epoch.as_deref())?;
        let mut options = options.clone();
        options.platforms.sort();
        options.platforms.dedup();
        if options.platforms.is_empty() {
            return Err(Error::new(Kind::Config, "image.platforms is empty").hint("name linux/amd64 or linux/arm64"));
        }
        let mut wheels = BTreeMap::new();
        for platform in &options.platforms {
            let (mut of_platform, open) = project.locked_wheels(*platform);
            if !open.0.is_empty() {
                let names = open.0.iter().map(|requirement| requirement.name.as_str()).collect::<Vec<_>>().join(", ");
                if options.locked {
                    let message =
                        format!("image.lock does not name the {platform} wheels of requirements.lock: {names}");
                    return Err(Error::new(Kind::Check, message).hint("run cargo xtask lock and commit what it writes"));
                }
                of_platform.extend(sources::wheels::select(run, &cache, *platform, &open).await?);
                // The lock's order is the requirements'.
                let place = |wheel: &Wheel| project.requirements.0.iter().position(|other| other.name == wheel.name);
                of_platform.sort_by_key(place);
            }
            wheels.insert(*platform, of_platform);
        }
        let mut draft = Self { project, options, images: Vec::new(), wheels, cache, epoch, resolved_again: false };
        draft.plan_layers()?;
        if draft.options.locked && draft.options.is_locked_form() {
            draft.require_foretold()?;
        }
        draft.recall()?;
        Ok(draft)
    }

    /// Plans the layers from the locks and the options.
    pub fn plan_layers(&mut self) -> Result<()> {
        let identity = if self.options.bytecode { Some(bytecode::identity(&self.project.debian)?) } else { None };
        self.images = self
            .options
            .platforms
            .iter()
            .map(|platform| {
                let layers = plan::layers(&PlanInputs {
                    platform: *platform,
                    debs: self.project.debian.packages(*platform)?,
                    wheels: &self.wheels[platform],
                    own: &self.project.own,
                    exclude: self.project.exclude.digest(),
                    compiler: identity.as_deref(),
                    format: self.options.format,
                    locked: &self.project.image,
                })?;
                Ok((*platform, layers))
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn require_foretold(&self) -> Result<()> {
        let unknown: Vec<String> = self
            .plans()
            .filter(|plan| plan.known.is_none() && plan.kind != LayerKind::Own)
            .map(|plan| format!("{} ({})", plan.name, plan.platform))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let (shown, rest) = unknown.split_at(unknown.len().min(4));
        let others = if rest.is_empty() { String::new() } else { format!(" and {} other layers", rest.len()) };
        let message = format!("image.lock does not foretell {}{others}", shown.join(", "));
        Err(Error::new(Kind::Check, message).hint("run cargo xtask build-image without --locked, commit image.lock"))
    }

    /// Fills in what earlier builds on this machine learned. Our own files are not locked, because
    /// their layer takes no time: it is made here, for its digests.
    pub fn recall(&mut self) -> Result<()> {
        let memory = self.cache.dir("layers")?;
        for plan in self.images.iter_mut().flat_map(|(_, plans)| plans).filter(|plan| plan.known.is_none()) {
            if plan.kind == LayerKind::Own {
                let file = |_: &Digest| std::path::PathBuf::new();
                let (exclude, format) = (&self.project.exclude, self.options.format);
                let inputs = layer::Inputs { file: &file, exclude, compiler: None, format };
                plan.known = Some(layer::write(plan, &inputs, &mut std::io::sink())?);
            } else {
                let text = std::fs::read(memory.join(plan.key.hex())).unwrap_or_default();
                plan.known = serde_json::from_slice(&text).ok();
            }
        }
        Ok(())
    }

    /// All planned layers of all platforms.
    pub fn plans(&self) -> impl Iterator<Item = &LayerPlan> {
        self.images.iter().flat_map(|(_, plans)| plans)
    }

    /// The layers that must be built so that all digests are known and the wanted blobs are in the
    /// cache. A layer that both platforms share is there once. A blob in the cache that is not what
    /// its name says is built again.
    pub fn to_build(&self, wanted: &Wanted) -> Result<Vec<LayerPlan>> {
        let mut jobs: Vec<LayerPlan> = Vec::new();
        for plan in self.plans() {
            let needed = match plan.known {
                None => true,
                Some(info) => {
                    let wanted = match wanted {
                        Wanted::Nothing => false,
                        Wanted::Blobs(digests) => digests.contains(&info.digest),
                        Wanted::All => true,
                    };
                    wanted && !layout::holds(&self.cache.blob(&info.digest)?, &info.digest, info.size)
                }
            };
            if needed && !jobs.iter().any(|job| job.key == plan.key) {
                jobs.push(plan.clone());
            }
        }
        Ok(jobs)
    }

    /// The whole image, once every layer is known. `downloaded` is for the report only.
    pub fn built(&self, downloaded: u64) -> Result<Built> {
        let project = &self.project;
        let annotations: BTreeMap<String, String> = project
            .metadata
            .labels
            .iter()
            .filter(|(name, _)| name.starts_with("org.opencontainers.image."))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let mut images = Vec::new();
        for (platform, plans) in &self.images {
            let mut layers = Vec::new();
            for plan in plans {
                let info = plan.known.ok_or_else(|| {
                    Error::new(Kind::Internal, format!("layer {} of {platform} was not built", plan.name))
                })?;
                layers.push(BuiltLayer { name: plan.name.clone(), kind: plan.kind, info });
            }
            let listed: Vec<_> = plans
                .iter()
                .zip(&layers)
                .map(|(plan, layer)| manifest::Layer { created_by: created_by(plan), info: layer.info })
                .collect();
            let config = manifest::config(*platform, &project.metadata, &project.created, &listed);
            let manifest = manifest::manifest(&config, &listed, self.options.format, &annotations);
            images.push(BuiltImage { platform: *platform, manifest, config, layers });
        }
        let index = manifest::index(images.iter().map(|image| (image.platform, &image.manifest)), &annotations);
        Ok(Built { index, images, downloaded_bytes: downloaded })
    }

    /// The bill of materials of the given platforms; `digest` is what it describes.
    pub fn sbom(&self, name: &str, digest: Digest, platforms: &[Platform]) -> Result<Document> {
        let project = &self.project;
        let contents = platforms
            .iter()
            .map(|platform| {
                let debs = project.debian.packages(*platform)?;
                Ok(Contents { platform: *platform, debs, wheels: &self.wheels[platform] })
            })
            .collect::<Result<Vec<_>>>()?;
        let (version, created, suite) = (&project.version, &project.created, &project.debian.suite);
        Ok(sbom::cyclonedx(&Subject { name, version, digest, created, suite }, &contents))
    }
}

fn created_by(plan: &LayerPlan) -> String {
    let list = |names: Vec<String>| names.join(" ");
    match &plan.source {
        Source::Debs(debs) => list(debs.iter().map(|deb| format!("{}={}", deb.name, deb.version)).collect()),
        Source::Wheels(wheels) => {
            list(wheels.iter().map(|wheel| format!("{}=={}", wheel.name, wheel.version)).collect())
        }
        Source::Own(files) => list(files.iter().map(|file| format!("/{}", file.path)).collect()),
    }
}
