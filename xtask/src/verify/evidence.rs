//! Asking the registry what there is of an image.

use futures::future::try_join_all;
use mlflow_image::{Digest, Platform};

use crate::builders::draft::{Draft, Options};
use crate::commands::Run;
use crate::config::{Config, Requirement};
use crate::error::{Error, Kind, Result};
use crate::registry::{Client, Reference, Referrer, Tree};
use crate::signing::{self, Verdict, is_bundle};

use super::document;

/// What is known of an image.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Evidence {
    /// By digest.
    pub image: Reference,
    /// The digest of its index, or of its only manifest.
    pub digest: Digest,
    /// Manifests that were read, each of which has the digest by which it is named.
    pub manifests: usize,
    /// Whether the locks of this checkout foretell this very image.
    #[serde(rename = "foretold_by_locks")]
    pub is_ours: bool,
    /// What is attached to it and to its platforms' manifests.
    pub attached: Vec<Attached>,
    /// What cosign says of its signature; `None` where the environment requires none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Verdict>,
}

/// Something attached.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Attached {
    /// The digest of its manifest.
    pub digest: Digest,
    /// What it is attached to.
    pub to: Digest,
    /// Its type, as the registry has it.
    #[serde(rename = "type")]
    pub what: String,
    /// Its type, as far as it is understood.
    pub kind: document::Kind,
    /// What it says, or what is wrong with it.
    pub said: std::result::Result<String, String>,
}

impl Attached {
    /// What is wrong with it.
    pub fn problem(&self) -> Option<&str> {
        self.said.as_ref().err().map(String::as_str)
    }
}

/// Reads the image that the client was made for, and all that is attached to it. Where nothing of that
/// is required, a registry that does not show it is only a warning. A signature that is required is verified.
///
/// # Errors
/// `Image` when it is not there; `Remote` where the registry does not answer, or with something else than
/// a digest names.
pub async fn gather(run: &Run, config: &Config, client: &Client) -> Result<Evidence> {
    let tree = client.tree().await?.ok_or_else(|| {
        Error::new(Kind::Image, format!("the registry has no image {}", client.reference()))
            .hint("check repository, tag and digest")
    })?;
    let ours = Ours::of(run, config, client.reference(), &tree).await?;
    let subjects = std::iter::once(tree.digest).chain(tree.images.iter().map(|(_, digest)| *digest));
    let asked = subjects.map(|subject| attached_to(client, subject, ours.as_ref()));
    let attached = match try_join_all(asked).await {
        Err(error) if config.image.require.is_empty() && matches!(error.kind(), Kind::Auth | Kind::Remote) => {
            run.ui.warn(format!("what is attached to the image is not known: {}", error.lines().join(": ")));
            Vec::new()
        }
        attached => attached?.concat(),
    };
    let signature = match config.image.require.contains(&Requirement::Signature) {
        true => Some(signing::check(run, &config.image.signing, client, &tree.digest).await?),
        false => None,
    };
    Ok(Evidence {
        image: client.reference().with_digest(tree.digest),
        digest: tree.digest,
        manifests: 1 + tree.images.len(),
        is_ours: ours.is_some(),
        attached,
        signature,
    })
}

async fn attached_to(client: &Client, subject: Digest, ours: Option<&Ours>) -> Result<Vec<Attached>> {
    let mut found = Vec::new();
    for referrer in client.referrers(&subject).await? {
        let what = referrer.artifact_type.clone().unwrap_or_else(|| "unknown".to_owned());
        let (kind, said) = match document::kind(&what) {
            document::Kind::Other if !is_bundle(&what) => (document::Kind::Other, Ok(String::new())),
            kind => read(client, &subject, &referrer, kind, ours).await?,
        };
        found.push(Attached { digest: referrer.digest, to: subject, what, kind, said });
    }
    Ok(found)
}

