//! The peers: mlflow_server/Dockerfile (two stages, uv) by buildah or docker, and the recipe that
//! most people start from (one stage, pip) by buildah.
//!
//! Base images, uv and all wheels are on this machine before anything is timed, as our downloads are.

use std::fs;
use std::path::{Path, PathBuf};

use super::measure::{self, Cost};
use super::registry::Registry;
use super::storage::Storage;
use super::{Contender, Outcome};
use crate::cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::Program;

const DOCKERFILE: &str = "mlflow_server/Dockerfile";

/// The image that a peer builds, in its own storage.
const IMAGE: &str = "localhost/xtask-bench/mlflow:latest";
/// The base of the Dockerfile's first stage, with uv and the wheels.
const BUILD_BASE: &str = "localhost/xtask-bench/build:latest";
const WHEELS: &str = "/wheels";

/// What the seed of this project, and most guides, install.
const SEED_PACKAGES: [&str; 3] = ["mlflow", "psycopg2", "google-cloud-storage"];

/// The base images to use in place of those that the recipes name.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct BaseArgs {
    /// The base of the Dockerfile's first stage, in any form that buildah pulls (docker.io/...,
    /// oci:DIR, oci-archive:FILE) [default: the Dockerfile's BUILD_BASE].
    #[arg(long, value_name = "IMAGE")]
    build_base: Option<String>,
    /// The base of the Dockerfile's last stage [default: the Dockerfile's BASE].
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// The base of the seed's recipe.
    #[arg(long, value_name = "IMAGE", default_value = "docker.io/library/python:3.10")]
    seed_base: String,
}

/// What all peers are prepared from.
pub struct Inputs<'a> {
    /// The repository.
    pub root: &'a Path,
    /// A folder with the wheels of all cases, by file name.
    pub wheels: &'a Path,
    /// uv.
    pub uv: &'a Path,
    /// The bases.
    pub bases: &'a BaseArgs,
    /// The dependency's two versions, as `name==version`: before and after the change.
    pub dependency: [&'a str; 2],
}

/// A peer that is ready to build.
pub struct Peer {
    contender: Contender,
    engine: Engine,
    dir: PathBuf,
    /// The base of the last stage.
    base: String,
    dependency: [String; 2],
}

enum Engine {
    Buildah(Storage),
    Docker(PathBuf),
}

impl Peer {
    /// Pulls the bases and puts uv and the wheels where the build finds them.
    pub async fn prepare(run: &Run, contender: Contender, inputs: &Inputs<'_>, dir: &Path) -> Result<Self> {
        cache::create_dir(dir)?;
        let engine = match contender {
            Contender::Docker => Engine::Docker(docker()?),
            _ => Engine::Buildah(Storage::create(dir)?),
        };
        let dependency = inputs.dependency.map(str::to_owned);
        let mut peer = Self { contender, engine, dir: dir.to_owned(), base: String::new(), dependency };
        if contender == Contender::Seed {
            peer.base = peer.pull(run, &inputs.bases.seed_base).await?;
            peer.download_seed_wheels(run).await?;
            return Ok(peer);
        }
        let dockerfile = inputs.root.join(DOCKERFILE);
        let dockerfile =
            fs::read_to_string(&dockerfile).context(Kind::Input, || format!("cannot read {}", dockerfile.display()))?;
        let of = |given: &Option<String>, name: &str| match given {
            Some(given) => Ok(given.clone()),
            None => default_of(&dockerfile, name),
        };
        peer.base = peer.pull(run, &of(&inputs.bases.base, "BASE")?).await?;
        let build_base = peer.pull(run, &of(&inputs.bases.build_base, "BUILD_BASE")?).await?;
        peer.make_build_base(run, &build_base, inputs).await?;
        Ok(peer)
    }

