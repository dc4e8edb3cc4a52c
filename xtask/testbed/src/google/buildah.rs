//! Builds carried out with buildah, as Cloud Build does it with docker.

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use super::builds::{BuildHook, BuildRequest};
use crate::home::Home;
use crate::tool;

/// The builder whose steps are understood.
const DOCKER: &str = "gcr.io/cloud-builders/docker";
/// The platform of this machine.
const PLATFORM: &str = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
/// How long buildah may tidy up before it is killed.
const TIDY_UP: Duration = Duration::from_secs(5);
/// Between two looks at a running buildah.
const PAUSE: Duration = Duration::from_millis(50);

/// A buildah with a storage of its own. What it builds it pushes to registries of this machine only.
#[derive(Debug)]
pub struct Buildah {
    program: PathBuf,
    home: Home,
}

impl Buildah {
    /// `None` where it is not installed, or where it may not build: the test is then skipped.
    pub fn find() -> Option<Self> {
        let program = tool::require("buildah", "buildah")?;
        if !tool::is_root() {
            tool::skip("buildah builds as root here");
            return None;
        }
        let home = Home::new();
        // buildah insists on the file that DOCKER_CONFIG names.
        std::fs::write(home.file("docker/config.json"), "{}").expect("a file");
        // Overlays would stay mounted where a build is cancelled.
        let storage = home.path().join("storage");
        let text = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{0}/root\"\nrunroot = \"{0}/run\"\n",
            storage.display()
        );
        std::fs::write(home.file("storage.conf"), text).expect("a file");
        Some(Self { program, home })
    }

    /// Makes a base image of the files of a folder.
    pub fn base(&self, name: &str, folder: &Path) {
        let context = tempfile::tempdir_in(self.home.path()).expect("a folder");
        let dockerfile = context.path().join("Dockerfile");
        std::fs::write(&dockerfile, "FROM scratch\nCOPY . /\n").expect("a file");
        let mut command = self.command(&["build", "--quiet", "--tag", name, "--file"]);
        let output = command.arg(dockerfile).arg(folder).stdin(Stdio::null()).output().expect("buildah starts");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// What the steps of a build have printed.
    pub fn log(&self, id: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file(id)).unwrap_or_default()).into_owned()
    }

    fn log_file(&self, id: &str) -> PathBuf {
        self.home.path().join(format!("{id}.log"))
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&self.program);
        // Its sandbox needs neither cgroups nor a network of its own.
        command
            .args(args)
            .env("CONTAINERS_STORAGE_CONF", self.home.path().join("storage.conf"))
            .env("BUILDAH_ISOLATION", "chroot")
            .env("BUILDAH_FORMAT", "docker");
        command
    }

    /// Runs it to its end, or until the build is cancelled; whether it succeeded.
    fn run(&self, mut command: Command, request: &BuildRequest) -> Result<(), String> {
        let log = File::options().create(true).append(true).open(self.log_file(&request.id));
        let (out, err) =
            log.and_then(|log| Ok((log.try_clone()?, log))).map_err(|error| format!("the build's log: {error}"))?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        let mut child = command.spawn().map_err(|error| format!("buildah: {error}"))?;
        let group = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
        let ended = loop {
            match child.try_wait() {
                Ok(None) if request.cancelled.is_cancelled() => {
                    let _ = killpg(group, Signal::SIGTERM);
                    let until = std::time::Instant::now() + TIDY_UP;
                    while matches!(child.try_wait(), Ok(None)) && std::time::Instant::now() < until {
                        std::thread::sleep(PAUSE);
                    }
                    let _ = killpg(group, Signal::SIGKILL);
                    let _ = child.wait();
                    return Err("the build was cancelled".to_owned());
                }
                Ok(None) => std::thread::sleep(PAUSE),
                ended => break ended,
            }
        };
        match ended {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(format!("step exited with non-zero status: {}", status.code().unwrap_or(-1))),
            Ok(None) | Err(_) => Err("it was lost".to_owned()),
        }
    }

    fn step(&self, step: &Value, request: &BuildRequest) -> Result<(), String> {
        let name = step["name"].as_str().unwrap_or_default();
        let args: Vec<&str> = step["args"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let ["build", rest @ ..] = args.as_slice() else { return Err(format!("docker {args:?} is not known here")) };
        if name != DOCKER {
            return Err(format!("the builder {name:?} is not known here"));
        }
        // A label of buildah's own is no part of what docker makes.
        let mut command = self.command(&["build", "--identity-label=false"]);
        // docker knows it; buildah 1.28 does not where it chooses a base.
        command.arg(format!("--build-arg=BUILDPLATFORM={PLATFORM}"));
        for arg in rest {
            command.arg(substituted(arg)?);
        }
        command.current_dir(&request.source);
        self.run(command, request)
    }

    /// Pushes an image that the steps have made; its digest.
    fn push(&self, image: &str, request: &BuildRequest) -> Result<String, String> {
        if !is_on_this_machine(image) {
            return Err(format!("{image} is not in a registry of this machine"));
        }
        let file = request.source.join(".digest");
        let mut command = self.command(&["push", "--tls-verify=false", "--format=v2s2"]);
        command.arg("--digestfile").arg(&file).arg(image).arg(format!("docker://{image}"));
        self.run(command, request)?;
        std::fs::read_to_string(&file).map(|text| text.trim().to_owned()).map_err(|error| error.to_string())
    }
}

impl BuildHook for Buildah {
    fn build(&self, request: &BuildRequest) -> Result<Vec<(String, String)>, String> {
        for (number, step) in request.build["steps"].as_array().into_iter().flatten().enumerate() {
            let failed = |why| format!("Build step failure: build step {number} {} failed: {why}", step["name"]);
            self.step(step, request).map_err(failed)?;
        }
        let images = request.build["images"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let pushed = |image: &str| {
            let known =
                self.run(self.command(&["inspect", "--type=image", "--format={{.FromImageID}}", image]), request);
            known.map_err(|_| {
                format!("failed to find one or more images after execution of build steps: [{image:?}]")
            })?;
            let digest = self.push(image, request).map_err(|why| format!("failed to push {image}: {why}"))?;
            Ok((image.to_owned(), digest))
        };
        images.map(pushed).collect()
    }
}

/// An argument after Cloud Build's substitutions, of which none has a value here: `$$` is a dollar.
fn substituted(arg: &str) -> Result<String, String> {
    let parts: Vec<&str> = arg.split("$$").collect();
    match parts.iter().find(|part| part.contains('$')) {
        Some(part) => Err(format!("key in the template {part:?} is not a valid built-in substitution")),
        None => Ok(parts.join("$")),
    }
}

fn is_on_this_machine(image: &str) -> bool {
    let host = image.split('/').next().unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dollar_is_written_twice() {
        for (arg, expected) in [
            ("--tag=a", Some("--tag=a")),
            ("--build-arg=A=$$HOME/$$$$", Some("--build-arg=A=$HOME/$$")),
            ("$PROJECT_ID", None),
            ("$$$A", None),
        ] {
            assert_eq!(substituted(arg).ok().as_deref(), expected, "{arg}");
        }
    }

    #[test]
    fn only_loopback_is_this_machine() {
        for (image, is) in
            [("127.0.0.1:5000/a", true), ("localhost/a", true), ("gcr.io/a/b", false), ("10.0.0.1:80/a", false)]
        {
            assert_eq!(is_on_this_machine(image), is, "{image}");
        }
    }
}
