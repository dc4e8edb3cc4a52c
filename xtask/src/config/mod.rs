//! `deploy.toml` + environment variables + flags -> [`Config`]. Reads files, decides nothing.
//!
//! The command line beats an environment variable beats the file beats the default. Every value
//! remembers its origin.

pub mod cluster;
mod table;

use std::path::{Path, PathBuf};

use mlflow_image::Platform;

use crate::error::{Context as _, Error, Kind, Result};
use crate::repo;
use table::Table;

use cluster::ClusterConfig;
#[cfg(test)]
use table::Origin;
pub use table::{Setting, did_you_mean};

/// The file at the repository's root.
const FILE: &str = "deploy.toml";

/// The environment that exists without a `deploy.toml`.
pub const LOCAL: &str = "local";

/// The kinds of environments.
const KINDS: [&str; 3] = [LOCAL, "kubernetes", "gke"];

/// The settings of one environment, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    /// The repository's root.
    pub root: PathBuf,
    /// The environment's name.
    pub env: String,
    /// What to build and where to push it.
    pub image: ImageConfig,
    /// Where the server runs.
    pub environment: Environment,
    /// All settings with their origins, in the order they were read.
    pub settings: Vec<Setting>,
}

/// `[image]`, overridden key by key in `[environment.NAME.image]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageConfig {
    /// `registry/path` to push to, without a tag. `None`: the image stays on this machine.
    pub repository: Option<String>,
    /// The tag to give a pushed image.
    pub tag: String,
    /// The platforms to build for.
    pub platforms: Vec<Platform>,
    /// The Debian mirror to take packages from: the URL of the folder that holds `dists` and
    /// `pool`. `None`: what this host's apt uses, else Debian's snapshots.
    pub debian_mirror: Option<String>,
}

/// Where the server runs, by kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Environment {
    /// The built image in a sandbox of this machine.
    Local(LocalConfig),
    /// A Kubernetes cluster.
    Cluster(Box<ClusterConfig>),
}

/// `kind = "local"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// The loopback port; `None`: the port of the last deploy, else the first free one from 5000.
    pub port: Option<u16>,
    /// The folder of database and artifacts; `None`: below the user's data folder.
    pub data: Option<PathBuf>,
    /// Worker processes of the server.
    pub workers: u16,
    /// How to run the image.
    pub sandbox: Sandbox,
}

/// `sandbox`: what the image runs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// Namespaces where they work, else docker, else podman.
    #[default]
    Auto,
    /// Linux namespaces.
    Namespaces,
    /// A container of docker.
    Docker,
    /// A container of podman.
    Podman,
}

impl Sandbox {
    const NAMES: [(&str, Self); 4] =
        [("auto", Self::Auto), ("namespaces", Self::Namespaces), ("docker", Self::Docker), ("podman", Self::Podman)];
}

impl Config {
    /// Reads `deploy.toml` of this checkout and resolves the environment `env`.
    pub fn load(env: &str) -> Result<Self> {
        let root = repo::root()?;
        let path = root.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).context(Kind::Config, || format!("cannot read {}", path.display())),
        };
        resolve(&root, env, &text, &|name| std::env::var(name).ok())
    }
}

impl Config {
    /// The settings of a server in a cluster.
    ///
    /// # Errors
    /// `Usage` where the environment is on this machine.
    pub fn cluster(&self) -> Result<&ClusterConfig> {
        match &self.environment {
            Environment::Cluster(cluster) => Ok(cluster),
            Environment::Local(_) => {
                let message = format!("environment {} is on this machine, not in a cluster", self.env);
                Err(Error::new(Kind::Usage, message)
                    .hint("name another with --env: one whose kind in deploy.toml is kubernetes or gke"))
            }
        }
    }
}

