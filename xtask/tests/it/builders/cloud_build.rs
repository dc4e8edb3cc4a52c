//! `build-image --builder cloud-build`: through the real gcloud to a Cloud Build that carries out the
//! steps, and from a real registry to an index.

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use testbed::google::{Buildah, Entry, Fault, Google, Options, Project, Rule};
use testbed::{Home, Registry, command, require};

use super::{sleeping, wait_until};
use crate::image;

/// The project of these tests.
const PROJECT: &str = "testbed-project";
/// What builds in the Dockerfile.
const BUILD_BASE: &str = "localhost/busybox";
/// The image of the environment, as infra names it.
const IMAGE: &str = "testbed-project/mlflow/server";
/// APIs that a build needs.
const APIS: [&str; 2] = ["cloudbuild.googleapis.com", "storage.googleapis.com"];

/// A Cloud Build with a registry, and a checkout whose environment `cloud` is there.
struct Site {
    google: Google,
    registry: Registry,
    builder: Arc<Buildah>,
    home: Home,
}

impl Site {
    /// `None` where a program is missing. The Dockerfile runs `line` in its first stage.
    fn start(apis: &[&str], line: &str) -> Option<Self> {
        require("gcloud", "google-cloud-cli, from Google's own packages")?;
        let busybox = require("busybox", "busybox-static")?;
        let (registry, builder, home) = (Registry::start()?, Arc::new(Buildah::find()?), Home::new());
        let base = home.file("base/bin/busybox");
        std::fs::copy(busybox, &base).expect("a copy");
        for name in ["sh", "sleep", "false"] {
            std::os::unix::fs::symlink("busybox", base.with_file_name(name)).expect("a link");
        }
        builder.base(BUILD_BASE, &home.path().join("base"));
        let project = Project { enabled: apis.iter().map(|api| (*api).to_owned()).collect(), ..Project::new(PROJECT) };
        let google = Google::start(Options {
            projects: vec![project],
            registry: Some(registry.host()),
            build: Some(builder.clone()),
            ..Options::default()
        });
        let site = Self { google, registry, builder, home };
        site.check_out(line);
        Some(site)
    }

    fn check_out(&self, line: &str) {
        let root = image::project(&self.home);
        let dockerfile = format!(
            "ARG BUILD_BASE=none\nFROM --platform=$BUILDPLATFORM ${{BUILD_BASE}} AS build\nARG TARGETARCH\n\
             COPY requirements.lock /build/\nRUN {line}\nRUN echo $TARGETARCH > /build/cpu\nFROM scratch\n\
             COPY --from=build /build/ /opt/\nENV HOME=/tmp\nLABEL org.opencontainers.image.title=MLflow\n\
             USER 65532:65532\nENTRYPOINT [\"/opt/cpu\"]\n"
        );
        std::fs::write(root.join("mlflow_server/Dockerfile"), dockerfile).expect("a file");
        let text = format!(
            "[image]\nplatforms = [\"linux/amd64\", \"linux/arm64\"]\ntag = \"v7\"\n\
             [environment.cloud]\nkind = \"kubernetes\"\ncontext = \"none\"\n\
             [environment.cloud.infra]\nproject = \"{PROJECT}\"\nregion = \"europe-west1\"\n"
        );
        std::fs::write(root.join("deploy.toml"), text).expect("a file");
    }