    /// Builds and pushes `root`; `fresh` uses no layer of an earlier build. `changed`: with the
    /// other version of the dependency.
    pub async fn build(
        &self,
        run: &Run,
        root: &Path,
        fresh: bool,
        changed: bool,
        registry: &Registry,
    ) -> Result<Outcome> {
        let context = match self.contender {
            Contender::Seed => self.seed_context(root, changed)?,
            _ => root.join("mlflow_server"),
        };
        let mut args = vec!["--build-arg".to_owned(), format!("BASE={}", self.base)];
        if self.contender != Contender::Seed {
            args.extend(["--build-arg".to_owned(), format!("BUILD_BASE={BUILD_BASE}")]);
        }
        if fresh {
            args.push("--no-cache".to_owned());
        }
        let mut built = self.build_image(run, IMAGE, &context, &args).await?;
        let target = format!("{}:{}", registry.repository(), registry.tag());
        let pushed = self.push(run, &target).await?;
        let push_seconds = Some(pushed.seconds);
        built.seconds += pushed.seconds;
        built.cpu_seconds += pushed.cpu_seconds;
        Ok(Outcome { cost: built, push_seconds, downloaded_bytes: None })
    }

    /// Removes what is not below the bench's own folder.
    pub async fn tidy_up(&self) {
        if let Engine::Docker(docker) = &self.engine {
            // What is not there needs no removal.
            let _ = Program::new(docker).args(["image", "rm", "--force", IMAGE, BUILD_BASE]).read();
        }
    }

    async fn pull(&self, run: &Run, image: &str) -> Result<String> {
        run.ui.step("Pulling", format!("{image}, {}", self.contender.title()));
        let program = match &self.engine {
            Engine::Buildah(storage) => storage.buildah("pull")?.args(["--quiet", image]),
            Engine::Docker(docker) => Program::new(docker).args(["pull", "--quiet", image]),
        };
        let cost = measure::timed(run, self.tool(), program, &self.dir).await.map_err(|error| match error.kind() {
            Kind::Interrupted => error,
            _ => Error::new(Kind::Remote, format!("cannot pull {image}")).source(error),
        })?;
        match &self.engine {
            Engine::Buildah(_) => Ok(cost.stdout.trim().to_owned()),
            Engine::Docker(_) => Ok(image.to_owned()),
        }
    }

    async fn make_build_base(&self, run: &Run, base: &str, inputs: &Inputs<'_>) -> Result<()> {
        run.ui.step("Preparing", format!("uv and wheels, {}", self.contender.title()));
        let context = self.dir.join("build-base");
        cache::create_dir(&context.join("wheels"))?;
        let copy = |from: &Path, to: &Path| {
            fs::copy(from, to).map(drop).on_machine(|| format!("cannot copy {}", from.display()))
        };
        copy(inputs.uv, &context.join("uv"))?;
        for entry in fs::read_dir(inputs.wheels).on_machine(|| "cannot list the wheels")? {
            let path = entry.on_machine(|| "cannot list the wheels")?.path();
            copy(&path, &context.join("wheels").join(path.file_name().unwrap_or_default()))?;
        }
        // uv's own settings: nothing but the folder is asked.
        let settings = format!("no-index = true\nfind-links = [{WHEELS:?}]\n");
        cache::write(&context.join("uv.toml"), settings.as_bytes())?;
        let dockerfile = format!(
            "ARG BASE\nFROM ${{BASE}}\nCOPY uv /usr/local/bin/uv\nCOPY uv.toml /etc/uv/uv.toml\nCOPY wheels {WHEELS}\n"
        );
        cache::write(&context.join("Dockerfile"), dockerfile.as_bytes())?;
        let args = ["--build-arg".to_owned(), format!("BASE={base}")];
        self.build_image(run, BUILD_BASE, &context, &args).await?;
        Ok(())
    }

    /// Builds the seed's wheels with the seed's own Python, both versions of the dependency among them.
    async fn download_seed_wheels(&self, run: &Run) -> Result<()> {
        let Engine::Buildah(storage) = &self.engine else { return Ok(()) };
        run.ui.step("Preparing", format!("wheels, {}", self.contender.title()));
        let wheels = self.seed_wheels()?;
        let from = storage.buildah("from")?.args(["--quiet", &self.base]);
        let container = measure::timed(run, self.tool(), from, &self.dir).await?.stdout.trim().to_owned();
        for packages in [&SEED_PACKAGES[..], &[&self.dependency[0]], &[&self.dependency[1]]] {
            let program = storage
                .buildah("run")?
                .arg(format!("--volume={}:{WHEELS}", wheels.display()))
                .args([&container, "--", "python3", "-m", "pip", "wheel", "--quiet", "--wheel-dir", WHEELS])
                .args(packages);
            measure::timed(run, "pip", program, &self.dir).await?;
        }
        Ok(())
    }

