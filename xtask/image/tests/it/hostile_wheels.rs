//! What no wheel of good faith holds is refused with the wheel's and the file's name.

use mlflow_image::Digest;
use mlflow_image::exclude::Exclude;
use mlflow_image::layer::{self, Inputs};
use mlflow_image::lock::{LayerKind, Wheel};
use mlflow_image::plan::{Format, Source};

use crate::archives::{MadeWheel, Options, SITE, build, build_made, check_overlap, plan};
use crate::zip::{Descriptor, Entry, zip};

/// A wheel with one good file and `entry` must be refused in these words.
fn check(entry: Entry, expected: &str) {
    let good = Entry::new("p/__init__.py", "x = 1\n");
    check_wheels(&[MadeWheel::new("p", [good, entry])], expected);
}

fn check_wheels(wheels: &[MadeWheel], expected: &str) {
    let error = build_made(wheels, Options::default()).map(|(info, _)| info).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

fn refused(name: &str, problem: &str) {
    check(Entry::new(name, "x"), &format!("p-1-py3-none-any.whl: {name}: {problem}"));
}

#[test]
fn names_that_leave_site_packages_or_mean_two_things() {
    refused("../evil.py", "a path that leaves its folder");
    refused("p/../../evil.py", "a path that leaves its folder");
    refused("/etc/passwd", "an absolute path");
    refused("C:/evil.py", "an absolute path");
    refused("p\\..\\evil.py", "a path with the character '\\\\'");
    refused("p/ev\0il.py", "a path with the character '\\0'");
    refused("p/ev\nil.py", "a path with the character '\\n'");
    refused("p//evil.py", "a path with an empty part");
    refused("./evil.py", "a path with an empty part");
    refused("../evil/", "a path that leaves its folder");
    let long = format!("p/{}", "n".repeat(256));
    refused(&long, "a file name of 256 bytes");
    refused("p-1.data/data/../../etc/x", "a path that leaves its folder");
}

#[test]
fn names_that_readers_decode_differently() {
    let latin1 = Entry::new("x", "x").with(|entry| entry.name = b"p/\xfc.py".to_vec());
    check(latin1, "p-1-py3-none-any.whl: \"p/\u{fffd}.py\": a name that is not UTF-8");
    let unmarked = Entry::new("p/ü.py", "x").with(|entry| entry.flags = 0);
    check(unmarked, "p-1-py3-none-any.whl: p/ü.py: its name is neither ASCII nor marked as UTF-8");
    let other = Entry::new("p/a.py", "x").with(|entry| entry.local_name = Some(b"p/b.py".to_vec()));
    check(other, "p-1-py3-none-any.whl: p/a.py: its local header has another name");
}

#[test]
fn what_is_no_file() {
    for (mode, expected) in [
        (0o120_777, "a symbolic link"),
        (0o020_644, "neither a file nor a folder"),
        (0o060_644, "neither a file nor a folder"),
        (0o010_644, "neither a file nor a folder"),
        (0o140_644, "neither a file nor a folder"),
    ] {
        let entry = Entry::new("p/x", "/etc/passwd").with(|entry| entry.mode = mode);
        check(entry, &format!("p-1-py3-none-any.whl: p/x: {expected}"));
    }
    let folder = Entry::new("p/x/", "content");
    check(folder, "p-1-py3-none-any.whl: p/x/: a folder with content");
}

#[test]
fn files_that_collide() {
    let problem = "differs only in case from";
    let folder = "opt/mlflow/lib/python3.13/site-packages/";
    check(
        Entry::new("p/__INIT__.py", "x"),
        &format!(
            "p-1-py3-none-any.whl: {folder}p/__INIT__.py: {problem} {folder}p/__init__.py of p-1-py3-none-any.whl"
        ),
    );
    check(
        Entry::new("P/other.py", "x"),
        &format!("p-1-py3-none-any.whl: {folder}P: {problem} {folder}p of p-1-py3-none-any.whl"),
    );
    check(
        Entry::new("p/__init__.py/x", "x"),
        &format!(
            "p-1-py3-none-any.whl: {folder}p/__init__.py/x: {folder}p/__init__.py is not a folder in p-1-py3-none-any.whl"
        ),
    );
    check(
        Entry::new("p-1.data/purelib/p/__init__.py", "x = 1\n"),
        &format!("p-1-py3-none-any.whl: {folder}p/__init__.py: two of its files are installed there"),
    );
    let twice = MadeWheel::new("p", [Entry::new("p.py", "1"), Entry::new("q.py", "2")]);
    let mut bytes = twice.bytes();
    // Both the local header and the directory call the second file as the first.
    while let Some(at) = bytes.windows(4).position(|window| window == b"q.py") {
        bytes[at] = b'p';
    }
    check_bytes(bytes, "p-1-py3-none-any.whl: p.py: twice in the zip archive");
}

fn check_bytes(bytes: Vec<u8>, expected: &str) {
    let wheel = ("p".to_owned(), "p-1-py3-none-any.whl".to_owned(), bytes);
    let error = build(&[wheel], Options::default()).map(|(info, _)| info).unwrap_err();
    assert_eq!(error.to_string(), expected);
}

#[test]
fn entries_that_overlap() {
    // The classic bomb: many names for one compressed stream.
    let entry = Entry::new("p/__init__.py", "x = 1\n").with(|entry| entry.same_place_as = Some(0));
    check(entry, "p-1-py3-none-any.whl: p/__init__.py: twice in the zip archive");
    let entry = Entry::new("p/other.py", "x = 1\n").with(|entry| entry.same_place_as = Some(0));
    check(entry, "p-1-py3-none-any.whl: p/other.py: its local header has another name");
}

#[test]
fn contents_that_are_not_what_the_directory_says() {
    let entry = || Entry::new("p/x.py", "x = 1\n".repeat(50));
    let problem = |problem: &str| format!("p-1-py3-none-any.whl: {SITE}/p/x.py: {problem}");
    check(entry().with(|entry| entry.crc32 = Some(7)), &problem("its CRC-32 does not match"));
    check(entry().with(|entry| (entry.crc32, entry.method) = (Some(7), 0)), &problem("its CRC-32 does not match"));
    check(
        entry().with(|entry| entry.trailing = b"\x1f\x8b\x08".to_vec()),
        &problem("bytes are left over behind its compressed data"),
    );
    let size = "p-1-py3-none-any.whl: p/x.py: RECORD tells another size";
    check(entry().with(|entry| entry.size = Some(299)), size);
    check(entry().with(|entry| entry.size = Some(301)), size);
    check(
        entry().with(|entry| (entry.size, entry.method) = (Some(299), 0)),
        "p-1-py3-none-any.whl: p/x.py: stored, but with two sizes",
    );
    check(
        entry().with(|entry| entry.descriptor = Some(Descriptor::Wrong)),
        "p-1-py3-none-any.whl: p/x.py: its data descriptor does not match",
    );
}

#[test]
fn sizes_beyond_what_inflates_are_found_while_inflating() {
    // RECORD tells the same lie as the directory.
    for (size, problem) in [
        (10, "it inflates to more than the 10 bytes that the archive says"),
        (400, "it inflates to 300 bytes, the archive says 400"),
        (30_000_000, "bytes cannot inflate to 30000000"),
    ] {
        let wheel =
            MadeWheel::new("p", [Entry::new("p/x.py", "x = 1\n".repeat(50)).with(|entry| entry.size = Some(size))]);
        let hash = "p/x.py,sha256=";
        let lie =
            wheel.record().lines().find(|line| line.starts_with(hash)).unwrap().replace(",300", &format!(",{size}"));
        let wheel = wheel.with(|wheel| wheel.instead = Some(("p/x.py".to_owned(), lie)));
        let error = build_made(&[wheel], Options::default()).map(|(info, _)| info).unwrap_err().to_string();
        assert!(
            error.starts_with("p-1-py3-none-any.whl: ") && error.contains("p/x.py: ") && error.contains(problem),
            "{error}"
        );
    }
}

#[test]
fn ways_to_compress_that_a_layer_cannot_hold() {
    check(Entry::new("p/x", "x").with(|entry| entry.flags = 1), "p-1-py3-none-any.whl: p/x: is encrypted");
    for (method, name) in [(12, "Bzip2"), (14, "LZMA"), (93, "Zstd"), (99, "AE-x")] {
        let entry = Entry::new("p/x", "x").with(|entry| entry.method = method);
        let wheel = MadeWheel::new("p", [entry]);
        let error = build_made(&[wheel], Options::default()).map(|(info, _)| info).unwrap_err().to_string();
        assert!(error.starts_with("p-1-py3-none-any.whl: ") && error.contains("p/x"), "{name}: {error}");
    }
}

#[test]
fn a_bomb_is_refused_before_it_is_inflated() {
    let entry = Entry::new("p/zeros", vec![0; 80 << 20]);
    let started = std::time::Instant::now();
    let wheel = MadeWheel::new("p", [entry]);
    let bytes = wheel.bytes();
    let made = started.elapsed();
    let expected = format!(
        "p-1-py3-none-any.whl: {} bytes inflate to {}: a zip bomb",
        bytes.len(),
        (80 << 20) + wheel.other_bytes("p/zeros")
    );
    check_bytes(bytes, &expected);
    assert!(started.elapsed() - made < made + std::time::Duration::from_secs(5), "it was inflated");
}

#[test]
fn records_that_disagree_with_the_wheel() {
    let wheel = || MadeWheel::new("p", [Entry::new("p.py", "x")]);
    check_wheels(
        &[wheel().with(|wheel| {
            wheel.more_record = "q.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n".to_owned()
        })],
        "p-1-py3-none-any.whl: q.py: is in RECORD but not in the wheel",
    );
    check_wheels(
        &[wheel().with(|wheel| wheel.instead = Some(("p.py".to_owned(), String::new())))],
        "p-1-py3-none-any.whl: p.py: RECORD has no hash of it",
    );
    check_wheels(
        &[wheel().with(|wheel| {
            wheel.instead =
                Some(("p.py".to_owned(), "p.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,1".to_owned()))
        })],
        &format!("p-1-py3-none-any.whl: {SITE}/p.py: its SHA-256 is not the one in RECORD"),
    );
}

#[test]
fn wheels_that_are_not_what_they_are_called() {
    let text = |bytes: &[u8], expected: &str| check_bytes(bytes.to_vec(), &format!("p-1-py3-none-any.whl: {expected}"));
    let error = build(&[("p".into(), "p.whl".into(), b"no zip".to_vec())], Options::default()).map(|(info, _)| info);
    assert!(error.unwrap_err().to_string().starts_with("p.whl: not a zip archive"));
    text(&zip(&[Entry::new("p.py", "x")]), "not exactly one .dist-info folder");
    text(
        &MadeWheel::new("q", [Entry::new("p.py", "x")]).bytes(),
        "q-1.dist-info: belongs to another distribution than p",
    );
    text(&MadeWheel::new("p", [Entry::new("q-1.dist-info/x", "x")]).bytes(), "not exactly one .dist-info folder");
    let mut prefixed = b"#!/bin/sh\n".to_vec();
    prefixed.extend_from_slice(&MadeWheel::new("p", [Entry::new("p.py", "x")]).bytes());
    text(&prefixed, "bytes in front of the zip archive");
    check(
        Entry::new("p-1.data/unknown/x", "x"),
        "p-1-py3-none-any.whl: p-1.data/unknown/x: an unknown installation scheme",
    );
}

#[test]
fn the_environments_own_files_are_not_replaced() {
    for (name, path) in [
        ("p-1.data/scripts/python3", "opt/mlflow/bin/python3"),
        ("p-1.data/data/bin/python", "opt/mlflow/bin/python"),
        ("p-1.data/data/pyvenv.cfg", "opt/mlflow/pyvenv.cfg"),
    ] {
        check(
            Entry::new(name, "x"),
            &format!("p-1-py3-none-any.whl: {path}: would replace the environment's own file"),
        );
    }
    check(
        Entry::new("p-1.dist-info/entry_points.txt", "[console_scripts]\npython = p:main\n"),
        "p-1-py3-none-any.whl: opt/mlflow/bin/python: would replace the environment's own file",
    );
}

#[test]
fn two_wheels_with_different_files_in_one_place() {
    let one = MadeWheel::new("one", [Entry::new("shared/__init__.py", "1")]);
    let two = MadeWheel::new("two", [Entry::new("shared/__init__.py", "2")]);
    let expected =
        format!("two-1-py3-none-any.whl: {SITE}/shared/__init__.py: differs from the one in one-1-py3-none-any.whl");
    let error = check_overlap(&[one.clone(), two.clone()]).unwrap_err();
    assert_eq!(error.to_string(), expected, "in two layers");
    check_wheels(&[one.clone(), two], &expected);
    let three = MadeWheel::new("three", [Entry::new("shared/__INIT__.py", "1")]);
    assert!(check_overlap(&[one.clone(), three]).unwrap_err().to_string().contains("differs only in case"));
    let four = MadeWheel::new("four", [Entry::new("shared/__init__.py", "1"), Entry::new("shared/more.py", "2")]);
    check_overlap(&[one, four]).unwrap();
}

#[test]
fn a_wheel_that_is_not_the_locked_one() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = MadeWheel::new("p", [Entry::new("p.py", "x")]).bytes();
    let path = dir.path().join("wheel");
    for (content, problem) in
        [(bytes[1..].to_vec(), "bytes, the lock says"), ([b"X", &bytes[1..]].concat(), "the lock says sha256:")]
    {
        std::fs::write(&path, content).unwrap();
        let (name, file) = ("p".to_owned(), "p-1-py3-none-any.whl".to_owned());
        let wheel = Wheel { name, version: "1".to_owned(), file, sha256: Digest::of(&bytes), size: bytes.len() as u64 };
        let file = |_: &Digest| path.clone();
        let exclude = Exclude::default();
        let inputs = Inputs { file: &file, exclude: &exclude, compiler: None, format: Format::Splice };
        let plan = plan(Source::Wheels(vec![wheel]), LayerKind::Wheel);
        let error = layer::write(&plan, &inputs, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with("p-1-py3-none-any.whl: ") && error.contains(problem), "{error}");
    }
}
