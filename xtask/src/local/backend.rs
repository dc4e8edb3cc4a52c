//! The two ways to run an image on this machine, behind one interface: Linux namespaces, or the
//! containers of docker or podman where namespaces are forbidden or unknown.

use mlflow_image::Digest;
use tokio_util::sync::CancellationToken;

use crate::cache::{self, Cache};
use crate::commands::Run;
use crate::config::Sandbox;
use crate::error::{Context as _, Error, Kind, Result};
use crate::report;

use super::engine::{Engine, Launch, Tool};
use super::image::{Config, Image};
use super::spec::{Container, Exit, Process, Role, Running};
use super::state::{Home, Release};
use super::{container, rootfs, runner, sandbox, server};

/// How images are run here.
#[derive(Clone, Debug)]
pub enum Backend {
    /// In Linux namespaces: images are unpacked into the cache.
    Namespaces,
    /// In containers: images are loaded into the engine.
    Engine(Engine),
}

impl Backend {
    /// What works here, of what was asked for. `running` is what runs now: it evidently works.
    pub async fn choose(run: &Run, cache: &Cache, choice: Sandbox, running: Option<&Running>) -> Result<Self> {
        let (backend, instead) = Self::pick(cache, choice, running, &run.cancel).await?;
        if let (Some(tool), Some(why)) = (backend.tool(), instead) {
            run.ui.warn(format!("the server runs in {tool}, not in a sandbox of its own: {why}"));
        }
        Ok(backend)
    }

    /// The same, and why it is not what is tried first.
    pub async fn pick(
        cache: &Cache,
        choice: Sandbox,
        running: Option<&Running>,
        cancel: &CancellationToken,
    ) -> Result<(Self, Option<String>)> {
        let engine = async |tools: &[Tool]| Engine::choose(tools, cancel).await.map(Self::Engine);
        match (choice, running.map(|running| &running.process)) {
            (Sandbox::Namespaces, _) | (Sandbox::Auto, Some(Process::Sandbox(_))) => Ok((Self::Namespaces, None)),
            (Sandbox::Docker, _) => Ok((engine(&[Tool::Docker]).await?, None)),
            (Sandbox::Podman, _) => Ok((engine(&[Tool::Podman]).await?, None)),
            (Sandbox::Auto, Some(Process::Container(container))) => Ok((engine(&[container.engine]).await?, None)),
            (Sandbox::Auto, None) => {
                let Err(forbidden) = tokio::task::block_in_place(|| sandbox::probe(cache)) else {
                    return Ok((Self::Namespaces, None));
                };
                let why = forbidden.lines().join(": ");
                match engine(&Tool::ALL).await {
                    Ok(engine) => Ok((engine, Some(why))),
                    Err(error) if error.kind() == Kind::Interrupted => Err(error),
                    Err(error) => {
                        let engines = error.lines().join(": ");
                        let hint = forbidden.hint_text().map_or(String::new(), |hint| format!("; or {hint}"));
                        Err(Error::new(Kind::Machine, "nothing on this machine can run the server")
                            .source(format!("{why}\n{engines}"))
                            .hint(format!("install docker or podman, or start its daemon{hint}")))
                    }
                }
            }
        }
    }

    /// The one that an earlier release was run with.
    pub async fn of(tool: Option<Tool>, cancel: &CancellationToken) -> Result<Self> {
        match tool {
            None => Ok(Self::Namespaces),
            Some(tool) => Engine::choose(&[tool], cancel).await.map(Self::Engine),
        }
    }

    /// The tool that keeps the images, if it is not our own cache.
    pub fn tool(&self) -> Option<Tool> {
        match self {
            Self::Namespaces => None,
            Self::Engine(engine) => Some(engine.tool),
        }
    }

    /// How to run `image`, if it is there.
    pub async fn open(&self, cache: &Cache, image: &Digest) -> Result<Option<Config>> {
        match self {
            Self::Namespaces => Ok(rootfs::open(cache, image)?.map(|unpacked| unpacked.config)),
            Self::Engine(engine) => engine.image(image).await,
        }
    }

    /// Makes `image` ready to be started.
    pub async fn install(&self, run: &Run, cache: &Cache, image: Image) -> Result<()> {
        match self {
            Self::Namespaces => {
                let cache = cache.clone();
                let work = tokio::task::spawn_blocking(move || rootfs::unpack(&cache, &image));
                tokio::select! {
                    done = work => done.context(Kind::Internal, || "a task panicked")?,
                    () = run.cancel.cancelled() => Err(Run::interrupted()),
                }
            }
            Self::Engine(engine) => engine.load(cache, image, &run.cancel).await,
        }
    }

