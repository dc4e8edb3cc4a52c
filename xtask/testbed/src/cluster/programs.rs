//! Programs that are built: Kubernetes, the fake GCS, the Cloud SQL Auth Proxy, oauth2-proxy, actionlint, cosign,
//! a terraform provider. Their go.mod and go.sum pin every source; what was built is kept by a digest
//! over all that decides its bytes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use super::error::{Context as _, Error, Kind, Result};
use super::lock::Lock;
use super::options::Options;
use super::program;
use super::progress::Progress;

/// A Go module: its `tool` lines name what to build, or it is a program with sources of its own.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// Its name for people, and of its folder in the cache.
    pub name: &'static str,
    /// The version of what is built.
    pub version: &'static str,
    /// What is built.
    pub programs: &'static [&'static str],
    go_mod: &'static str,
    go_sum: &'static str,
    /// Its own sources by name; none where others' programs are built.
    sources: &'static [(&'static str, &'static str)],
    /// How the name of a program that Go would call otherwise is given.
    output: Option<&'static str>,
    /// Import path of the variables that hold the version; Kubernetes' components ask each other.
    version_variables: Option<&'static str>,
    /// Seconds of a build on two cores, for the user to know what to expect.
    seconds: u32,
}

/// Kubernetes.
pub const KUBERNETES: Module = Module {
    name: "kubernetes",
    version: "v1.36.2",
    programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl"],
    go_mod: include_str!("../../kubernetes/go.mod"),
    go_sum: include_str!("../../kubernetes/go.sum"),
    sources: &[],
    output: None,
    version_variables: Some("k8s.io/component-base/version"),
    seconds: 300,
};

/// A fake of Google Cloud Storage.
pub const FAKE_GCS: Module = Module {
    name: "fake-gcs-server",
    version: "v1.55.1",
    programs: &["fake-gcs-server"],
    go_mod: include_str!("../../fake-gcs-server/go.mod"),
    go_sum: include_str!("../../fake-gcs-server/go.sum"),
    sources: &[],
    output: None,
    version_variables: None,
    seconds: 60,
};

/// Google's proxy in front of Cloud SQL.
pub const CLOUD_SQL_PROXY: Module = Module {
    name: "cloud-sql-proxy",
    version: "v2.25.3",
    programs: &["cloud-sql-proxy"],
    go_mod: include_str!("../../cloud-sql-proxy/go.mod"),
    go_sum: include_str!("../../cloud-sql-proxy/go.sum"),
    sources: &[],
    // Go would call it by the last part of its path; newer versions by the one before v2.
    output: Some("cloud-sql-proxy"),
    version_variables: None,
    seconds: 30,
};

/// The proxy that asks for a login by OpenID Connect.
pub const OAUTH2_PROXY: Module = Module {
    name: "oauth2-proxy",
    version: "v7.15.6",
    programs: &["oauth2-proxy"],
    go_mod: include_str!("../../oauth2-proxy/go.mod"),
    go_sum: include_str!("../../oauth2-proxy/go.sum"),
    sources: &[],
    // Go would call it by the last part of its path; newer versions by the one before v7.
    output: Some("oauth2-proxy"),
    version_variables: None,
    seconds: 120,
};

/// The checker of GitHub's workflows.
pub const ACTIONLINT: Module = Module {
    name: "actionlint",
    version: "v1.7.12",
    programs: &["actionlint"],
    go_mod: include_str!("../../actionlint/go.mod"),
    go_sum: include_str!("../../actionlint/go.sum"),
    sources: &[],
    output: None,
    version_variables: None,
    seconds: 10,
};

/// What signs images, and verifies their signatures. Too long a build for each run of the tests: those that need
/// it are left out unless they are asked for.
pub const COSIGN: Module = Module {
    name: "cosign",
    version: "v3.1.3",
    programs: &["cosign"],
    go_mod: include_str!("../../cosign/go.mod"),
    go_sum: include_str!("../../cosign/go.sum"),
    sources: &[],
    output: None,
    // What it says when asked for its version.
    version_variables: Some("sigs.k8s.io/release-utils/version"),
    seconds: 250,
};

