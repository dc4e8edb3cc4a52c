//! `build-image` from the repository's own locks: the same image everywhere, nothing done twice,
//! nothing damaged passed on.

mod attached;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use testbed::{Home, Registry};

use crate::image;

/// The version before the one that is locked today, and its wheel. PyPI keeps both for ever.
const OLD_CERTIFI: &str =
    "certifi==2026.7.22 --hash=sha256:62f22742b58a1a33014a2b6b706588a8d7e2a88ae7bd1a6ebe8c992928483775\n";
/// Debian's `nobody`.
const NOBODY: u32 = 65534;

/// A copy of what `build-image` reads, because it may write image.lock.
struct Project {
    root: PathBuf,
}

impl Project {
    fn new(root: PathBuf) -> Self {
        image::copy_project(&root);
        Self { root }
    }

    fn edit(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.root.join("mlflow_server").join(name);
        let text = fs::read_to_string(&path).expect("a text");
        fs::write(path, change(text)).expect("a file");
    }

    /// `build-image --json` with the cache below `home`.
    fn command(&self, home: &Home, args: &[&str]) -> Command {
        self.prefixed(home, &[env!("CARGO_BIN_EXE_xtask")], args)
    }

    fn prefixed(&self, home: &Home, program: &[&str], args: &[&str]) -> Command {
        let mut command = home.command(program[0]);
        image::keep_package_settings(&mut command);
        command.args(&program[1..]).args(["build-image", "--json"]).args(args).current_dir(&self.root);
        command.stdin(Stdio::null());
        command
    }
}

fn answer(mut command: Command) -> Value {
    let output = command.output().expect("xtask starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {err}"))
}

/// Exit code and error of a build that must fail.
fn failure(mut command: Command) -> (i32, String) {
    let output = command.output().expect("xtask starts");
    assert!(!output.status.success(), "{command:?} did not fail");
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn digests(answer: &Value) -> Vec<String> {
    let images = answer["images"].as_array().expect("images").iter().map(|image| &image["digest"]);
    images.chain([&answer["digest"]]).map(|digest| digest.as_str().expect("a digest").to_owned()).collect()
}

fn layers(answer: &Value) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    answer["layers"].as_array().expect("layers").iter().map(|l| (text(&l["platform"]), text(&l["digest"]))).collect()
}

fn cache(home: &Home) -> PathBuf {
    home.path().join("cache/mlflow-on-kubernetes")
}

/// A cache with all downloads and blobs of the locked image, made once for all runs of the tests.
fn full_cache() -> &'static Path {
    static FULL: OnceLock<PathBuf> = OnceLock::new();
    FULL.get_or_init(|| {
        let given = std::env::var_os("XTASK_TEST_CACHE").map(PathBuf::from);
        let folder = given.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"));
        let home = Home::new();
        let project = Project::new(home.path().join("project"));
        let mut command = project.command(&home, &["--locked"]);
        command.env("XDG_CACHE_HOME", &folder);
        answer(command);
        folder.join("mlflow-on-kubernetes")
    })
}

/// Puts a folder of the full cache into the home's, by links: nobody writes into such files.
fn lend(home: &Home, folder: &str) {
    image::copy_tree(&full_cache().join(folder), &cache(home).join(folder), &|from, to| {
        if fs::hard_link(from, to).is_err() {
            fs::copy(from, to).expect("a copy");
        }
    });
}

fn is_root() -> bool {
    fs::write("/proc/self/comm", "it").is_ok() && testbed::run(Path::new("/usr/bin/id"), &["-u"]).trim() == "0"
}

