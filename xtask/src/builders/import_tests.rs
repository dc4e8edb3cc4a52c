//! Archives as docker, podman and buildah write them, made by hand.

use std::fs;
use std::path::PathBuf;

use flate2::{Compression, GzBuilder};
use mlflow_image::{Digest, Platform, layout};
use serde_json::{Value, json};

use super::import::{archive, recall, remember};
use crate::cache::Cache;

const LAYERS: [&str; 2] = ["the first layer's tar", "the second layer's tar"];

struct Case {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        Self { dir, cache }
    }

    fn write(&self, members: &[(String, Vec<u8>)], links: &[(&str, &str)]) -> PathBuf {
        let path = self.dir.path().join("image.tar");
        let mut tar = tar::Builder::new(fs::File::create(&path).unwrap());
        let header = |kind, size| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(size);
            header.set_mode(0o644);
            header
        };
        for (name, content) in members {
            let mut header = header(tar::EntryType::Regular, content.len() as u64);
            tar.append_data(&mut header, name, content.as_slice()).unwrap();
        }
        for (name, target) in links {
            tar.append_link(&mut header(tar::EntryType::Symlink, 0), name, target).unwrap();
        }
        tar.finish().unwrap();
        path
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn config(architecture: &str) -> Value {
    json!({
        "architecture": architecture, "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": LAYERS.map(|layer| Digest::of(layer).to_string()) },
        "history": [
            { "created_by": "/bin/sh -c #(nop) ADD  root / " }, { "created_by": "ENV a=b", "empty_layer": true },
            { "created_by": "COPY /a /a" },
        ],
    })
}

fn gzip(content: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut out = GzBuilder::new().mtime(7).write(Vec::new(), Compression::fast());
    out.write_all(content.as_bytes()).unwrap();
    out.finish().unwrap()
}

/// An archive as docker wrote it before version 25: plain layers, the second one a link's target.
fn docker_members(architecture: &str) -> Vec<(String, Vec<u8>)> {
    let saved = json!([{ "Config": "c.json", "RepoTags": null, "Layers": ["x/layer.tar", "y/layer.tar"] }]);
    vec![
        ("c.json".to_owned(), bytes(&config(architecture))),
        ("x/layer.tar".to_owned(), LAYERS[0].into()),
        ("z/layer.tar".to_owned(), LAYERS[1].into()),
        ("manifest.json".to_owned(), bytes(&saved)),
    ]
}

/// An archive in OCI layout.
fn oci_members(tampered: bool) -> Vec<(String, Vec<u8>)> {
    let blob = |content: &[u8]| (format!("blobs/sha256/{}", Digest::of(content).hex()), content.to_vec());
    let descriptor = |media_type: &str, content: &[u8]| json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() });
    let (config, layers) = (bytes(&config("amd64")), LAYERS.map(gzip));
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let manifest = bytes(&json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": layers.each_ref().map(|layer| descriptor(gzip, layer)),
    }));
    let index = json!({ "manifests": [descriptor("application/vnd.oci.image.manifest.v1+json", &manifest)] });
    let mut members = vec![blob(&config), blob(&manifest), blob(&layers[0]), blob(&layers[1])];
    if tampered {
        members[3].1[12] ^= 1;
    }
    members.push(("index.json".to_owned(), bytes(&index)));
    members
}

#[test]
fn layers_that_docker_did_not_compress_are_compressed() {
    let case = Case::new();
    let file = case.write(&docker_members("amd64"), &[("y/layer.tar", "../z/layer.tar")]);
    let image = archive(&case.cache, &file, Platform::LinuxAmd64).unwrap();
    assert_eq!(image.config.bytes, bytes(&config("amd64")));
    let names: Vec<_> = image.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["ADD root /", "COPY /a /a"]);
    for (layer, content) in image.layers.iter().zip(LAYERS) {
        let blob = fs::read(case.cache.blob(&layer.info.digest).unwrap()).unwrap();
        assert_eq!(Digest::of(&blob), layer.info.digest);
        assert_eq!(blob.len() as u64, layer.info.size);
        let tar = std::io::read_to_string(flate2::read::GzDecoder::new(blob.as_slice())).unwrap();
        assert_eq!((tar.as_str(), Digest::of(&tar)), (content, layer.info.diff_id));
    }
}

#[test]
fn the_manifest_of_a_layout_stays_as_it_was_written() {
    let case = Case::new();
    let members = oci_members(false);
    let image = archive(&case.cache, &case.write(&members, &[]), Platform::LinuxAmd64).unwrap();
    assert_eq!(image.manifest.bytes, members[1].1);
    for layer in &image.layers {
        let path = case.cache.blob(&layer.info.digest).unwrap();
        assert!(layout::holds(&path, &layer.info.digest, layer.info.size));
    }
}

#[test]
fn an_image_is_recalled_until_a_blob_is_gone() {
    let case = Case::new();
    let image = archive(&case.cache, &case.write(&oci_members(false), &[]), Platform::LinuxAmd64).unwrap();
    assert!(recall(&case.cache, "id", Platform::LinuxAmd64).is_none());
    remember(&case.cache, "id", &image).unwrap();
    let recalled = recall(&case.cache, "id", Platform::LinuxAmd64).unwrap();
    assert_eq!((&recalled.manifest, &recalled.config), (&image.manifest, &image.config));
    assert!(recall(&case.cache, "id", Platform::LinuxArm64).is_none());
    fs::remove_file(case.cache.blob(&image.layers[0].info.digest).unwrap()).unwrap();
    assert!(recall(&case.cache, "id", Platform::LinuxAmd64).is_none());
}

#[test]
fn what_is_not_whole_is_refused() {
    let check = |members: Vec<(String, Vec<u8>)>, expected: &str| {
        let case = Case::new();
        let file = case.write(&members, &[("y/layer.tar", "../z/layer.tar")]);
        let error = archive(&case.cache, &file, Platform::LinuxAmd64).unwrap_err();
        assert!(error.lines().join("; ").contains(expected), "{:?}: {expected}", error.lines());
    };
    let without = |mut members: Vec<(String, Vec<u8>)>, at: usize| {
        members.remove(at);
        members
    };
    check(oci_members(true), "is sha256:");
    check(without(oci_members(false), 0), "is missing");
    check(without(oci_members(false), 4), "index.json is missing");
    check(docker_members("arm64"), "an image for linux/arm64, not for linux/amd64");
    check(without(docker_members("amd64"), 1), "x/layer.tar is missing");
    let mut other = docker_members("amd64");
    other[1].1 = b"something else".to_vec();
    check(other, "x/layer.tar is sha256:");
    check(Vec::new(), "index.json is missing");
}