/// A stand-in for terraform's google provider, for tests.
#[rustfmt::skip]
pub const GOOGLE_PROVIDER: Module = Module {
    name: "terraform-provider-google",
    version: "v7.45.0",
    programs: &["terraform-provider-google"],
    go_mod: include_str!("../../terraform-provider-google/go.mod"),
    go_sum: include_str!("../../terraform-provider-google/go.sum"),
    sources: &[
        ("client.go", include_str!("../../terraform-provider-google/client.go")),
        ("compute.go", include_str!("../../terraform-provider-google/compute.go")),
        ("container.go", include_str!("../../terraform-provider-google/container.go")),
        ("conversions.go", include_str!("../../terraform-provider-google/conversions.go")),
        ("federation.go", include_str!("../../terraform-provider-google/federation.go")),
        ("main.go", include_str!("../../terraform-provider-google/main.go")),
        ("members.go", include_str!("../../terraform-provider-google/members.go")),
        ("network.go", include_str!("../../terraform-provider-google/network.go")),
        ("plan.go", include_str!("../../terraform-provider-google/plan.go")),
        ("project.go", include_str!("../../terraform-provider-google/project.go")),
        ("resource.go", include_str!("../../terraform-provider-google/resource.go")),
        ("resources.go", include_str!("../../terraform-provider-google/resources.go")),
        ("rest.go", include_str!("../../terraform-provider-google/rest.go")),
        ("schema.go", include_str!("../../terraform-provider-google/schema.go")),
        ("server.go", include_str!("../../terraform-provider-google/server.go")),
        ("sql.go", include_str!("../../terraform-provider-google/sql.go")),
        ("storage.go", include_str!("../../terraform-provider-google/storage.go")),
        ("values.go", include_str!("../../terraform-provider-google/values.go")),
    ],
    output: None,
    version_variables: None,
    seconds: 40,
};

/// All that the cluster's testbed runs.
pub const MODULES: &[Module] = &[KUBERNETES, FAKE_GCS, CLOUD_SQL_PROXY, OAUTH2_PROXY];

/// All that is built for tests, in the order in which they need it.
pub const FOR_TESTS: &[Module] = &[GOOGLE_PROVIDER, ACTIONLINT, KUBERNETES, FAKE_GCS, CLOUD_SQL_PROXY];

/// How long another run may build what this one needs.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The folder with the module's programs; builds them if they are not in the cache.
pub async fn provide(module: &Module, options: &Options, progress: &dyn Progress) -> Result<PathBuf> {
    provide_in(&options.cache, options.offline, module, progress).await
}

/// The same for those who have no testbed: below this cache, and without the network if `offline`.
pub async fn provide_in(cache: &Path, offline: bool, module: &Module, progress: &dyn Progress) -> Result<PathBuf> {
    let scratch = scratch(cache)?;
    let modules = [("go.mod", module.go_mod), ("go.sum", module.go_sum)];
    for (file, text) in modules.iter().chain(module.sources) {
        std::fs::write(scratch.path().join(file), text).on_machine(|| format!("cannot write {file}"))?;
    }
    let go = Go { program: go().await?, dir: scratch.path().to_owned(), offline };
    let version = program::read(go.command(&["env", "GOVERSION"]), b"", Duration::from_secs(300))
        .await
        .map_err(|error| error.hint(GO))?;
    let version = version.trim();
    let done = cache.join(format!("{}-{}", module.name, key(module, version, std::env::consts::ARCH)));
    if is_whole(&done, module) {
        return Ok(done);
    }
    let _lock = turn(cache, module, progress).await?;
    if is_whole(&done, module) {
        return Ok(done);
    }
    let what = format!("{} {} with {version}", module.name, module.version);
    progress.step("Building", &format!("{what} (once; about {} s on two idle cores)", module.seconds));
    let begun = Instant::now();
    let built = build(module, &go, progress).await?;
    // Another machine's half of a shared cache, or a half from before a crash.
    let _ = std::fs::remove_dir_all(&done);
    std::fs::rename(&built, &done).on_machine(|| format!("cannot move what was built to {}", done.display()))?;
    progress.step("Built", &format!("{what} in {:.0} s", begun.elapsed().as_secs_f64()));
    Ok(done)
}

