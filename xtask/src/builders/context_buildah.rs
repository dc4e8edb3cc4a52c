//! The context against buildah's: what `COPY . /` sees is what is packed.
//!
//! Two rules cannot be compared. An exception with `**` brings files back from an excluded folder with
//! BuildKit, which is what Cloud Build runs, but not with buildah, which does not look there. And some
//! versions of buildah take `+` and `(` for parts of a regular expression.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::context::{EntryKind, list};

/// A tree with folders in folders, hidden files, links and characters that mean something elsewhere.
const FILES: [&str; 18] = [
    "a",
    "b.md",
    "README.md",
    "docs/README.md",
    "docs/a/b/c.md",
    "docs/keep/x.txt",
    "docs/keep/y.pyc",
    ".hidden/z",
    ".env",
    "src/main.py",
    "src/__pycache__/main.pyc",
    "src/pkg/__pycache__/m.pyc",
    "src/pkg/m.py",
    "x+y/(1).txt",
    "temp/one",
    "temp1/two",
    "te/mp",
    "xsrc/f",
];

const PATTERNS: [&str; 19] = [
    "",
    "*\n!src",
    "*\n!src\n**/*.pyc",
    "*\n!docs/keep",
    "docs\n!docs/keep/x.txt",
    "docs\n!docs/*.md",
    "**/__pycache__",
    "**/*.md\n!README.md",
    "*.md",
    "*/*.md",
    "/temp*",
    "temp?",
    "temp/",
    "./src/../docs",
    "**src",
    "src/**",
    "[a-c]*",
    "# a comment\n\n  b.md  \n!a",
    "te*\n!temp1/two",
];

#[test]
fn every_pattern_leaves_what_buildah_leaves() {
    let Some(buildah) = testbed::require("buildah", "buildah") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (context, storage) = (dir.path().join("context"), dir.path().join("storage"));
    for path in FILES {
        let path = context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    fs::create_dir(context.join("empty")).unwrap();
    symlink("docs/README.md", context.join("link.md")).unwrap();
    fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    for (number, patterns) in PATTERNS.iter().enumerate() {
        fs::write(context.join(".dockerignore"), patterns).unwrap();
        let layout = dir.path().join(format!("layout-{number}"));
        let run = |args: &[&str]| {
            let mut command = testbed::command(&buildah);
            command.env("HOME", dir.path()).env("BUILDAH_ISOLATION", "chroot").arg("--storage-driver=vfs");
            command.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
            let output = command.args(args).output().unwrap();
            assert!(output.status.success(), "{patterns:?}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let name = format!("localhost/context-{number}");
        run(&["build", "--quiet", "--layers=false", "--tag", &name, context.to_str().unwrap()]);
        run(&["push", "--quiet", &name, &format!("oci:{}", layout.display())]);
        assert_eq!(ours(&context), theirs(&layout), "{patterns:?}");
    }
}

/// Files and links; `.dockerignore` and the Dockerfile are sent for the build, whether copied or not.
fn ours(context: &Path) -> BTreeSet<String> {
    let entries = list(context).unwrap().into_iter();
    entries
        .filter(|entry| entry.kind != EntryKind::Folder)
        .map(|entry| entry.path)
        .filter(|path| copied(path))
        .collect()
}

fn copied(path: &str) -> bool {
    path != "Dockerfile" && path != ".dockerignore"
}

fn theirs(layout: &Path) -> BTreeSet<String> {
    let json = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &serde_json::Value| {
        layout.join("blobs/sha256").join(descriptor["digest"].as_str().unwrap().replace("sha256:", ""))
    };
    let manifest = json(&blob(&json(&layout.join("index.json"))["manifests"][0]));
    let mut found = BTreeSet::new();
    for layer in manifest["layers"].as_array().unwrap() {
        let mut tar = tar::Archive::new(flate2::read::MultiGzDecoder::new(fs::File::open(blob(layer)).unwrap()));
        for entry in tar.entries().unwrap().map(|entry| entry.unwrap()) {
            if !entry.header().entry_type().is_dir() {
                found.insert(entry.path().unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.into_iter().filter(|path| copied(path)).collect()
}
