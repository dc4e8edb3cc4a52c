//! `deploy.toml` + environment variables + flags -> [`Config`]. Reads files, decides nothing.
//!
//! The command line beats an environment variable beats the file beats the default. Every value
//! remembers its origin.

pub mod cluster;
pub mod infra;
pub mod signing;
mod table;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mlflow_image::Platform;

use crate::error::{Context as _, Error, Kind, Result};
use crate::outputs::{self, Outputs};
use crate::repo;
use table::{Made, Table};

use cluster::{ClusterConfig, ClusterKind};
use infra::InfraConfig;
use signing::Signing;
pub use table::{Origin, Setting, did_you_mean};

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
    /// What `infra` makes for it; `None`: nothing.
    pub infra: Option<InfraConfig>,
    /// Where the server runs, as far as it is known before `infra` has made what it needs.
    environment: Environment,
    /// Whether `infra` has still to make what the environment needs.
    unmade: bool,
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
    /// What an image from a registry must have before it is deployed.
    pub require: BTreeSet<Requirement>,
    /// With what it is signed, and whose signature it must have.
    pub signing: Signing,
}

/// `image.require`: what must be attached to an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requirement {
    /// A bill of materials.
    Sbom,
    /// Who built it from what.
    Provenance,
    /// The signature of who is named by the settings beside it.
    Signature,
}

impl Requirement {
    const NAMES: [(&str, Self); 3] =
        [("sbom", Self::Sbom), ("provenance", Self::Provenance), ("signature", Self::Signature)];

    /// As it is written in `deploy.toml`.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, requirement)| *requirement == self).map_or("", |(name, _)| name)
    }
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
        resolve(&root, env, &text, &|name| std::env::var(name).ok(), &|env| outputs::read(&root, env))
    }
}

impl Config {
    /// Where the server runs.
    ///
    /// # Errors
    /// `Check` where `infra` has not made what it needs.
    pub fn environment(&self) -> Result<&Environment> {
        if !self.unmade {
            return Ok(&self.environment);
        }
        let env = &self.env;
        Err(Error::new(Kind::Check, format!("the infrastructure of environment {env} is not there yet")).hint(format!(
            "run `cargo xtask infra apply --env {env}`; or, where it exists, `cargo xtask infra outputs --env {env}`"
        )))
    }

    /// What `infra` makes for the environment.
    ///
    /// # Errors
    /// `Config` where `deploy.toml` says nothing about it.
    pub fn infra(&self) -> Result<&InfraConfig> {
        self.infra.as_ref().ok_or_else(|| {
            let message = format!("{FILE} has no table [environment.{}.infra]", self.env);
            Error::new(Kind::Config, message)
                .hint("add it, with at least project and region; deploy.toml shows every key")
        })
    }

    /// The settings of a server in a cluster as they are expected to become, where `infra` has still to
    /// make what it needs.
    pub fn foretold(&self) -> Option<&ClusterConfig> {
        match &self.environment {
            Environment::Cluster(cluster) => Some(cluster),
            Environment::Local(_) => None,
        }
    }

    /// The settings of a server in a cluster.
    ///
    /// # Errors
    /// `Usage` where the environment is on this machine; `Check` where `infra` has not made what it
    /// needs.
    pub fn cluster(&self) -> Result<&ClusterConfig> {
        match self.environment()? {
            Environment::Cluster(cluster) => Ok(cluster),
            Environment::Local(_) => {
                let message = format!("environment {} is on this machine, not in a cluster", self.env);
                Err(Error::new(Kind::Usage, message)
                    .hint("name another with --env: one whose kind in deploy.toml is kubernetes or gke"))
            }
        }
    }
}

/// Where the outputs of an environment's infrastructure are looked up.
type Noted<'a> = &'a dyn Fn(&str) -> Result<Option<Outputs>>;

fn resolve(
    root: &Path,
    env: &str,
    text: &str,
    vars: &dyn Fn(&str) -> Option<String>,
    noted: Noted<'_>,
) -> Result<Config> {
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
        read_environment(root, name, environments, image, &|_| None, &|_| Ok(None), &mut Vec::new())?;
    }
    read_environment(root, env, environments, image, vars, noted, &mut settings)
        .map(|config| Config { settings, ..config })
}

