//! Attaching documents (a bill of materials, provenance) to an image, and reading what is attached:
//! artifacts whose manifest names the image as its subject (distribution-spec 1.1, "Pushing Manifests
//! with Subject", "Listing Referrers" and "Referrers Tag Schema").
//!
//! A registry that knows referrers says so with `OCI-Subject`. For one that does not, the list of
//! referrers is an index under the tag `sha256-HEX`, which clients read, extend and write back;
//! what others have attached stays in it.

use std::collections::BTreeMap;
use std::io::Write as _;

use http::Method;
use http::header::ACCEPT;
use mlflow_image::Digest;
use mlflow_image::manifest::{Descriptor, INDEX, MANIFEST};
use serde_json::{Value, json};

use crate::error::{Context as _, Error, Kind, Result};

use super::blobs::wrong_digest;
use super::{Blob, Client};

/// What stands where an artifact has no config (image-spec, manifest.md, "Guidance for an Empty
/// Descriptor").
const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// How often the list is written again when somebody else has overwritten it.
const ROUNDS: u32 = 5;
/// The largest document that is read, in bytes.
const LARGEST_DOCUMENT: u64 = 16 << 20;
/// How many parts of a list are read.
const MOST_PAGES: usize = 64;

/// A document to attach.
#[derive(Clone, Copy, Debug)]
pub struct Attachment<'a> {
    /// What it is; also the media type of its bytes.
    pub artifact_type: &'a str,
    /// What lists of what is attached repeat.
    pub annotations: &'a [(&'a str, &'a str)],
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What a registry lists as attached: a promise, until its manifest has been read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The digest of its manifest.
    pub digest: Digest,
    /// What is attached.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// As its manifest has them.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// An attached document, read: manifest and content have the digests by which they are named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What its manifest says that it is attached to.
    pub subject: Option<Digest>,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// As much of an artifact's manifest (image-spec, manifest.md) as is read.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Artifact {
    artifact_type: Option<String>,
    layers: Vec<Part>,
    subject: Option<Part>,
}

#[derive(serde::Deserialize)]
struct Part {
    digest: Digest,
    size: u64,
}

