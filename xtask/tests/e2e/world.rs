//! What all scenarios share: the cluster, the real image, and sites that are healthy already.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::Home;
use tokio::runtime::Runtime;

use crate::Result;
use crate::database::Server;
use crate::kube::Kube;
use crate::place::Place;
use crate::run::Running;
use crate::site::{Settings, Site};
use crate::stamp::Stamp;

/// A cold build takes minutes on a slow line.
pub const BUILD: Duration = Duration::from_secs(1200);

/// What all scenarios share.
pub struct World {
    /// Runs clients.
    pub runtime: tokio::runtime::Handle,
    /// The cluster.
    pub place: Place,
    /// The API server, as its administrator.
    pub kube: Kube,
    /// PostgreSQL, as its administrator.
    pub database: Server,
    /// The real image, by digest.
    pub image: String,
    /// The repository that it was pushed to.
    pub repository: String,
    /// Held by a scenario that uses the registry with a login, for another one stops it.
    pub login_registry: Mutex<()>,
    /// Whether `kubectl rollout status` is waited for to its own end.
    pub full: bool,
    /// Whether sites stay after the scenarios.
    pub keep: bool,
    /// Whether terraform's google provider is the real one, from terraform's registry.
    registry: bool,
    begun: Stamp,
    sites: AtomicU64,
    pool: Mutex<Vec<Parked>>,
    _runtime: Runtime,
}

/// A healthy site between two scenarios.
struct Parked {
    name: String,
    home: Home,
    root: PathBuf,
}

impl World {
    /// Connects, builds the image and pushes it.
    ///
    /// # Errors
    /// When any of it fails.
    pub fn new(place: Place, full: bool, keep: bool, registry: bool) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let kube = Kube::new(runtime.handle(), &place.kubeconfig)?;
        let database = Server::new(&place.database_admin()?)?;
        let repository = format!("{}/mlflow/server", place.registry);
        let image = build(&repository, None)?;
        Ok(Self {
            runtime: runtime.handle().clone(),
            place,
            kube,
            database,
            image,
            repository,
            login_registry: Mutex::default(),
            full,
            keep,
            registry,
            begun: Stamp::now(),
            sites: AtomicU64::new(0),
            pool: Mutex::default(),
            _runtime: runtime,
        })
    }

    /// What terraform is started with: its provider comes from nowhere but this machine's cache, unless it
    /// is to be the real one.
    ///
    /// # Errors
    /// When the stand-in for the provider cannot be made.
    pub fn terraform(&self) -> Result<Vec<(&'static str, OsString)>> {
        if self.registry {
            return Ok(Vec::new());
        }
        let cache = cache_home().join("mlflow-on-kubernetes/testbed");
        std::fs::create_dir_all(&cache)?;
        let mirror = self.runtime.block_on(testbed::terraform::prepare(&cache, &testbed::cluster::Silent));
        Ok(mirror.map_err(|error| format!("{error:?}"))?.environment())
    }

    /// A name that no other site has, in this run or another.
    pub fn unique(&self, name: &str) -> String {
        let number = self.sites.fetch_add(1, Ordering::Relaxed);
        format!("e2e-{name}-{}{number}", self.begun.short())
    }

    /// What a healthy site's deploy.toml says.
    pub fn settings(&self, name: &str) -> Settings {
        let emulator = ("STORAGE_EMULATOR_HOST".to_owned(), self.place.gcs.clone());
        Settings {
            lines: Vec::new(),
            context: self.place.context.clone(),
            kubeconfig: self.place.kubeconfig.clone(),
            replicas: 1,
            deadline: if self.full { 600 } else { 240 },
            soak: 5,
            memory: "1Gi".to_owned(),
            scratch: "256Mi".to_owned(),
            env: BTreeMap::from([emulator]),
            database_uri: self.database.uri(name),
            repository: self.repository.clone(),
            database: Vec::new(),
            backup: Vec::new(),
        }
    }

    /// A site where the real image serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn healthy(&self) -> Result<Site<'_>> {
        let parked = self.pool().pop();
        if let Some(Parked { name, home, root }) = parked {
            let mut site = Site::parked(self, name, home, root);
            site.reset()?;
            return Ok(site);
        }
        let site = Site::new(self, "site")?;
        site.deploy(&[])?.expect(0)?;
        Ok(site)
    }

    /// Takes a site back that is as healthy as it was.
    pub fn give_back(&self, site: Site<'_>) {
        let (name, home, root) = site.park();
        self.pool().push(Parked { name, home, root });
    }

    /// Removes the sites that nobody uses.
    pub fn clear(&self) {
        let parked: Vec<Parked> = self.pool().drain(..).collect();
        for Parked { name, home, root } in parked {
            if let Err(error) = Site::parked(self, name.clone(), home, root).close() {
                eprintln!("{name} is not removed: {error}");
            }
        }
    }

    fn pool(&self) -> MutexGuard<'_, Vec<Parked>> {
        self.pool.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Keeps what a failed scenario left; where files do not outlive the run, prints it.
    pub fn keep_dump(&self, name: &str, text: &str) {
        let path = folder().join(format!("{name}.txt"));
        eprintln!("what {name} left is in {}", path.display());
        if std::env::var_os("CI").is_some() {
            eprintln!("{text}");
        }
        if let Err(error) = std::fs::create_dir_all(folder()).and_then(|()| std::fs::write(&path, text)) {
            eprintln!("{}: {error}", path.display());
        }
    }
}