#[test]
fn the_image_is_the_same_wherever_and_by_whomever_it_is_built() {
    let planner = Home::new();
    let project = Project::new(planner.path().join("project"));
    let foretold = answer(project.command(&planner, &["--dry-run", "--locked"]));
    let foretold = foretold["digest"].as_str().expect("image.lock foretells all layers").to_owned();

    let first = {
        let home = Home::new();
        lend(&home, "downloads");
        let project = Project::new(home.path().join("project"));
        let out = format!("oci:{}", home.path().join("out").display());
        let mut command = project.command(&home, &["--locked", "--offline", "--output", &out]);
        command.env("LC_ALL", "C").env("TZ", "UTC");
        answer(command)
    };
    assert_eq!(first["digest"], foretold.as_str());

    let second = {
        let home = Home::new();
        lend(&home, "downloads");
        let project = Project::new(home.path().join("ein anderer/Ordner/ü"));
        let out = format!("oci:{}", home.path().join("aus").display());
        let script = "umask 077; exec \"$0\" \"$@\"";
        let program = ["sh", "-c", script, env!("CARGO_BIN_EXE_xtask")];
        let mut command = project.prefixed(&home, &program, &["--locked", "--offline", "--output", &out]);
        command.env("LC_ALL", "tr_TR.UTF-8").env("LANG", "ja_JP.EUC-JP").env("TZ", "Pacific/Kiritimati");
        command.env("PYTHONHASHSEED", "7").env("PYTHONPATH", "/nowhere").env("PYTHONOPTIMIZE", "2");
        answer(command)
    };
    assert_eq!(digests(&second), digests(&first));

    if !is_root() {
        return testbed::skip("only root can build as another user");
    }
    let third = {
        let home = Home::new();
        lend(&home, "downloads");
        let project = Project::new(home.path().join("project"));
        let program = home.path().join("xtask");
        fs::copy(env!("CARGO_BIN_EXE_xtask"), &program).expect("a copy");
        give_away(home.path());
        let user = format!("--reuid={NOBODY}");
        let group = format!("--regid={NOBODY}");
        let program = ["setpriv", &user, &group, "--clear-groups", program.to_str().expect("UTF-8")];
        let out = format!("oci:{}", home.path().join("out").display());
        answer(project.prefixed(&home, &program, &["--locked", "--offline", "--output", &out]))
    };
    assert_eq!(digests(&third), digests(&first));
}

/// Makes `nobody` the owner of all folders, and of files that are not shared.
fn give_away(path: &Path) {
    let meta = fs::symlink_metadata(path).expect("a file");
    if meta.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::read_dir(path).expect("a folder").for_each(|entry| give_away(&entry.expect("an entry").path()));
        chown(path, Some(NOBODY), Some(NOBODY)).expect("an owner");
    }
}

