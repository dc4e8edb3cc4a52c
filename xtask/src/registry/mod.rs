//! A client of container registries (OCI distribution-spec 1.1).
//!
//! Pulls go through `oci-client` ([`pull`]); pushing has a policy of its own, because a push that
//! is worth anything asks before it sends, sends each layer once and whole, tries again what may
//! pass, renews its login on the way, and puts the tag last. Everything below is one protocol to
//! one repository; what to push is the caller's business.

mod auth;
mod blobs;
mod challenge;
mod credentials;
mod failure;
mod http_client;
mod inspect;
mod layout;
mod manifests;
mod mounts;
mod pull;
mod push;
mod reference;
mod referrers;
mod retry;
#[cfg(test)]
mod tests;
mod transport;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::Cache;
use crate::commands::Run;
use crate::error::Result;

pub use crate::secret::Secret;
pub use blobs::Blob;
pub use credentials::{CredentialSource, LoginArgs, Passable};
pub use http_client::{CONNECT, USER_AGENT, fault, origin, read};
pub use inspect::Tree;
pub use layout::Layout;
pub use push::Manifest;
pub use reference::Reference;
pub use referrers::{Attachment, Referrer};
pub use retry::{Fault, Patience, retry_after};
pub use transport::Access;

/// A client for one repository.
pub struct Client {
    transport: transport::Transport,
    mounts: mounts::Mounts,
    sent: Arc<AtomicU64>,
}

impl Client {
    /// A client for the repository of `reference`. Nothing is sent before the first question, and
    /// no login is looked up before the registry asks for one.
    pub fn connect(
        run: &Run,
        cache: &Cache,
        reference: &Reference,
        access: Access,
        source: CredentialSource,
    ) -> Result<Self> {
        Ok(Self {
            transport: transport::Transport::new(run, reference, access, source)?,
            mounts: mounts::Mounts::open(cache, reference.registry(), reference.repository())?,
            sent: Arc::default(),
        })
    }

    /// The image that the client was made for.
    pub fn reference(&self) -> &Reference {
        self.transport.reference()
    }

    /// Whether the registry asked for a login in the questions so far.
    pub async fn asked_for_login(&self) -> bool {
        self.transport.auth().was_asked().await
    }

    /// The login that was used, or would be, for others to use.
    ///
    /// # Errors
    /// `Auth` when Google gives no token any more.
    pub async fn login(&self) -> Result<Passable> {
        self.transport.auth().login().await?.passable().await
    }

    /// The login as docker's configuration file has it, for a program that talks to the registry itself.
    ///
    /// # Errors
    /// `Auth` when Google gives no token any more.
    pub async fn docker_config(&self) -> Result<Secret> {
        self.transport.auth().login().await?.docker_config(self.reference()).await
    }

    /// Who the login is, and by which source.
    ///
    /// # Errors
    /// `Machine` when it cannot be looked up.
    pub async fn identity(&self) -> Result<String> {
        Ok(self.transport.auth().login().await?.identity().to_owned())
    }

    /// Bytes of blobs and manifests sent so far, failed attempts included.
    pub fn sent_bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}