    /// Starts the server of `release` and leaves it.
    pub async fn start(&self, cache: &Cache, home: &Home, release: &Release) -> Result<()> {
        match self {
            Self::Namespaces => {
                let image = unpacked(cache, release)?;
                let role = Role::Server {
                    running: home.running_path(),
                    ended: home.ended_path(),
                    release: Box::new(release.clone()),
                };
                let spec = server::spec(server::Place::Sandbox(&image.root), &image.config, release, role)?;
                server::prepare_data(&spec.data, spec.uid, spec.gid)?;
                tokio::task::block_in_place(|| sandbox::start(&spec, &home.log_path())).map(drop)
            }
            Self::Engine(engine) => {
                let image = loaded(engine, release).await?;
                let spec = server::spec(server::Place::Container, &image, release, Role::Task)?;
                server::prepare_data(&spec.data, spec.uid, spec.gid)?;
                let name = container::server_name(home);
                container::make_room(engine, home, &name).await?;
                let container = Container { engine: engine.tool, name: name.clone() };
                let process = Process::Container(container);
                let record = Running { process, release: release.clone(), started_at: report::now() };
                // Before it runs: whatever happens from here on, the next command knows where to look.
                write_json(&home.running_path(), &record)?;
                // What is printed comes here when it has ended.
                runner::append(&home.log_path())?;
                let launch = Launch {
                    name: &name,
                    image: release.image,
                    image_env: &image.env,
                    spec: &spec,
                    port: Some(release.port),
                    release: &release.id,
                    home: &home.dir,
                };
                let started = engine.start(&launch).await;
                if started.is_err() {
                    let _ = std::fs::remove_file(home.running_path());
                }
                started
            }
        }
    }

    /// Brings the database to the image's schema; what that prints goes to the log.
    pub async fn migrate(&self, run: &Run, cache: &Cache, home: &Home, release: &Release) -> Result<Exit> {
        match self {
            Self::Namespaces => {
                let image = unpacked(cache, release)?;
                let spec = server::migration(server::Place::Sandbox(&image.root), &image.config, release)?;
                server::prepare_data(&spec.data, spec.uid, spec.gid)?;
                let task = tokio::task::block_in_place(|| sandbox::start(&spec, &home.log_path()))?;
                let interrupt = task.interrupt()?;
                let mut waiting = tokio::task::spawn_blocking(move || task.wait());
                let exit = tokio::select! {
                    exit = &mut waiting => exit,
                    () = run.cancel.cancelled() => {
                        interrupt.end();
                        waiting.await
                    }
                };
                exit.context(Kind::Internal, || "the migration's watcher panicked")?
            }
            Self::Engine(engine) => {
                let image = loaded(engine, release).await?;
                let spec = server::migration(server::Place::Container, &image, release)?;
                server::prepare_data(&spec.data, spec.uid, spec.gid)?;
                let name = container::task_name(home);
                container::make_room(engine, home, &name).await?;
                let record = Container { engine: engine.tool, name: name.clone() };
                write_json(&home.task_path(), &record)?;
                let launch = Launch {
                    name: &name,
                    image: release.image,
                    image_env: &image.env,
                    spec: &spec,
                    port: None,
                    release: &release.id,
                    home: &home.dir,
                };
                engine.start(&launch).await?;
                let waited = engine.wait(&name, &run.cancel).await;
                let logged = engine.logs(&name, None, runner::append(&home.log_path())?).await;
                engine.remove(&name).await?;
                let _ = std::fs::remove_file(home.task_path());
                let seen = waited?;
                logged?;
                let lost = || Error::new(Kind::Tool, format!("container {name} was removed by someone else"));
                Ok(container::exit(&seen.ok_or_else(lost)?))
            }
        }
    }
}

fn unpacked(cache: &Cache, release: &Release) -> Result<rootfs::Unpacked> {
    rootfs::open(cache, &release.image)?.ok_or_else(|| {
        Error::new(Kind::Machine, format!("image {} is not in the cache any more", release.image.short()))
    })
}

async fn loaded(engine: &Engine, release: &Release) -> Result<Config> {
    engine.image(&release.image).await?.ok_or_else(|| {
        let message = format!("{} does not have image {} any more", engine.tool, release.image.short());
        Error::new(Kind::Machine, message).hint("run the same command again: the image is loaded again")
    })
}

fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).context(Kind::Internal, || "cannot write JSON")?;
    cache::write(path, &text)
}