/// What a document is and says; the inner error is what is wrong with it.
async fn read(
    client: &Client,
    subject: &Digest,
    referrer: &Referrer,
    kind: document::Kind,
    ours: Option<&Ours>,
) -> Result<(document::Kind, std::result::Result<String, String>)> {
    let document = match client.attached(referrer).await? {
        Ok(document) => document,
        Err(why) => return Ok((kind, Err(why))),
    };
    if document.subject != Some(*subject) {
        return Ok((kind, Err("its manifest names another image".to_owned())));
    }
    if kind == document::Kind::Other {
        return Ok(document::bundle(subject, &document.bytes));
    }
    let expected = ours.and_then(|ours| ours.bill(subject));
    Ok((kind, document::check(kind, subject, &document.bytes, expected)))
}

/// The bills that the locks of this checkout give for an image that they foretell.
struct Ours(Vec<(Digest, Vec<u8>)>);

impl Ours {
    /// `None` where the image is another one, or the locks alone do not tell.
    async fn of(run: &Run, config: &Config, reference: &Reference, tree: &Tree) -> Result<Option<Self>> {
        let platforms: Result<Vec<Platform>, _> = tree.images.iter().map(|(name, _)| name.parse()).collect();
        let Some(platforms) = platforms.ok().filter(|platforms| !platforms.is_empty()) else { return Ok(None) };
        let options = Options { platforms, locked: true, ..Options::new(config) };
        let Ok(draft) = Draft::plan(run, config, &options).await else { return Ok(None) };
        let Ok(built) = draft.built(0) else { return Ok(None) };
        if built.digest() != tree.digest {
            return Ok(None);
        }
        let name = reference.last_part();
        let mut bills = vec![(built.digest(), draft.sbom(name, built.digest(), &draft.options.platforms)?.bytes)];
        for image in &built.images {
            let digest = image.manifest.digest;
            bills.push((digest, draft.sbom(name, digest, &[image.platform])?.bytes));
        }
        Ok(Some(Self(bills)))
    }

