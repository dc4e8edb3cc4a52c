//! Manifests: asking for one, putting one.
//!
//! These go past `oci-client`, which shows neither status nor headers of an answer: the digest that
//! the registry computed, `OCI-Subject` and `Retry-After` are all in headers.

use std::sync::atomic::Ordering;

use http::Method;
use http::header::{ACCEPT, CONTENT_TYPE};
use mlflow_image::Digest;

use crate::error::Result;

use super::Client;
use super::blobs::{check_digest, wrong_digest};
use super::http_client::Read;

/// The kinds of manifest that are understood.
pub const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

impl Client {
    /// The digest of the manifest that a digest or tag names; `None` when there is none.
    pub async fn has_manifest(&self, selector: &str) -> Result<Option<Digest>> {
        let doing = format!("look for {selector}");
        let path = format!("manifests/{selector}");
        let accept = ACCEPTED.join(", ");
        let Some(answer) = self.transport.ask(&doing, &path, &[(ACCEPT, &accept)]).await? else { return Ok(None) };
        let said = match answer.header("docker-content-digest").and_then(|text| text.parse().ok()) {
            Some(digest) => Some(digest),
            // The header is optional; and what answers may be no registry, but a page for all.
            None => self.manifest(selector).await?.map(|read| Digest::of(&read.body)),
        };
        if let (Ok(wanted), Some(found)) = (selector.parse::<Digest>(), said)
            && wanted != found
        {
            return Err(wrong_digest(self.reference().registry(), &found.to_string(), &wanted, &doing));
        }
        Ok(said)
    }

    /// A manifest's answer; `None` when there is none.
    pub(super) async fn manifest(&self, selector: &str) -> Result<Option<Read>> {
        let doing = format!("read {selector}");
        let path = format!("manifests/{selector}");
        let accept = ACCEPTED.join(", ");
        let answer = self.transport.simple(&doing, Method::GET, &path, &[(ACCEPT, &accept)], &[200, 404]).await?;
        Ok((answer.status == 200).then_some(answer))
    }

    /// Puts a manifest under a tag or its digest and checks what the registry made of it. All that
    /// the manifest names must be there before.
    pub async fn put_manifest(&self, selector: &str, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        self.put_manifest_with_answer(selector, media_type, bytes).await.map(|(digest, _)| digest)
    }

    pub(super) async fn put_manifest_with_answer(
        &self,
        selector: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(Digest, Read)> {
        let doing = format!("push manifest {selector}");
        let url = self.transport.url(&format!("manifests/{selector}"))?;
        let digest = Digest::of(bytes);
        let scopes = self.transport.scopes();
        let answer = self
            .transport
            .retry(&doing, &scopes, |granted| {
                let (doing, url) = (&doing, &url);
                async move {
                    let request = self
                        .transport
                        .request(Method::PUT, url.clone())
                        .header(CONTENT_TYPE, media_type)
                        .body(bytes.to_vec())
                        .timeout(self.transport.patience().stall);
                    self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    let request = self.transport.authorize(request, url, granted.as_ref());
                    let answer = self.transport.send(doing, request).await?;
                    self.transport.expect(doing, answer, &[201], granted.as_ref()).await
                }
            })
            .await?;
        check_digest(&answer, &digest, self.transport.reference().registry(), &doing)?;
        Ok((digest, answer))
    }
}
