//! What is in an image, read from its OCI layout.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use mlflow_image::Digest;
use serde_json::Value;

const SITE_PACKAGES: &str = "opt/mlflow/lib/python3.13/site-packages/";

/// An image of one platform.
pub struct Contents {
    /// The digest of its manifest.
    pub manifest: String,
    /// `config` of its configuration.
    pub config: Value,
    /// How many layers it has.
    pub layers: usize,
    /// Name and version of each installed distribution, from its METADATA.
    pub packages: BTreeMap<String, String>,
    /// The version of the Debian package with the interpreter.
    pub python: String,
    /// The digest, or the target, and the mode of each file below /opt/mlflow and of our own ones.
    pub files: BTreeMap<String, (String, u32)>,
}

impl Contents {
    /// Reads the only image of the layout `dir`.
    pub fn read(dir: &Path) -> Self {
        let json =
            |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON") };
        let file = |descriptor: &Value| {
            dir.join("blobs/sha256").join(descriptor["digest"].as_str().expect("a digest").replace("sha256:", ""))
        };
        let index = json(&file(&json(&dir.join("index.json"))["manifests"][0]));
        assert_eq!(index["manifests"].as_array().map(Vec::len), Some(1), "one platform");
        let manifest = json(&file(&index["manifests"][0]));
        let layers = manifest["layers"].as_array().expect("layers");
        let mut contents = Self {
            manifest: index["manifests"][0]["digest"].as_str().expect("a digest").to_owned(),
            config: json(&file(&manifest["config"]))["config"].clone(),
            layers: layers.len(),
            packages: BTreeMap::new(),
            python: String::new(),
            files: BTreeMap::new(),
        };
        for layer in layers {
            contents.add(&file(layer));
        }
        contents
    }

    /// The environment, without its order.
    pub fn env(&self) -> Vec<&str> {
        let mut env: Vec<&str> =
            self.config["Env"].as_array().expect("variables").iter().filter_map(Value::as_str).collect();
        env.sort_unstable();
        env
    }

    fn add(&mut self, layer: &Path) {
        let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(File::open(layer).expect("a layer")));
        for entry in tar.entries().expect("a tar") {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").to_str().expect("UTF-8").trim_start_matches("./").to_owned();
            if entry.header().entry_type().is_dir() {
                continue;
            }
            let mode = entry.header().mode().expect("a mode") & 0o777;
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            if let Some(below) = path.strip_prefix(SITE_PACKAGES)
                && let Some((_, "METADATA")) = below.split_once(".dist-info/")
            {
                let text = String::from_utf8_lossy(&content).into_owned();
                let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
                self.packages
                    .insert(field("Name:").to_lowercase().replace(['_', '.'], "-"), field("Version:").to_owned());
            }
            if path.starts_with("var/lib/dpkg/status.d/python3.13-minimal") && !path.ends_with(".md5sums") {
                let text = String::from_utf8_lossy(&content);
                let version = text.lines().find_map(|line| line.strip_prefix("Version: ")).expect("a version");
                self.python = version.to_owned();
            }
            if path.starts_with("opt/mlflow/") || path.starts_with("etc/mlflow/") {
                let link = entry.link_name().expect("a link").map(|target| target.display().to_string());
                let is_link = link.is_some();
                // Each installer words the scripts its own way; what runs them is the same.
                let what = link.unwrap_or_else(|| match path.starts_with("opt/mlflow/bin/") {
                    true => String::from_utf8_lossy(&content).lines().next().unwrap_or_default().to_owned(),
                    false => Digest::of(&content).to_string(),
                });
                // The mode of a symbolic link means nothing.
                self.files.insert(path, (what, if is_link { 0 } else { mode }));
            }
        }
    }
}
