//! `lock` against a Debian mirror and a package index of its own, and against the real ones.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use mlflow_image::lock::{DebianLock, ImageLock, Requirements};
use mlflow_image::{Digest, Platform};
use pgp::composed::{ArmorOptions, CleartextSignedMessage, KeyType, SecretKeyParamsBuilder, SignedSecretKey};
use pgp::types::{KeyDetails as _, Password};
use rand08::rngs::OsRng;
use testbed::{Home, Service, free_port};

/// A checkout with inputs of its own, a mirror and an index, all below one home.
struct World {
    home: Home,
    key: SignedSecretKey,
    _mirror: Service,
    port: u16,
    uv: PathBuf,
}

/// The folder of uv: from the PATH, else installed by pip, once for all tests. `None`, and the test
/// counted as skipped, where neither will do.
fn uv() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = INSTALLED.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Some(dir) = std::env::split_paths(&path).find(|dir| dir.join("uv").is_file()) {
            return Some(dir);
        }
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("uv");
        let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sources/uv.txt");
        let mut pip = Home::new().command("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target"]);
        let installed = target.join("bin/uv").is_file()
            || pip.arg(&target).arg("-r").arg(list).current_dir("/").status().is_ok_and(|status| status.success());
        installed.then(|| target.join("bin"))
    });
    if found.is_none() {
        testbed::skip("uv is not installed, and pip can't install it");
    }
    found.clone()
}

/// Puts uv's folder onto a program's PATH.
fn with_uv(mut command: Command, uv: &Path) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(uv.to_path_buf()).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).expect("a PATH"));
    command
}

impl World {
    /// `None` where uv or python3, which serves the files, is not installed.
    fn new() -> Option<Self> {
        testbed::require("python3", "python3")?;
        testbed::require("xz", "xz-utils")?;
        let uv = uv()?;
        let home = Home::new();
        let mut params = SecretKeyParamsBuilder::default();
        params.key_type(KeyType::Ed25519).can_certify(true).can_sign(true).primary_user_id("Test".into());
        let key = params.build().unwrap().generate(OsRng).unwrap();

        let port = free_port();
        fs::create_dir_all(home.file("www/debian/dists/trixie/x")).unwrap();
        let mut server = home.command("python3");
        server.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]).arg(home.file("www"));
        let mut mirror = Service::start(
            {
                server.arg(port.to_string());
                server
            },
            home.file("mirror.log"),
        );
        mirror.wait_for(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));

        let index = format!("[pip]\nno-index = true\nfind-links = [\"http://127.0.0.1:{port}/wheels/\"]\n");
        fs::write(home.file("config/uv/uv.toml"), index).unwrap();

        let world = Self { home, key, _mirror: mirror, port, uv };
        world.input("Cargo.toml", "");
        world.input("mlflow_server/requirements.in", "alpha\n");
        world.input("mlflow_server/overrides.txt", "gamma ; python_version < '3'\n");
        let public = world.key.to_public_key();
        let fingerprint: String = public.fingerprint().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        world.input("mlflow_server/debian.in", &format!("suite trixie\nkey {fingerprint}\nlibone\nwithout libtwo\n"));
        let armored = public.to_armored_string(ArmorOptions::default()).unwrap();
        world.input("mlflow_server/debian-archive-keyring.asc", &armored);
        world.publish("1.0-1");
        world.wheel("alpha", "1.0", &["beta", "gamma"]);
        world.wheel("beta", "1.0", &[]);
        Some(world)
    }

    fn root(&self) -> PathBuf {
        self.home.path().join("checkout")
    }

    fn input(&self, path: &str, text: &str) {
        fs::write(self.home.file(&format!("checkout/{path}")), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root().join("mlflow_server").join(name)).unwrap()
    }

    /// Puts a signed suite with one package onto the mirror.
    fn publish(&self, version: &str) {
        let suite = self.home.path().join("www/debian/dists/trixie");
        let mut entries = String::new();
        for cpu in ["amd64", "arm64"] {
            let hash = Digest::of(format!("{version}{cpu}")).hex();
            let text = format!(
                "Package: libone\nVersion: {version}\nDepends: libtwo\nFilename: pool/libone_{cpu}.deb\nSize: 9\nSHA256: {hash}\n"
            );
            let path = format!("main/binary-{cpu}/Packages.xz");
            let file = self.home.file(&format!("www/debian/dists/trixie/{path}"));
            fs::write(file.with_extension(""), text).unwrap();
            assert!(testbed::command("xz").arg("-kf").arg(file.with_extension("")).status().unwrap().success());
            let packed = fs::read(&file).unwrap();
            entries += &format!(" {} {} {path}\n", Digest::of(&packed).hex(), packed.len());
        }
        let release =
            format!("Suite: stable\nCodename: trixie\nDate: Sat, 21 Nov 2020 09:15:44 UTC\nSHA256:\n{entries}");
        let signed = CleartextSignedMessage::sign(OsRng, &release, &self.key.primary_key, &Password::empty()).unwrap();
        fs::write(suite.join("InRelease"), signed.to_armored_string(ArmorOptions::default()).unwrap()).unwrap();
    }

    fn wheel(&self, name: &str, version: &str, needs: &[&str]) {
        let needs: String = needs.iter().map(|need| format!("Requires-Dist: {need}\\n")).collect();
        let script = format!(
            "import sys,zipfile\nz=zipfile.ZipFile(sys.argv[1],'w')\nd='{name}-{version}.dist-info/'\n\
             z.writestr('{name}.py','')\nz.writestr(d+'METADATA','Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n{needs}')\n\
             z.writestr(d+'WHEEL','Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\nz.writestr(d+'RECORD','')\nz.close()"
        );
        let file = self.home.file(&format!("www/wheels/{name}-{version}-py3-none-any.whl"));
        assert!(self.home.command("python3").args(["-c", &script]).arg(file).status().unwrap().success());
    }

    fn lock(&self, args: &[&str]) -> Output {
        let mut command = with_uv(self.home.command(env!("CARGO_BIN_EXE_xtask")), &self.uv);
        let mirror = format!("http://127.0.0.1:{}/debian", self.port);
        command.current_dir(self.root()).args(["lock", "--json"]).args(args);
        command.env("XTASK_IMAGE_DEBIAN_MIRROR", mirror);
        command.output().unwrap()
    }
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn moved(output: &Output) -> Vec<String> {
    let value = json(output);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("-").to_owned();
    let rows = value["moved"].as_array().unwrap_or_else(|| panic!("{output:?}"));
    rows.iter().map(|row| format!("{} {} {}", text(&row["name"]), text(&row["from"]), text(&row["to"]))).collect()
}

