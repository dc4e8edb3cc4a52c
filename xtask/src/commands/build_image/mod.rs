//! `build-image`: locks -> image, into the cache, a folder, an archive or a registry.

mod answer;
mod dockerfile;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use mlflow_image::Platform;
use mlflow_image::plan::Format;

use self::output::Output;
use crate::builders::Builder;
use crate::builders::draft::{Draft, Options, Wanted};
use crate::builders::push;
use crate::cache;
use crate::commands::Run;
use crate::config::{Config, Origin};
use crate::error::{Error, Kind, Result};
use crate::registry::{LoginArgs, Reference};
use crate::signing::{self, SignArgs};

/// The reference of an image that has no repository.
const NAME: &str = "mlflow";

/// Build the image from the locks; push it or write it to disk
///
/// Without --push and --output the image is built into the cache, where deploy finds it.
///
/// An environment with a table infra needs no repository of its own: the image is pushed to the one
/// that infra has made. --builder cloud-build builds in the infrastructure's project, or else in the
/// one that the repository's name holds.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml whose image settings count.
    #[arg(long, default_value = crate::config::LOCAL)]
    env: String,
    /// Push the image to the repository.
    #[arg(long)]
    push: bool,
    /// Where to push, as REGISTRY/PATH without a tag [default: image.repository in deploy.toml].
    #[arg(long, value_name = "REGISTRY/PATH")]
    repository: Option<String>,
    /// The tag to push [default: image.tag in deploy.toml].
    #[arg(long)]
    tag: Option<String>,
    /// Write the image to oci:DIR (an OCI layout, reference `latest`) or docker-archive:FILE
    /// (one platform, for docker load). Repeatable.
    #[arg(long, value_name = "KIND:PATH")]
    output: Vec<Output>,
    /// Build for this platform only: linux/amd64 or linux/arm64. Repeatable
    /// [default: image.platforms in deploy.toml].
    #[arg(long, value_name = "OS/CPU")]
    platform: Vec<Platform>,
    /// How layers are compressed: splice (the wheels' own streams), gzip or zstd.
    #[arg(long, value_name = "FORMAT", default_value_t)]
    layer_format: Format,
    /// Leave the .pyc files out: smaller, but the server starts slower.
    #[arg(long)]
    no_bytecode: bool,
    /// Fail where image.lock would change.
    #[arg(long)]
    locked: bool,
    /// Write the software bill of materials (CycloneDX JSON) to this file.
    #[arg(long, value_name = "FILE")]
    sbom: Option<PathBuf>,
    /// What builds.
    #[arg(long, value_enum, default_value_t)]
    builder: Builder,
    /// An argument for the Dockerfile, such as BASE or BUILD_BASE for base images from elsewhere, with
    /// any builder but native. NAME alone hands on a variable of the environment. Repeatable.
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    #[command(flatten)]
    sign: SignArgs,
    /// Print what would be downloaded, built, pushed and signed.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    login: LoginArgs,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let begun = Instant::now();
    let mut config = Config::load(&args.env)?;
    args.sign.set(&mut config)?;
    if args.sign.is_given() && !args.push {
        return Err(
            Error::new(Kind::Usage, "--sign, but nothing is pushed").hint("add --push: a registry keeps signatures")
        );
    }
    let target = target(&args, &config)?;
    if args.builder != Builder::Native {
        return dockerfile::run(&args, run, &config, target, begun).await;
    }
    if let Some(arg) = args.build_arg.first() {
        return Err(Error::new(Kind::Usage, format!("--build-arg {arg} is for the Dockerfile, which is not built"))
            .hint("add --builder docker or --builder cloud-build"));
    }
    let mut draft = Draft::plan(run, &config, &options(&args, &config)).await?;
    if args.dry_run {
        let wanted = if target.is_some() && args.output.is_empty() { Wanted::Nothing } else { Wanted::All };
        return run.answer(&answer::Plan::new(&draft, &wanted, target.as_ref(), &config.image.signing)?);
    }
    // A push asks the registry what it wants, later.
    let wanted = if target.is_some() && args.output.is_empty() { Wanted::Nothing } else { Wanted::All };
    let downloaded = draft.complete(run, &wanted).await?;
    let mut built = draft.built(downloaded)?;
    draft.store(&built)?;
    for output in &args.output {
        let name = target.as_ref().map_or_else(|| format!("{NAME}:latest"), ToString::to_string);
        output.write(run, &draft.cache, &built, &name)?;
    }
    if let Some(path) = &args.sbom {
        let name = target.as_ref().map_or(NAME, Reference::last_part);
        cache::write(path, &draft.sbom(name, built.digest(), &draft.options.platforms)?.bytes)?;
    }
    let (pushed, signed) = match &target {
        Some(reference) => {
            let login = args.login.source()?;
            let pushed;
            (built, pushed) = push::push(run, &mut draft, built, reference, login.clone()).await?;
            let signed = signing::after_push(run, &config, &draft.cache, reference, &built.digest(), login).await?;
            (pushed, signed)
        }
        None => (push::Pushed::default(), None),
    };
    run.answer(&answer::Answer::new(&built, target.as_ref(), &args.output, pushed, signed, begun.elapsed()))
}

fn options(args: &Args, config: &Config) -> Options {
    let mut options = Options::new(config);
    options.format = args.layer_format;
    options.bytecode = !args.no_bytecode;
    options.locked = args.locked;
    if !args.platform.is_empty() {
        options.platforms.clone_from(&args.platform);
    }
    options
}

/// What to push to; `None` where nothing is pushed.
fn target(args: &Args, config: &Config) -> Result<Option<Reference>> {
    if !args.push {
        return Ok(None);
    }
    let is_from_infra =
        || config.settings.iter().any(|setting| setting.key == "image.repository" && setting.origin == Origin::Infra);
    if args.repository.is_none() && !args.dry_run && is_from_infra() {
        // Otherwise the name is only what it is expected to become.
        config.environment()?;
    }
    let repository = args.repository.as_ref().or(config.image.repository.as_ref()).ok_or_else(|| {
        Error::new(Kind::Config, "--push, but no repository is known")
            .hint("name it with --repository REGISTRY/PATH or as image.repository in deploy.toml")
    })?;
    let reference = Reference::parse(repository)?;
    // A reference without a tag gets `latest`; any other tag was in the text.
    let tagged = repository.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged || reference.digest().is_some() {
        return Err(Error::new(Kind::Usage, format!("{repository:?} is more than a repository"))
            .hint("leave the tag out; name it with --tag or as image.tag in deploy.toml"));
    }
    reference.with_tag(args.tag.as_ref().unwrap_or(&config.image.tag)).map(Some)
}
