//! `--builder cloud-build`: the context goes to Google Cloud Build, which follows
//! `mlflow_server/Dockerfile` and pushes one image a platform; the index over them is ours.
//!
//! gcloud uploads, starts and asks. Its own waiting is not used: it reads the log from a server that
//! not every account may read, and ends with it.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use mlflow_image::{Digest, Platform};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::draft::Built;
use super::push::Pushed;
use super::recipe::Recipe;
use super::{context, import};
use crate::cache::Cache;
use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::gcloud;
use crate::process::{self, Program};
use crate::registry::{Access, Client, CredentialSource, Reference};
use crate::report;

/// How long uploading and starting may take.
const SUBMITTED_WITHIN: Duration = Duration::from_secs(600);
/// How long one question may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Between two questions.
const PAUSE: Duration = Duration::from_secs(4);
/// How long Cloud Build may build, in seconds; it stops the build then.
const BUILT_WITHIN: u64 = 1800;
/// How long a build may wait for a machine, in seconds.
const QUEUED_WITHIN: u64 = 600;
/// Questions that may fail in a row: a build goes on when this machine's network does not.
const FAILURES: u32 = 5;
/// How long cancelling a build may take after Ctrl-C.
const CANCELLED_WITHIN: Duration = Duration::from_secs(15);

/// A build as Cloud Build gets it.
#[derive(Clone, Debug)]
pub struct Job {
    recipe: Recipe,
    /// What is pushed for each platform.
    images: Vec<(Platform, Reference)>,
    target: Reference,
    /// The values of arguments that the environment holds.
    args: Vec<String>,
    project: String,
}

impl Job {
    /// A build whose image becomes `target`. It runs in `home`, or else in the project that the target's
    /// name holds. `vars` is the environment.
    pub fn new(
        recipe: &Recipe,
        platforms: &[Platform],
        target: &Reference,
        home: Option<&str>,
        vars: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        if recipe.offline {
            return Err(Error::new(Kind::Usage, "Cloud Build cannot be reached with --offline")
                .hint("use --builder native, which builds from the caches"));
        }
        let project = home.map_or_else(|| project(target), |home| Ok(home.to_owned()))?;
        let tag = target.tag().unwrap_or("latest");
        let image =
            |platform: &Platform| Ok((*platform, target.with_tag(&format!("{tag}-{}", platform.architecture()))?));
        let images = platforms.iter().map(image).collect::<Result<_>>()?;
        let value = |arg: &String| match arg.contains('=') {
            true => arg.clone(),
            false => format!("{arg}={}", vars(arg).unwrap_or_default()),
        };
        let args = recipe.args.iter().map(value).collect();
        Ok(Self { recipe: recipe.clone(), images, target: target.clone(), args, project })
    }

