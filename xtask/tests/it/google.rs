//! The fake Google, with Google's own clients.

mod cloud;
#[cfg(target_os = "linux")]
mod database;
mod faults;
mod rules;
mod token;

pub use token::DEPLOY as BEHIND_IAP;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::Home;
use testbed::google::{Google, Options, Project};

/// The project of these tests.
pub const PROJECT: &str = "testbed-project";
const REGION: &str = "europe-west4";

/// APIs that the tests use, without their domain.
const APIS: &[&str] = &[
    "artifactregistry",
    "cloudbuild",
    "cloudresourcemanager",
    "compute",
    "container",
    "iam",
    "iamcredentials",
    "servicenetworking",
    "sqladmin",
    "storage",
    "sts",
];

/// A project in which everything is enabled.
pub fn enabled() -> Project {
    let enabled = APIS.iter().map(|api| format!("{api}.googleapis.com")).collect();
    Project { enabled, ..Project::new(PROJECT) }
}

/// A fake Google and a gcloud that calls nobody else.
struct Cloud {
    google: Google,
    home: Home,
    gcloud: PathBuf,
}

/// How a gcloud ended.
#[derive(Debug)]
struct Ended {
    ok: bool,
    stdout: String,
    stderr: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Cloud {
    /// `None` without gcloud.
    fn start(options: Options) -> Option<Self> {
        let gcloud = testbed::require("gcloud", "google-cloud-cli, from Google's own packages")?;
        Some(Self { google: Google::start(options), home: Home::new(), gcloud })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(&self.gcloud);
        command.args(arguments).arg("--format=json").stdin(Stdio::null());
        command.envs(self.google.gcloud_env());
        command
    }

    /// Runs gcloud to its end; words are separated by spaces.
    fn try_run(&self, line: &str) -> Ended {
        let arguments: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let output = self.command(&arguments).output().expect("gcloud starts");
        Ended {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs gcloud, which must succeed.
    fn run(&self, line: &str) -> Ended {
        let ended = self.try_run(line);
        assert!(ended.ok, "gcloud {line}: {}\n{}", ended.stderr, ended.stdout);
        ended
    }

    /// Runs a wave of commands side by side; all must succeed. Answers are in the order of the lines.
    fn run_all<const N: usize>(&self, lines: [&str; N]) -> [Ended; N] {
        thread::scope(|scope| {
            let running = lines.map(|line| scope.spawn(move || self.run(line)));
            running.map(|thread| thread.join().expect("gcloud succeeds"))
        })
    }
}

/// Calls as the owner, without a client.
pub trait Calls {
    /// The answer, which must be a success.
    fn ask(&self, method: &str, path: &str, body: Value) -> Value;
    /// As `ask`, and waits for the operation that comes of it.
    fn wait(&self, method: &str, path: &str, body: Value);
    /// Makes a Cloud SQL instance for small tests.
    fn instance(&self, name: &str);
    /// Makes a service account, and gives its e-mail address.
    fn account(&self, name: &str) -> String;
    /// Adds a role on a resource whose policy is at this path.
    fn grant(&self, path: &str, role: &str, member: &str);
}

impl Calls for Google {
    fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, Some("owner"), &body).expect("an answer");
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer:#}");
        answer
    }

    fn wait(&self, method: &str, path: &str, body: Value) {
        let mut operation = self.ask(method, path, body);
        while operation["status"] != "DONE" {
            assert_ne!(operation["name"], Value::Null, "{operation:#}");
            let name = operation["name"].as_str().expect("a name");
            operation = self.ask("GET", &format!("sql/v1/projects/{PROJECT}/operations/{name}"), Value::Null);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn instance(&self, name: &str) {
        let flags = json!([{ "name": "cloudsql.iam_authentication", "value": "on" }]);
        let settings = json!({ "edition": "ENTERPRISE", "tier": "db-f1-micro", "databaseFlags": flags });
        let body = json!({ "name": name, "region": REGION, "databaseVersion": "POSTGRES_17", "settings": settings });
        self.wait("POST", &format!("sql/v1/projects/{PROJECT}/instances"), body);
    }

    fn account(&self, name: &str) -> String {
        let path = format!("iam/v1/projects/{PROJECT}/serviceAccounts");
        let made = self.ask("POST", &path, json!({ "accountId": name }));
        made["email"].as_str().expect("an e-mail address").to_owned()
    }

    fn grant(&self, path: &str, role: &str, member: &str) {
        let mut policy = self.ask("POST", &format!("{path}:getIamPolicy"), json!({}));
        let binding = json!({ "role": role, "members": [member] });
        match policy["bindings"].as_array_mut() {
            Some(bindings) => bindings.push(binding),
            None => policy["bindings"] = json!([binding]),
        }
        self.ask("POST", &format!("{path}:setIamPolicy"), json!({ "policy": policy }));
    }
}