#[test]
fn locks_are_resolved_kept_upgraded_and_checked() {
    let Some(world) = World::new() else { return };
    let missing = world.lock(&["--check"]);
    assert_eq!(missing.status.code(), Some(12), "{missing:?}");

    let dry = world.lock(&["--dry-run"]);
    assert_eq!(moved(&dry), ["alpha - 1.0", "beta - 1.0", "libone - 1.0-1"], "{dry:?}");
    assert!(!world.root().join("mlflow_server/requirements.lock").exists());

    let first = world.lock(&["--no-build"]);
    assert_eq!(json(&first)["written"].as_array().map(Vec::len), Some(3), "{first:?}");
    let requirements = Requirements::parse("lock", &world.read("requirements.lock")).unwrap();
    let debian = DebianLock::parse("lock", &world.read("debian.lock")).unwrap();
    let image = ImageLock::parse("lock", &world.read("image.lock")).unwrap();
    // The index tells no sizes, so they were measured.
    let wheel = fs::read(world.home.path().join("www/wheels/beta-1.0-py3-none-any.whl")).unwrap();
    for platform in Platform::ALL {
        let locked = &image.wheel[&platform][1];
        assert_eq!((locked.sha256, locked.size), (Digest::of(&wheel), wheel.len() as u64));
        assert_eq!(debian.packages(platform).unwrap()[0].name, "libone");
    }
    assert_eq!(requirements.0[1].hashes, [Digest::of(&wheel)]);
    for name in ["requirements.lock", "debian.lock", "image.lock"] {
        assert!(!world.read(name).contains("127.0.0.1"), "{name} holds an address");
    }
    assert_eq!(json(&world.lock(&["--check"]))["ok"], true);

    // Something newer of everything: Debian moves, Python only when asked to.
    world.wheel("beta", "1.1", &[]);
    world.publish("1.0-2");
    assert_eq!(moved(&world.lock(&["--no-build"])), ["libone 1.0-1 1.0-2"]);
    assert_eq!(moved(&world.lock(&["--no-build"])), Vec::<String>::new());
    assert_eq!(moved(&world.lock(&["--no-build", "--upgrade", "alpha"])), Vec::<String>::new());
    assert_eq!(moved(&world.lock(&["--no-build", "--upgrade"])), ["beta 1.0 1.1"]);

    // The full set is remembered by the lock.
    world.wheel("gamma", "1.0", &[]);
    assert_eq!(moved(&world.lock(&["--no-build", "--set", "full"])), ["gamma - 1.0"]);
    assert_eq!(moved(&world.lock(&["--no-build"])), Vec::<String>::new());
    assert_eq!(json(&world.lock(&["--check"]))["ok"], true);

    world.input("mlflow_server/requirements.in", "alpha<2\n");
    let stale = world.lock(&["--check", "--offline"]);
    assert_eq!(stale.status.code(), Some(12));
    assert!(String::from_utf8_lossy(&stale.stdout).contains("requirements.in changed"), "{stale:?}");
}