/// The right to build it; waits for another run that does, and kept nothing if it fails.
async fn turn(cache: &Path, module: &Module, progress: &dyn Progress) -> Result<Lock> {
    let deadline = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match Lock::take(&cache.join(module.name)) {
            Err(error) if error.kind == Kind::Locked && Instant::now() < deadline => {
                if !std::mem::replace(&mut told, true) {
                    progress.step("Waiting", &format!("for another run, which builds {}", module.name));
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            taken => return taken,
        }
    }
}

/// How to get a Go that can build the programs.
pub const GO: &str = "install Go 1.21 or newer (https://go.dev/dl, or a golang-1.N-go package of Debian's backports); \
    it fetches the version that go.mod asks for by itself";

/// Where Go may be: in the PATH, where its own archive and where Debian's packages put it.
pub fn go_candidates() -> Vec<PathBuf> {
    let mut found = program::all("go");
    found.push("/usr/local/go/bin/go".into());
    let mut packaged: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    packaged.retain(|dir| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("go-1.")));
    // Newest first; all of them have two digits.
    packaged.sort_by(|a, b| b.cmp(a));
    found.extend(packaged.into_iter().map(|dir| dir.join("bin/go")));
    found.retain(|go| program::is_executable(go));
    found
}

/// Whether what `go version` says is a Go that fetches a newer one by itself: 1.21 or later.
pub fn is_recent_go(version: &str) -> bool {
    let number = version.split_ascii_whitespace().find_map(|word| word.strip_prefix("go1."));
    let minor = number.map(|rest| rest.split(|byte: char| !byte.is_ascii_digit()).next().unwrap_or_default());
    minor.and_then(|minor| minor.parse::<u32>().ok()).is_some_and(|minor| minor >= 21)
}

async fn go() -> Result<PathBuf> {
    let candidates = go_candidates();
    for go in &candidates {
        let mut command = program::command(go);
        command.arg("version").env("GOTOOLCHAIN", "local");
        if program::read(command, b"", Duration::from_secs(20)).await.is_ok_and(|version| is_recent_go(&version)) {
            return Ok(go.clone());
        }
    }
    let message = match candidates.first() {
        None => "go, which builds the testbed's programs, is not installed".to_owned(),
        Some(go) => format!("{} is too old to build the testbed's programs", go.display()),
    };
    Err(Error::new(Kind::Tool, message).hint(GO))
}

/// Where a build is done: below the cache, so that it can be moved there whole.
fn scratch(cache: &Path) -> Result<tempfile::TempDir> {
    let named = || format!("cannot make a folder in {}", cache.display());
    std::fs::create_dir_all(cache).on_machine(named)?;
    tempfile::Builder::new().prefix(".part-").tempdir_in(cache).on_machine(named)
}

async fn build(module: &Module, go: &Go, progress: &dyn Progress) -> Result<PathBuf> {
    let what = if module.sources.is_empty() { "tool" } else { "." };
    let packages = program::read(go.command(&["list", "-deps", what]), b"", Duration::from_secs(900)).await?;
    let done = progress.count(&format!("Building {}", module.name), packages.lines().count() as u64);
    let out = go.dir.join("bin");
    std::fs::create_dir(&out).on_machine(|| format!("cannot create {}", out.display()))?;
    let target = module.output.map_or_else(|| out.join(""), |name| out.join(name));
    let flags = linker_flags(module);
    let mut build = go.command(&["build", "-v", "-trimpath", "-ldflags", &flags, "-o"]);
    build.arg(&target).arg(what);
    // With -v each package is named when it is compiled; downloads are named too.
    program::watch(build, |line| done(u64::from(!line.starts_with("go: ")))).await?;
    match module.programs.iter().find(|name| !program::is_executable(&out.join(name))) {
        None => Ok(out),
        Some(name) => Err(Error::new(Kind::Tool, format!("go built {} without {name}", module.name))),
    }
}