fn read_environment(
    root: &Path,
    name: &str,
    environments: &toml::Table,
    image: &toml::Table,
    vars: &dyn Fn(&str) -> Option<String>,
    noted: Noted<'_>,
    settings: &mut Vec<Setting>,
) -> Result<Config> {
    let empty = toml::Table::new();
    let own = Table::new("environment", "", environments, &|_| None, settings).raw(name)?.unwrap_or(&empty);

    let mut table = Table::new(&format!("environment.{name}"), "XTASK_", own, vars, settings);
    let own_image = table.raw("image")?.unwrap_or(&empty);
    let default = (name == LOCAL).then(|| LOCAL.to_owned());
    let kind = table.string("kind", default)?.ok_or_else(|| {
        Error::new(Kind::Config, format!("{FILE}: environment.{name} has no kind"))
            .hint(format!("add kind = \"...\": {}", KINDS.join(", ")))
    })?;
    let mut made = Made::new();
    let (mut infra, mut unmade) = (None, false);
    let environment = match kind.as_str() {
        "local" => {
            let local = local(root, &mut table)?;
            table.finish()?;
            Environment::Local(local)
        }
        "kubernetes" | "gke" => {
            let kind = if kind == "gke" { ClusterKind::Gke } else { ClusterKind::Kubernetes };
            let namespace = cluster::namespace(&mut table)?;
            infra = infra::read(name, kind, &namespace, &mut table)?;
            if let Some(infra) = &infra {
                let noted = noted(name)?;
                unmade = noted.is_none();
                made = noted.unwrap_or_else(|| Outputs::foretold(infra)).settings(name, infra);
            }
            let mut table = table.with_made(infra.is_some().then_some(&made), "");
            let cluster = cluster::read(root, kind, namespace, &mut table)?;
            table.finish()?;
            Environment::Cluster(Box::new(cluster))
        }
        other => {
            return Err(Error::new(Kind::Config, format!("{FILE}: environment.{name}.kind {other:?} is unknown"))
                .hint(did_you_mean(other, &KINDS)));
        }
    };

    let mut merged = image.clone();
    merged.extend(own_image.clone());
    let table = Table::new("image", "XTASK_IMAGE_", &merged, vars, settings);
    let image = read_image(root, table.with_made(Some(&made), "image."))?;
    Ok(Config {
        root: root.to_path_buf(),
        env: name.to_owned(),
        image,
        infra,
        environment,
        unmade,
        settings: Vec::new(),
    })
}

fn local(root: &Path, table: &mut Table<'_, '_>) -> Result<LocalConfig> {
    Ok(LocalConfig {
        port: table.integer("port", None)?,
        data: table.string("data", None)?.map(|dir| root.join(dir)),
        workers: table.integer("workers", Some(1))?.unwrap_or(1),
        sandbox: table.choice("sandbox", &Sandbox::NAMES, "auto")?,
    })
}

fn read_image(root: &Path, mut table: Table<'_, '_>) -> Result<ImageConfig> {
    let platform = |text: &String| {
        text.parse::<Platform>().map_err(|error| Error::new(Kind::Config, format!("{FILE}: image.platforms: {error}")))
    };
    let require = requirements(&mut table)?;
    let image = ImageConfig {
        repository: table.string("repository", None)?,
        tag: table.string("tag", Some("latest".to_owned()))?.unwrap_or_default(),
        platforms: table
            .strings("platforms", &["linux/amd64", "linux/arm64"])?
            .iter()
            .map(platform)
            .collect::<Result<_>>()?,
        debian_mirror: table.string("debian-mirror", None)?,
        signing: signing::read(root, &mut table, require.contains(&Requirement::Signature))?,
        require,
    };
    table.finish()?;
    Ok(image)
}

fn requirements(table: &mut Table<'_, '_>) -> Result<BTreeSet<Requirement>> {
    let words = table.strings("require", &[])?;
    let requirement = |word: &String| {
        let found = Requirement::NAMES.iter().find(|(name, _)| name == word).map(|(_, requirement)| *requirement);
        let known = Requirement::NAMES.map(|(name, _)| name);
        let unknown = || table.refuse("require", format!("{word:?} is unknown")).hint(did_you_mean(word, &known));
        found.ok_or_else(unknown)
    };
    words.iter().map(requirement).collect()
}

#[cfg(test)]
mod tests;
