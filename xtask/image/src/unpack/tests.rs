use super::*;

use flate2::Compression;
use flate2::write::GzEncoder;

enum Item {
    Dir(&'static str, u32),
    File(&'static str, &'static str, u32),
    Link(&'static str, &'static str),
    Hard(&'static str, &'static str),
    Other(&'static str, EntryType),
}
use Item::{Dir, File as Text, Hard, Link, Other};

fn tar(items: &[Item]) -> Vec<u8> {
    let mut out = Vec::new();
    for item in items {
        let (path, kind, mode, target, content) = match item {
            Dir(path, mode) => (path, EntryType::Directory, *mode, "", ""),
            Text(path, content, mode) => (path, EntryType::Regular, *mode, "", *content),
            Link(path, target) => (path, EntryType::Symlink, 0o777, *target, ""),
            Hard(path, target) => (path, EntryType::Link, 0o644, *target, ""),
            Other(path, kind) => (path, *kind, 0o644, "", ""),
        };
        let mut header = tar::Header::new_ustar();
        // The crate's own setters refuse what hostile archives hold.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(content.as_bytes());
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A gzip member for each half, as the wheel splice writes them.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for half in bytes.chunks(bytes.len() / 2 + 1) {
        let mut member = GzEncoder::new(Vec::new(), Compression::fast());
        member.write_all(half).unwrap();
        out.extend(member.finish().unwrap());
    }
    out
}

struct Unpacked {
    _dir: tempfile::TempDir,
    root: PathBuf,
    result: Result<Stats>,
}

/// Unpacks plain tars; `outside/victim` beside the root is what hostile layers aim at.
fn unpacked(layers: &[&[Item]]) -> Unpacked {
    let blobs: Vec<_> = layers.iter().map(|items| tar(items)).map(|tar| (tar.clone(), Digest::of(&tar))).collect();
    unpacked_blobs(&blobs, &Options::default())
}

fn unpacked_blobs(blobs: &[(Vec<u8>, Digest)], options: &Options) -> Unpacked {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/victim"), "safe").unwrap();
    fs::set_permissions(dir.path().join("outside"), fs::Permissions::from_mode(0o750)).unwrap();
    let layers: Vec<Layer> = blobs
        .iter()
        .enumerate()
        .map(|(i, (blob, diff_id))| {
            let path = dir.path().join(format!("blob-{i}"));
            fs::write(&path, blob).unwrap();
            Layer { blob: path, digest: Digest::of(blob), diff_id: *diff_id }
        })
        .collect();
    let result = unpack(&layers, &root, options);
    assert_eq!(fs::read_to_string(dir.path().join("outside/victim")).unwrap(), "safe");
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1, "something was put beside the root");
    let mode = fs::metadata(dir.path().join("outside")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750, "the mode of a folder beside the root was changed");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2 + blobs.len(), "something was put beside the root");
    Unpacked { _dir: dir, root, result }
}

/// `path mode content`, `path -> target`, `path/ mode`, sorted.
fn listing(root: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, out: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = meta.permissions().mode() & 0o7777;
            if meta.is_symlink() {
                out.push(format!("{name} -> {}", fs::read_link(&path).unwrap().display()));
            } else if meta.is_dir() {
                out.push(format!("{name}/ {mode:o}"));
                walk(root, &path, out);
            } else {
                out.push(format!("{name} {mode:o} {}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut out = Vec::new();
    walk(root, root, &mut out);
    out.sort();
    out
}

fn check(layers: &[&[Item]], expected: &[&str]) {
    let unpacked = unpacked(layers);
    unpacked.result.unwrap();
    assert_eq!(listing(&unpacked.root), expected);
}

fn check_refused(layers: &[&[Item]], expected: &str) {
    let error = unpacked(layers).result.expect_err(expected).to_string();
    assert!(error.contains(expected), "{error:?} should contain {expected:?}");
}

#[test]
fn layers_are_applied_in_order() {
    check(
        &[
            &[Dir("a", 0o755), Text("a/x", "1", 0o644), Text("b", "1", 0o755)],
            &[Text("a/x", "2", 0o600), Text("c/d", "3", 0o644)],
        ],
        &["a/ 755", "a/x 600 2", "b 755 1", "c/ 755", "c/d 644 3"],
    );
    check(&[&[Text("a", "1", 0o644)], &[Dir("a", 0o755), Text("a/b", "2", 0o644)]], &["a/ 755", "a/b 644 2"]);
    check(&[&[Dir("a", 0o755), Text("a/b", "2", 0o644)], &[Text("a", "1", 0o644)]], &["a 644 1"]);
    check(&[&[Text("./a//b", "1", 0o644), Text("/c", "2", 0o644)]], &["a/ 755", "a/b 644 1", "c 644 2"]);
}

#[test]
fn whiteouts_hide_what_is_below_and_nothing_else() {
    let lower: &[Item] = &[Dir("a", 0o755), Text("a/x", "1", 0o644), Text("a/y", "1", 0o644), Text("b", "1", 0o644)];
    check(&[lower, &[Text("a/.wh.x", "", 0)]], &["a/ 755", "a/y 644 1", "b 644 1"]);
    check(&[lower, &[Text(".wh.a", "", 0)]], &["b 644 1"]);
    check(
        &[lower, &[Text(".wh.nothing", "", 0), Text("n/.wh.o", "", 0), Text(".wh.b", "", 0), Text(".wh.a", "", 0)]],
        &["n/ 755"],
    );
    check(&[lower, &[Text("a/z", "2", 0o644), Text("a/.wh..wh..opq", "", 0)]], &["a/ 755", "a/z 644 2", "b 644 1"]);
    check(&[lower, &[Text("a/.wh..wh..opq", "", 0), Text("a/x", "2", 0o644)]], &["a/ 755", "a/x 644 2", "b 644 1"]);
    check(
        &[lower, &[Text("a/x", "2", 0o644), Text("a/.wh.x", "", 0), Text(".wh.a", "", 0)]],
        &["a/ 755", "a/x 644 2", "b 644 1"],
    );
    check(&[lower, &[Text(".wh..wh.plnk", "", 0)]], &["a/ 755", "a/x 644 1", "a/y 644 1", "b 644 1"]);
    check_refused(&[&[Text(".wh...", "", 0)]], "whiteout of no file");
    check_refused(&[&[Text("a/.wh.", "", 0)]], "whiteout of no file");
}

#[test]
fn links_lead_nowhere_but_inside() {
    let outside = "../outside";
    check(&[&[Link("l", outside), Text("l/x", "1", 0o644)]], &["l -> ../outside", "outside/ 755", "outside/x 644 1"]);
    check(
        &[&[Link("l", "/outside"), Text("l/victim", "1", 0o644)]],
        &["l -> /outside", "outside/ 755", "outside/victim 644 1"],
    );
    check(
        &[&[Link("a", "usr/b"), Dir("usr/b", 0o755)], &[Text("a/x", "1", 0o644)]],
        &["a -> usr/b", "usr/ 755", "usr/b/ 755", "usr/b/x 644 1"],
    );
    // A link in the place of a file is replaced, never written through.
    check(&[&[Link("l", "../outside/victim"), Text("l", "1", 0o644)]], &["l 644 1"]);
    check(&[&[Link("l", outside)], &[Dir("l", 0o777)]], &["l/ 777"]);
    check(&[&[Link("l", outside)], &[Text(".wh.l", "", 0)]], &[]);
    check(&[&[Link("l", outside)], &[Text("l/.wh.victim", "", 0)]], &["l -> ../outside", "outside/ 755"]);
    check(&[&[Link("l", outside)], &[Text("l/.wh..wh..opq", "", 0)]], &["l -> ../outside", "outside/ 755"]);
    // A folder's mode is set at the end; by then a link may stand in its place, or above it.
    check(&[&[Dir("d", 0o777)], &[Text(".wh.d", "", 0), Link("d", outside)]], &["d -> ../outside"]);
    check(
        &[&[Dir("d/outside", 0o777), Text("e", "", 0o644)], &[Text(".wh.d", "", 0), Link("d", "..")]],
        &["d -> ..", "e 644 "],
    );
    check_refused(&[&[Link("a", "b"), Link("b", "a"), Text("a/x", "1", 0o644)]], "loop of symbolic links");
    check_refused(&[&[Text("a", "1", 0o644), Text("a/x", "1", 0o644)]], "its folder is a file");
    check_refused(&[&[Link("l", "")]], "link without a target");
}

#[test]
fn hard_links_stay_inside() {
    check(&[&[Text("a", "1", 0o644), Hard("b", "a")]], &["a 644 1", "b 644 1"]);
    check(&[&[Text("a", "1", 0o644)], &[Hard("b", "/a")]], &["a 644 1", "b 644 1"]);
    check(
        &[&[Link("l", "../outside/victim"), Hard("h", "l"), Text("h", "2", 0o644)]],
        &["h 644 2", "l -> ../outside/victim"],
    );
    check_refused(&[&[Link("l", "../outside"), Hard("h", "l/victim")]], "not in the image");
    check_refused(&[&[Hard("h", "../outside/victim")]], "leaves the root");
    check_refused(&[&[Hard("h", "/etc/passwd")]], "not in the image");
    check_refused(&[&[Dir("d", 0o755), Hard("h", "d")]], "hard link to a folder");
    check_refused(&[&[Text("a", "1", 0o644), Hard("a", "a")]], "hard link to itself");
    check_refused(&[&[Text("d/a", "1", 0o644), Hard("d", "d/a")]], "replaces its own target");
}

#[test]
fn paths_that_leave_the_root_are_refused() {
    check_refused(&[&[Text("../outside/victim", "1", 0o644)]], "leaves the root");
    check_refused(&[&[Text("a/../../outside/victim", "1", 0o644)]], "leaves the root");
    check_refused(&[&[Dir("..", 0o777)]], "leaves the root");
    check_refused(&[&[Text("..", "1", 0o644)]], "leaves the root");
    check_refused(&[&[Link("./", "../outside")]], "replaces the root folder");
    check_refused(&[&[Other("x", EntryType::new(b'Z'))]], "unknown tar entry type");
}

#[test]
fn devices_are_left_out_and_privileges_dropped() {
    let unpacked = unpacked(&[&[
        Other("null", EntryType::Char),
        Other("disk", EntryType::Block),
        Other("pipe", EntryType::Fifo),
        Text("su", "1", 0o6755),
        Dir("tmp", 0o1777),
        Dir("sgid", 0o2755),
        Dir("closed", 0o555),
        Text("closed/x", "1", 0o444),
    ]]);
    assert_eq!(unpacked.result.unwrap(), Stats { entries: 8, bytes: 2, skipped: 3 });
    assert_eq!(listing(&unpacked.root), ["closed/ 555", "closed/x 444 1", "sgid/ 755", "su 755 1", "tmp/ 1777"]);
    remove(&unpacked.root).unwrap();
    assert!(!unpacked.root.exists());
}

#[test]
fn gzip_of_many_members_and_zstd_are_read() {
    let plain = tar(&[Text("a", "1", 0o644), Text("b", "2", 0o644)]);
    for blob in [plain.clone(), gzip(&plain), zstd::encode_all(plain.as_slice(), 1).unwrap()] {
        let unpacked = unpacked_blobs(&[(blob, Digest::of(&plain))], &Options::default());
        unpacked.result.unwrap();
        assert_eq!(listing(&unpacked.root), ["a 644 1", "b 644 2"]);
    }
}

#[test]
fn damage_is_refused() {
    let plain = tar(&[Text("a", "1", 0o644), Text("b", "2", 0o644)]);
    let refused = |blob: Vec<u8>, diff_id: Digest, options: Options, expected: &str| {
        let error = unpacked_blobs(&[(blob, diff_id)], &options).result.expect_err(expected);
        assert!(error.to_string().contains(expected), "{error} should contain {expected}");
        assert!(error.io_cause().is_none(), "{error} is the layer's fault");
    };
    let all = Options::default();
    refused(plain.clone(), Digest::of("other"), all, "its diff_id is");
    refused(gzip(&plain)[..60].to_vec(), Digest::of(&plain), all, "not a valid layer");
    refused(plain[..600].to_vec(), Digest::of(&plain[..600]), all, "not a valid layer");
    refused(b"garbage".repeat(100), Digest::of("x"), all, "not a valid layer");
    let mut garbled = gzip(&plain);
    let middle = garbled.len() / 2;
    garbled[middle] ^= 0xff;
    refused(garbled, Digest::of(&plain), all, "");
    refused(plain.clone(), Digest::of(&plain), Options { max_bytes: 1, ..all }, "more than 1 bytes");
    refused(plain.clone(), Digest::of(&plain), Options { max_entries: 1, ..all }, "more than 1 entries");
}

#[test]
fn a_blob_that_is_not_the_one_named_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blob = dir.path().join("blob");
    let plain = tar(&[Text("a", "1", 0o644)]);
    fs::write(&blob, &plain).unwrap();
    let root = dir.path().join("root");
    fs::create_dir(&root).unwrap();
    let layer = Layer { blob: blob.clone(), digest: Digest::of("other"), diff_id: Digest::of(&plain) };
    let error = unpack(&[layer], &root, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("its digest is"), "{error}");
    let layer = Layer { blob: dir.path().join("none"), digest: Digest::of(""), diff_id: Digest::of("") };
    assert!(unpack(&[layer], &root, &Options::default()).unwrap_err().io_cause().is_some());
}
