//! Attaching documents (a bill of materials) to an image: artifacts whose manifest names the image
//! as its subject (distribution-spec 1.1, "Pushing Manifests with Subject" and "Referrers Tag
//! Schema").
//!
//! A registry that knows referrers says so with `OCI-Subject`. For one that does not, the list of
//! referrers is an index under the tag `sha256-HEX`, which clients read, extend and write back;
//! what others have attached stays in it.

use std::io::Write as _;

use http::Method;
use http::header::ACCEPT;
use mlflow_image::Digest;
use mlflow_image::manifest::{Descriptor, INDEX, MANIFEST};
use serde_json::{Value, json};

use crate::error::{Context as _, Error, Kind, Result};

use super::{Blob, Client};

/// What stands where an artifact has no config (image-spec, manifest.md, "Guidance for an Empty
/// Descriptor").
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// How often the list is written again when somebody else has overwritten it.
const ROUNDS: u32 = 5;

impl Client {
    /// Attaches `bytes` to the manifest `subject`, which must be in this repository. Attaching the
    /// same again sends nothing. Gives the digest of the artifact's manifest.
    pub async fn attach(&self, subject: &Descriptor, artifact_type: &str, bytes: &[u8]) -> Result<Digest> {
        let manifest = artifact(subject, artifact_type, bytes).to_string();
        let digest = Digest::of(&manifest);
        let entry = json!({
            "mediaType": MANIFEST, "digest": digest, "size": manifest.len(), "artifactType": artifact_type,
        });
        if self.has_manifest(&digest.to_string()).await?.is_some() {
            if self.is_listed(&subject.digest, &digest).await? == Some(true) {
                return Ok(digest);
            }
        } else {
            self.send_bytes(&[EMPTY, bytes]).await?;
            let put = self.put_manifest_with_answer(&digest.to_string(), MANIFEST, manifest.as_bytes()).await?;
            if put.1.header("oci-subject").is_some() {
                return Ok(digest);
            }
        }
        self.list(&subject.digest, &digest, &entry).await?;
        Ok(digest)
    }

    /// Whether the registry's own list of referrers has the artifact; `None` where it keeps none.
    async fn is_listed(&self, subject: &Digest, artifact: &Digest) -> Result<Option<bool>> {
        let doing = format!("read what is attached to {}", subject.short());
        let path = format!("referrers/{subject}");
        let answer = self.transport.simple(&doing, Method::GET, &path, &[(ACCEPT, INDEX)], &[200, 404]).await?;
        Ok((answer.status == 200).then(|| {
            serde_json::from_slice::<Value>(&answer.body).is_ok_and(|index| lists(&index, &artifact.to_string()))
        }))
    }

    /// Adds the artifact to the index under the referrers tag, and looks whether it stayed there.
    async fn list(&self, subject: &Digest, artifact: &Digest, entry: &Value) -> Result<()> {
        let tag = format!("sha256-{}", subject.hex());
        for _ in 0..ROUNDS {
            let mut index = self.referrers_index(&tag).await?;
            if lists(&index, &artifact.to_string()) {
                return Ok(());
            }
            if let Some(manifests) = index["manifests"].as_array_mut() {
                manifests.push(entry.clone());
            }
            self.put_manifest(&tag, INDEX, index.to_string().as_bytes()).await?;
        }
        let message = format!(
            "{} others write the list of what is attached to {} at the same time",
            self.reference(),
            subject.short()
        );
        Err(Error::new(Kind::Remote, message).hint("run the same command again"))
    }

    async fn referrers_index(&self, tag: &str) -> Result<Value> {
        let Some(answer) = self.manifest(tag).await? else {
            return Ok(json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }));
        };
        let index: Option<Value> = serde_json::from_slice(&answer.body).ok();
        index.filter(|index| index["manifests"].is_array()).ok_or_else(|| {
            let message = format!("the tag {tag} of {} is no list of attached documents", self.reference().name());
            Error::new(Kind::Remote, message).hint("delete that tag; its form is reserved for such lists")
        })
    }

    /// Sends small blobs that are in memory.
    async fn send_bytes(&self, contents: &[&[u8]]) -> Result<()> {
        let blobs: Vec<Blob> =
            contents.iter().map(|bytes| Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }).collect();
        for blob in self.missing_blobs(&blobs).await? {
            let content = contents.iter().find(|bytes| Digest::of(bytes) == blob.digest);
            let mut file = tempfile::NamedTempFile::new().on_machine(|| "cannot make a temporary file")?;
            file.write_all(content.copied().unwrap_or_default()).on_machine(|| "cannot write a temporary file")?;
            let bar = self.transport.run().ui.bytes("Attaching a document", blob.size);
            self.upload(&blob, file.path(), &bar).await?;
        }
        Ok(())
    }
}

fn lists(index: &Value, digest: &str) -> bool {
    index["manifests"].as_array().is_some_and(|entries| entries.iter().any(|entry| entry["digest"] == digest))
}

fn artifact(subject: &Descriptor, artifact_type: &str, bytes: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": { "mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY), "size": EMPTY.len() },
        "layers": [{ "mediaType": artifact_type, "digest": Digest::of(bytes), "size": bytes.len() }],
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
    })
}