/// Where reports go: `target/e2e`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("cargo's target folder").join("e2e")
}

/// Downloads and layers, shared with the integration tests.
pub fn cache_home() -> PathBuf {
    let given = std::env::var_os("XTASK_TEST_CACHE").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
}

/// Lets a program know where packages come from: the machine's own settings.
pub fn keep_package_settings(command: &mut Command) {
    command.envs(package_settings());
}

/// The machine's own settings about where packages come from.
pub fn package_settings() -> impl Iterator<Item = (OsString, OsString)> {
    const KEPT: [&str; 6] = ["PIP_", "UV_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"];
    std::env::vars_os().filter(|(name, _)| {
        let name = name.to_str().unwrap_or_default().to_ascii_uppercase();
        KEPT.iter().any(|kept| name.starts_with(kept))
    })
}

/// The nodes' platform, which is this machine's.
pub fn platform() -> String {
    format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" })
}

/// Builds the real image and pushes it, with a user's name and password where the registry asks for
/// them; its reference by digest.
///
/// # Errors
/// When it cannot be built or pushed.
pub fn build(repository: &str, login: Option<(&str, &str)>) -> Result<String> {
    let home = Home::new();
    let root = home.path().join("project");
    crate::site::copy_project(&root)?;
    if let Some(login) = login {
        let (registry, _) = repository.split_once('/').ok_or("a repository without a registry")?;
        write_login(&home, registry, login)?;
    }
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    keep_package_settings(&mut command);
    let platform = platform();
    command
        .args(["build-image", "--json", "--push", "--repository", repository, "--platform", &platform])
        .env("CARGO_MANIFEST_DIR", &root)
        .env("XDG_CACHE_HOME", cache_home());
    let answer: Value = Running::start("xtask build-image --push", command)?.end(BUILD)?.expect(0)?.json()?;
    Ok(answer["image"].as_str().ok_or("build-image names no image")?.to_owned())
}

/// Logs a home's user in to a registry, as `docker login` does.
///
/// # Errors
/// When the file cannot be written.
pub fn write_login(home: &Home, registry: &str, (user, password): (&str, &str)) -> Result<()> {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    let config = json!({ "auths": { (registry): { "auth": auth } } });
    crate::site::write_private(&login_file(home), &config.to_string())
}

/// Where a home's user keeps logins.
pub fn login_file(home: &Home) -> PathBuf {
    home.file("docker/config.json")
}