#[test]
fn a_mirror_that_lies_changes_no_lock() {
    let Some(world) = World::new() else { return };
    let first = world.lock(&["--no-build"]);
    assert!(first.status.success(), "{first:?}");
    let before = world.read("debian.lock");
    let www = world.home.path().join("www/debian/dists/trixie");
    let check = |path: &Path, change: &dyn Fn(&str) -> String, code: i32, expected: &str| {
        world.publish("1.0-2");
        let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        fs::write(path, change(&text)).unwrap();
        let output = world.lock(&["--no-build"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected), "{said:?} should contain {expected:?}");
        assert_eq!(world.read("debian.lock"), before);
    };
    let release = www.join("InRelease");
    check(&release, &|text| text.replace("2020", "2021"), 4, "not signed by a key that is trusted");
    check(&release, &|_| "Suite: stable\n".to_owned(), 4, "not signed by a key that is trusted");
    check(&www.join("main/binary-arm64/Packages.xz"), &|_| "other".to_owned(), 4, "instead of");
    world.publish("1.0-2");
    fs::remove_file(www.join("main/binary-arm64/Packages.xz")).unwrap();
    let gone = world.lock(&["--no-build"]);
    assert_eq!(gone.status.code(), Some(6), "{gone:?}");
    assert_eq!(world.read("debian.lock"), before);
}

#[test]
fn the_committed_locks_follow_from_their_inputs() {
    let home = Home::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let output =
        home.command(env!("CARGO_BIN_EXE_xtask")).current_dir(root).args(["lock", "--check"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// The real indices and mirrors, as this machine's uv and apt know them.
#[test]
fn the_real_indices_resolve_to_what_can_be_locked() {
    let Some(uv) = uv() else { return };
    let home = Home::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("mlflow_server");
    for name in ["requirements.in", "overrides.txt", "debian.in", "debian-archive-keyring.asc"] {
        fs::copy(from.join(name), home.file(&format!("checkout/mlflow_server/{name}"))).unwrap();
    }
    fs::write(home.file("checkout/Cargo.toml"), "").unwrap();
    // This machine's way to the network.
    let reach = ["SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "https_proxy", "UV_DEFAULT_INDEX", "UV_INDEX_URL"];
    let reach = || reach.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut probe = home.command(uv.join("uv"));
    probe.envs(reach());
    probe.args(["pip", "compile", "-", "--quiet", "--no-python-downloads"]).stdin(std::process::Stdio::piped());
    let mut probe = probe.stdout(std::process::Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut probe.stdin.take().unwrap(), b"six\n").unwrap();
    if !probe.wait().unwrap().success() {
        testbed::skip("there is no package index within reach");
        return;
    }
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.envs(reach());
    let output =
        command.current_dir(home.path().join("checkout")).args(["lock", "--no-build", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| fs::read_to_string(home.path().join("checkout/mlflow_server").join(name)).unwrap();
    let requirements = Requirements::parse("lock", &read("requirements.lock")).unwrap();
    let names: Vec<&str> = requirements.0.iter().map(|one| one.name.as_str()).collect();
    for name in ["mlflow", "mlflow-skinny", "mlflow-tracing", "fastapi", "uvicorn", "psycopg2-binary", "flask-wtf"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    for name in ["scipy", "pyarrow", "scikit-learn", "matplotlib"] {
        assert!(!names.contains(&name), "{name} is in {names:?}");
    }
    let debian = DebianLock::parse("lock", &read("debian.lock")).unwrap();
    assert_eq!(debian.suite, "trixie");
}
