//! A project of its own at a fake Google of its own.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::Home;
use testbed::gcloud::Gcloud;
use testbed::google::{Google, Options, Project};

use crate::{image, terraform};

/// The project of these tests.
pub const PROJECT: &str = "testbed-project";

/// A project of somebody else's.
pub const OTHER: &str = "other-project";

/// What makes the resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Terraform,
    Gcloud,
}

impl Via {
    /// As it is called in deploy.toml.
    pub fn name(self) -> &'static str {
        match self {
            Self::Terraform => "terraform",
            Self::Gcloud => "gcloud",
        }
    }
}

/// What the environment `cloud` is.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    pub kind: &'static str,
    /// Lines of its table `infra`.
    pub settings: &'static str,
}

/// A cluster elsewhere: bucket, registry and database.
pub const KUBERNETES: Environment = Environment { kind: "kubernetes", settings: "" };

/// All that `infra` makes: network, cluster and GitHub's login besides.
pub const GKE: Environment = Environment {
    kind: "gke",
    settings: "github = \"me/mlflow\"\ngithub-repository-id = \"42\"\ngithub-owner-id = \"7\"\n",
};

/// A repository with an environment `cloud`, and its Google.
pub struct Site {
    pub google: Google,
    pub home: Home,
    pub via: Via,
    kind: &'static str,
    env: Vec<(String, std::ffi::OsString)>,
}

/// A gcloud for all of these tests; `None` where there is none.
fn gcloud() -> Option<&'static Gcloud> {
    static GCLOUD: OnceLock<Gcloud> = OnceLock::new();
    let installed = testbed::require("gcloud", "google-cloud-cli, from Google's own packages")?;
    Some(GCLOUD.get_or_init(|| Gcloud::load(&installed)))
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
    pub seconds: f64,
}

impl Ran {
    /// What it says is wrong, in a line.
    pub fn cause(&self) -> String {
        let lines = self.err.lines().skip_while(|line| !line.trim_start().starts_with("error "));
        lines.collect::<Vec<_>>().join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// Whether it says that it has done something.
    pub fn changed(&self) -> Option<bool> {
        serde_json::from_str::<Value>(&self.out).ok()?["changed"].as_bool()
    }
}

impl Site {
    /// One of kind `kubernetes`; `None` where a program is missing.
    pub fn new(via: Via) -> Option<Self> {
        Self::of(via, KUBERNETES)
    }

    /// One of any kind; `None` where a program is missing.
    pub fn of(via: Via, environment: Environment) -> Option<Self> {
        let env = match via {
            Via::Terraform => {
                terraform::terraform()?;
                let mirror = terraform::mirror()?.environment().into_iter();
                mirror.map(|(name, value)| (name.to_owned(), value)).collect()
            }
            Via::Gcloud => {
                let mut env = gcloud()?.environment();
                env.push(("CLOUDSDK_CORE_HTTP_TIMEOUT".to_owned(), "2".into()));
                env
            }
        };
        let projects = vec![Project::new(PROJECT), Project { number: 7, ..Project::new(OTHER) }];
        let google = Google::start(Options { projects, ..Options::default() });
        let site = Self { google, home: Home::new(), via, kind: environment.kind, env };
        let root = image::project(&site.home);
        if via == Via::Terraform {
            let folder = root.join("terraform");
            terraform::copy(&terraform::folder(), &folder);
            // A call without an answer is given up after two seconds, not two minutes.
            let file = folder.join("providers.tf");
            let text = std::fs::read_to_string(&file).expect("the provider's settings");
            let hasty = text.replace("provider \"google\" {\n", "provider \"google\" {\n  request_timeout = \"2s\"\n");
            assert_ne!(text, hasty);
            std::fs::write(file, hasty).expect("a file");
        }
        site.configure(PROJECT, environment.settings);
        Some(site)
    }

    /// Writes deploy.toml.
    pub fn configure(&self, project: &str, settings: &str) {
        let context = if self.kind == "gke" { "" } else { "context = \"none\"\n" };
        let text = format!(
            "[environment.cloud]\nkind = \"{}\"\n{context}\n[environment.cloud.infra]\nvia = \"{}\"\n\
             project = \"{project}\"\nregion = \"europe-west1\"\ndeletion-protection = false\n{settings}",
            self.kind,
            self.via.name()
        );
        std::fs::write(self.root().join("deploy.toml"), text).expect("a file");
    }

    /// The copy of the project.
    pub fn root(&self) -> PathBuf {
        self.home.path().join("project")
    }

    /// `xtask infra ARGS`, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        command.arg("infra").args(args).args(["--env", "cloud", "--json"]).env("CARGO_MANIFEST_DIR", self.root());
        match self.via {
            Via::Terraform => command.envs(self.google.terraform_env()),
            Via::Gcloud => command.envs(self.google.gcloud_env()),
        };
        command.envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// Runs it to its end, whatever that is.
    pub fn infra(&self, args: &[&str]) -> Ran {
        ended(self.command(args))
    }

    /// `infra apply`, to whatever end.
    pub fn apply(&self) -> Ran {
        self.infra(&["apply", "--yes"])
    }

    /// What the owner does by hand.
    pub fn by_hand(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.google.call(method, path, Some("testbed-owner"), &body).expect("an answer");
        assert!(status < 300, "{method} {path}: {status} {answer:#}");
        answer
    }

    /// Everything that there is, but for what differs between two runs that do the same.
    pub fn state(&self) -> Value {
        let state = self.google.state();
        json!({
            "enabled": state["enabled"],
            "policies": unordered(&state["policies"]),
            "resources": lasting(&state["resources"]),
        })
    }
}

/// Runs a program to its end.
pub fn ended(mut command: Command) -> Ran {
    let begun = Instant::now();
    let output = command.output().expect("the program starts");
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Policies as sets of `role: member`: the order of bindings says nothing.
fn unordered(policies: &Value) -> Value {
    let set = |bindings: &Value| -> BTreeSet<String> {
        let bindings = bindings.as_array().into_iter().flatten();
        let each = bindings.flat_map(|binding| {
            let members = binding["members"].as_array().into_iter().flatten();
            members.map(|member| format!("{}: {member}", binding["role"]))
        });
        each.collect()
    };
    let all = policies.as_object().into_iter().flatten().map(|(name, bindings)| (name.clone(), json!(set(bindings))));
    Value::Object(all.collect())
}

/// Fields that are other ones each time.
const PASSING: [&str; 23] = [
    "address",
    "oauth2ClientId",
    "selfLink",
    "serviceAccountEmailAddress",
    "clientSecret",
    "clusterCaCertificate",
    "createTime",
    "creationTimestamp",
    "endpoint",
    "etag",
    "fingerprint",
    "generation",
    "id",
    "instanceGroupUrls",
    "ipAddresses",
    "labelFingerprint",
    "metageneration",
    "serverCaCert",
    "settingsVersion",
    "timeCreated",
    "uniqueId",
    "updateTime",
    "updated",
];

fn lasting(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !PASSING.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name.clone(), lasting(value))).collect())
        }
        Value::Array(items) => items.iter().map(lasting).collect(),
        // Full names of what Compute has begin with where the fake listens.
        Value::String(text) if text.starts_with("http://127.0.0.1:") => {
            text.splitn(4, '/').nth(3).unwrap_or_default().into()
        }
        other => other.clone(),
    }
}

/// Waits until it is so; for a minute at most.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
