//! `bench image`: what it leaves behind, and what it says where it cannot run.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use testbed::{Home, command, require};

use crate::image;

#[test]
fn a_missing_registry_program_is_named_with_its_package() {
    let home = Home::new();
    let root = image::project(&home);
    let mut bench = home.command(env!("CARGO_BIN_EXE_xtask"));
    let bench = bench.args(["bench", "image", "--json"]).env("CARGO_MANIFEST_DIR", root).env("PATH", home.path());
    let output = bench.output().expect("xtask starts");
    assert_eq!(output.status.code(), Some(7));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["error"]["message"], "docker-registry is not installed");
    assert!(answer["error"]["hint"].as_str().is_some_and(|hint| hint.contains("apt-get install docker-registry")));
}

#[test]
fn an_interrupted_bench_leaves_nothing_behind() {
    if require("docker-registry", "docker-registry").is_none() {
        return;
    }
    let home = Home::new();
    let (root, temporary) = (image::project(&home), home.path().join("tmp"));
    std::fs::create_dir(&temporary).expect("a folder");
    let mut bench = home.command(env!("CARGO_BIN_EXE_xtask"));
    image::keep_package_settings(&mut bench);
    let mut child = bench
        .args(["bench", "image", "--builder", "native"])
        .env("CARGO_MANIFEST_DIR", root)
        .env("XDG_CACHE_HOME", image::cache_home())
        .env("TMPDIR", &temporary)
        .stderr(Stdio::piped())
        .spawn()
        .expect("xtask starts");
    let mut seen = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("a pipe")).lines() {
        seen.push(line.expect("a line"));
        // A registry, a build and the counter are at work.
        if seen.last().is_some_and(|line| line.contains("Measuring")) {
            assert!(std::fs::read_dir(&temporary).expect("a folder").next().is_some());
            command("kill").arg(child.id().to_string()).status().expect("kill starts");
        }
    }
    let begun = Instant::now();
    let status = child.wait().expect("xtask ends");
    assert_eq!(status.code(), Some(130), "{seen:?}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let left: Vec<_> = std::fs::read_dir(&temporary).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    let argument = temporary.display().to_string();
    let running = processes().into_iter().filter(|arguments| arguments.contains(&argument)).collect::<Vec<_>>();
    assert!(running.is_empty(), "{running:?}");
}

/// The arguments of all processes.
fn processes() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|arguments| String::from_utf8_lossy(&arguments).replace('\0', " "))
        .collect()
}
