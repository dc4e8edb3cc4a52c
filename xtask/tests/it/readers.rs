//! Other people's programs read the image: skopeo, umoci, podman, buildah and containerd unpack the
//! same files, and MLflow serves from each that runs containers.

mod containerd;
mod containers;
mod serve;
mod tree;

use std::path::{Path, PathBuf};

use testbed::{Home, Registry, is_root, nightly, require, run, skip};

use crate::image;
use containerd::Containerd;
use containers::Containers;
use tree::Tree;

/// Unpacking sets owners and mounts layers: what nobody but root may do everywhere.
fn root_only() -> Option<()> {
    if is_root() {
        return Some(());
    }
    skip("unpacking with owners needs root");
    None
}

/// umoci's bundle of the layout's image.
fn umoci(home: &Home, layout: &Path, name: &str) -> Option<PathBuf> {
    let umoci = require("umoci", "umoci")?;
    let bundle = home.path().join(name);
    run(&umoci, &["unpack", "--image", &format!("{}:latest", layout.display()), bundle.to_str()?]);
    Some(bundle)
}

/// The layers as skopeo decompresses them, extracted by tar. Their digests are the config's
/// `diff_ids`, which skopeo checks.
fn skopeo(home: &Home, layout: &Path) -> Option<PathBuf> {
    let (skopeo, tar) = (require("skopeo", "skopeo")?, require("tar", "tar")?);
    let (dir, root) = (home.path().join("dir"), home.path().join("skopeo"));
    let (from, to) = (format!("oci:{}:latest", layout.display()), format!("dir:{}", dir.display()));
    let policy = "--insecure-policy";
    run(&skopeo, &[policy, "copy", "--quiet", "--dest-decompress", &from, &to]);
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(dir.join(name)).expect("a file")).expect("JSON")
    };
    let hex = |digest: &serde_json::Value| digest.as_str().expect("a digest").replace("sha256:", "");
    let manifest = read("manifest.json");
    let config = read(&hex(&manifest["config"]["digest"]));
    let layers: Vec<_> =
        manifest["layers"].as_array().expect("layers").iter().map(|layer| hex(&layer["digest"])).collect();
    let diff_ids: Vec<_> = config["rootfs"]["diff_ids"].as_array().expect("diff_ids").iter().map(hex).collect();
    assert_eq!(layers, diff_ids);
    std::fs::create_dir(&root).expect("a folder");
    for layer in layers {
        let file = dir.join(layer);
        run(&tar, &["-xpf", file.to_str()?, "--numeric-owner", "--same-owner", "-C", root.to_str()?]);
    }
    Some(root)
}

#[test]
fn every_reader_unpacks_the_same_files() {
    let Some(()) = root_only() else { return };
    let home = Home::new();
    let (layout, mut trees) = (image::layout(), Vec::new());
    let mut add = |reader: &'static str, root: Option<PathBuf>| {
        trees.extend(root.map(|root| (reader, Tree::read(&root))));
    };
    add("umoci", umoci(&home, layout, "bundle").map(|bundle| bundle.join("rootfs")));
    add("skopeo", skopeo(&home, layout));
    if let Some(podman) = Containers::start("podman") {
        let image = podman.pull_layout(layout);
        add("podman", Some(podman.mount_image(&image)));
    }
    if let Some(containerd) = Containerd::start() {
        let image = containerd.import(layout);
        add("containerd", Some(containerd.mount(&image)));
    }
    // From a real registry, pushed by the program.
    if let Some(registry) = Registry::start() {
        let repository = format!("{}/team/mlflow", registry.host());
        let root = image::project(&home);
        let answer = image::build(
            &home,
            &root,
            &["--platform", &image::platform(), "--push", "--repository", &repository, "--tag", "1"],
        );
        let index = std::fs::read_to_string(layout.join("index.json")).expect("the layout's index");
        assert!(index.contains(answer["digest"].as_str().expect("a digest")), "pushed {answer}, written {index}");
        if let Some(skopeo) = require("skopeo", "skopeo") {
            let seen = run(&skopeo, &["inspect", "--tls-verify=false", &format!("docker://{repository}:1")]);
            let seen: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
            assert_eq!((&seen["Digest"], &seen["Architecture"]), (&answer["digest"], &image::architecture().into()));
        }
        if let Some(buildah) = Containers::start("buildah") {
            let image = buildah.pull(&format!("docker://{repository}:1"));
            add("buildah", Some(buildah.mount_new_container(&image)));
        }
        if let Some(containerd) = Containerd::start() {
            let image = containerd.pull(&format!("{repository}:1"));
            add("containerd, pulled", Some(containerd.mount(&image)));
        }
    }
    let Some(((reader, first), others)) = trees.split_first() else { return };
    assert!(first.len() > 5_000, "{reader} unpacked {} files", first.len());
    for (other, tree) in others {
        tree.assert_same(other, first, reader);
    }
    eprintln!(
        "{} files, {}: {:?}",
        first.len(),
        first.digest(),
        trees.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
}