    /// Notes what infra has made.
    fn import_outputs(&self) {
        let outputs = json!({
            "version": 1, "project": PROJECT, "region": "europe-west1", "bucket": format!("{PROJECT}-mlflow"),
            "database": {
                "instance": format!("{PROJECT}:europe-west1:mlflow"), "name": "mlflow",
                "user": format!("mlflow@{PROJECT}.iam"), "login": "iam", "private_ip": false,
                "tier": "db-custom-1-3840", "version": "POSTGRES_17",
            },
            "registry": { "repository": format!("{}/{PROJECT}/mlflow", self.registry.host()) },
            "identities": {
                "server": format!("mlflow@{PROJECT}.iam.gserviceaccount.com"),
                "pull": format!("mlflow-nodes@{PROJECT}.iam.gserviceaccount.com"),
            },
            "cluster": null, "github": null,
        });
        let file = self.home.file("outputs.json");
        std::fs::write(&file, outputs.to_string()).expect("a file");
        let output = self.xtask(&["infra", "import-outputs", "--env", "cloud", file.to_str().expect("UTF-8")]);
        let output = output.wait_with_output().expect("its end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn xtask(&self, args: &[&str]) -> Child {
        let mut program = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        program.args(args).envs(self.google.gcloud_env()).env("CARGO_MANIFEST_DIR", self.home.file("project"));
        program.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("xtask starts")
    }

    fn begin(&self, more: &[&str]) -> Child {
        let base = format!("BUILD_BASE={BUILD_BASE}");
        let args = ["build-image", "--builder", "cloud-build", "--env", "cloud", "--push", "--json", "--build-arg"];
        self.xtask(&[args.as_slice(), &[&base], more].concat())
    }

    fn build(&self, more: &[&str]) -> Ended {
        Ended::from(self.begin(more).wait_with_output().expect("its end"))
    }

    /// Cloud Build's builds, in the order of their ids.
    fn builds(&self) -> Vec<Value> {
        let state = self.google.state();
        state["resources"]["cloudbuild.builds"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(_, build)| build.clone())
            .collect()
    }

    fn statuses(&self) -> Vec<String> {
        let mut statuses: Vec<String> =
            self.builds().iter().map(|build| build["status"].as_str().unwrap_or_default().to_owned()).collect();
        statuses.sort();
        statuses
    }

    /// What the registry answers to GET below the image's name; `None` for a 404.
    fn get(&self, path: &str) -> Option<Value> {
        let url = format!("http://{}/v2/{IMAGE}/{path}", self.registry.host());
        let accept = "Accept: application/vnd.oci.image.index.v1+json, \
                      application/vnd.docker.distribution.manifest.v2+json, */*";
        let output = command("curl").args(["--silent", "--fail", "--location", "--header", accept, &url]).output();
        let output = output.expect("curl starts");
        // 22: the server answered with an error.
        assert!(output.status.success() || output.status.code() == Some(22), "{url}: {output:?}");
        output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON"))
    }

    fn is_pushed(&self) -> bool {
        self.get("manifests/v7").is_some()
    }
}

/// How xtask ended.
struct Ended {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), out: output.stdout, err }
    }
}

#[test]
fn what_cloud_build_has_pushed_becomes_one_image() {
    let Some(site) = Site::start(&APIS, "sleep 0") else { return };
    // Where infra has made nothing there is no registry either.
    let ended = site.build(&[]);
    assert_eq!(ended.code, Some(12), "{}", ended.err);
    assert!(ended.err.contains("the infrastructure of environment cloud is not there yet"), "{}", ended.err);
    let ended = site.build(&["--dry-run"]);
    let plan: Value = serde_json::from_slice(&ended.out).expect("JSON");
    assert_eq!(plan["target"], format!("europe-west1-docker.pkg.dev/{IMAGE}:v7"), "{}", ended.err);
    assert!(plan["commands"][0].to_string().contains(&format!("--project={PROJECT}")), "{plan:#}");
    assert_eq!(site.builds().len(), 0);

    site.import_outputs();
    let ended = site.build(&[]);
    let logs = site
        .builds()
        .iter()
        .map(|build| site.builder.log(build["id"].as_str().unwrap_or_default()))
        .collect::<String>();
    assert_eq!(ended.code, Some(0), "{}\n{logs}", ended.err);
    let answer: Value = serde_json::from_slice(&ended.out).expect("JSON");
    let mut at = 0;
    for said in ["Sending", "to Cloud Build", "Building", "as build", ": success"] {
        let found = ended.err[at..].find(said);
        at += found.unwrap_or_else(|| panic!("{said:?} is not, in this order, in {}", ended.err));
    }

    let builds = site.builds();
    assert_eq!(builds.len(), 1, "{builds:#?}");
    let pushed = builds[0]["results"]["images"].as_array().expect("images");
    let index = site.get("manifests/v7").expect("the tag");
    let version = image_version(&site.home.path().join("project"));
    for (number, cpu) in ["amd64", "arm64"].into_iter().enumerate() {
        let entry = &index["manifests"][number];
        assert_eq!(entry["platform"], json!({ "os": "linux", "architecture": cpu }), "{index:#}");
        let name = format!("{}/{IMAGE}:v7-{cpu}", site.registry.host());
        let by_builder = pushed.iter().find(|image| image["name"] == *name).expect("what was asked for");
        assert_eq!(entry["digest"], by_builder["digest"]);
        assert_eq!(answer["images"][number]["digest"], entry["digest"], "{answer:#}");
        let manifest =
            site.get(&format!("manifests/{}", entry["digest"].as_str().expect("a digest"))).expect("an image");
        assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json", "as docker pushes");
        let config =
            site.get(&format!("blobs/{}", manifest["config"]["digest"].as_str().expect("a digest"))).expect("a config");
        let labels = json!({ "org.opencontainers.image.title": "MLflow", "org.opencontainers.image.version": version });
        assert_eq!(config["config"]["Labels"], labels);
        assert_eq!((&config["os"], &config["architecture"]), (&json!("linux"), &json!(cpu)));
        assert_eq!(config["config"]["User"], "65532:65532");
    }
    let digest = answer["digest"].as_str().expect("a digest");
    assert_eq!(site.get(&format!("manifests/{digest}")), Some(index));

    // The source that was sent is what the Dockerfile may see.
    let source = &builds[0]["source"]["storageSource"];
    assert_eq!(source["bucket"], format!("{PROJECT}_cloudbuild"));
    assert!(site.google.log().iter().all(|call| call.status != 401 && call.status != 403));
}

