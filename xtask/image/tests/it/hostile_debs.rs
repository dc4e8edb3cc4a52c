//! Debian packages: what makes a base layer, and what is refused with package and file.

use std::collections::BTreeMap;
use std::io::Write as _;

use mlflow_image::exclude::Exclude;
use mlflow_image::layer::{self, Inputs};
use mlflow_image::lock::{DebPackage, LayerKind};
use mlflow_image::plan::{Format, Source};
use mlflow_image::{Digest, Result};
use tar::{EntryType, Header};

use crate::archives::{Found, plan, read, seed};

/// An entry of a package: raw path, kind, mode, link target or content.
type Entry<'a> = (&'a str, EntryType, u32, &'a [u8]);

const FILE: EntryType = EntryType::Regular;
const DIR: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;
const HARDLINK: EntryType = EntryType::Link;

/// A tar with any name and link, however bad.
fn tar(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, kind, mode, data) in entries {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let is_file = matches!(kind, EntryType::Regular);
        header.set_size(if is_file { data.len() as u64 } else { 0 });
        if !is_file {
            header.as_mut_bytes()[157..157 + data.len()].copy_from_slice(data);
        }
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        if is_file {
            out.extend_from_slice(data);
            out.resize(out.len().next_multiple_of(512), 0);
        }
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn compressed(suffix: &str, bytes: &[u8]) -> Vec<u8> {
    match suffix {
        ".xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        ".zst" => zstd::encode_all(bytes, 1).unwrap(),
        ".gz" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        _ => bytes.to_vec(),
    }
}

fn members(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for (name, bytes) in members {
        builder.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), bytes.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn deb(suffix: &str, entries: &[Entry<'_>]) -> Vec<u8> {
    let control = tar(&[("./control", FILE, 0o644, b"Package: p\n")]);
    members(&[
        ("debian-binary", b"2.0\n".to_vec()),
        (&format!("control.tar{suffix}"), compressed(suffix, &control)),
        (&format!("data.tar{suffix}"), compressed(suffix, &tar(entries))),
    ])
}

fn build(debs: &[(&str, Vec<u8>)]) -> Result<BTreeMap<String, Found>> {
    let dir = tempfile::tempdir().unwrap();
    let mut packages = Vec::new();
    for (name, bytes) in debs {
        let (sha256, size) = (Digest::of(bytes), bytes.len() as u64);
        std::fs::write(dir.path().join(sha256.hex()), bytes).unwrap();
        seed("deb", bytes);
        let (version, archive, path) = ("3.13.5-2".to_owned(), "debian".to_owned(), "pool/p.deb".to_owned());
        packages.push(DebPackage { name: (*name).to_owned(), version, sha256, size, archive, path });
    }
    let file = |digest: &Digest| dir.path().join(digest.hex());
    let exclude = Exclude::default();
    let inputs = Inputs { file: &file, exclude: &exclude, compiler: None, format: Format::Splice };
    let mut blob = Vec::new();
    layer::write(&plan(Source::Debs(packages), LayerKind::Base), &inputs, &mut blob)?;
    Ok(read(&blob))
}

#[test]
fn packages_are_flattened_whatever_compresses_them() {
    let content = [
        ("./", DIR, 0o755, &b""[..]),
        ("./bin/", DIR, 0o755, b""),
        ("./bin/tool", FILE, 0o4755, b"tool"),
        ("./lib64/ld.so", SYMLINK, 0o777, b"../lib/x/ld.so"),
        ("./usr/bin/other", HARDLINK, 0o755, b"./bin/tool"),
        ("./usr/lib/p/link.py", SYMLINK, 0o777, b"/etc/p/link.py"),
        ("./usr/share/doc/p/copyright", FILE, 0o644, b"licence"),
        ("./usr/share/doc/p/changelog.gz", FILE, 0o644, b"x"),
        ("./usr/share/man/man1/p.1.gz", FILE, 0o644, b"x"),
        ("./usr/share/ca-certificates/mozilla/B.crt", FILE, 0o644, b"B"),
        ("./usr/share/ca-certificates/mozilla/A.crt", FILE, 0o644, b"A\n"),
    ];
    for suffix in ["", ".gz", ".xz", ".zst"] {
        let found = build(&[("python3.13-minimal", deb(suffix, &content))]).unwrap();
        let text = |path: &str| String::from_utf8(found[path].content.clone()).unwrap();
        assert_eq!((text("usr/bin/tool").as_str(), found["usr/bin/tool"].mode), ("tool", 0o755));
        assert_eq!(text("usr/bin/other"), "tool");
        assert_eq!(found["usr/lib/p/link.py"].link.as_deref(), Some("../../../etc/p/link.py"));
        assert_eq!(found["bin"].link.as_deref(), Some("usr/bin"));
        assert!(found.contains_key("usr/lib64/ld.so") && found.contains_key("usr/share/doc/p/copyright"));
        assert!(!found.keys().any(|path| path.contains("changelog") || path.contains("man1")), "{found:?}");
        assert_eq!(text("etc/ssl/certs/ca-certificates.crt"), "A\nB\n");
        assert_eq!(found["usr/lib/ssl/cert.pem"].link.as_deref(), Some("certs/ca-certificates.crt"));
        assert_eq!(text("var/lib/dpkg/status.d/python3.13-minimal"), "Package: p\n");
        assert!(text("etc/passwd").contains("nonroot:x:65532:65532:nonroot:/home/nonroot:"));
        assert!(text("opt/mlflow/pyvenv.cfg").contains("home = /usr/bin\n"));
        assert!(text("opt/mlflow/pyvenv.cfg").contains("version = 3.13.5\n"));
        assert_eq!(found["opt/mlflow/bin/python"].link.as_deref(), Some("/usr/bin/python3.13"));
    }
}

#[test]
fn what_no_package_of_good_faith_holds() {
    let check = |entry: Entry<'_>, expected: &str| {
        let error = build(&[("p", deb(".xz", &[entry]))]).unwrap_err();
        assert_eq!(error.to_string(), format!("p: {expected}"));
    };
    check(("./../evil", FILE, 0o644, b""), "./../evil: a path that leaves its folder");
    check(("/etc/evil", FILE, 0o644, b""), "/etc/evil: an absolute path");
    check(("./a/../../evil", FILE, 0o644, b""), "./a/../../evil: a path that leaves its folder");
    check(("./a\\b", FILE, 0o644, b""), "./a\\b: a path with the character '\\\\'");
    check(("./dev/null", EntryType::Char, 0o666, b""), "./dev/null: a device node");
    check(("./dev/sda", EntryType::Block, 0o666, b""), "./dev/sda: a device node");
    check(("./pipe", EntryType::Fifo, 0o666, b""), "./pipe: an entry of the kind Fifo");
    check(
        ("./a/link", SYMLINK, 0o777, b"../../etc/passwd"),
        "a/link: a link to ../../etc/passwd, which leaves the root",
    );
    check(("./link", SYMLINK, 0o777, b"/../etc/passwd"), "link: a link to /../etc/passwd, which leaves the root");
    check(
        ("./hard", HARDLINK, 0o644, b"../etc/passwd"),
        "./hard: a link to \"../etc/passwd\": a path that leaves its folder",
    );
    check(("./hard", HARDLINK, 0o644, b"./absent"), "hard: a hard link to absent, which is no file");
}

#[test]
fn files_that_collide() {
    let check = |one: &[Entry<'_>], two: &[Entry<'_>], expected: &str| match build(&[
        ("one", deb("", one)),
        ("two", deb(".gz", two)),
    ]) {
        Ok(_) => assert_eq!(expected, ""),
        Err(error) => assert_eq!(error.to_string(), expected),
    };
    let file = [("./usr/a", FILE, 0o644, &b"1"[..])];
    check(&file, &[("./usr/a", FILE, 0o644, b"1")], "");
    check(&file, &[("./usr/a", FILE, 0o644, b"2")], "two: usr/a: differs from the one in one");
    check(&file, &[("./usr/A", FILE, 0o644, b"1")], "two: usr/A: differs only in case from usr/a of one");
    check(&file, &[("./usr/a/b", FILE, 0o644, b"1")], "two: usr/a/b: usr/a is not a folder in one");
    // A link planted first and written through afterwards.
    let link = [("./usr/a", SYMLINK, 0o777, &b"../etc"[..])];
    check(&link, &[("./usr/a/passwd", FILE, 0o644, b"x")], "two: usr/a/passwd: usr/a is not a folder in one");
    check(
        &[("./lib/a", FILE, 0o644, b"1")],
        &[("./usr/lib/a", FILE, 0o644, b"2")],
        "two: usr/lib/a: differs from the one in one",
    );
}

#[test]
fn what_is_no_package() {
    let control = tar(&[("./control", FILE, 0o644, b"Package: p\n")]);
    let check = |bytes: Vec<u8>, expected: &str| {
        let error = build(&[("p", bytes)]).unwrap_err().to_string();
        assert!(error.starts_with("p: ") && error.contains(expected), "{error}");
    };
    let version = || ("debian-binary", b"2.0\n".to_vec());
    check(b"no archive".to_vec(), "not a Debian package");
    check(members(&[("control.tar", control.clone())]), "does not begin with debian-binary");
    check(members(&[("debian-binary", b"3.0\n".to_vec())]), "format \"3.0\\n\" is not 2");
    check(members(&[version(), ("control.tar", control.clone())]), "has no data.tar");
    check(members(&[version(), ("data.tar", tar(&[]))]), "has no control.tar");
    check(members(&[version(), ("control.tar", tar(&[])), ("data.tar", tar(&[]))]), "has no file control");
    check(members(&[version(), ("control.tar.lz4", control.clone())]), "control.tar.lz4: an unknown compression");
    check(members(&[version(), ("control.tar.xz", b"no xz".to_vec())]), "control.tar.xz: ");
    check(members(&[version(), ("evil", Vec::new())]), "evil: an unknown member");
    let twice = [version(), ("control.tar", control.clone()), ("data.tar", tar(&[])), ("data.tar", tar(&[]))];
    check(members(&twice), "data.tar: twice");
    let zeros = vec![0; 100 << 20];
    let bomb = compressed(".zst", &tar(&[("./zeros", FILE, 0o644, &zeros)]));
    check(members(&[version(), ("control.tar", control), ("data.tar.zst", bomb)]), "a decompression bomb");
}
