//! `--builder docker`: docker, podman or buildah builds `mlflow_server/Dockerfile`, one platform
//! after the other; what comes out is read back from an archive.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mlflow_image::Platform;

use super::draft::Built;
use super::import;
use super::recipe::Recipe;
use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program};

/// How long a tool may take to say that it works. A daemon that hangs is none.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// A program that builds Dockerfiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// docker with BuildKit.
    Docker,
    /// podman.
    Podman,
    /// buildah.
    Buildah,
}

impl Tool {
    /// In the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Buildah];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Buildah => "buildah",
        }
    }

    /// What the tool is asked to find out whether it can build: each must succeed.
    fn questions(self) -> &'static [&'static [&'static str]] {
        match self {
            // The Dockerfile mounts a secret, which docker's old builder cannot.
            Self::Docker => &[&["version", "--format", "{{.Server.Version}}"], &["buildx", "version"]],
            Self::Podman | Self::Buildah => &[&["info"]],
        }
    }

    /// The arguments of a build whose image id goes to the file `id`.
    pub fn build(self, recipe: &Recipe, platform: Platform, id: &Path) -> Vec<String> {
        let mut args: Vec<String> = match self {
            Self::Docker => list(&["buildx", "build", "--load", "--progress=plain", "--provenance=false"]),
            // OCI's format has no loss here; the label would name the tool's version in the image.
            Self::Podman | Self::Buildah => list(&["build", "--format=oci", "--identity-label=false"]),
        };
        if self != Self::Docker {
            // Their cache does not ask for which time an image was made.
            args.push(format!("--layers={}", recipe.epoch.is_none()));
        }
        args.push(format!("--platform={platform}"));
        args.push(format!("--iidfile={}", id.display()));
        args.push(format!("--file={}", recipe.context.join("Dockerfile").display()));
        for (name, value) in &recipe.labels {
            args.push(format!("--label={name}={value}"));
        }
        for arg in recipe.args.iter().map(String::as_str).chain(recipe.index.iter().copied()) {
            args.push(format!("--build-arg={arg}"));
        }
        if let Some(ca) = &recipe.ca {
            args.push(format!("--secret=id=ca-certificates,src={}", ca.display()));
        }
        if let Some(epoch) = &recipe.epoch {
            args.push(match self {
                Self::Docker => format!("--build-arg=SOURCE_DATE_EPOCH={epoch}"),
                Self::Podman | Self::Buildah => format!("--timestamp={epoch}"),
            });
        }
        if recipe.offline {
            // What earlier builds left is used; anything else fails at once.
            args.push("--network=none".to_owned());
            if self != Self::Docker {
                args.push("--pull=never".to_owned());
            }
        }
        args.push(recipe.context.display().to_string());
        args
    }

    /// The arguments that write the image `id` to the archive `file`.
    pub fn save(self, id: &str, file: &Path) -> Vec<String> {
        let file = file.display();
        match self {
            Self::Docker => list(&["save", "--output", &file.to_string(), id]),
            Self::Podman => list(&["save", "--quiet", "--format", "oci-archive", "--output", &file.to_string(), id]),
            Self::Buildah => list(&["push", "--quiet", id, &format!("oci-archive:{file}")]),
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn list(args: &[&str]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).collect()
}

/// The first of `wanted` that is there and works; an error says why each was refused.
pub async fn choose(run: &Run, wanted: &[Tool]) -> Result<(Tool, PathBuf)> {
    let names: Vec<&str> = wanted.iter().map(|tool| tool.name()).collect();
    let message = match names.as_slice() {
        [name] => format!("{name} cannot build here"),
        _ => format!("none of {} can build here", names.join(", ")),
    };
    let open = async |tool: Tool| {
        let path = process::find(&[tool.name()]).ok_or_else(|| Error::new(Kind::Tool, "not installed"))?;
        answers(run, tool, &path).await?;
        Ok((tool, path))
    };
    process::first_that_works(wanted, open, |refused| {
        Error::new(Kind::Tool, message).source(refused).hint(
            "start docker's daemon (with the buildx plugin), install podman or buildah, or use --builder native, which needs none",
        )
    })
    .await
}

async fn answers(run: &Run, tool: Tool, path: &Path) -> Result<()> {
    for question in tool.questions() {
        Program::new(path).args(*question).ask(&run.cancel, ANSWERS_WITHIN).await?;
    }
    Ok(())
}

/// Builds the image for each platform. All its blobs are in the cache afterwards.
pub async fn build(
    run: &Run,
    cache: &Cache,
    wanted: &[Tool],
    recipe: &Recipe,
    platforms: &[Platform],
) -> Result<Built> {
    let (tool, path) = choose(run, wanted).await?;
    let folder = tempfile::tempdir_in(cache.dir("blobs")?).on_machine(|| "cannot write to the cache")?;
    let mut images = Vec::new();
    for platform in platforms {
        run.ui.step("Building", format!("mlflow_server/Dockerfile for {platform} with {tool}"));
        let id = folder.path().join("id");
        let program = Program::new(&path).args(tool.build(recipe, *platform, &id)).env("DOCKER_BUILDKIT", "1");
        program.attend(&run.cancel).await.map_err(|error| explain(error, *platform))?;
        let named = || format!("{tool} built an image, but did not say which");
        let id = std::fs::read_to_string(&id).context(Kind::Tool, named)?;
        if let Some(image) = import::recall(cache, id.trim(), *platform) {
            images.push(image);
            continue;
        }
        let archive = folder.path().join("image.tar");
        Program::new(&path).args(tool.save(id.trim(), &archive)).attend(&run.cancel).await?;
        let (into, file, of) = (cache.clone(), archive.clone(), *platform);
        let work = tokio::task::spawn_blocking(move || import::archive(&into, &file, of));
        let image = work.await.context(Kind::Internal, || "reading the image was cut short")??;
        import::remember(cache, id.trim(), &image)?;
        images.push(image);
        std::fs::remove_file(&archive).on_machine(|| format!("cannot remove {}", archive.display()))?;
    }
    Ok(import::index(images))
}

fn explain(error: Error, platform: Platform) -> Error {
    if error.kind() == Kind::Interrupted {
        return error;
    }
    let hint = match platform == Platform::host() {
        true => "its last lines above name the cause",
        false => {
            "its last lines above name the cause; a builder that ignores FROM --platform needs qemu-user for another CPU"
        }
    };
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            context: "src".into(),
            labels: vec![("a".to_owned(), "b c".to_owned())],
            args: list(&["BASE=x"]),
            index: vec!["PIP_INDEX_URL"],
            ca: Some("/ca.pem".into()),
            epoch: Some("7".to_owned()),
            offline: false,
        }
    }

    #[test]
    fn each_tool_is_called_its_own_way() {
        let check = |tool: Tool, expected: &str| {
            let args = tool.build(&recipe(), Platform::LinuxArm64, Path::new("id"));
            assert_eq!(args.join("|"), expected);
        };
        check(
            Tool::Docker,
            "buildx|build|--load|--progress=plain|--provenance=false|--platform=linux/arm64|--iidfile=id|\
             --file=src/Dockerfile|--label=a=b c|--build-arg=BASE=x|--build-arg=PIP_INDEX_URL|\
             --secret=id=ca-certificates,src=/ca.pem|--build-arg=SOURCE_DATE_EPOCH=7|src",
        );
        let of_the_others = "build|--format=oci|--identity-label=false|--layers=false|--platform=linux/arm64|--iidfile=id|\
             --file=src/Dockerfile|--label=a=b c|--build-arg=BASE=x|--build-arg=PIP_INDEX_URL|\
             --secret=id=ca-certificates,src=/ca.pem|--timestamp=7|src";
        check(Tool::Podman, of_the_others);
        check(Tool::Buildah, of_the_others);
    }

    #[test]
    fn offline_downloads_nothing() {
        let offline = Recipe { offline: true, ..Recipe::default() };
        for (tool, expected) in [
            (Tool::Docker, ["--network=none"].as_slice()),
            (Tool::Podman, &["--network=none", "--pull=never"]),
            (Tool::Buildah, &["--network=none", "--pull=never"]),
        ] {
            let args = tool.build(&offline, Platform::LinuxAmd64, Path::new("id"));
            let found: Vec<_> =
                args.iter().filter(|arg| arg.starts_with("--network") || arg.starts_with("--pull")).collect();
            assert_eq!(found, expected, "{tool}");
        }
    }

    #[test]
    fn each_tool_saves_its_own_way() {
        for (tool, expected) in [
            (Tool::Docker, "save --output f i"),
            (Tool::Podman, "save --quiet --format oci-archive --output f i"),
            (Tool::Buildah, "push --quiet i oci-archive:f"),
        ] {
            assert_eq!(tool.save("i", Path::new("f")).join(" "), expected);
        }
    }
}
