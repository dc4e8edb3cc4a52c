//! An OCI layout whose layers are noise: registries do not look inside.

use std::path::Path;

use mlflow_image::Digest;
use serde_json::{Value, json};

/// A layout in a temporary folder.
#[derive(Debug)]
pub struct SyntheticLayout {
    dir: tempfile::TempDir,
    seed: u64,
    sizes: Vec<usize>,
}

impl SyntheticLayout {
    /// Layers of these sizes; another seed gives other content.
    pub fn new(seed: u64, sizes: &[usize]) -> Self {
        let seeds: Vec<u64> = (0..sizes.len() as u64).map(|number| seed * 1_000 + number).collect();
        Self::build(seed, sizes, &seeds)
    }

    /// The same layout with another last layer.
    pub fn with_last_layer_changed(&self) -> Self {
        let mut seeds: Vec<u64> = (0..self.sizes.len() as u64).map(|number| self.seed * 1_000 + number).collect();
        *seeds.last_mut().expect("a layer") += 500;
        Self::build(self.seed, &self.sizes, &seeds)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The file of a layer.
    pub fn layer(&self, number: u64) -> std::path::PathBuf {
        let bytes = noise(self.seed * 1_000 + number, self.sizes[usize::try_from(number).expect("a small number")]);
        self.dir.path().join("blobs/sha256").join(Digest::of(bytes).hex())
    }

    fn build(seed: u64, sizes: &[usize], seeds: &[u64]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).expect("a folder");
        let write = |bytes: &[u8], media_type: &str| -> Value {
            let digest = Digest::of(bytes);
            std::fs::write(dir.path().join("blobs/sha256").join(digest.hex()), bytes).expect("a file");
            json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
        };
        let layers: Vec<Value> = sizes
            .iter()
            .zip(seeds)
            .map(|(size, seed)| write(&noise(*seed, *size), "application/vnd.oci.image.layer.v1.tar+gzip"))
            .collect();
        let diff_ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = write(config.to_string().as_bytes(), "application/vnd.oci.image.config.v1+json");
        let manifest_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers });
        let manifest = write(manifest.to_string().as_bytes(), manifest_type);
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        std::fs::write(dir.path().join("index.json"), index.to_string()).expect("a file");
        std::fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        Self { dir, seed, sizes: sizes.to_vec() }
    }
}

/// Bytes that do not repeat (xorshift).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .flatten()
    .take(size)
    .collect()
}
