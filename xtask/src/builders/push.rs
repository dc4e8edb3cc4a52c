//! Pushes an image that may not be built yet: the registry is asked first, and only what it lacks
//! is built and sent.

use std::collections::HashMap;

use mlflow_image::Digest;

use super::attest;
use super::draft::{Built, Draft, Options, Wanted};
use crate::cache::Cache;
use crate::commands::Run;
use crate::config::Config;
use crate::error::Result;
use crate::registry::{Access, Blob, Client, CredentialSource, Manifest, Reference};

/// What a push cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pushed {
    /// Bytes of wheels and packages downloaded for layers that the registry lacked.
    pub downloaded_bytes: u64,
    /// Bytes sent to the registry.
    pub pushed_bytes: u64,
}

/// Pushes `built`, whose `draft` knows all digests, and points the tag of `reference` at it. The
/// bills of materials and the provenance come after the manifests that they describe and before the tag. Where the tag
/// points at the image already, that is the only question asked.
///
/// Gives the image that was pushed: another one where debian.lock had to be resolved again for a
/// layer that the registry lacks.
pub async fn push(
    run: &Run,
    draft: &mut Draft,
    built: Built,
    reference: &Reference,
    login: CredentialSource,
) -> Result<(Built, Pushed)> {
    let planned_with_old_lock = !draft.is_resolved_again();
    match push_as_planned(run, draft, &built, reference, login.clone()).await {
        // Nothing has a tag yet.
        Err(_) if planned_with_old_lock && draft.is_resolved_again() => {
            let downloaded = draft.complete(run, &Wanted::Nothing).await?;
            let built = draft.built(downloaded)?;
            let pushed = push_as_planned(run, draft, &built, reference, login).await?;
            Ok((built, pushed))
        }
        pushed => Ok((built, pushed?)),
    }
}

async fn push_as_planned(
    run: &Run,
    draft: &mut Draft,
    built: &Built,
    reference: &Reference,
    login: CredentialSource,
) -> Result<Pushed> {
    let cache = draft.cache.clone();
    let client = Client::connect(run, &cache, reference, Access::Push, login)?;
    let tag = reference.tag().unwrap_or("latest").to_owned();
    if client.has_manifest(&tag).await? == Some(built.digest()) {
        return Ok(Pushed::default());
    }
    let mut downloaded_bytes = 0;
    let complete = async |missing: Vec<Blob>| {
        let wanted = missing.iter().map(|blob| blob.digest).collect();
        downloaded_bytes = draft.complete(run, &Wanted::Blobs(wanted)).await?;
        draft.store(built)?;
        missing.iter().map(|blob| Ok((blob.digest, cache.blob(&blob.digest)?))).collect::<Result<HashMap<Digest, _>>>()
    };
    client.push(&manifests(built), None, complete).await?;
    attest::attach(&client, draft, built, reference).await?;
    client.put_manifest(&tag, built.index.media_type, &built.index.bytes).await?;
    Ok(Pushed { downloaded_bytes, pushed_bytes: client.sent_bytes() })
}

/// Builds what `config` describes, as far as the registry lacks it, and points the tag of
/// `reference` at it. Gives MLflow's version too.
pub async fn build(
    run: &Run,
    config: &Config,
    options: &Options,
    reference: &Reference,
    login: CredentialSource,
) -> Result<(Built, Pushed, String)> {
    let mut draft = Draft::plan(run, config, options).await?;
    let downloaded = draft.complete(run, &Wanted::Nothing).await?;
    let built = draft.built(downloaded)?;
    draft.store(&built)?;
    let (built, pushed) = push(run, &mut draft, built, reference, login).await?;
    Ok((built, pushed, draft.project.version))
}

/// Pushes an image whose blobs are all in the cache, and points the tag of `reference` at it.
pub async fn push_built(
    run: &Run,
    cache: &Cache,
    built: &Built,
    reference: &Reference,
    login: CredentialSource,
) -> Result<Pushed> {
    let client = Client::connect(run, cache, reference, Access::Push, login)?;
    let files = |missing: Vec<Blob>| {
        let path = |blob: &Blob| Ok((blob.digest, cache.blob(&blob.digest)?));
        std::future::ready(missing.iter().map(path).collect())
    };
    let pushed = client.push(&manifests(built), Some(reference.tag().unwrap_or("latest")), files).await?;
    Ok(Pushed { downloaded_bytes: 0, pushed_bytes: pushed.sent_bytes })
}

fn manifests(built: &Built) -> Vec<Manifest> {
    let of_platform = built.images.iter().map(|image| {
        let config = Blob { digest: image.config.digest, size: image.config.bytes.len() as u64 };
        let layers = image.layers.iter().map(|layer| Blob { digest: layer.info.digest, size: layer.info.size });
        Manifest {
            media_type: image.manifest.media_type.to_owned(),
            bytes: image.manifest.bytes.clone(),
            blobs: layers.chain([config]).collect(),
        }
    });
    let index =
        Manifest { media_type: built.index.media_type.to_owned(), bytes: built.index.bytes.clone(), blobs: Vec::new() };
    of_platform.chain([index]).collect()
}
