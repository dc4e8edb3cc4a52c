//! Layers as other programs see them: Python's tarfile, GNU tar, and pip, which must install from
//! the same wheel what the layer holds.

use std::collections::BTreeMap;
use std::path::Path;

use testbed as tool;

use crate::archives::{MadeWheel, Options, build_made, read};
use crate::zip::Entry;

fn wheel() -> MadeWheel {
    let binary: Vec<u8> = (0..300_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    MadeWheel::new(
        "p_q",
        [
            Entry::new("p/__init__.py", "def main(): print('ran')\n"),
            Entry::new("p/native.so", binary).with(|entry| entry.mode = 0o100_755),
            Entry::new("p/ü.txt", "ü"),
            Entry::new(&format!("p/{}/{}.txt", "d".repeat(200), "f".repeat(200)), "far"),
            // pip leaves a script alone that its wheel does not mark; here all scripts are executable.
            Entry::new("p_q-1.data/scripts/run", "#!python\nprint('ran')\n").with(|entry| entry.mode = 0o100_755),
            Entry::new("p_q-1.data/data/share/p/data.txt", "data"),
            Entry::new("p_q-1.data/headers/p.h", "int p;\n"),
            Entry::new("p_q-1.data/purelib/pure.py", "x = 1\n"),
            Entry::new("p_q-1.dist-info/entry_points.txt", "[console_scripts]\np-main = p:main\n"),
        ],
    )
}

#[test]
fn python_reads_a_spliced_layer_to_its_end() {
    let Some(python) = tool::require("python3", "python3") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (_, blob) = build_made(&[wheel()], Options::default()).unwrap();
    let path = dir.path().join("layer.tar.gz");
    std::fs::write(&path, &blob).unwrap();
    let script = "import sys, tarfile, hashlib\n\
                  for entry in tarfile.open(sys.argv[1], 'r:gz'):\n    \
                      if entry.isfile(): print(hashlib.sha256(tarfile.open(sys.argv[1]).extractfile(entry.name).read()).hexdigest(), entry.name.encode().hex())";
    let seen = tool::run(&python, &["-X", "utf8", "-c", script, path.to_str().unwrap()]);
    let hex = |path: &str| path.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let ours: Vec<_> = read(&blob)
        .iter()
        .map(|(path, found)| format!("{} {}", mlflow_image::Digest::of(&found.content).hex(), hex(path)))
        .collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), ours);
}

#[test]
fn a_layer_unpacked_by_gnu_tar_is_what_pip_installs() {
    let (Some(python), Some(tar)) = (tool::require("python3", "python3"), tool::require("tar", "tar")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (wheel, (_, blob)) = (wheel(), build_made(&[wheel()], Options::default()).unwrap());
    let (layer, file) = (dir.path().join("layer.tar.gz"), dir.path().join(wheel.file()));
    std::fs::write(&layer, &blob).unwrap();
    std::fs::write(&file, wheel.bytes()).unwrap();
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    tool::run(&tar, &["-xzf", layer.to_str().unwrap(), "-C", unpacked.to_str().unwrap()]);

    let venv = dir.path().join("venv");
    let made = tool::command(&python).args(["-m", "venv"]).arg(&venv).output().unwrap();
    if !made.status.success() {
        return tool::skip("python3 -m venv does not work (Debian: apt install python3-venv)");
    }
    let before = tree(&venv);
    let file = file.to_str().unwrap();
    tool::run(
        &venv.join("bin/python"),
        &["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", file],
    );
    let mut theirs = tree(&venv);
    theirs.retain(|path, _| !before.contains_key(path));
    let mut ours = tree(&unpacked.join("opt/mlflow"));
    // pip may run another Python than the image's: same places, another number.
    let plain = |path: &str| {
        let version = path.split('/').find(|part| part.starts_with("python3.")).unwrap_or("-").to_owned();
        path.replace(&version, "python")
    };
    let plain = |tree: BTreeMap<String, (u32, Vec<u8>)>| -> BTreeMap<String, (u32, Vec<u8>)> {
        tree.into_iter().map(|(path, found)| (plain(&path), found)).collect()
    };
    (theirs, ours) = (plain(theirs), plain(ours));
    let info = "lib/python/site-packages/p_q-1.dist-info/";
    for name in ["INSTALLER", "REQUESTED", "direct_url.json"] {
        theirs.remove(&format!("{info}{name}"));
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (path, (mode, content)) in &ours {
        let (their_mode, their_content) = &theirs[path];
        assert_eq!(mode & 0o111, their_mode & 0o111, "{path}");
        // The interpreter's path, and the generated script's wording, are each installer's own.
        if !path.starts_with("bin/") && !path.ends_with("/RECORD") {
            assert!(content == their_content, "{path}");
        }
    }
    let names = |content: &[u8]| -> Vec<String> {
        let text = String::from_utf8(content.to_vec()).unwrap();
        let mut names: Vec<_> = text.lines().map(|line| plain_record(line.split(',').next().unwrap())).collect();
        names.retain(|name| !["INSTALLER", "REQUESTED", "direct_url.json"].iter().any(|file| name.ends_with(file)));
        names.sort();
        names
    };
    let record = format!("{info}RECORD");
    assert_eq!(names(&ours[&record].1), names(&theirs[&record].1));
}

fn plain_record(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with("python3.") { "python" } else { part }).collect::<Vec<_>>().join("/")
}

/// The files below a folder, with mode and content.
fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt as _;
    let (mut found, mut folders) = (BTreeMap::new(), vec![root.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                folders.push(path);
            } else if meta.is_file() {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, (meta.permissions().mode(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found
}