    fn seed_wheels(&self) -> Result<PathBuf> {
        let wheels = self.dir.join("wheels");
        cache::create_dir(&wheels)?;
        Ok(wheels)
    }

    /// The seed has no files of its own; where one changes in our image, an added one changes there.
    fn seed_context(&self, root: &Path, changed: bool) -> Result<PathBuf> {
        let context = self.dir.join("context");
        let _ = fs::remove_dir_all(&context);
        let own = root.join("mlflow_server/rootfs/etc/mlflow/logging.yaml");
        cache::create_dir(&context)?;
        fs::copy(&own, context.join("own")).on_machine(|| format!("cannot copy {}", own.display()))?;
        let dependency = &self.dependency[usize::from(changed)];
        let packages = SEED_PACKAGES.join(" ");
        let dockerfile = format!(
            "ARG BASE\nFROM ${{BASE}}\nRUN python3 -m pip install --no-index --find-links {WHEELS} {packages} {dependency}\n\
             COPY own /etc/mlflow/logging.yaml\nENTRYPOINT [\"mlflow\", \"server\"]\n"
        );
        cache::write(&context.join("Dockerfile"), dockerfile.as_bytes())?;
        Ok(context)
    }

    async fn build_image(&self, run: &Run, name: &str, context: &Path, args: &[String]) -> Result<Cost> {
        let program = match &self.engine {
            Engine::Buildah(storage) => {
                let mut program = storage.buildah("build")?.args(["--layers", "--pull=false", "--quiet"]);
                if self.contender == Contender::Seed {
                    program = program.arg(format!("--volume={}:{WHEELS}:ro", self.seed_wheels()?.display()));
                }
                program
            }
            Engine::Docker(docker) => Program::new(docker).args(["build", "--quiet"]),
        };
        let program = program.args(["--tag", name]).args(args).arg(context);
        measure::timed(run, self.tool(), program, &self.dir).await
    }

    async fn push(&self, run: &Run, target: &str) -> Result<Cost> {
        match &self.engine {
            Engine::Buildah(storage) => {
                let program = storage.buildah("push")?.args(["--quiet", "--tls-verify=false", IMAGE]);
                measure::timed(run, self.tool(), program.arg(format!("docker://{target}")), &self.dir).await
            }
            Engine::Docker(docker) => {
                Program::new(docker).args(["tag", IMAGE, target]).read()?;
                let program = Program::new(docker).args(["push", "--quiet", target]);
                let cost = measure::timed(run, self.tool(), program, &self.dir).await;
                Program::new(docker).args(["image", "rm", target]).read()?;
                cost
            }
        }
    }

    fn tool(&self) -> &'static str {
        match self.engine {
            Engine::Buildah(_) => "buildah",
            Engine::Docker(_) => "docker",
        }
    }
}

/// docker, where its daemon answers.
fn docker() -> Result<PathBuf> {
    let docker = crate::process::require("docker", "Debian, Ubuntu: apt-get install docker.io")?;
    match Program::new(&docker).args(["version", "--format", "{{.Server.Version}}"]).read() {
        Ok(_) => Ok(docker),
        Err(error) => Err(Error::new(Kind::Tool, "no docker daemon answers").source(error)),
    }
}

/// The default of a Dockerfile's `ARG`, with the registry that docker would add.
fn default_of(dockerfile: &str, name: &str) -> Result<String> {
    let value = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("ARG ")?.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value.trim()))
        .ok_or_else(|| Error::new(Kind::Input, format!("{DOCKERFILE} has no default for ARG {name}")))?;
    let has_registry = value.split_once('/').is_some_and(|(host, _)| host.contains(['.', ':']) || host == "localhost");
    Ok(match (has_registry, value.contains('/')) {
        (true, _) => value.to_owned(),
        (false, true) => format!("docker.io/{value}"),
        (false, false) => format!("docker.io/library/{value}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_named_with_its_registry() {
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(default_of(&format!("# x\n{line}\nFROM ${{A}}\n"), "A").ok().as_deref(), expected, "{line}");
        };
        check("ARG A=python:3.13", Some("docker.io/library/python:3.13"));
        check("ARG A=bitnami/python", Some("docker.io/bitnami/python"));
        check("ARG A=gcr.io/distroless/python3", Some("gcr.io/distroless/python3"));
        check("ARG A=localhost/x", Some("localhost/x"));
        check("ARG B=python:3.13", None);
        check("ARG A", None);
    }
}