    /// The build configuration (<https://cloud.google.com/build/docs/build-config-file-schema>).
    pub fn config(&self) -> Value {
        let steps = self.images.iter().map(|(platform, image)| {
            let mut args = vec!["build".to_owned(), format!("--platform={platform}"), format!("--tag={image}")];
            args.extend(self.recipe.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
            args.extend(self.args.iter().map(|arg| format!("--build-arg={arg}")));
            args.extend(self.recipe.epoch.iter().map(|epoch| format!("--build-arg=SOURCE_DATE_EPOCH={epoch}")));
            args.push(".".to_owned());
            // A single $ would begin one of Cloud Build's substitutions.
            let args: Vec<String> = args.iter().map(|arg| arg.replace('$', "$$")).collect();
            json!({ "name": "gcr.io/cloud-builders/docker", "env": ["DOCKER_BUILDKIT=1"], "args": args })
        });
        let images: Vec<String> = self.images.iter().map(|(_, image)| image.to_string()).collect();
        json!({
            "steps": steps.collect::<Vec<_>>(),
            "images": images,
            "timeout": format!("{BUILT_WITHIN}s"),
            "queueTtl": format!("{QUEUED_WITHIN}s"),
            "options": { "logging": "CLOUD_LOGGING_ONLY" },
        })
    }

    /// The command that uploads the context and starts the build.
    pub fn submit(&self, context: &Path, config: &Path) -> Vec<String> {
        let mut args = vec!["gcloud".to_owned(), "builds".to_owned(), "submit".to_owned()];
        args.extend([context.display().to_string(), format!("--config={}", config.display()), "--async".to_owned()]);
        args.extend(self.common());
        args
    }

    fn about(&self, verb: &str, id: &str) -> Vec<String> {
        let mut args = vec!["gcloud".to_owned(), "builds".to_owned(), verb.to_owned(), id.to_owned()];
        args.extend(self.common());
        args
    }

    /// The command that lists the builds with a tag.
    fn list(&self, mark: &str) -> Vec<String> {
        let mut args =
            vec!["gcloud".to_owned(), "builds".to_owned(), "list".to_owned(), format!("--filter=tags={mark}")];
        args.extend(self.common());
        args
    }

    fn common(&self) -> [String; 3] {
        [format!("--project={}", self.project), "--format=json".to_owned(), "--quiet".to_owned()]
    }
}

/// The project is part of an image's name in both of Google's registries.
fn project(target: &Reference) -> Result<String> {
    let name = format!("{}/{}", target.registry(), target.repository());
    if !target.is_google() {
        return Err(Error::new(Kind::Usage, format!("Cloud Build cannot push to {name}")).hint(
            "name a repository of Artifact Registry: REGION-docker.pkg.dev/PROJECT/REPOSITORY/mlflow, or an \
                 environment with a table infra, whose project builds",
        ));
    }
    let parts: Vec<&str> = target.repository().split('/').collect();
    let least = if target.registry().ends_with("pkg.dev") { 3 } else { 2 };
    let (project, rest) = match parts.as_slice() {
        // A project of the old form DOMAIN:PROJECT.
        [domain, project, rest @ ..] if domain.contains('.') => (format!("{domain}:{project}"), rest.len()),
        [project, rest @ ..] => ((*project).to_owned(), rest.len()),
        [] => (String::new(), 0),
    };
    if rest + 1 < least {
        return Err(Error::new(Kind::Usage, format!("{name} names no project"))
            .hint("write it as REGION-docker.pkg.dev/PROJECT/REPOSITORY/mlflow or gcr.io/PROJECT/mlflow"));
    }
    Ok(project)
}

/// As much of a build (<https://cloud.google.com/build/docs/api/reference/rest/v1/projects.builds>)
/// as is needed here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Build {
    id: String,
    status: String,
    #[serde(default)]
    status_detail: String,
    #[serde(default)]
    log_url: String,
    #[serde(default)]
    results: Results,
    #[serde(default)]
    failure_info: FailureInfo,
}

#[derive(Default, Deserialize)]
struct Results {
    #[serde(default)]
    images: Vec<PushedImage>,
}

#[derive(Deserialize)]
struct PushedImage {
    name: String,
    digest: Digest,
}

#[derive(Default, Deserialize)]
struct FailureInfo {
    #[serde(default)]
    detail: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Done,
    Failed,
}

impl Build {
    fn stage(&self) -> Stage {
        match self.status.as_str() {
            "SUCCESS" => Stage::Done,
            "FAILURE" | "INTERNAL_ERROR" | "TIMEOUT" | "CANCELLED" | "EXPIRED" => Stage::Failed,
            _ => Stage::Running,
        }
    }

    fn failed(&self) -> Error {
        let why = [self.failure_info.detail.as_str(), self.status_detail.as_str()];
        let why = why.iter().find(|why| !why.is_empty()).map_or("it did not say why", |why| *why);
        Error::new(Kind::Remote, format!("Cloud Build's build {} ended as {}", self.id, self.status))
            .source(why.to_owned())
            .hint(format!("read its log: {}", self.log_url))
    }
}

