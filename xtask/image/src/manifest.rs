//! Config, manifest and index of an image (OCI image-spec 1.1), as bytes that depend on their
//! inputs alone: keys in the specification's order, maps sorted, no white space.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dockerfile::Metadata;
use crate::lock::LayerInfo;
use crate::plan::Format;
use crate::{Digest, Platform};

/// Media type of an image index (image-spec, media-types.md).
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A JSON document that a registry stores by its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub media_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their digest.
    pub digest: Digest,
}

impl Document {
    /// A document of `value`. The structs serialised here have string keys only.
    pub fn json(media_type: &'static str, value: &impl Serialize) -> Self {
        let bytes = serde_json::to_vec(value).expect("structs and maps with string keys are JSON");
        let digest = Digest::of(&bytes);
        Self { media_type, bytes, digest }
    }

    /// What refers to it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor {
            media_type: self.media_type.to_owned(),
            digest: self.digest,
            size: self.bytes.len() as u64,
            annotations: BTreeMap::new(),
            platform: None,
        }
    }
}

/// A reference to content (image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Notes about this reference.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// In an index: what the content runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<DescriptorPlatform>,
}

/// `platform` of a descriptor (image-spec, image-index.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DescriptorPlatform {
    /// `amd64` or `arm64`.
    pub architecture: &'static str,
    /// `linux`.
    pub os: &'static str,
}

impl From<Platform> for DescriptorPlatform {
    fn from(platform: Platform) -> Self {
        Self { architecture: platform.architecture(), os: "linux" }
    }
}

/// A finished layer, as config and manifest list it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What made it; one line of the image's history.
    pub created_by: String,
    /// Its digests and size.
    pub info: LayerInfo,
}

/// The image's configuration. `created` is RFC 3339.
pub fn config(platform: Platform, metadata: &Metadata, created: &str, layers: &[Layer]) -> Document {
    let empty = BTreeMap::<&str, &str>::new();
    let config = Config {
        created,
        architecture: platform.architecture(),
        os: "linux",
        config: Execution {
            user: metadata.user.as_deref(),
            exposed_ports: metadata.ports.iter().map(|port| (port.as_str(), &empty)).collect(),
            env: metadata.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            entrypoint: &metadata.entrypoint,
            cmd: &metadata.cmd,
            working_dir: metadata.workdir.as_deref(),
            labels: &metadata.labels,
            stop_signal: metadata.stop_signal.as_deref(),
        },
        rootfs: RootFs { kind: "layers", diff_ids: layers.iter().map(|layer| layer.info.diff_id).collect() },
        history: layers.iter().map(|layer| History { created, created_by: &layer.created_by }).collect(),
    };
    Document::json(CONFIG, &config)
}

/// The manifest of one platform's image.
pub fn manifest(
    config: &Document,
    layers: &[Layer],
    format: Format,
    annotations: &BTreeMap<String, String>,
) -> Document {
    let layers = layers.iter().map(|layer| Descriptor {
        media_type: format.media_type().to_owned(),
        digest: layer.info.digest,
        size: layer.info.size,
        annotations: BTreeMap::new(),
        platform: None,
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: MANIFEST,
        config: config.descriptor(),
        layers: layers.collect(),
        annotations,
    };
    Document::json(MANIFEST, &manifest)
}

/// The index over the platforms' manifests. An image for one platform has an index, too, so that a
/// node of another platform says so instead of failing to execute.
pub fn index<'a>(
    manifests: impl IntoIterator<Item = (Platform, &'a Document)>,
    annotations: &BTreeMap<String, String>,
) -> Document {
    let manifests = manifests
        .into_iter()
        .map(|(platform, manifest)| Descriptor { platform: Some(platform.into()), ..manifest.descriptor() })
        .collect();
    Document::json(INDEX, &Index { schema_version: 2, media_type: INDEX, manifests, annotations })
}

#[derive(Serialize)]
struct Config<'a> {
    created: &'a str,
    architecture: &'static str,
    os: &'static str,
    config: Execution<'a>,
    rootfs: RootFs,
    history: Vec<History<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, &'a BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<Digest>,
}

/// A config's history as it is read (image-spec, config.md, "history"): how a layer was made.
#[derive(Clone, Debug, Deserialize)]
pub struct Made {
    /// The command, or what a builder says of it.
    #[serde(default)]
    pub created_by: String,
    /// Whether it made no layer.
    #[serde(default)]
    pub empty_layer: bool,
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// Also the form of an OCI layout's `index.json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATED: &str = "2026-11-01T00:00:00Z";

    fn layers() -> Vec<Layer> {
        let info = LayerInfo { digest: Digest::of("blob"), diff_id: Digest::of("tar"), size: 7 };
        vec![Layer { created_by: "base".to_owned(), info }]
    }

    fn text(document: &Document) -> &str {
        std::str::from_utf8(&document.bytes).unwrap()
    }

    #[test]
    fn a_config_says_what_the_dockerfile_says() {
        let metadata = Metadata::parse(
            "Dockerfile",
            "FROM x\nENV B=1 A=2\nUSER 65532\nWORKDIR /tmp\nEXPOSE 5000\nENTRYPOINT [\"a\"]\nCMD [\"b\"]\nLABEL l=m\nSTOPSIGNAL SIGTERM",
        );
        let config = config(Platform::LinuxArm64, &metadata.unwrap(), CREATED, &layers());
        let expected = format!(
            concat!(
                r#"{{"created":"2026-11-01T00:00:00Z","architecture":"arm64","os":"linux","#,
                r#""config":{{"User":"65532","ExposedPorts":{{"5000/tcp":{{}}}},"Env":["B=1","A=2"],"#,
                r#""Entrypoint":["a"],"Cmd":["b"],"WorkingDir":"/tmp","Labels":{{"l":"m"}},"StopSignal":"SIGTERM"}},"#,
                r#""rootfs":{{"type":"layers","diff_ids":["{}"]}},"#,
                r#""history":[{{"created":"2026-11-01T00:00:00Z","created_by":"base"}}]}}"#
            ),
            Digest::of("tar")
        );
        assert_eq!(text(&config), expected);
        assert_eq!(config.digest, Digest::of(expected));
    }

    #[test]
    fn a_manifest_lists_config_and_layers() {
        let config = Document::json(CONFIG, &BTreeMap::<String, String>::new());
        let annotations = [("a".to_owned(), "b".to_owned())].into();
        let manifest = manifest(&config, &layers(), Format::Zstd, &annotations);
        let expected = format!(
            concat!(
                r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},"#,
                r#""layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","digest":"{}","size":7}}],"#,
                r#""annotations":{{"a":"b"}}}}"#
            ),
            Digest::of("{}"),
            Digest::of("blob")
        );
        assert_eq!(text(&manifest), expected);
    }

    #[test]
    fn an_index_names_the_platforms() {
        let manifest = Document::json(MANIFEST, &BTreeMap::<String, String>::new());
        let index = index(Platform::ALL.map(|platform| (platform, &manifest)), &BTreeMap::new());
        let entry = |architecture: &str| {
            format!(
                r#"{{"mediaType":"{MANIFEST}","digest":"{}","size":2,"platform":{{"architecture":"{architecture}","os":"linux"}}}}"#,
                Digest::of("{}")
            )
        };
        let expected = format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{},{}]}}"#,
            entry("amd64"),
            entry("arm64")
        );
        assert_eq!(text(&index), expected);
    }
}
