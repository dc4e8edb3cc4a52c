//! The schema of an image's MLflow, from its layers: no server is started and none of its code is run.

use std::path::PathBuf;

use mlflow_image::Digest;
use mlflow_image::find::{self, Limits};

use super::Schema;
use super::layers::{self, Overlay};
use crate::builders::draft::{Draft, Options, Wanted};
use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::config::Config;
use crate::error::{Context as _, Error, Kind, Result};
use crate::local::image::Image;
use crate::registry::Client;

/// The schema of the image that the client's reference names in its registry, from the cache where it
/// was read before. Of a new image only the layers that may hold MLflow are fetched.
///
/// # Errors
/// `Input` for an image without an MLflow, or with one whose migrations do not fit together.
pub async fn in_registry(client: &Client, cache: &Cache) -> Result<Schema> {
    let reference = client.reference();
    if let Some(known) = reference.digest().and_then(|digest| recall(cache, digest)) {
        return Ok(known);
    }
    let outline = client.outline(cache).await?;
    let mut overlay = Overlay::default();
    for layer in layers::candidates(&outline.config, outline.layers.len()) {
        client.fetch_layer(cache, &outline, layer).await?;
        let digest = outline.layers[layer].digest;
        look(&mut overlay, cache.blob(&digest)?, digest).await?;
        if overlay.complete().is_some() {
            break;
        }
    }
    let schema = overlay.schema().map_err(|error| of(&reference.to_string(), error))?;
    if let Some(digest) = reference.digest() {
        remember(cache, digest, &schema)?;
    }
    Ok(schema)
}

/// The digest and the schema of the image that the locks describe. Of its layers only those are built
/// that may hold MLflow.
///
/// # Errors
/// As [`in_registry`], and those of a build.
pub async fn to_be_built(run: &Run, config: &Config, options: &Options, cache: &Cache) -> Result<(Digest, Schema)> {
    let mut draft = Draft::plan(run, config, options).await?;
    draft.complete(run, &Wanted::Nothing).await?;
    let built = draft.built(0)?;
    let digest = built.digest();
    if let Some(known) = recall(cache, &digest) {
        return Ok((digest, known));
    }
    let image = built.images.first().ok_or_else(|| Error::new(Kind::Internal, "an image for no platform"))?;
    let mut overlay = Overlay::default();
    for layer in layers::candidates(&image.config.bytes, image.layers.len()) {
        let layer = image.layers[layer].info.digest;
        draft.complete(run, &Wanted::Blobs(vec![layer])).await?;
        look(&mut overlay, cache.blob(&layer)?, layer).await?;
        if overlay.complete().is_some() {
            break;
        }
    }
    let schema = overlay.schema().map_err(|error| of("the image that the locks describe", error))?;
    remember(cache, &digest, &schema)?;
    Ok((digest, schema))
}

/// The schema of an image whose layers are on this machine.
///
/// # Errors
/// As [`in_registry`].
pub async fn on_this_machine(image: &Image, cache: &Cache) -> Result<Schema> {
    if let Some(known) = recall(cache, &image.digest) {
        return Ok(known);
    }
    let mut overlay = Overlay::default();
    for layer in layers::candidates(&image.config_file.bytes, image.layers.len()) {
        let layer = &image.layers[layer];
        look(&mut overlay, layer.blob.clone(), layer.digest).await?;
        if overlay.complete().is_some() {
            break;
        }
    }
    let schema = overlay.schema().map_err(|error| of(&format!("image {}", image.digest.short()), error))?;
    remember(cache, &image.digest, &schema)?;
    Ok(schema)
}

async fn look(overlay: &mut Overlay, blob: PathBuf, digest: Digest) -> Result<()> {
    let work = {
        let blob = blob.clone();
        move || find::find(&blob, &digest, &Limits::default(), &layers::is_wanted)
    };
    let found = tokio::task::spawn_blocking(work).await.context(Kind::Internal, || "reading a layer was cut short")?;
    let hint = || format!("if it is damaged, remove {} and run the same command again", blob.display());
    overlay.add(found.map_err(|error| Error::from(error).hint(hint()))?);
    Ok(())
}

fn of(image: &str, error: Error) -> Error {
    let wrong = Error::new(error.kind(), format!("cannot tell which schema {image} works with"));
    let wrong = match error.hint_text() {
        Some(hint) => wrong.hint(hint.to_owned()),
        None => wrong.hint("name an image of an MLflow server, or build one: cargo xtask build-image"),
    };
    wrong.source(error)
}

fn kept(cache: &Cache, digest: &Digest) -> Result<PathBuf> {
    Ok(cache.dir("schemas")?.join(digest.hex()))
}

/// What an earlier run read of the image. A damaged file counts as none.
fn recall(cache: &Cache, digest: &Digest) -> Option<Schema> {
    let text = std::fs::read(kept(cache, digest).ok()?).ok()?;
    serde_json::from_slice(&text).ok()
}

fn remember(cache: &Cache, digest: &Digest, schema: &Schema) -> Result<()> {
    let text = serde_json::to_vec(schema).context(Kind::Internal, || "a schema is not JSON")?;
    cache::write(&kept(cache, digest)?, &text)
}