    fn bill(&self, subject: &Digest) -> Option<&[u8]> {
        self.0.iter().find(|(digest, _)| digest == subject).map(|(_, bytes)| &bytes[..])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use mlflow_image::attestation;
    use mlflow_image::manifest::{Document, INDEX, MANIFEST};
    use mlflow_image::sbom::{self, Subject};
    use serde_json::json;
    use testbed::{Fault, Proxy, Registry, Rule};
    use tokio_util::sync::CancellationToken;

    use super::super::{judge, judge_all};
    use super::*;
    use crate::cache::Cache;
    use crate::config::Requirement;
    use crate::registry::{Access, Attachment, Blob, CredentialSource, Manifest};
    use crate::ui::Ui;

    fn offline() -> Run {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Run { ui: Ui::silent(), cancel: CancellationToken::new(), offline: true }
    }

    /// Pushes an index over one image without layers.
    async fn push(client: &Client) -> Document {
        let config = json!({ "architecture": "amd64", "os": "linux" }).to_string();
        let blob = Blob { digest: Digest::of(&config), size: config.len() as u64 };
        let part = json!({ "mediaType": "c", "digest": blob.digest, "size": blob.size });
        let image = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": [] }).to_string();
        let platform = json!({ "architecture": "amd64", "os": "linux" });
        let entry = json!({
            "mediaType": MANIFEST, "digest": Digest::of(&image), "size": image.len(), "platform": platform,
        });
        let index = Document::json(INDEX, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] }));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, config).unwrap();
        let manifests = [
            Manifest { media_type: MANIFEST.to_owned(), bytes: image.into_bytes(), blobs: vec![blob] },
            Manifest { media_type: INDEX.to_owned(), bytes: index.bytes.clone(), blobs: Vec::new() },
        ];
        let files = HashMap::from([(blob.digest, file)]);
        client.push(&manifests, Some("1"), |_| std::future::ready(Ok(files))).await.unwrap();
        index
    }

    fn statement(digest: Digest) -> Document {
        let statement = json!({
            "_type": attestation::STATEMENT_TYPE, "predicateType": attestation::PREDICATE_TYPE,
            "subject": [{ "digest": { "sha256": digest.hex() } }],
            "predicate": { "runDetails": { "builder": { "id": "urn:x" } } },
        });
        Document::json(attestation::MEDIA_TYPE, &statement)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_is_believed_for_what_its_registry_shows() -> Result<()> {
        let Some(registry) = Registry::start() else { return Ok(()) };
        let proxy = Proxy::start(registry.address());
        let (run, dir) = (offline(), tempfile::tempdir().unwrap());
        let mut config = Config::load("local")?;
        let cache = Cache::at(dir.path())?;
        let client = |access, name: &str| {
            let reference: Reference = format!("{}/team/{name}", proxy.host()).parse()?;
            Client::connect(&run, &cache, &reference, access, CredentialSource::Anonymous)
        };
        let pushing = client(Access::Push, "mlflow:1")?;
        let absent = gather(&run, &config, &client(Access::Pull, "mlflow:2")?).await.unwrap_err();
        assert_eq!(absent.kind(), Kind::Image);

        let index = push(&pushing).await;
        let pulling = client(Access::Pull, "mlflow:1")?;
        let evidence = gather(&run, &config, &pulling).await?;
        assert_eq!((evidence.digest, evidence.manifests, evidence.is_ours), (index.digest, 2, false));
        assert_eq!(evidence.image, pulling.reference().with_digest(index.digest));
        let required = BTreeSet::from([Requirement::Sbom, Requirement::Provenance]);
        assert_eq!(judge(&required, &evidence).unwrap_err().kind(), Kind::Image);

        let created = "2026-11-01T00:00:00Z";
        let subject = Subject { name: "mlflow", version: "1", digest: index.digest, created, suite: "trixie" };
        for document in [sbom::cyclonedx(&subject, &[]), statement(index.digest)] {
            let attachment =
                Attachment { artifact_type: document.media_type, annotations: &[], bytes: &document.bytes };
            pushing.attach(&index.descriptor(), &attachment).await?;
        }
        let evidence = gather(&run, &config, &pulling).await?;
        let said: Vec<_> = evidence.attached.iter().map(|found| found.said.as_deref()).collect();
        assert_eq!(said, [Ok("0 packages"), Ok("built by urn:x")]);
        judge(&required, &evidence)?;
        judge_all(&evidence)?;

        // Somebody attaches another image's statement.
        let forged = statement(Digest::of("another"));
        let attachment = Attachment { artifact_type: forged.media_type, annotations: &[], bytes: &forged.bytes };
        pushing.attach(&index.descriptor(), &attachment).await?;
        let evidence = gather(&run, &config, &pulling).await?;
        for refused in [judge(&required, &evidence), judge_all(&evidence)] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), Kind::Input);
            assert!(error.lines().join(" ").contains("about another image"), "{error}");
        }
        judge(&BTreeSet::from([Requirement::Sbom]), &evidence)?;

        // A registry that does not show what is attached is no reason to refuse, unless it is required.
        let refusal = || Fault::Answer { status: 400, headers: Vec::new(), body: "" };
        proxy.set_rules(vec![Rule::always("GET", "/referrers/", refusal())]);
        assert!(gather(&run, &config, &pulling).await?.attached.is_empty());
        config.image.require = required;
        assert!(gather(&run, &config, &pulling).await.is_err());
        Ok(())
    }

    #[tokio::test]
    async fn what_the_locks_foretell_has_the_bills_that_they_give() -> Result<()> {
        let (run, config) = (offline(), Config::load("local")?);
        let options = Options { platforms: Platform::ALL.to_vec(), locked: true, ..Options::new(&config) };
        let draft = Draft::plan(&run, &config, &options).await?;
        let built = draft.built(0)?;
        let images: Vec<_> =
            built.images.iter().map(|image| (image.platform.to_string(), image.manifest.digest)).collect();
        let reference: Reference = "r.example.com/team/mlflow:1".parse()?;
        let tree = Tree { digest: built.digest(), images };
        let ours = Ours::of(&run, &config, &reference, &tree).await?.expect("this very image");
        for subject in built.images.iter().map(|image| image.manifest.digest).chain([tree.digest]) {
            let bill = ours.bill(&subject).expect("a bill");
            let said = document::check(document::Kind::Sbom, &subject, bill, Some(bill));
            assert!(said.as_ref().is_ok_and(|said| said.ends_with(" packages") && said != "0 packages"), "{said:?}");
        }
        let other = Tree { digest: Digest::of("other"), ..tree };
        assert!(Ours::of(&run, &config, &reference, &other).await?.is_none());
        Ok(())
    }
}
