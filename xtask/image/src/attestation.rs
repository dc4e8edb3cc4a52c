//! Who built an image, from what: an in-toto statement v1 (in-toto attestation, spec/v1/statement.md)
//! whose predicate is SLSA provenance v1 (<https://slsa.dev/spec/v1.0/provenance>). It holds no time,
//! so that one build of one commit by one builder is always the same document.
//!
//! The build type is `urn:mlflow-on-kubernetes:build-image:v1`: `cargo xtask build-image` read the files
//! that are listed as resolved dependencies, and nothing else decided the image's bytes but the external
//! parameters:
//!
//! | parameter | is |
//! |---|---|
//! | `platforms` | what it was built for, as `linux/amd64` |
//! | `layerFormat` | how layers are compressed: `splice`, `gzip` or `zstd` |
//! | `bytecode` | whether layers hold .pyc files |
//! | `created` | the creation time that the image carries, RFC 3339 |
//!
//! The internal parameter `layout` is the version of the rules by which layers are made.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::manifest::Document;
use crate::plan::{Format, LAYOUT};
use crate::{Digest, Platform};

/// The media type of a statement, also the artifact type of the referrer that carries it (in-toto
/// attestation, spec/v1/envelope.md, "payloadType"; BuildKit's attestations have the same).
pub const MEDIA_TYPE: &str = "application/vnd.in-toto+json";
/// The annotation that tells of which kind a statement is without fetching it, as BuildKit has it.
pub const PREDICATE_ANNOTATION: &str = "in-toto.io/predicate-type";
/// The predicate's type.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// The statement's type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The build type, described above.
pub const BUILD_TYPE: &str = "urn:mlflow-on-kubernetes:build-image:v1";

/// A build that has been done.
#[derive(Clone, Debug)]
pub struct Build<'a> {
    /// The image's repository.
    pub name: &'a str,
    /// The digest of its index.
    pub digest: Digest,
    /// What it was built for.
    pub platforms: &'a [Platform],
    /// How its layers are compressed.
    pub format: Format,
    /// Whether layers hold .pyc files.
    pub bytecode: bool,
    /// The image's creation time, RFC 3339.
    pub created: &'a str,
    /// The files that it was built from, by their path in the checkout.
    pub materials: &'a BTreeMap<String, Digest>,
    /// The checkout, where it is one of git's.
    pub source: Option<Source<'a>>,
    /// Who built, as a URI.
    pub builder: &'a str,
    /// The builder's version.
    pub version: &'a str,
    /// The address of the CI run.
    pub run: Option<&'a str>,
}

/// A checkout of git's.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Where it was cloned from, as a URL without a login.
    pub repository: Option<&'a str>,
    /// The commit, in hex.
    pub commit: &'a str,
    /// Whether files differ from the commit.
    pub modified: bool,
}

/// The statement about a build.
pub fn provenance(build: &Build<'_>) -> Document {
    let source = build.source.map(|source| ResourceDescriptor {
        name: Some("source"),
        uri: source.repository.map(|repository| format!("git+{repository}@{}", source.commit)),
        digest: BTreeMap::from([("gitCommit", source.commit.to_owned())]),
        annotations: source.modified.then_some(Annotations { modified: true }),
    });
    let files = build.materials.iter().map(|(path, digest)| ResourceDescriptor::sha256(path, *digest));
    let statement = Statement {
        kind: STATEMENT_TYPE,
        subject: [ResourceDescriptor::sha256(build.name, build.digest)],
        predicate_type: PREDICATE_TYPE,
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE,
                external_parameters: ExternalParameters {
                    platforms: build.platforms,
                    layer_format: build.format.name(),
                    bytecode: build.bytecode,
                    created: build.created,
                },
                internal_parameters: InternalParameters { layout: LAYOUT },
                resolved_dependencies: source.into_iter().chain(files).collect(),
            },
            run_details: RunDetails {
                builder: Builder { id: build.builder, version: BTreeMap::from([("xtask", build.version)]) },
                metadata: build.run.map(|run| Metadata { invocation_id: run }),
            },
        },
    };
    Document::json(MEDIA_TYPE, &statement)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: [ResourceDescriptor<'a>; 1],
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: BuildDefinition<'a>,
    run_details: RunDetails<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition<'a> {
    build_type: &'static str,
    external_parameters: ExternalParameters<'a>,
    internal_parameters: InternalParameters,
    resolved_dependencies: Vec<ResourceDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalParameters<'a> {
    platforms: &'a [Platform],
    layer_format: &'static str,
    bytecode: bool,
    created: &'a str,
}