impl Client {
    /// Attaches `bytes` to the manifest `subject`, which must be in this repository. Attaching the
    /// same again sends nothing. Gives the digest of the artifact's manifest.
    pub async fn attach(&self, subject: &Descriptor, attachment: &Attachment<'_>) -> Result<Digest> {
        let Attachment { artifact_type, bytes, .. } = *attachment;
        let manifest = artifact(subject, attachment).to_string();
        let digest = Digest::of(&manifest);
        let mut entry = json!({
            "mediaType": MANIFEST, "digest": digest, "size": manifest.len(), "artifactType": artifact_type,
        });
        annotate(&mut entry, attachment);
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

    /// What is attached to the manifest `subject` of this repository, in the registry's order.
    ///
    /// # Errors
    /// `Remote` also for a list that cannot be read.
    pub async fn referrers(&self, subject: &Digest) -> Result<Vec<Referrer>> {
        let entries = match self.listed(subject).await? {
            Some(entries) => entries,
            None => {
                let index = self.referrers_index(&format!("sha256-{}", subject.hex())).await?;
                index["manifests"].as_array().cloned().unwrap_or_default()
            }
        };
        let read = |entry| serde_json::from_value(entry);
        entries.into_iter().map(read).collect::<Result<_, _>>().context(Kind::Remote, || {
            format!("{} lists what is attached to {} in no known form", self.reference().registry(), subject.short())
        })
    }

    /// Reads a document of one part that [`Self::referrers`] lists. The inner error is why it is none.
    ///
    /// # Errors
    /// `Remote` also where the registry has other content than a digest names.
    pub async fn attached(&self, referrer: &Referrer) -> Result<Result<Attached, String>> {
        let digest = referrer.digest;
        let Some(answer) = self.manifest(&digest.to_string()).await? else {
            return Ok(Err("it is listed, but not there".to_owned()));
        };
        self.check(&answer.body, &digest)?;
        let artifact: Artifact = match serde_json::from_slice(&answer.body) {
            Ok(artifact) => artifact,
            Err(error) => return Ok(Err(format!("its manifest cannot be read: {error}"))),
        };
        if artifact.artifact_type.is_some() && artifact.artifact_type != referrer.artifact_type {
            return Ok(Err("it is of another type than the list says".to_owned()));
        }
        let [part] = &artifact.layers[..] else {
            return Ok(Err(format!("it has {} parts where there is to be one", artifact.layers.len())));
        };
        if part.size > LARGEST_DOCUMENT {
            return Ok(Err(format!("it has {} bytes, more than are read", part.size)));
        }
        let doing = format!("read what is attached as {}", digest.short());
        let path = format!("blobs/{}", part.digest);
        let blob = self.transport.simple(&doing, Method::GET, &path, &[], &[200, 404]).await?;
        if blob.status == 404 {
            return Ok(Err("its content is not there".to_owned()));
        }
        self.check(&blob.body, &part.digest)?;
        Ok(Ok(Attached { subject: artifact.subject.map(|subject| subject.digest), bytes: blob.body.to_vec() }))
    }

    fn check(&self, bytes: &[u8], wanted: &Digest) -> Result<()> {
        let found = Digest::of(bytes);
        let doing = || format!("read {}", wanted.short());
        match found == *wanted {
            true => Ok(()),
            false => Err(wrong_digest(self.reference().registry(), &found.to_string(), wanted, &doing())),
        }
    }

    /// Whether the registry's own list of referrers has the artifact; `None` where it keeps none.
    async fn is_listed(&self, subject: &Digest, artifact: &Digest) -> Result<Option<bool>> {
        let entries = self.listed(subject).await?;
        Ok(entries.map(|entries| entries.iter().any(|entry| entry["digest"] == artifact.to_string())))
    }

    /// The registry's own list of referrers, all its pages; `None` where it keeps none.
    async fn listed(&self, subject: &Digest) -> Result<Option<Vec<Value>>> {
        let doing = format!("read what is attached to {}", subject.short());
        let first = format!("referrers/{subject}");
        let (mut path, mut entries) = (first.clone(), Vec::new());
        for _ in 0..MOST_PAGES {
            let answer = self.transport.simple(&doing, Method::GET, &path, &[(ACCEPT, INDEX)], &[200, 404]).await?;
            if answer.status == 404 {
                return Ok(None);
            }
            // A page for all that a server answers with is no list.
            let Ok(mut index) = serde_json::from_slice::<Value>(&answer.body) else { return Ok(None) };
            let Some(page) = index["manifests"].as_array_mut() else { return Ok(None) };
            entries.append(page);
            let Some(query) = answer.header("link").and_then(next_page) else { return Ok(Some(entries)) };
            path = format!("{first}?{query}");
        }
        let message = format!("{} lists what is attached to {} without end", self.reference(), subject.short());
        Err(Error::new(Kind::Remote, message).hint("delete what is not needed of it"))
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

/// The query of the page that a `Link` header names as the next (distribution-spec, "Listing Referrers").
fn next_page(link: &str) -> Option<&str> {
    let (target, relation) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = relation.replace([' ', '"'], "").contains(";rel=next");
    target.split_once('?').map(|(_, query)| query).filter(|_| is_next)
}

fn artifact(subject: &Descriptor, attachment: &Attachment<'_>) -> Value {
    let Attachment { artifact_type, bytes, .. } = *attachment;
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": artifact_type,
        "config": { "mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY), "size": EMPTY.len() },
        "layers": [{ "mediaType": artifact_type, "digest": Digest::of(bytes), "size": bytes.len() }],
        "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
    });
    annotate(&mut manifest, attachment);
    manifest
}

fn annotate(value: &mut Value, attachment: &Attachment<'_>) {
    if !attachment.annotations.is_empty() {
        let annotations: BTreeMap<&str, &str> = attachment.annotations.iter().copied().collect();
        value["annotations"] = json!(annotations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_the_one_that_is_called_so() {
        for (link, expected) in [
            ("</v2/a/referrers/sha256:1?last=x&n=2>; rel=\"next\"", Some("last=x&n=2")),
            ("<https://r.example.com/v2/a/referrers/sha256:1?page=2>;rel=next", Some("page=2")),
            ("</v2/a/referrers/sha256:1?page=1>; rel=\"prev\"", None),
            ("</v2/a/referrers/sha256:1>; rel=\"next\"", None),
            ("nonsense", None),
        ] {
            assert_eq!(next_page(link), expected, "{link}");
        }
    }
}