fn image_version(root: &Path) -> String {
    let lock = std::fs::read_to_string(root.join("mlflow_server/requirements.lock")).expect("a lock");
    let line = lock.lines().find_map(|line| line.strip_prefix("mlflow==")).expect("mlflow");
    line.split([' ', ';', '\\']).next().unwrap_or_default().to_owned()
}

#[test]
fn a_build_that_fails_says_where() {
    let Some(site) = Site::start(&APIS, "false") else { return };
    site.import_outputs();
    let ended = site.build(&[]);
    assert_eq!(ended.code, Some(6), "{}", ended.err);
    for said in ["ended as FAILURE", "build step 0 \"gcr.io/cloud-builders/docker\" failed", "read its log: https://"] {
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
    assert_eq!((site.statuses(), site.is_pushed()), (vec!["FAILURE".to_owned()], false));
}

#[test]
fn an_interrupted_build_is_cancelled() {
    let marker = "271829";
    let Some(site) = Site::start(&APIS, &format!("sleep {marker}")) else { return };
    site.import_outputs();
    for count in [1, 2] {
        let child = site.begin(&[]);
        wait_until("Cloud Build builds", || sleeping(marker));
        if count == 1 {
            let polls = |call: &Entry| call.method == "GET" && call.path.contains("/builds/");
            wait_until("xtask asks about it", || site.google.log().iter().any(polls));
        }
        let _ = command("kill").args(["-INT", &child.id().to_string()]).status();
        let ended = Ended::from(child.wait_with_output().expect("its end"));
        assert_eq!(ended.code, Some(130), "{}", ended.err);
        assert!(ended.err.contains("Cancelled build"), "{}", ended.err);
        // Before and after xtask has heard of the build.
        assert_eq!(ended.err.contains("as build"), count == 1, "{}", ended.err);
        assert_eq!(site.statuses(), vec!["CANCELLED"; count]);
        wait_until("the step has ended", || !sleeping(marker));
        assert!(!site.is_pushed());
        site.google.fail(&Rule::always("cloudbuild", "POST", "/builds?", Fault::AnswerLost));
    }
}

#[test]
fn what_cloud_build_refuses_gets_its_fix() {
    let Some(site) = Site::start(&["storage.googleapis.com"], "sleep 0") else { return };
    site.import_outputs();
    let ended = site.build(&[]);
    assert_eq!(ended.code, Some(18), "{}", ended.err);
    let fix = format!("gcloud services enable cloudbuild.googleapis.com --project {PROJECT}");
    assert!(ended.err.contains("did not take the build") && ended.err.contains(&fix), "{}", ended.err);

    let project = Project { enabled: APIS.map(str::to_owned).to_vec(), ..Project::new(PROJECT) };
    site.google.set_project(&project);
    site.google.fail(&Rule::always("cloudbuild", "POST", "/builds", Fault::PermissionDenied));
    let ended = site.build(&[]);
    assert_eq!(ended.code, Some(15), "{}", ended.err);
    assert!(ended.err.contains("roles/cloudbuild.builds.editor"), "{}", ended.err);
    assert_eq!((site.builds().len(), site.is_pushed()), (0, false));
}

#[test]
fn a_lost_answer_makes_no_second_image() {
    let Some(site) = Site::start(&APIS, "sleep 15") else { return };
    site.import_outputs();
    site.google.fail(&Rule::once("cloudbuild", "POST", "/builds?", Fault::AnswerLost));
    // And one about the build: it goes on.
    site.google.fail(&Rule::once("cloudbuild", "GET", "/builds/", Fault::Status(503)));
    let ended = site.build(&["--platform", &image::platform()]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    // gcloud has asked again; the first build is not wanted.
    assert!(ended.err.contains("Cancelled build"), "{}", ended.err);
    let statuses = site.statuses();
    assert!(site.is_pushed() && statuses.iter().filter(|status| *status == "SUCCESS").count() == 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| status == "SUCCESS" || status == "CANCELLED"), "{statuses:?}");
}

#[test]
fn a_build_that_nobody_has_told_of_is_found() {
    let Some(site) = Site::start(&APIS, "sleep 1") else { return };
    site.import_outputs();
    site.google.fail(&Rule::always("cloudbuild", "POST", "/builds?", Fault::AnswerLost));
    let ended = site.build(&["--platform", &image::platform()]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("Google's answer was lost, but the build has begun"), "{}", ended.err);
    assert!(site.is_pushed());
}