/// Builds and pushes. All blobs of the image are in the cache afterwards.
pub async fn build(run: &Run, cache: &Cache, job: &Job, login: &CredentialSource) -> Result<(Built, Pushed)> {
    process::require("gcloud", "install the Google Cloud CLI, or use --builder native")?;
    let entries = context::list(&job.recipe.context)?;
    for remark in context::remarks(&entries) {
        run.ui.warn(remark);
    }
    let folder = tempfile::tempdir().on_machine(|| "cannot make a temporary folder")?;
    let (archive, config) = (folder.path().join("context.tar.gz"), folder.path().join("cloudbuild.json"));
    let named = || format!("cannot write {}", archive.display());
    context::pack(&job.recipe.context, &entries, File::create(&archive).on_machine(named)?)?;
    let mark = format!("xtask-{:032x}", rand::random::<u128>());
    let mut build = job.config();
    build["tags"] = json!([mark]);
    crate::cache::write(&config, build.to_string().as_bytes())?;
    let size = archive.metadata().on_machine(named)?.len();
    run.ui.step("Sending", format!("{} entries, {}, to Cloud Build", entries.len(), report::bytes(size)));

    let started = submit(run, job, &job.submit(&archive, &config), &mark).await?;
    run.ui.step("Building", format!("{} as build {}: {}", job.target, started.id, started.log_url));
    let done = wait(run, job, started).await?;
    let mut images = Vec::new();
    let mut downloaded_bytes = 0;
    for (platform, image) in &job.images {
        let name = image.to_string();
        let pushed = done
            .results
            .images
            .iter()
            .find(|pushed| pushed.name == name)
            .ok_or_else(|| Error::new(Kind::Remote, format!("build {} says nothing about {name}", done.id)))?;
        let client = Client::connect(run, cache, &image.with_digest(pushed.digest), Access::Pull, login.clone())?;
        let pulled = client.pull(cache, *platform).await?;
        downloaded_bytes += pulled.downloaded_bytes;
        let config = std::fs::read(cache.blob(&pulled.config.digest)?).on_machine(|| "cannot read the cache")?;
        let manifest = import::document(&pulled.media_type, pulled.manifest)?;
        images.push(import::image(*platform, manifest, import::document(mlflow_image::manifest::CONFIG, config)?)?);
    }
    let mut built = import::index(images);
    built.downloaded_bytes = downloaded_bytes;
    let pushed = super::push::push_built(run, cache, &built, &job.target, login.clone()).await?;
    Ok((built, pushed))
}

/// Starts the build, once: gcloud asks again where an answer is lost, and may give up although a build
/// has begun. The tag `mark` tells which builds these are.
async fn submit(run: &Run, job: &Job, command: &[String], mark: &str) -> Result<Build> {
    let submitted: Result<Build> =
        ask(command, &run.cancel, SUBMITTED_WITHIN).await.map_err(|error| explain(error, job));
    // Any other error is an answer: no build has begun.
    let is_unsure = |error: &Error| matches!(error.kind(), Kind::Interrupted | Kind::Remote | Kind::Tool);
    if submitted.as_ref().is_err_and(|error| !is_unsure(error)) {
        return submitted;
    }
    // What was interrupted still has to be found; and where nobody answers, the first error says why.
    let is_interrupted = submitted.as_ref().is_err_and(|error| error.kind() == Kind::Interrupted);
    let (patience, cancel) = match is_interrupted {
        true => (CANCELLED_WITHIN, CancellationToken::new()),
        false => (ANSWERS_WITHIN, run.cancel.clone()),
    };
    let mut begun: Vec<Build> = ask(&job.list(mark), &cancel, patience).await.unwrap_or_default();
    begun.retain(|build| build.stage() != Stage::Failed);
    let kept = match submitted {
        Err(_) if !is_interrupted && !begun.is_empty() => {
            run.ui.warn("Google's answer was lost, but the build has begun");
            Ok(begun.remove(0))
        }
        submitted => submitted,
    };
    let id = kept.as_ref().map_or("", |build| build.id.as_str());
    for other in begun.iter().filter(|other| other.id != id && other.stage() == Stage::Running) {
        stop(run, job, other).await;
    }
    kept
}