#[test]
fn gzip_and_zstd_layers_hold_the_same_files() {
    let Some(()) = root_only() else { return };
    let (home, platform) = (Home::new(), image::platform());
    let root = image::project(&home);
    let build = |format: &str| {
        let dir = home.path().join(format);
        let output = format!("oci:{}", dir.display());
        image::build(
            &home,
            &root,
            &["--no-bytecode", "--platform", &platform, "--layer-format", format, "--output", &output],
        );
        let media_type = match format {
            "zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar+gzip",
        };
        assert!(manifests_contain(&dir, media_type), "{format}: no layer of type {media_type}");
        dir
    };
    let Some(spliced) = umoci(&home, &build("splice"), "spliced") else { return };
    let spliced = Tree::read(&spliced.join("rootfs"));
    let gzip = umoci(&home, &build("gzip"), "gzipped").expect("umoci was there");
    Tree::read(&gzip.join("rootfs")).assert_same("umoci, gzip", &spliced, "umoci, splice");
    let zstd = build("zstd");
    if let Some(containerd) = Containerd::start() {
        let image = containerd.import(&zstd);
        Tree::read(&containerd.mount(&image)).assert_same("containerd, zstd", &spliced, "umoci, splice");
    }
    if let Some(podman) = Containers::start("podman") {
        let image = podman.pull_layout(&zstd);
        Tree::read(&podman.mount_image(&image)).assert_same("podman, zstd", &spliced, "umoci, splice");
    }
}

fn manifests_contain(layout: &Path, media_type: &str) -> bool {
    let blobs = std::fs::read_dir(layout.join("blobs/sha256")).expect("blobs").flatten();
    blobs.filter(|blob| blob.metadata().is_ok_and(|meta| meta.len() < 1 << 20)).any(|blob| {
        let text = std::fs::read(blob.path()).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(media_type)
    })
}

#[test]
fn mlflow_serves_from_umocis_bundle_under_runc() {
    let (Some(()), Some(runc)) = (root_only(), require("runc", "runc")) else { return };
    let home = Home::new();
    let Some(bundle) = umoci(&home, image::layout(), "bundle") else { return };
    serve::runc(&home, &runc, &bundle);
}

#[test]
fn mlflow_serves_under_podman() {
    if !nightly("podman as a reader; the local server runs in it, too") {
        return;
    }
    let (Some(()), Some(podman)) = (root_only(), Containers::start("podman")) else { return };
    let image = podman.pull_layout(image::layout());
    serve::podman(&podman, &image);
}

#[test]
fn mlflow_serves_under_containerd() {
    let (Some(()), Some(containerd)) = (root_only(), Containerd::start()) else { return };
    let image = containerd.import(image::layout());
    serve::containerd(&containerd, &image);
}
