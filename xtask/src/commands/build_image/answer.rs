//! What `build-image` answers: the image it made, or with `--dry-run` the plan.

use std::io;
use std::time::Duration;

use mlflow_image::lock::LayerKind;
use mlflow_image::plan::LayerPlan;
use mlflow_image::{Digest, Platform};

use super::output::Output;
use crate::builders::draft::{Built, BuiltImage, Draft, Wanted};
use crate::builders::push::Pushed;
use crate::config::signing::Signing;
use crate::error::Result;
use crate::registry::Reference;
use crate::report::{self, Report};
use crate::signing::Signed;

/// The contract of `build-image --json`. Fields are added, never removed.
#[derive(serde::Serialize)]
pub struct Answer {
    /// The digest of the index over all platforms.
    digest: Digest,
    /// `registry/repository@digest` where the image was pushed.
    image: Option<String>,
    /// The tags that point at it.
    tags: Vec<String>,
    platforms: Vec<Platform>,
    /// Compressed bytes that a machine pulls: the largest of the platforms' sizes.
    size: u64,
    images: Vec<ImageAnswer>,
    layers: Vec<LayerAnswer>,
    outputs: Vec<String>,
    /// The signature of the pushed image, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<Signed>,
    downloaded_bytes: u64,
    pushed_bytes: u64,
    seconds: f64,
}

#[derive(serde::Serialize)]
struct ImageAnswer {
    platform: Platform,
    /// The digest of the platform's manifest.
    digest: Digest,
    /// The digest of its config, which docker calls the image's id.
    config: Digest,
    /// Compressed bytes of config and layers.
    size: u64,
}

#[derive(serde::Serialize)]
struct LayerAnswer {
    platform: Platform,
    name: String,
    kind: LayerKind,
    digest: Digest,
    diff_id: Digest,
    size: u64,
}

impl Answer {
    /// The answer about `built`, which was pushed to `target` if there is one.
    pub fn new(
        built: &Built,
        target: Option<&Reference>,
        outputs: &[Output],
        pushed: Pushed,
        signature: Option<Signed>,
        took: Duration,
    ) -> Self {
        let images: Vec<_> = built.images.iter().map(ImageAnswer::new).collect();
        Self {
            digest: built.digest(),
            image: target.map(|reference| reference.with_digest(built.digest()).to_string()),
            tags: target.and_then(Reference::tag).map(str::to_owned).into_iter().collect(),
            platforms: images.iter().map(|image| image.platform).collect(),
            size: images.iter().map(|image| image.size).max().unwrap_or(0),
            images,
            layers: built.images.iter().flat_map(layers).collect(),
            outputs: outputs.iter().map(ToString::to_string).collect(),
            signature,
            downloaded_bytes: built.downloaded_bytes + pushed.downloaded_bytes,
            pushed_bytes: pushed.pushed_bytes,
            seconds: report::seconds(took),
        }
    }
}

impl ImageAnswer {
    fn new(image: &BuiltImage) -> Self {
        let layers: u64 = image.layers.iter().map(|layer| layer.info.size).sum();
        Self {
            platform: image.platform,
            digest: image.manifest.digest,
            config: image.config.digest,
            size: layers + image.config.bytes.len() as u64,
        }
    }
}

fn layers(image: &BuiltImage) -> impl Iterator<Item = LayerAnswer> {
    image.layers.iter().map(|layer| LayerAnswer {
        platform: image.platform,
        name: layer.name.clone(),
        kind: layer.kind,
        digest: layer.info.digest,
        diff_id: layer.info.diff_id,
        size: layer.info.size,
    })
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for image in &self.images {
            let layers = self.layers.iter().filter(|layer| layer.platform == image.platform).count();
            writeln!(out, "{}  {}  {layers} layers, {}", image.platform, image.digest, report::bytes(image.size))?;
        }
        for output in &self.outputs {
            writeln!(out, "written      {output}")?;
        }
        match &self.image {
            Some(image) => writeln!(out, "pushed       {image} (tag {})", self.tags.join(", "))?,
            None => writeln!(out, "image        {}", self.digest)?,
        }
        if let Some(signature) = &self.signature {
            writeln!(out, "{signature}")?;
        }
        let (down, up) = (report::bytes(self.downloaded_bytes), report::bytes(self.pushed_bytes));
        writeln!(out, "{down} downloaded, {up} pushed, {:.1} s", self.seconds)
    }
}

/// What `--dry-run` answers.
#[derive(serde::Serialize)]
pub struct Plan {
    /// The image's digest, if the locks tell it.
    digest: Option<Digest>,
    /// Where it would be pushed.
    target: Option<String>,
    /// With what it would be signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    sign: Option<String>,
    layers: Vec<PlannedLayer>,
    /// Bytes of wheels and packages that would be downloaded, before the registry is asked.
    download_bytes: u64,
}

#[derive(serde::Serialize)]
struct PlannedLayer {
    platform: Platform,
    name: String,
    kind: LayerKind,
    /// The digest, if it is known.
    digest: Option<Digest>,
    size: Option<u64>,
    /// `known`: nothing to do; `build`: it is to be built.
    action: Action,
    /// Bytes of its inputs that are not in the cache.
    download_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Known,
    Build,
}

impl Plan {
    /// What building `draft` would do.
    pub fn new(draft: &Draft, wanted: &Wanted, target: Option<&Reference>, signing: &Signing) -> Result<Self> {
        let jobs = draft.to_build(wanted)?;
        let downloads = draft.cache.dir("downloads")?;
        let absent = |plan: &LayerPlan| -> u64 {
            let inputs = plan.inputs().into_iter();
            inputs.filter(|(digest, _)| !downloads.join(digest.hex()).exists()).map(|(_, size)| size).sum()
        };
        let layers = draft.plans().map(|plan| {
            let job = jobs.iter().any(|job| job.key == plan.key);
            PlannedLayer {
                platform: plan.platform,
                name: plan.name.clone(),
                kind: plan.kind,
                digest: plan.known.map(|info| info.digest),
                size: plan.known.map(|info| info.size),
                action: if job { Action::Build } else { Action::Known },
                download_bytes: if job { absent(plan) } else { 0 },
            }
        });
        Ok(Self {
            digest: draft.built(0).ok().map(|built| built.digest()),
            target: target.map(ToString::to_string),
            sign: target.and(signing.sign.as_ref()).map(ToString::to_string),
            layers: layers.collect(),
            download_bytes: jobs.iter().map(absent).sum(),
        })
    }
}

impl Report for Plan {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let width = self.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0);
        for layer in &self.layers {
            let action = match layer.action {
                Action::Known => "known",
                Action::Build => "build",
            };
            let digest = layer.digest.map_or_else(|| "-".repeat(12), |digest| digest.short());
            let size = layer.size.map_or_else(String::new, report::bytes);
            let download = match layer.download_bytes {
                0 => String::new(),
                bytes => format!("  after downloading {}", report::bytes(bytes)),
            };
            writeln!(out, "{action}  {}  {:width$}  {digest}  {size:>9}{download}", layer.platform, layer.name)?;
        }
        match self.digest {
            Some(digest) => writeln!(out, "image {digest}")?,
            None => writeln!(out, "the image's digest is not known before it is built")?,
        }
        if let Some(target) = &self.target {
            writeln!(out, "push  {target}, what the registry lacks")?;
        }
        if let Some(with) = &self.sign {
            writeln!(out, "sign  it with {with}")?;
        }
        writeln!(out, "{} to download", report::bytes(self.download_bytes))
    }
}