/// The compiler in the folder of a module.
struct Go {
    program: PathBuf,
    dir: PathBuf,
    offline: bool,
}

impl Go {
    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = program::command(&self.program);
        command.args(args).current_dir(&self.dir);
        // No cgo: what is built must start in an empty image and next to any libc. No workspace of
        // the user's, and no build flags of theirs: they are not in the key.
        command.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOFLAGS", "-mod=readonly");
        if self.offline {
            command.env("GOPROXY", "off");
        }
        command
    }
}

fn linker_flags(module: &Module) -> String {
    let mut flags = "-s -w".to_owned();
    if let Some(package) = module.version_variables {
        let mut numbers = module.version.trim_start_matches('v').split('.');
        let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        for (name, value) in [("gitVersion", module.version), ("gitMajor", major), ("gitMinor", minor)] {
            flags.push_str(&format!(" -X {package}.{name}={value}"));
        }
    }
    flags
}

/// A digest over all that decides the bytes.
fn key(module: &Module, go_version: &str, architecture: &str) -> String {
    let mut hash = Sha256::new();
    let flags = linker_flags(module);
    let sources = module.sources.iter().flat_map(|(file, text)| [*file, *text]);
    for part in [module.go_mod, module.go_sum, &flags, go_version, architecture].into_iter().chain(sources) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn is_whole(dir: &Path, module: &Module) -> bool {
    module.programs.iter().all(|name| program::is_executable(&dir.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_the_one_that_go_mod_pins() {
        for module in MODULES.iter().chain([&ACTIONLINT, &COSIGN]) {
            let line = |line: &str| line.contains(module.name) && line.contains(module.version);
            assert!(module.go_mod.lines().any(line), "{} {}", module.name, module.version);
            assert_eq!(module.programs.len(), module.go_mod.matches("/cmd/").count().max(1), "{}", module.name);
        }
    }

    #[test]
    fn the_key_depends_on_everything_that_decides_the_bytes() {
        let base = key(&KUBERNETES, "go1.26.0", "x86_64");
        let other = Module { version: "v1.36.3", ..KUBERNETES };
        let keys = [
            base.clone(),
            key(&other, "go1.26.0", "x86_64"),
            key(&Module { go_sum: "", ..KUBERNETES }, "go1.26.0", "x86_64"),
            key(&Module { go_mod: "", ..KUBERNETES }, "go1.26.0", "x86_64"),
            key(&Module { sources: &[("main.go", "package main")], ..KUBERNETES }, "go1.26.0", "x86_64"),
            key(&Module { sources: &[("main.go", "package main\n")], ..KUBERNETES }, "go1.26.0", "x86_64"),
            key(&KUBERNETES, "go1.26.1", "x86_64"),
            key(&KUBERNETES, "go1.26.0", "aarch64"),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(base, key(&KUBERNETES, "go1.26.0", "x86_64"));
    }

    #[test]
    fn every_source_of_the_provider_is_built() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("terraform-provider-google");
        let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let go: std::collections::BTreeSet<String> = files.filter(|name| name.ends_with(".go")).collect();
        assert_eq!(go, GOOGLE_PROVIDER.sources.iter().map(|(name, _)| (*name).to_owned()).collect());
    }

    #[test]
    fn a_go_that_fetches_another_is_recent() {
        for (version, expected) in [
            ("go version go1.26.8 linux/amd64", true),
            ("go version go1.21.0 linux/amd64", true),
            ("go version go1.22rc1 linux/amd64", true),
            ("go version go1.19.8 linux/amd64", false),
            ("go version devel +abc", false),
            ("", false),
        ] {
            assert_eq!(is_recent_go(version), expected, "{version}");
        }
    }

    #[test]
    fn kubernetes_knows_its_version() {
        let flags = linker_flags(&KUBERNETES);
        assert!(flags.contains("k8s.io/component-base/version.gitVersion=v1.36.2"), "{flags}");
        assert!(flags.contains("version.gitMajor=1 ") && flags.ends_with("version.gitMinor=36"), "{flags}");
        assert_eq!(linker_flags(&FAKE_GCS), "-s -w");
    }
}
