//! A runner of GitHub's for one test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::{Map, Value, json};
use testbed::actions::shim::{Says, built_cargo, calls, scripted, watched};
use testbed::actions::{Action, Api, Conclusion, Context, JobResult, job, matrix};
use testbed::{Home, require};

use super::repository;

pub const REPOSITORY: &str = "octo/mlflow";
pub const PROVIDER: &str = "projects/1/locations/global/workloadIdentityPools/mlflow-github/providers/github";

pub struct Runner {
    pub home: Home,
    pub workspace: PathBuf,
    pub api: Api,
    token: String,
    pub vars: BTreeMap<String, String>,
    pub inputs: Map<String, Value>,
    pub event_name: String,
    pub event: Value,
    pub needs: BTreeMap<String, JobResult>,
    pub matrix: Map<String, Value>,
    pub actions: BTreeMap<String, Action>,
}

impl Runner {
    /// A runner of a repository with no variable set; `None` where a program of the steps is missing.
    pub fn new() -> Option<Self> {
        let curl = require("curl", "curl")?;
        require("jq", "jq")?;
        let home = Home::new();
        std::fs::create_dir_all(home.path().join("bin")).expect("a folder");
        let token = format!("token-of-{}", std::process::id());
        let api = Api::start(REPOSITORY, &token);
        let vars = ["MLFLOW_STAGING", "MLFLOW_PRODUCTION"].map(|name| (name.to_owned(), String::new()));
        let actions = [
            "actions/cache",
            "hashicorp/setup-terraform",
            "google-github-actions/setup-gcloud",
            "sigstore/cosign-installer",
        ];
        let mut actions: BTreeMap<_, _> = actions.map(|name| (name.to_owned(), Action::default())).into();
        actions.insert("actions/checkout".to_owned(), Action::default());
        let env = [("GOOGLE_APPLICATION_CREDENTIALS".to_owned(), "gha-creds-1.json".to_owned())].into();
        actions.insert("google-github-actions/auth".to_owned(), Action { env, ..Action::default() });
        let runner = Self {
            home,
            workspace: repository(),
            api,
            token,
            vars: vars.into(),
            inputs: Map::new(),
            event_name: "push".to_owned(),
            event: json!({}),
            needs: BTreeMap::new(),
            matrix: Map::new(),
            actions,
        };
        runner.script("rustup", &[says("*", "", 0)]);
        watched(&runner.bin(), "curl", &curl);
        runner.cargo(&[]);
        Some(runner)
    }

    /// The same with both environments configured, each with accounts of its own.
    pub fn configured() -> Option<Self> {
        let mut runner = Self::new()?;
        for name in ["staging", "production"] {
            let account = |what: &str| format!("mlflow-{what}@{name}.iam.gserviceaccount.com");
            let settings = json!({
                "provider": PROVIDER, "build": account("build"), "plan": account("plan"),
                "deploy": account("deploy"), "apply": account("apply"),
            });
            runner.vars.insert(format!("MLFLOW_{}", name.to_uppercase()), settings.to_string());
        }
        Some(runner)
    }

    /// What `cargo` says from now on.
    pub fn cargo(&self, answers: &[Says<'_>]) {
        self.script("cargo", answers);
    }

    /// From now on `cargo xtask` is the program that these tests are about.
    pub fn real_cargo(&self) {
        built_cargo(&self.bin(), env!("CARGO_BIN_EXE_xtask").as_ref());
    }

    /// What another program of the steps says from now on.
    pub fn script(&self, program: &str, answers: &[Says<'_>]) {
        scripted(&self.bin(), program, answers);
    }

    /// How `cargo` was called since then.
    pub fn calls(&self) -> Vec<String> {
        self.calls_of("cargo")
    }

    /// How another program of the steps was called.
    pub fn calls_of(&self, program: &str) -> Vec<String> {
        calls(&self.bin(), program)
    }

    /// Runs a job. Neither what it prints nor what it starts ever holds the token.
    pub fn run(&self, workflow: &str, name: &str) -> JobResult {
        let result = job(&self.file(workflow), name, &self.context()).unwrap_or_else(|error| panic!("{error}"));
        let public = [result.log(), result.summary.clone(), self.calls_of("curl").join("\n")];
        self.calls().iter().filter_map(|call| call.strip_prefix("xtask ")).for_each(|args| self.knows(args));
        assert!(!public.iter().any(|text| text.contains(&self.token)), "the token can be read: {public:?}");
        result
    }

    /// Panics unless the real xtask takes these arguments. It reads them before it looks for --help.
    fn knows(&self, args: &str) {
        static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        if KNOWN.lock().expect("the arguments").contains(args) {
            return;
        }
        let mut xtask = self.home.command(env!("CARGO_BIN_EXE_xtask"));
        let output = xtask.args(args.split(' ')).arg("--help").output().expect("xtask starts");
        assert!(output.status.success(), "xtask {args}: {}", String::from_utf8_lossy(&output.stderr));
        KNOWN.lock().expect("the arguments").insert(args.to_owned());
    }

    /// Runs a job that is to succeed, for those that need it.
    pub fn need(&mut self, workflow: &str, name: &str) -> JobResult {
        let result = self.run(workflow, name);
        assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
        self.needs.insert(name.to_owned(), result.clone());
        result
    }

    /// For which values a job is run.
    pub fn matrix(&self, workflow: &str, name: &str) -> Vec<Map<String, Value>> {
        matrix(&self.file(workflow), name, &self.context()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a job for one of the environments of its matrix.
    pub fn run_for(&mut self, environment: &str, workflow: &str, name: &str) -> JobResult {
        let all = self.matrix(workflow, name);
        let one = all.into_iter().find(|one| one["environment"] == environment);
        self.matrix = one.unwrap_or_else(|| panic!("{environment} is not in the matrix of {name}"));
        self.run(workflow, name)
    }

    fn file(&self, workflow: &str) -> PathBuf {
        self.workspace.join(".github/workflows").join(workflow)
    }

    fn bin(&self) -> PathBuf {
        self.home.path().join("bin")
    }

    fn context(&self) -> Context<'_> {
        let mut context = Context::new(&self.home, &self.workspace);
        context.path.push(self.bin());
        context.vars.clone_from(&self.vars);
        context.inputs.clone_from(&self.inputs);
        context.needs.clone_from(&self.needs);
        context.matrix.clone_from(&self.matrix);
        context.secrets.insert("GITHUB_TOKEN".to_owned(), self.token.clone());
        context.actions.clone_from(&self.actions);
        for (name, value) in [
            ("repository", REPOSITORY.into()),
            ("api_url", self.api.url().into()),
            ("run_id", "77".into()),
            ("event_name", self.event_name.as_str().into()),
            ("event", self.event.clone()),
        ] {
            context.github.insert(name.to_owned(), value);
        }
        context
    }
}

/// The account that a job logged in as.
pub fn account(result: &JobResult) -> &str {
    let login = result.step("Login at Google");
    assert_eq!(login.with["workload_identity_provider"], PROVIDER);
    &login.with["service_account"]
}

pub fn says<'a>(to: &'a str, text: &'a str, code: i32) -> Says<'a> {
    Says { to, text, code }
}