/// Cancels a build, as far as that is possible.
async fn stop(run: &Run, job: &Job, build: &Build) {
    // gcloud cancels several at once, and answers with a list.
    let cancelled: Result<Vec<Build>> =
        ask(&job.about("cancel", &build.id), &CancellationToken::new(), CANCELLED_WITHIN).await;
    match cancelled {
        Ok(_) => run.ui.step("Cancelled", format!("build {}", build.id)),
        Err(_) => run.ui.warn(format!("build {} could not be cancelled: {}", build.id, build.log_url)),
    }
}

/// Waits for the build's end. Interrupted, it cancels the build, which would push otherwise.
async fn wait(run: &Run, job: &Job, mut build: Build) -> Result<Build> {
    let describe = job.about("describe", &build.id);
    let deadline = Instant::now() + Duration::from_secs(BUILT_WITHIN + QUEUED_WITHIN) + ANSWERS_WITHIN;
    let mut failures = 0;
    loop {
        match build.stage() {
            Stage::Done => return Ok(build),
            Stage::Failed => return Err(build.failed()),
            Stage::Running if Instant::now() > deadline => {
                let message = format!("Cloud Build's build {} is still {}", build.id, build.status);
                return Err(Error::new(Kind::Remote, message).hint(format!("look at {}", build.log_url)));
            }
            Stage::Running => {}
        }
        let question = async {
            tokio::time::sleep(PAUSE).await;
            ask::<Build>(&describe, &run.cancel, ANSWERS_WITHIN).await
        };
        let answer = tokio::select! {
            answer = question => answer,
            () = run.cancel.cancelled() => Err(Run::interrupted()),
        };
        match answer {
            Ok(next) => {
                if next.status != build.status {
                    run.ui.step("Building", format!("{}: {}", next.id, next.status.to_ascii_lowercase()));
                }
                (build, failures) = (next, 0);
            }
            Err(error) if error.kind() == Kind::Interrupted => {
                stop(run, job, &build).await;
                return Err(error);
            }
            Err(error) if failures == FAILURES => {
                return Err(explain(error, job).hint(format!("the build goes on: {}", build.log_url)));
            }
            Err(_) => failures += 1,
        }
    }
}

async fn ask<T: DeserializeOwned>(command: &[String], cancel: &CancellationToken, deadline: Duration) -> Result<T> {
    let answer = Program::new(&command[0]).args(&command[1..]).ask(cancel, deadline).await?;
    serde_json::from_slice(&answer).context(Kind::Tool, || "gcloud answered with something that is no build")
}

