//! docker and podman: whether one works here, and what it is told. Arguments are decided by pure
//! functions; nothing secret is among them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlflow_image::{Digest, layout};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program};

use super::image::{Config, Image};
use super::spec::{DATA, Spec};

/// How long an engine may take to answer a question. A daemon that hangs is none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// How long it may take to read an image of some 100 MB.
const LOADS_WITHIN: Duration = Duration::from_secs(600);
/// Between two looks at a container. A look costs a process.
pub const PAUSE: Duration = Duration::from_millis(300);
/// The name of our images in an engine.
const REPOSITORY: &str = "localhost/mlflow-on-kubernetes";
/// The label with the release's id.
pub const RELEASE: &str = "mlflow-on-kubernetes.release";
/// The label with the environment's folder: two users may both have an environment `local`.
pub const HOME: &str = "mlflow-on-kubernetes.home";

/// A program that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// docker.
    Docker,
    /// podman.
    Podman,
}

impl Tool {
    /// In the order in which they are tried.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];

    const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// What tells whether it works and whose containers root is: docker lists `name=rootless` among
    /// its security options.
    const fn question(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["info", "--format", "{{.ServerVersion}} {{.SecurityOptions}}"],
            Self::Podman => &["info", "--format", "{{.Version.Version}} rootless={{.Host.Security.Rootless}}"],
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A tool that answered.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Which one.
    pub tool: Tool,
    path: PathBuf,
    rootless: bool,
}

/// What an engine says about a container (docker inspect, podman inspect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether its process runs.
    pub running: bool,
    /// With what it ended, if it did.
    pub exit_code: i32,
    /// When it ended, RFC 3339.
    pub finished_at: String,
    /// The release in its label.
    pub release: Option<String>,
    /// The environment's folder in its label.
    pub home: Option<String>,
}

/// A container to start.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// Its name.
    pub name: &'a str,
    /// The image.
    pub image: Digest,
    /// The image's own environment, which need not be repeated.
    pub image_env: &'a [String],
    /// What runs in it.
    pub spec: &'a Spec,
    /// The port to publish on 127.0.0.1.
    pub port: Option<u16>,
    /// The release it is of.
    pub release: &'a str,
    /// The environment's folder.
    pub home: &'a Path,
}

/// The name of an image in an engine: its whole digest is the tag.
pub fn reference(image: &Digest) -> String {
    format!("{REPOSITORY}:{}", image.hex())
}

impl Engine {
    /// The tool, if it works; the error says why it does not.
    pub async fn open(tool: Tool, cancel: &CancellationToken) -> Result<Self> {
        let path =
            process::find(&[tool.name()]).ok_or_else(|| Error::new(Kind::Tool, format!("{tool} is not installed")))?;
        // podman installs a `docker` of its own, which is podman under another name.
        let shim = tool == Tool::Docker && {
            let version = Program::new(&path).arg("--version").ask(cancel, ANSWERS_WITHIN).await?;
            String::from_utf8_lossy(&version).starts_with("podman")
        };
        let tool = if shim { Tool::Podman } else { tool };
        let answer = Program::new(&path).args(tool.question()).ask(cancel, ANSWERS_WITHIN).await?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        // A docker client without a daemon answers, too: with no version.
        if !answer.starts_with(|first: char| first.is_ascii_digit()) {
            return Err(Error::new(Kind::Tool, format!("{tool} has no daemon that answers")));
        }
        let rootless = answer.contains("name=rootless") || answer.contains("rootless=true");
        Ok(Self { tool, path, rootless })
    }

    /// The tool that has run a container of ours; whether it still works is seen when it is asked.
    pub fn of(tool: Tool) -> Result<Self> {
        let path = process::find(&[tool.name()]).ok_or_else(|| {
            Error::new(Kind::Tool, format!("{tool} is not installed, but the server was started with it"))
        })?;
        Ok(Self { tool, path, rootless: false })
    }

    /// The first of `tools` that works; an error says why each was refused.
    pub async fn choose(tools: &[Tool], cancel: &CancellationToken) -> Result<Self> {
        let names: Vec<&str> = tools.iter().map(|tool| tool.name()).collect();
        process::first_that_works(
            tools,
            async |tool| Self::open(tool, cancel).await,
            |refused| {
                Error::new(Kind::Tool, format!("no container runs here with {}", names.join(" or ")))
                    .source(refused)
                    .hint(format!("install {}, or start its daemon or machine", names.join(" or ")))
            },
        )
        .await
    }

