//! `infra --via gcloud` with the real gcloud, against the fake Google.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;
use testbed::Home;
use testbed::google::{Fault, Google, OperationFault, Options, Project, Rule};

use crate::image;

/// The project of these tests.
const PROJECT: &str = "testbed-project";

/// A project at Google, and a repository with an environment `cloud`.
struct Site {
    google: Google,
    home: Home,
    gcloud: PathBuf,
}

impl Site {
    /// `None` without gcloud.
    fn new(kind: &str, settings: &str) -> Option<Self> {
        let gcloud = testbed::require("gcloud", "google-cloud-cli, from Google's own packages")?;
        let google = Google::start(Options { projects: vec![Project::new(PROJECT)], ..Options::default() });
        let site = Self { google, home: Home::new(), gcloud };
        let context = if kind == "gke" { "" } else { "context = \"none\"\n" };
        let text = format!(
            "[environment.cloud]\nkind = \"{kind}\"\n{context}\n[environment.cloud.infra]\nvia = \"gcloud\"\n\
             project = \"{PROJECT}\"\nregion = \"europe-west1\"\n{settings}"
        );
        std::fs::write(image::project(&site.home).join("deploy.toml"), text).unwrap();
        Some(site)
    }

    fn try_infra(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let mut program = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        program.arg("infra").args(args).args(["--env", "cloud", "--json"]);
        program.env("CARGO_MANIFEST_DIR", self.home.file("project")).envs(self.google.gcloud_env());
        program.envs(env.iter().copied()).stdin(Stdio::null()).output().expect("xtask starts")
    }

    fn infra(&self, args: &[&str]) -> Value {
        let output = self.try_infra(args, &[]);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "infra {args:?}: {err}");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("infra {args:?}: {error}: {err}"))
    }

    /// What one call of gcloud by hand does.
    fn by_hand(&self, line: &str) {
        let mut program = self.home.command(&self.gcloud);
        let output = program.args(line.split(' ')).envs(self.google.gcloud_env()).output().expect("gcloud starts");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Calls that change something; policies are read by POST.
    fn writes(&self) -> Vec<String> {
        let reads = ["getIamPolicy", "testIamPermissions"];
        let log = self.google.log().into_iter();
        let writes = log.filter(|call| call.method != "GET" && !reads.iter().any(|verb| call.path.ends_with(verb)));
        writes.map(|call| format!("{} {}/{}", call.method, call.service, call.path)).collect()
    }

    /// Kinds of what there is, but for pools, which are kept for a month.
    fn kinds(&self) -> BTreeSet<String> {
        let state = self.google.state();
        let kinds = state["resources"].as_object().expect("resources").keys().cloned();
        kinds.filter(|kind| !kind.starts_with("iam.workloadIdentity")).collect()
    }
}

/// The plan's lines with this action.
fn lines(answer: &Value, action: &str) -> Vec<String> {
    let changes = answer["changes"].as_array().expect("changes").iter();
    let with = changes.filter(|change| change["action"] == action);
    with.map(|change| format!("{} {}", change["resource"].as_str().unwrap_or_default(), change["details"])).collect()
}

#[test]
fn an_environment_is_made_once_and_destroyed_in_two_stages() {
    if !testbed::nightly("an environment by gcloud, made and destroyed in two stages") {
        return;
    }
    let settings = "cluster = \"standard\"\nregistry = \"gcr.io\"\ngithub = \"me/mlflow\"\n\
        github-repository-id = \"42\"\ngithub-owner-id = \"7\"\n";
    let Some(site) = Site::new("gke", settings) else { return };
    let made = site.infra(&["apply", "--yes"]);
    let outputs = &made["outputs"];
    assert_eq!(outputs["database"]["instance"], format!("{PROJECT}:europe-west1:mlflow"));
    assert_eq!(outputs["registry"]["repository"], format!("gcr.io/{PROJECT}"));
    assert!(outputs["cluster"]["endpoint"].as_str().is_some_and(|endpoint| endpoint.starts_with("https://")));
    let provider = outputs["github"]["provider"].as_str().unwrap_or_default();
    assert!(provider.ends_with("/workloadIdentityPools/mlflow-github/providers/github"), "{provider}");
    let writes = site.writes();
    assert!(!writes.iter().any(|call| call.ends_with("/keys")), "{writes:#?}");

    site.google.clear_log();
    let again = site.infra(&["apply", "--yes"]);
    assert_eq!((&again["changed"], site.writes()), (&Value::Bool(false), Vec::new()));
    assert_eq!(&again["outputs"], outputs);

    site.by_hand("sql instances patch mlflow --tier=db-custom-2-7680 --quiet");
    let drifted = site.infra(&["plan"]);
    let drift = lines(&drifted, "drift");
    assert!(drift.len() == 1 && drift[0].contains("tier: db-custom-2-7680 -> db-custom-1-3840"), "{drift:?}");

    site.infra(&["destroy", "--yes"]);
    let left = site.kinds();
    assert!(left.iter().any(|kind| kind.contains("bucket")), "{left:?}");
    assert!(left.iter().any(|kind| kind == "sql.instances"), "{left:?}");
    assert!(!left.iter().any(|kind| kind.contains("cluster") || kind.contains("erviceAccount")), "{left:?}");
    // A pool that was deleted is brought back.
    site.infra(&["apply", "--yes"]);
    site.infra(&["destroy", "--yes", "--delete-data"]);
    assert_eq!(site.kinds(), BTreeSet::new());
    assert_eq!(lines(&site.infra(&["plan"]), "drift"), Vec::<String>::new());
}

#[test]
fn trouble_that_passes_is_waited_out_and_a_failed_run_is_carried_on() {
    let Some(site) = Site::new("kubernetes", "deletion-protection = false\n") else { return };
    let faults = [
        Rule::once("iam", "POST", "serviceAccounts", Fault::RateLimited),
        Rule::once("storage", "POST", "/b?", Fault::AnswerLost),
        Rule::once("artifactregistry", "POST", "repositories", Fault::AnswerLost),
        Rule::once("cloudresourcemanager", "POST", ":setIamPolicy", Fault::Status(503)),
        Rule::once("sql", "POST", "/instances", Fault::PermissionDenied),
    ];
    faults.iter().for_each(|rule| site.google.fail(rule));
    let output = site.try_infra(&["apply", "--yes"], &[]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(15), "{err}");
    assert!(err.contains("cannot make Cloud SQL instance mlflow") && err.contains("roles/cloudsql.admin"), "{err}");

    site.google.fail(&Rule::once("sql", "POST", "/instances", Fault::Operation(OperationFault::Slow(20))));
    let output = site.try_infra(&["apply", "--yes"], &[("XTASK_INFRA_OPERATION_SECONDS", "8")]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{err}");
    assert!(err.contains("run the same command again to wait for it"), "{err}");

    let planned = site.infra(&["plan"]);
    assert_eq!(lines(&planned, "update").len(), 1, "{planned:#}");
    site.infra(&["apply", "--yes"]);
    assert_eq!(site.infra(&["apply", "--yes"])["changed"], false);
}