#[derive(Serialize)]
struct InternalParameters {
    layout: u32,
}

/// spec/v1/resource_descriptor.md of in-toto attestation.
#[derive(Serialize)]
struct ResourceDescriptor<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<String>,
    digest: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Annotations>,
}

impl<'a> ResourceDescriptor<'a> {
    fn sha256(name: &'a str, digest: Digest) -> Self {
        let digest = BTreeMap::from([("sha256", digest.hex())]);
        Self { name: Some(name), uri: None, digest, annotations: None }
    }
}

#[derive(Serialize)]
struct Annotations {
    modified: bool,
}

#[derive(Serialize)]
struct RunDetails<'a> {
    builder: Builder<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata<'a>>,
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'a str,
    version: BTreeMap<&'static str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    invocation_id: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn statement(source: Option<Source<'_>>, run: Option<&str>) -> Value {
        let materials = BTreeMap::from([
            ("mlflow_server/rootfs/etc/x".to_owned(), Digest::of("x")),
            ("mlflow_server/image.lock".to_owned(), Digest::of("lock")),
        ]);
        let document = provenance(&Build {
            name: "registry.example.com/team/mlflow",
            digest: Digest::of("image"),
            platforms: &Platform::ALL,
            format: Format::Splice,
            bytecode: true,
            created: "2026-11-01T00:00:00Z",
            materials: &materials,
            source,
            builder: "https://github.com/a/b/.github/workflows/deploy.yml@refs/heads/main",
            version: "0.1.0",
            run,
        });
        assert_eq!(document.media_type, MEDIA_TYPE);
        serde_json::from_slice(&document.bytes).unwrap()
    }

    #[test]
    fn a_statement_names_the_image_and_what_decided_its_bytes() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let source = Source { repository: Some("https://github.com/a/b"), commit, modified: false };
        let run = "https://github.com/a/b/actions/runs/7";
        let expected = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{ "name": "registry.example.com/team/mlflow", "digest": { "sha256": Digest::of("image").hex() } }],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "platforms": ["linux/amd64", "linux/arm64"], "layerFormat": "splice", "bytecode": true,
                        "created": "2026-11-01T00:00:00Z",
                    },
                    "internalParameters": { "layout": LAYOUT },
                    "resolvedDependencies": [
                        {
                            "name": "source", "uri": format!("git+https://github.com/a/b@{commit}"),
                            "digest": { "gitCommit": commit },
                        },
                        { "name": "mlflow_server/image.lock", "digest": { "sha256": Digest::of("lock").hex() } },
                        { "name": "mlflow_server/rootfs/etc/x", "digest": { "sha256": Digest::of("x").hex() } },
                    ],
                },
                "runDetails": {
                    "builder": {
                        "id": "https://github.com/a/b/.github/workflows/deploy.yml@refs/heads/main",
                        "version": { "xtask": "0.1.0" },
                    },
                    "metadata": { "invocationId": run },
                },
            },
        });
        assert_eq!(statement(Some(source), Some(run)), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out_and_what_differs_from_the_commit_is_said() {
        let at = |source, path: &str| statement(source, None).pointer(path).cloned();
        let dependency = "/predicate/buildDefinition/resolvedDependencies/0";
        assert_eq!(at(None, "/predicate/runDetails/metadata"), None);
        assert_eq!(at(None, &format!("{dependency}/name")), Some(json!("mlflow_server/image.lock")));
        let modified = Some(Source { repository: None, commit: "01", modified: true });
        assert_eq!(at(modified, &format!("{dependency}/uri")), None);
        assert_eq!(at(modified, &format!("{dependency}/annotations")), Some(json!({ "modified": true })));
    }
}
