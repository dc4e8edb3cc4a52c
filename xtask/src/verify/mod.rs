//! What can be proven of an image in a registry, before anything is deployed: that its manifests are what
//! their digests say, what is attached to it, and whether that is what the environment requires.
//!
//! Gathering ([`evidence`]) asks the registry, and cosign for a signature that is required; judging
//! ([`document`], [`policy`]) asks nobody. Without a signature, what is attached proves only what somebody who
//! may push has said.

mod document;
mod evidence;
mod policy;

pub use evidence::{Evidence, gather};
pub use policy::{judge, judge_all};

use crate::commands::Run;
use crate::config::Config;
use crate::error::Result;
use crate::registry::{Client, Reference};

/// Refuses an image that is not what the environment requires, before it is deployed. Gives its reference
/// by digest. What is wrong with it without being required is a warning.
///
/// # Errors
/// As [`gather`] and [`judge`].
pub async fn before_deploy(run: &Run, config: &Config, client: &Client) -> Result<Reference> {
    let evidence = gather(run, config, client).await?;
    judge(&config.image.require, &evidence)?;
    for (found, why) in evidence.attached.iter().filter_map(|found| Some((found, found.problem()?))) {
        run.ui.warn(format!(
            "{} ({}), attached to the image, is not to be believed: {why}",
            found.digest.short(),
            found.what
        ));
    }
    Ok(evidence.image)
}