fn resolve(root: &Path, env: &str, text: &str, vars: &dyn Fn(&str) -> Option<String>) -> Result<Config> {
    let file: toml::Table =
        text.parse().map_err(|error| Error::new(Kind::Config, format!("{FILE} is not valid TOML")).source(error))?;
    let empty = toml::Table::new();
    let mut settings = Vec::new();

    let mut top = Table::new("", "", &file, &|_| None, &mut settings);
    let image = top.raw("image")?.unwrap_or(&empty);
    let environments = top.raw("environment")?.unwrap_or(&empty);
    top.finish()?;

    let mut names: Vec<&str> = environments.keys().map(String::as_str).collect();
    if !names.contains(&LOCAL) {
        names.push(LOCAL);
    }
    if !names.contains(&env) {
        let error = Error::new(Kind::Config, format!("{FILE} has no environment {env:?}"));
        return Err(error.hint(table::did_you_mean(env, &names)));
    }
    // A mistake in another environment is a mistake too.
    for name in names.iter().filter(|name| **name != env) {
        read_environment(root, name, environments, image, &|_| None, &mut Vec::new())?;
    }
    let (image, environment) = read_environment(root, env, environments, image, vars, &mut settings)?;
    Ok(Config { root: root.to_path_buf(), env: env.to_owned(), image, environment, settings })
}

fn read_environment(
    root: &Path,
    name: &str,
    environments: &toml::Table,
    image: &toml::Table,
    vars: &dyn Fn(&str) -> Option<String>,
    settings: &mut Vec<Setting>,
) -> Result<(ImageConfig, Environment)> {
    let empty = toml::Table::new();
    let own = Table::new("environment", "", environments, &|_| None, settings).raw(name)?.unwrap_or(&empty);

    let mut table = Table::new(&format!("environment.{name}"), "XTASK_", own, vars, settings);
    let own_image = table.raw("image")?.unwrap_or(&empty);
    let kind = table.string("kind", (name == LOCAL).then(|| LOCAL.to_owned()))?;
    let environment = match kind.as_deref() {
        Some("local") => Environment::Local(LocalConfig {
            port: table.integer("port", None)?,
            data: table.string("data", None)?.map(|dir| root.join(dir)),
            workers: table.integer("workers", Some(1))?.unwrap_or(1),
            sandbox: sandbox(name, table.string("sandbox", Some("auto".to_owned()))?.as_deref())?,
        }),
        Some("kubernetes") => {
            Environment::Cluster(Box::new(cluster::read(root, cluster::ClusterKind::Kubernetes, &mut table)?))
        }
        Some("gke") => Environment::Cluster(Box::new(cluster::read(root, cluster::ClusterKind::Gke, &mut table)?)),
        Some(other) => {
            return Err(Error::new(Kind::Config, format!("{FILE}: environment.{name}.kind {other:?} is unknown"))
                .hint(did_you_mean(other, &KINDS)));
        }
        None => {
            return Err(Error::new(Kind::Config, format!("{FILE}: environment.{name} has no kind"))
                .hint(format!("add kind = \"...\": {}", KINDS.join(", "))));
        }
    };
    table.finish()?;

    let mut merged = image.clone();
    merged.extend(own_image.clone());
    let mut table = Table::new("image", "XTASK_IMAGE_", &merged, vars, settings);
    let image = ImageConfig {
        repository: table.string("repository", None)?,
        tag: table.string("tag", Some("latest".to_owned()))?.unwrap_or_default(),
        platforms: table
            .strings("platforms", &["linux/amd64", "linux/arm64"])?
            .iter()
            .map(|text| {
                text.parse::<Platform>()
                    .map_err(|error| Error::new(Kind::Config, format!("{FILE}: image.platforms: {error}")))
            })
            .collect::<Result<_>>()?,
        debian_mirror: table.string("debian-mirror", None)?,
    };
    table.finish()?;
    Ok((image, environment))
}

fn sandbox(env: &str, text: Option<&str>) -> Result<Sandbox> {
    let text = text.unwrap_or("auto");
    let found = Sandbox::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, sandbox)| *sandbox).ok_or_else(|| {
        let names = Sandbox::NAMES.map(|(name, _)| name);
        Error::new(Kind::Config, format!("environment.{env}.sandbox {text:?} is unknown"))
            .hint(table::did_you_mean(text, &names))
    })
}

#[cfg(test)]
mod tests;
