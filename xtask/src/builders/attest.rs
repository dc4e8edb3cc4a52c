//! What is attached to a pushed image: bills of materials and provenance, as referrers.

use std::collections::BTreeMap;
use std::fs;

use mlflow_image::attestation::{self, Build, PREDICATE_ANNOTATION, PREDICATE_TYPE};
use mlflow_image::manifest::Document;
use mlflow_image::{Digest, sbom};

use super::draft::{Built, Draft};
use super::project::{Project, folder};
use crate::error::{Context as _, Kind, Result};
use crate::provenance::{self, Provenance, Source};
use crate::registry::{Attachment, Client, Reference, Referrer};

/// The annotation that tells whose statement it is without fetching it.
const BUILDER_ANNOTATION: &str = "mlflow-on-kubernetes.builder";
/// What decides an image's bytes, beside our own files in it. The lock files are always there.
const MATERIALS: [&str; 5] = ["Dockerfile", "debian.lock", "exclude", "image.lock", "requirements.lock"];

/// One bill of materials for each platform's manifest, one over all for the index, and the provenance of
/// the index. What is attached already is not sent again.
pub async fn attach(client: &Client, draft: &Draft, built: &Built, reference: &Reference) -> Result<()> {
    let name = reference.last_part();
    for image in &built.images {
        let document = draft.sbom(name, image.manifest.digest, &[image.platform])?;
        client.attach(&image.manifest.descriptor(), &bill(&document)).await?;
    }
    let document = draft.sbom(name, built.digest(), &draft.options.platforms)?;
    client.attach(&built.index.descriptor(), &bill(&document)).await?;
    let statement = provenance(draft, built, reference)?;
    attach_provenance(client, built, &provenance::builder(), &statement).await
}

fn bill(document: &Document) -> Attachment<'_> {
    Attachment { artifact_type: sbom::MEDIA_TYPE, annotations: &[], bytes: &document.bytes }
}

/// A builder's first statement about an image stands: the same inputs give the same image, so that a
/// later commit or run adds nothing but another line to the list.
async fn attach_provenance(client: &Client, built: &Built, builder: &str, statement: &Document) -> Result<()> {
    let annotations = [(PREDICATE_ANNOTATION, PREDICATE_TYPE), (BUILDER_ANNOTATION, builder)];
    let stands = |found: &Referrer| {
        let has = |(name, value): (&str, &str)| found.annotations.get(name).is_some_and(|found| found == value);
        found.artifact_type.as_deref() == Some(attestation::MEDIA_TYPE) && annotations.into_iter().all(has)
    };
    if client.referrers(&built.digest()).await?.iter().any(stands) {
        return Ok(());
    }
    let (artifact_type, bytes) = (attestation::MEDIA_TYPE, &statement.bytes[..]);
    let attachment = Attachment { artifact_type, annotations: &annotations, bytes };
    client.attach(&built.index.descriptor(), &attachment).await.map(drop)
}

fn provenance(draft: &Draft, built: &Built, reference: &Reference) -> Result<Document> {
    let project = &draft.project;
    let source = Source::of(&project.root);
    Ok(attestation::provenance(&Build {
        name: &reference.name(),
        digest: built.digest(),
        platforms: &draft.options.platforms,
        format: draft.options.format,
        bytecode: draft.options.bytecode,
        created: &project.created,
        materials: &materials(project)?,
        source: source.as_ref().map(|source| attestation::Source {
            repository: source.repository.as_deref(),
            commit: &source.commit,
            modified: source.modified,
        }),
        builder: &provenance::builder(),
        version: env!("CARGO_PKG_VERSION"),
        run: Provenance::of(&project.root).run.as_deref(),
    }))
}

/// The files that decide the image's bytes, as they are when it has been built: image.lock may just have
/// been written.
fn materials(project: &Project) -> Result<BTreeMap<String, Digest>> {
    let folder = folder(&project.root);
    let mut found = BTreeMap::new();
    for name in MATERIALS {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(bytes) => _ = found.insert(format!("mlflow_server/{name}"), Digest::of(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context(Kind::Input, || format!("cannot read {}", path.display())),
        }
    }
    let own = project.own.iter();
    found.extend(own.map(|file| (format!("mlflow_server/rootfs/{}", file.path), Digest::of(&file.content))));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use mlflow_image::Platform;
    use serde_json::Value;
    use testbed::Registry;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::builders::draft::Options;
    use crate::cache::Cache;
    use crate::commands::Run;
    use crate::config::Config;
    use crate::registry::{Access, CredentialSource};
    use crate::ui::Ui;

    #[tokio::test(flavor = "multi_thread")]
    async fn an_image_gets_its_bills_once_and_each_builders_statement_once() -> Result<()> {
        let Some(registry) = Registry::start() else { return Ok(()) };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let run = Run { ui: Ui::silent(), cancel: CancellationToken::new(), offline: true };
        let config = Config::load("local")?;
        // The locks foretell the whole image; this registry does not ask for what is described.
        let options = Options { platforms: Platform::ALL.to_vec(), locked: true, ..Options::new(&config) };
        let draft = Draft::plan(&run, &config, &options).await?;
        let built = draft.built(0)?;
        let dir = tempfile::tempdir().unwrap();
        let reference: Reference = format!("{}/team/mlflow:1", registry.host()).parse()?;
        let cache = Cache::at(dir.path())?;
        let client = Client::connect(&run, &cache, &reference, Access::Push, CredentialSource::Anonymous)?;

        attach(&client, &draft, &built, &reference).await?;
        let first = client.referrers(&built.digest()).await?;
        let kinds: Vec<_> = first.iter().map(|found| found.artifact_type.as_deref().unwrap_or_default()).collect();
        assert_eq!(kinds, [sbom::MEDIA_TYPE, attestation::MEDIA_TYPE]);
        for image in &built.images {
            assert_eq!(client.referrers(&image.manifest.digest).await?.len(), 1);
        }
        attach(&client, &draft, &built, &reference).await?;
        assert_eq!(client.referrers(&built.digest()).await?, first);

        // The same image of a later commit: the same builder's first word stands, another's is added.
        let statement = provenance(&draft, &built, &reference)?;
        let later = Document { bytes: [&statement.bytes[..], b" "].concat(), ..statement.clone() };
        attach_provenance(&client, &built, &provenance::builder(), &later).await?;
        assert_eq!(client.referrers(&built.digest()).await?, first);
        for _ in 0..2 {
            attach_provenance(&client, &built, "https://ci.example.com/a", &later).await?;
            assert_eq!(client.referrers(&built.digest()).await?.len(), 3);
        }

        let statement: Value = serde_json::from_slice(&statement.bytes).unwrap();
        let listed = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
        let digest = |name: &str| {
            let found = listed.as_array().unwrap().iter().find(|entry| entry["name"] == name);
            found.unwrap_or_else(|| panic!("no {name}: {listed}"))["digest"]["sha256"].clone()
        };
        let own = &draft.project.own[0].path;
        let names = ["Dockerfile", "requirements.lock", "debian.lock", "image.lock", &format!("rootfs/{own}")];
        for name in names {
            let content = fs::read(folder(&config.root).join(name)).unwrap();
            assert_eq!(digest(&format!("mlflow_server/{name}")), Digest::of(content).hex(), "{name}");
        }
        assert!(!statement.to_string().contains(&config.root.display().to_string()), "a path of this machine");
        Ok(())
    }
}