/// With what gcloud's complaint means.
fn explain(error: Error, job: &Job) -> Error {
    if error.kind() == Kind::Interrupted {
        return error;
    }
    let said = error.lines().join("\n");
    gcloud::explain("Cloud Build did not take the build", error, &said, &job.project, "builds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(platforms: &[Platform], arg: &str) -> Job {
        let recipe = Recipe {
            labels: vec![("v".to_owned(), "3".to_owned())],
            args: vec![arg.to_owned()],
            index: vec!["PIP_INDEX_URL"],
            ca: Some("/ca.pem".into()),
            epoch: Some("7".to_owned()),
            ..Recipe::default()
        };
        let target = Reference::parse("europe-docker.pkg.dev/p-1/r/mlflow:v1").unwrap();
        let vars = |name: &str| (name == "BASE").then(|| "$HOME/x".to_owned());
        Job::new(&recipe, platforms, &target, None, &vars).unwrap()
    }

    #[test]
    fn gcloud_is_called_without_waiting_for_a_log() {
        let job = job(&[Platform::LinuxAmd64], "A=1");
        assert_eq!(
            job.submit(Path::new("c.tar.gz"), Path::new("c.json")).join(" "),
            "gcloud builds submit c.tar.gz --config=c.json --async --project=p-1 --format=json --quiet"
        );
        assert_eq!(
            job.about("describe", "7").join(" "),
            "gcloud builds describe 7 --project=p-1 --format=json --quiet"
        );
        assert_eq!(job.list("m").join(" "), "gcloud builds list --filter=tags=m --project=p-1 --format=json --quiet");
    }

    #[test]
    fn the_configuration_has_a_step_and_an_image_for_each_platform() {
        let image = |architecture: &str| format!("europe-docker.pkg.dev/p-1/r/mlflow:v1-{architecture}");
        let step = |architecture: &str| {
            json!({
                "name": "gcr.io/cloud-builders/docker",
                "env": ["DOCKER_BUILDKIT=1"],
                "args": [
                    "build", format!("--platform=linux/{architecture}"), format!("--tag={}", image(architecture)),
                    "--label=v=3", "--build-arg=BASE=$$HOME/x", "--build-arg=SOURCE_DATE_EPOCH=7", ".",
                ],
            })
        };
        let expected = json!({
            "steps": [step("amd64"), step("arm64")],
            "images": [image("amd64"), image("arm64")],
            "timeout": "1800s",
            "queueTtl": "600s",
            "options": { "logging": "CLOUD_LOGGING_ONLY" },
        });
        assert_eq!(job(&Platform::ALL, "BASE").config(), expected);
    }

    #[test]
    fn the_project_is_in_the_repository() {
        let check = |repository: &str, expected: std::result::Result<&str, &str>| match (
            project(&Reference::parse(repository).unwrap()),
            expected,
        ) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, expected) => panic!("{repository}: {found:?}, expected {expected:?}"),
        };
        check("europe-docker.pkg.dev/p-1/r/mlflow", Ok("p-1"));
        check("europe-docker.pkg.dev/example.com/p-1/r/mlflow", Ok("example.com:p-1"));
        check("gcr.io/p-1/mlflow", Ok("p-1"));
        check("eu.gcr.io/p-1/mlflow", Ok("p-1"));
        check("europe-docker.pkg.dev/p-1/mlflow", Err("names no project"));
        check("gcr.io/mlflow", Err("names no project"));
        check("localhost:5000/p/mlflow", Err("cannot push to localhost:5000/p/mlflow"));
    }

    #[test]
    fn a_project_that_is_known_need_not_be_in_the_repository() {
        let target = Reference::parse("localhost:5000/p/mlflow").unwrap();
        let job = Job::new(&Recipe::default(), &[Platform::LinuxAmd64], &target, Some("p-2"), &|_| None).unwrap();
        assert_eq!(job.project, "p-2");
    }

    #[test]
    fn a_build_is_running_until_it_says_otherwise() {
        for (status, expected) in [
            ("QUEUED", Stage::Running),
            ("PENDING", Stage::Running),
            ("WORKING", Stage::Running),
            ("STATUS_UNKNOWN", Stage::Running),
            ("SUCCESS", Stage::Done),
            ("FAILURE", Stage::Failed),
            ("INTERNAL_ERROR", Stage::Failed),
            ("TIMEOUT", Stage::Failed),
            ("CANCELLED", Stage::Failed),
            ("EXPIRED", Stage::Failed),
        ] {
            let build: Build = serde_json::from_value(json!({ "id": "7", "status": status })).unwrap();
            assert_eq!(build.stage(), expected, "{status}");
        }
    }

    #[test]
    fn what_gcloud_says_gets_its_fix() {
        let job = job(&[Platform::LinuxAmd64], "A=1");
        for (said, kind, hint) in [
            ("You do not currently have an active account selected.", Kind::Auth, Some("run gcloud auth login")),
            (
                "Cloud Build API has not been used in project 7 before or it is disabled.",
                Kind::Refused,
                Some("run gcloud services enable cloudbuild.googleapis.com --project p-1"),
            ),
            ("something else", Kind::Tool, None),
        ] {
            let error = explain(Error::new(Kind::Tool, "gcloud failed").source(said), &job);
            assert_eq!((error.kind(), error.hint_text()), (kind, hint), "{said}");
        }
    }
}