    async fn ask(&self, args: &[&str]) -> Result<String> {
        // Nothing here is long enough to be interrupted in its middle.
        let never = CancellationToken::new();
        let answer = Program::new(&self.path).args(args).ask(&never, ANSWERS_WITHIN).await?;
        Ok(String::from_utf8_lossy(&answer).trim().to_owned())
    }

    /// How to run `image`, if the engine has it.
    pub async fn image(&self, image: &Digest) -> Result<Option<Config>> {
        let reference = reference(image);
        let answer = match self.ask(&["image", "inspect", "--format", "{{json .Config}}", &reference]).await {
            Ok(answer) => answer,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let named = || format!("{} says nothing sensible about {reference}", self.tool);
        serde_json::from_str(&answer).map(Some).context(Kind::Tool, named)
    }

    /// Gives the engine the image, from the blobs in our cache.
    pub async fn load(&self, cache: &Cache, image: Image, cancel: &CancellationToken) -> Result<()> {
        let (reference, digests) = (reference(&image.digest), [image.digest, image.config_file.digest]);
        let dir = cache.dir("blobs")?;
        let write = move || -> Result<tempfile::NamedTempFile> {
            let named = || format!("cannot write an archive to {}", dir.display());
            let mut file =
                tempfile::Builder::new().prefix(".part-").suffix(".tar").tempfile_in(&dir).on_machine(named)?;
            let mut layers = Vec::new();
            for layer in &image.layers {
                let size = layer.blob.metadata().on_machine(|| "a layer of the image is missing")?.len();
                layers.push(mlflow_image::lock::LayerInfo { digest: layer.digest, diff_id: layer.diff_id, size });
            }
            let blob = |digest: &Digest| {
                let layer = image.layers.iter().find(|layer| layer.digest == *digest);
                layer.map(|layer| layer.blob.clone()).unwrap_or_default()
            };
            let (name, out) = (self::reference(&image.digest), file.as_file_mut());
            layout::write_docker_archive(out, &name, &image.manifest, &image.config_file, &layers, &blob)?;
            Ok(file)
        };
        let written = tokio::task::spawn_blocking(write).await;
        let file = written.context(Kind::Internal, || "writing an archive was cut short")??;
        let load = Program::new(&self.path).args(["load", "--quiet", "--input"]).arg(file.path());
        load.ask(cancel, LOADS_WITHIN).await?;
        // An id is the digest of the config, or of the manifest where containerd keeps the images.
        let id = self.ask(&["image", "inspect", "--format", "{{.Id}}", &reference]).await?;
        let id = id.trim_start_matches("sha256:");
        if digests.iter().any(|digest| digest.hex() == id) {
            return Ok(());
        }
        let message = format!("{} loaded another image than {}: {id}", self.tool, digests[0].short());
        Err(Error::new(Kind::Tool, message))
    }

    /// Removes our images but `keep`. One that a container still uses stays.
    pub async fn prune(&self, keep: &[Digest]) -> Result<()> {
        let all = self.ask(&["images", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY]).await?;
        let kept: Vec<String> = keep.iter().map(reference).collect();
        for name in all.lines().filter(|name| name.starts_with(REPOSITORY) && !kept.iter().any(|kept| kept == name)) {
            let _ = self.ask(&["rmi", name]).await;
        }
        Ok(())
    }

    /// The container called `name`, if there is one.
    pub async fn inspect(&self, name: &str) -> Result<Option<Seen>> {
        match self.ask(&["container", "inspect", "--format", "[{{json .State}},{{json .Config.Labels}}]", name]).await {
            Ok(answer) => parse_seen(&answer)
                .map(Some)
                .context(Kind::Tool, || format!("{} says nothing sensible about container {name}", self.tool)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a container and leaves it.
    pub async fn start(&self, launch: &Launch<'_>) -> Result<()> {
        let caller = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if launch.spec.data.to_string_lossy().contains(':') {
            let message = format!("{} cannot mount {}", self.tool, launch.spec.data.display());
            return Err(Error::new(Kind::Config, message).hint("name a data folder without a colon"));
        }
        let args = run_args(self.tool, &user_args(self.tool, self.rootless, caller, launch.spec), launch);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match self.ask(&args).await {
            Ok(_) => Ok(()),
            Err(error) => {
                // It exists by now, though it never ran.
                let _ = self.remove(launch.name).await;
                Err(Error::new(Kind::Machine, format!("{} cannot start container {}", self.tool, launch.name))
                    .source(error.lines().join("\n")))
            }
        }
    }

    /// SIGTERM, and SIGKILL to one that does not end within `grace`. Tells whether it ended by itself.
    pub async fn stop(&self, name: &str, grace: Duration) -> Result<bool> {
        let seconds = grace.as_secs().to_string();
        let stop = Program::new(&self.path).args(["stop", "-t", &seconds, name]);
        stop.ask(&CancellationToken::new(), grace + ANSWERS_WITHIN).await?;
        /// 128 + SIGKILL.
        const KILLED: i32 = 137;
        Ok(self.inspect(name).await?.is_none_or(|seen| seen.exit_code != KILLED))
    }

    /// Waits until it has ended; `None` when it was removed meanwhile. Looks again and again:
    /// `podman wait` takes 20 s more where nobody cleans up behind the container.
    pub async fn wait(&self, name: &str, cancel: &CancellationToken) -> Result<Option<Seen>> {
        loop {
            match self.inspect(name).await? {
                Some(seen) if seen.running => {}
                ended => return Ok(ended),
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = cancel.cancelled() => return Err(crate::commands::Run::interrupted()),
            }
        }
    }

    /// Removes it, running or not; nothing to remove is no error.
    pub async fn remove(&self, name: &str) -> Result<()> {
        match self.ask(&["rm", "--force", "--volumes", name]).await {
            Err(error) if !is_absent(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies what it printed to the end of `out`: all of it, or the last `lines` lines.
    pub async fn logs(&self, name: &str, lines: Option<usize>, out: std::fs::File) -> Result<()> {
        let lines = lines.map_or("all".to_owned(), |lines| lines.to_string());
        // podman knows no `all`.
        let tail = if lines == "all" { Vec::new() } else { vec!["--tail", lines.as_str()] };
        let program = Program::new(&self.path).arg("logs").args(tail).arg(name);
        let never = CancellationToken::new();
        let copied = program.copy(&never, out);
        let named = || format!("{} did not give the log of {name}", self.tool);
        tokio::time::timeout(ANSWERS_WITHIN, copied).await.context(Kind::Tool, named)?
    }

    /// Copies what it prints from now on to `out`, until it ends.
    pub async fn follow(&self, name: &str, out: std::fs::File, cancel: &CancellationToken) -> Result<()> {
        Program::new(&self.path).args(["logs", "--follow", "--tail", "0", name]).copy(cancel, out).await
    }
}

/// Both tools answer `no such container`, `no such image` or the like, in any case.
fn is_absent(error: &Error) -> bool {
    let text = error.lines().join("\n").to_lowercase();
    text.contains("no such") || text.contains("image not known")
}

fn parse_seen(text: &str) -> Result<Seen, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct State {
        running: bool,
        exit_code: i32,
        #[serde(default)]
        finished_at: String,
    }
    type Labels = Option<std::collections::BTreeMap<String, String>>;
    let (state, labels): (State, Labels) = serde_json::from_str(text)?;
    let mut labels = labels.unwrap_or_default();
    Ok(Seen {
        running: state.running,
        exit_code: state.exit_code,
        finished_at: state.finished_at,
        release: labels.remove(RELEASE),
        home: labels.remove(HOME),
    })
}

/// Who the program is in its container, so that it may write to the data folder, which is the
/// caller's, or, where the caller is root, the image's user's.
fn user_args(tool: Tool, rootless: bool, caller: (u32, u32), spec: &Spec) -> Vec<String> {
    let user = |uid: u32, gid: u32| format!("--user={uid}:{gid}");
    let (uid, gid) = (spec.uid, spec.gid);
    match (tool, rootless) {
        // The caller goes by the image's user (podman-run(1), --userns).
        (Tool::Podman, true) => vec![format!("--userns=keep-id:uid={uid},gid={gid}"), user(uid, gid)],
        // Root of a rootless docker is the caller, without capabilities.
        (Tool::Docker, true) => vec![user(0, 0)],
        (_, false) if caller.0 == 0 => vec![user(uid, gid)],
        (_, false) => vec![user(caller.0, caller.1)],
    }
}

fn run_args(tool: Tool, user: &[String], launch: &Launch<'_>) -> Vec<String> {
    let Launch { name, image, image_env, spec, port, release, home } = launch;
    let mut args = vec!["run".to_owned(), "--detach".to_owned(), "--pull=never".to_owned(), format!("--name={name}")];
    args.extend([format!("--label={RELEASE}={release}"), format!("--label={HOME}={}", home.display())]);
    args.extend_from_slice(user);
    let fixed = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--shm-size=256m"];
    args.extend(fixed.map(str::to_owned));
    args.push("--tmpfs=/tmp:rw,nosuid,nodev,size=256m,mode=1777".to_owned());
    // Z: a label of its own where SELinux watches; ignored elsewhere.
    args.push(format!("--volume={}:{DATA}:Z", spec.data.display()));
    let log: &[&str] = match tool {
        Tool::Docker => &["--log-driver=json-file", "--log-opt=max-size=10m", "--log-opt=max-file=3"],
        Tool::Podman => &["--log-driver=k8s-file", "--log-opt=max-size=10mb"],
    };
    args.extend(log.iter().map(|arg| (*arg).to_owned()));
    match port {
        Some(port) => args.push(format!("--publish=127.0.0.1:{port}:{port}")),
        None => args.push("--network=none".to_owned()),
    }
    for (key, value) in &spec.env {
        let pair = format!("{key}={value}");
        if !image_env.contains(&pair) {
            args.push(format!("--env={pair}"));
        }
    }
    args.push(format!("--workdir={}", spec.workdir.display()));
    let (program, rest) = spec.command.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    args.push(format!("--entrypoint={program}"));
    args.push(reference(image));
    args.extend_from_slice(rest);
    args
}

#[cfg(test)]
mod tests {
    use super::super::spec::Role;
    use super::*;

    fn spec() -> Spec {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        Spec {
            root: PathBuf::new(),
            data: "/home/u/data".into(),
            command: ["mlflow", "server"].map(str::to_owned).to_vec(),
            env: vec![pair("PATH", "/bin"), pair("MLFLOW_HOST", "0.0.0.0")],
            workdir: "/".into(),
            uid: 7,
            gid: 8,
            role: Role::Task,
        }
    }

    #[test]
    fn the_data_folder_is_the_programs_own_whoever_the_engine_runs_as() {
        let check = |tool, rootless, caller, expected: &[&str]| {
            assert_eq!(user_args(tool, rootless, caller, &spec()), expected, "{tool} {rootless} {caller:?}");
        };
        check(Tool::Podman, true, (1000, 100), &["--userns=keep-id:uid=7,gid=8", "--user=7:8"]);
        check(Tool::Docker, true, (1000, 100), &["--user=0:0"]);
        check(Tool::Docker, false, (1000, 100), &["--user=1000:100"]);
        check(Tool::Docker, false, (0, 0), &["--user=7:8"]);
        check(Tool::Podman, false, (0, 0), &["--user=7:8"]);
    }

    #[test]
    fn a_container_has_no_privileges_and_one_port_on_the_loopback() {
        let image = Digest::of("image");
        let (spec, env) = (spec(), ["PATH=/bin".to_owned()]);
        let launch = |port| Launch {
            name: "mlflow-local",
            image,
            image_env: &env,
            spec: &spec,
            port,
            release: "r1",
            home: Path::new("/home/u/local"),
        };
        let hex = image.hex();
        for (tool, port, log, network) in [
            (
                Tool::Docker,
                Some(5001),
                "--log-driver=json-file --log-opt=max-size=10m --log-opt=max-file=3",
                "--publish=127.0.0.1:5001:5001",
            ),
            (Tool::Podman, None, "--log-driver=k8s-file --log-opt=max-size=10mb", "--network=none"),
        ] {
            let found = run_args(tool, &["--user=7:8".to_owned()], &launch(port)).join(" ");
            let expected = format!(
                "run --detach --pull=never --name=mlflow-local --label={RELEASE}=r1 --label={HOME}=/home/u/local \
                 --user=7:8 --read-only --cap-drop=all --security-opt=no-new-privileges --shm-size=256m \
                 --tmpfs=/tmp:rw,nosuid,nodev,size=256m,mode=1777 --volume=/home/u/data:/data:Z {log} {network} \
                 --env=MLFLOW_HOST=0.0.0.0 --workdir=/ --entrypoint=mlflow {REPOSITORY}:{hex} server"
            );
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_an_engine_says_is_understood() {
        let docker = r#"[{"Status":"exited","Running":false,"Pid":0,"ExitCode":3,"FinishedAt":"2026-01-01T00:00:00Z"},
            {"mlflow-on-kubernetes.release":"r1","other":"x"}]"#;
        let seen = parse_seen(docker).unwrap();
        assert_eq!((seen.running, seen.exit_code, seen.release.as_deref()), (false, 3, Some("r1")));
        assert_eq!(seen.home, None);
        assert!(parse_seen(r#"[{"Running":true,"ExitCode":0},null]"#).unwrap().running);
        assert!(parse_seen("").is_err());
    }

    #[test]
    fn what_is_not_there_is_told_from_an_engine_that_fails() {
        for (said, expected) in [
            ("Error response from daemon: No such container: x", true),
            ("Error: no such container \"x\"", true),
            ("Error: x: image not known", true),
            ("Cannot connect to the Docker daemon", false),
        ] {
            assert_eq!(is_absent(&Error::new(Kind::Tool, "docker failed").source(said)), expected, "{said}");
        }
    }
}