#[test]
fn what_the_registry_has_is_neither_built_nor_sent_again() {
    let Some(registry) = Registry::start() else { return };
    let repository = format!("{}/team/mlflow", registry.host());
    let push = ["--locked", "--push", "--repository", &repository];
    let home = Home::new();
    ["downloads", "blobs", "layers"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    let first = answer(project.command(&home, &push));
    assert!(first["pushed_bytes"].as_u64() > Some(50_000_000), "{first}");

    let again = answer(project.command(&home, &push));
    assert_eq!((&again["pushed_bytes"], &again["downloaded_bytes"]), (&0.into(), &0.into()));
    assert!(again["seconds"].as_f64() <= Some(0.3), "{}", again["seconds"]);
    assert_eq!(again["image"], format!("{repository}@{}", first["digest"].as_str().expect("a digest")));

    let elsewhere = Home::new();
    let project = Project::new(elsewhere.path().join("project"));
    let fresh = answer(project.command(&elsewhere, &push));
    assert_eq!((&fresh["pushed_bytes"], &fresh["downloaded_bytes"]), (&0.into(), &0.into()));
    assert!(fresh["seconds"].as_f64() <= Some(1.0), "{}", fresh["seconds"]);
    assert!(!cache(&elsewhere).join("downloads").exists() || is_empty(&cache(&elsewhere).join("downloads")));
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}

#[test]
fn one_changed_dependency_pushes_one_layer() {
    let Some(registry) = Registry::start() else { return };
    let repository = format!("{}/mlflow", registry.host());
    let home = Home::new();
    ["downloads", "blobs", "layers", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    let push = ["--push", "--repository", &repository];
    let before = answer(project.command(&home, &push));
    let blobs = stored(&registry);

    project.edit("requirements.lock", |text| {
        let lines = text.lines().filter(|line| !line.starts_with("certifi=="));
        // The hashes of the line that is gone would belong to the line before it.
        let mut kept = Vec::new();
        let mut dropping = false;
        for line in text.lines() {
            dropping = line.starts_with("certifi==") || dropping && line.starts_with(' ');
            if !dropping {
                kept.push(line);
            }
        }
        assert!(lines.count() < text.lines().count(), "certifi is not locked any more");
        kept.join("\n") + "\n" + OLD_CERTIFI
    });
    let after = answer(project.command(&home, &push));
    let (old, new) = (layers(&before), layers(&after));
    assert_eq!(new.difference(&old).count(), 2, "one layer of each platform");
    assert_eq!(old.len(), new.len());
    let sent: u64 = stored(&registry).difference(&blobs).map(|(_, size)| size).sum();
    assert!(sent > 0 && sent <= 2_000_000, "{sent} bytes are new in the registry");
    assert!(after["pushed_bytes"].as_u64() <= Some(2_000_000), "{}", after["pushed_bytes"]);

    // The same once more, with what this run has located: the time that a user waits.
    let lock = fs::read_to_string(project.root.join("mlflow_server/image.lock")).expect("a lock");
    assert!(lock.contains("2026.7.22"), "image.lock was not updated");
}

/// The blobs that the registry stores, with their sizes.
fn stored(registry: &Registry) -> BTreeSet<(PathBuf, u64)> {
    fn walk(folder: &Path, found: &mut BTreeSet<(PathBuf, u64)>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.ends_with("data") {
                found.insert((path.clone(), fs::metadata(&path).expect("a blob").len()));
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(&registry.folder(), &mut found);
    assert!(!found.is_empty(), "no blobs below {}", registry.folder().display());
    found
}

#[test]
fn a_damaged_blob_in_the_cache_is_built_again_and_never_pushed() {
    let Some(registry) = Registry::start() else { return };
    let repository = format!("{}/mlflow", registry.host());
    let home = Home::new();
    ["downloads", "blobs", "layers", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    let plan = answer(project.command(&home, &["--dry-run", "--locked"]));
    let of = |name: &str| {
        let layer = plan["layers"].as_array().expect("layers").iter().find(|layer| layer["name"] == name);
        cache(&home).join("blobs").join(&layer.expect("the layer")["digest"].as_str().expect("a digest")[7..])
    };
    let (flipped, truncated) = (of("numpy"), of("mlflow"));
    for (path, change) in [(&flipped, flip as fn(&mut Vec<u8>)), (&truncated, |bytes| bytes.truncate(100))] {
        let mut bytes = fs::read(path).expect("a blob");
        change(&mut bytes);
        // A new file: the old one is lent.
        fs::remove_file(path).expect("a removed file");
        fs::write(path, bytes).expect("a file");
    }
    let pushed = answer(project.command(&home, &["--locked", "--offline", "--push", "--repository", &repository]));
    assert_eq!(pushed["digest"], plan["digest"]);
    for path in [&flipped, &truncated] {
        let name = path.file_name().expect("a name").to_str().expect("hex");
        let sum = testbed::run(Path::new("/usr/bin/sha256sum"), &[path.to_str().expect("UTF-8")]);
        assert!(sum.starts_with(name), "{sum}");
    }
}

#[expect(clippy::ptr_arg, reason = "it stands beside a change that shortens the file")]
fn flip(bytes: &mut Vec<u8>) {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
}

#[test]
fn the_locks_decide_and_say_what_they_miss() {
    let home = Home::new();
    let check = |change: fn(&Project), args: &[&str], code: i32, expected: &[&str]| {
        let project = Project::new(home.path().join("project"));
        change(&project);
        let (found, error) = failure(project.command(&home, args));
        assert_eq!(found, code, "{args:?}: {error}");
        expected.iter().for_each(|expected| assert!(error.contains(expected), "{args:?}: {error}"));
        fs::remove_dir_all(&project.root).expect("a removed folder");
    };
    let unchanged = |_: &Project| {};
    check(unchanged, &["--offline"], 6, &["offline"]);
    check(unchanged, &["--push"], 3, &["no repository is known", "--repository"]);
    check(unchanged, &["--push", "--repository", "127.0.0.1:1/a:v1"], 2, &["more than a repository", "--tag"]);
    check(unchanged, &["--output", "tar:x"], 2, &["\"tar\" is not one of"]);
    check(unchanged, &["--platform", "linux/s390x"], 2, &["linux/s390x"]);
    let key_gone = |project: &Project| {
        project.edit("image.lock", |text| {
            let lines = text.lines().filter(|line| !line.contains("name = \"numpy\", kind"));
            lines.collect::<Vec<_>>().join("\n")
        });
    };
    check(key_gone, &["--locked"], 12, &["image.lock does not foretell numpy (linux/amd64), numpy (linux/arm64)"]);
    let wheel_gone = |project: &Project| {
        project.edit("image.lock", |text| {
            let lines = text.lines().filter(|line| !line.contains("numpy-"));
            lines.collect::<Vec<_>>().join("\n")
        });
    };
    check(wheel_gone, &["--locked"], 12, &["does not name the linux/amd64 wheels", "numpy", "cargo xtask lock"]);
    check(|project| project.edit("image.lock", |_| "layout = {".to_owned()), &[], 4, &["image.lock"]);
    check(|project| project.edit("requirements.lock", |text| text + "x>=1\n"), &[], 4, &["not pinned"]);
    check(|project| project.edit("Dockerfile", |text| text + "RUN x\n"), &[], 4, &["cannot follow RUN"]);
}

#[test]
fn a_lock_that_foretells_another_layer_is_an_error_that_names_it() {
    let home = Home::new();
    ["downloads", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    project.edit("image.lock", |text| {
        let line = text.lines().find(|line| line.contains("name = \"numpy\", kind")).expect("a line").to_owned();
        let at = line.find("digest = \"sha256:").expect("a digest") + "digest = \"sha256:".len();
        let wrong = format!("{}{}{}", &line[..at], "0".repeat(64), &line[at + 64..]);
        text.replacen(&line, &wrong, 1)
    });
    let (code, error) = failure(project.command(&home, &["--offline", "--platform", "linux/amd64"]));
    assert_eq!(code, 4, "{error}");
    assert!(
        error.contains("layer numpy (linux/amd64) is sha256:") && error.contains("foretold sha256:0000"),
        "{error}"
    );
}

#[test]
fn every_format_and_output_is_read_by_skopeo() {
    let Some(skopeo) = testbed::require("skopeo", "skopeo") else { return };
    let home = Home::new();
    ["downloads", "blobs", "layers", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    for (format, media_type) in [("splice", "tar+gzip"), ("gzip", "tar+gzip"), ("zstd", "tar+zstd")] {
        let (dir, file) = (home.file(&format!("{format}/oci")), home.file(&format!("{format}/image.tar")));
        let (oci, archive) = (format!("oci:{}", dir.display()), format!("docker-archive:{}", file.display()));
        let outputs = ["--offline", "--layer-format", format, "--output", &oci, "--output", &archive];
        let built = answer(project.command(&home, &outputs));
        let raw = testbed::run(&skopeo, &["inspect", "--raw", &format!("{oci}:latest")]);
        assert_eq!(built["digest"], format!("sha256:{}", sha256(&home, &raw)));
        // Copying decompresses every layer and compares it with its diff_id.
        let target = home.file(&format!("{format}/copy"));
        let target = format!("dir:{}", target.display());
        let args = ["--insecure-policy", "copy", "--quiet", "--dest-decompress", &format!("{oci}:latest"), &target];
        testbed::run(&skopeo, &args);
        let inspected: Value = serde_json::from_str(&testbed::run(&skopeo, &["inspect", &archive])).expect("JSON");
        assert_eq!(inspected["Labels"]["org.opencontainers.image.title"], "mlflow");
        let manifest = built["images"][0]["digest"].as_str().expect("a digest")[7..].to_owned();
        let text = fs::read_to_string(dir.join("blobs/sha256").join(manifest)).expect("a manifest");
        assert!(text.contains(media_type), "{text}");
    }
}

fn sha256(home: &Home, text: &str) -> String {
    let path = home.file("text");
    fs::write(&path, text).expect("a file");
    testbed::run(Path::new("/usr/bin/sha256sum"), &[path.to_str().expect("UTF-8")])[..64].to_owned()
}

#[test]
fn the_creation_time_is_the_locks_or_the_users() {
    let home = Home::new();
    ["downloads", "blobs", "layers", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    let created = |epoch: Option<&str>| {
        let mut command = project.command(&home, &["--offline", "--locked"]);
        command.envs(epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch)));
        let answer = answer(command);
        let config = &answer["images"][0]["config"].as_str().expect("a digest")[7..];
        let text = fs::read(cache(&home).join("blobs").join(config)).expect("a config");
        let config: Value = serde_json::from_slice(&text).expect("JSON");
        config["created"].as_str().expect("a time").to_owned()
    };
    let lock = fs::read_to_string(project.root.join("mlflow_server/debian.lock")).expect("a lock");
    assert!(lock.contains(&format!("date = \"{}\"", created(None))));
    assert_eq!(created(Some("1700000000")), "2023-11-14T22:13:20Z");
}

#[test]
fn the_bill_of_materials_is_valid_cyclonedx() {
    let Some(uv) = std::env::var_os("PATH").and_then(|_| testbed::require("python3", "python3")) else { return };
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cyclonedx");
    if !library.is_dir() {
        let part = library.with_extension("part");
        let target = part.to_str().expect("UTF-8");
        let package = "cyclonedx-python-lib[json-validation]";
        let output = testbed::command(&uv).args(["-m", "pip", "install", "-q", "--target", target, package]).output();
        if !output.is_ok_and(|output| output.status.success()) {
            return testbed::skip("pip cannot install cyclonedx-python-lib");
        }
        fs::rename(&part, &library).expect("a folder");
    }
    let home = Home::new();
    ["downloads", "blobs", "layers", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    let file = home.file("sbom.json");
    let path = file.to_str().expect("UTF-8");
    let built = answer(project.command(&home, &["--offline", "--locked", "--sbom", path]));
    let script = "import sys\n\
        from cyclonedx.validation.json import JsonStrictValidator\n\
        from cyclonedx.schema import SchemaVersion\n\
        error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())\n\
        sys.exit(str(error) if error else 0)";
    let output = testbed::command(&uv).args(["-c", script, path]).env("PYTHONPATH", &library).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let bill: Value = serde_json::from_str(&fs::read_to_string(&file).expect("a bill")).expect("JSON");
    let root = bill["metadata"]["component"]["purl"].as_str().expect("a purl").replace("%3A", ":");
    assert!(root.ends_with(built["digest"].as_str().expect("a digest")), "{root}");
    let purls: Vec<_> =
        bill["components"].as_array().expect("components").iter().map(|c| c["purl"].to_string()).collect();
    for part in ["pkg:pypi/mlflow@", "pkg:deb/debian/libc6@", "arch=amd64", "arch=arm64"] {
        assert!(purls.iter().any(|purl| purl.contains(part)), "no {part}");
    }
}

#[test]
fn debian_packages_that_no_server_has_any_more_are_resolved_again() {
    let home = Home::new();
    lend(&home, "downloads");
    lend(&home, "bytecode");
    let project = Project::new(home.path().join("project"));
    let locked = fs::read_to_string(project.root.join("mlflow_server/debian.lock")).expect("a lock");
    let gone = |line: &str| match line.contains("name = \"tzdata\"") {
        true => line.replace("sha256:", "sha256:0000").replace("/tzdata_", "/tzdata_0"),
        false => line.to_owned(),
    };
    // Digests keep their length.
    let shortened = |line: String| match line.split_once("sha256:0000") {
        Some((before, after)) => format!("{before}sha256:0000{}{}", &after[..60], &after[64..]),
        None => line,
    };
    project.edit("debian.lock", |text| text.lines().map(gone).map(shortened).collect::<Vec<_>>().join("\n"));
    assert_ne!(fs::read_to_string(project.root.join("mlflow_server/debian.lock")).expect("a lock"), locked);

    let registry = Registry::start();
    let mut args = vec!["--platform".to_owned(), image::platform()];
    if let Some(registry) = &registry {
        args.extend(["--push".to_owned(), "--repository".to_owned(), format!("{}/again", registry.host())]);
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = project.command(&home, &args).output().expect("xtask starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("no server has tzdata"), "{err}");
    let resolved = fs::read_to_string(project.root.join("mlflow_server/debian.lock")).expect("a lock");
    assert!(resolved.contains("tzdata") && !resolved.contains("/tzdata_0"), "{resolved}");
}
