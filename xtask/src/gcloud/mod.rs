//! The Google Cloud CLI, as this program calls it: nothing of the user's configuration is changed,
//! nothing is asked, answers are JSON, and what it complains about gets a kind and a fix.

mod call;
mod failure;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

pub use call::Call;
pub use failure::{Trouble, explain, trouble};

use crate::commands::Run;
use crate::error::{Context as _, Error, Kind, Result};
use crate::process::{self, Program};
use crate::registry::Secret;

/// How to get it.
pub const HOW_TO_GET_IT: &str = "install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install";

/// How long a request of gcloud's may be without an answer, in seconds; it asks again by itself. Whoever
/// has set it has set it.
const HTTP_TIMEOUT: (&str, &str) = ("CLOUDSDK_CORE_HTTP_TIMEOUT", "30");

/// gcloud, for one project.
pub struct Gcloud {
    path: PathBuf,
    project: String,
    run: Run,
    /// Files for gcloud, and the kubeconfig that it would write into otherwise.
    scratch: TempDir,
}

/// Why gcloud did not do it.
#[derive(Debug)]
pub struct Complaint {
    /// What kind of trouble it is.
    pub trouble: Trouble,
    /// For the user.
    pub error: Error,
}

impl From<Complaint> for Error {
    fn from(complaint: Complaint) -> Self {
        complaint.error
    }
}

impl Gcloud {
    /// The gcloud of this machine.
    ///
    /// # Errors
    /// `Tool` where there is none.
    pub fn find(run: &Run, project: &str) -> Result<Self> {
        let path = process::require("gcloud", HOW_TO_GET_IT)?;
        let scratch = tempfile::tempdir().on_machine(|| "cannot make a temporary folder")?;
        Ok(Self { path, project: project.to_owned(), run: run.clone(), scratch })
    }

    /// One call and its answer; `null` where it gives none.
    pub async fn ask(&self, call: &Call, deadline: Duration) -> Result<Value, Complaint> {
        self.hear(call, None, deadline).await
    }

    /// The same for a call that gets a password.
    pub async fn tell(&self, call: &Call, secret: &Secret, deadline: Duration) -> Result<Value, Complaint> {
        self.hear(call, Some(secret), deadline).await
    }

    async fn hear(&self, call: &Call, secret: Option<&Secret>, deadline: Duration) -> Result<Value, Complaint> {
        let program = self.program(call, secret).map_err(fatal)?;
        let said = program.hear(&self.run.cancel, deadline).await.map_err(|error| match error.kind() {
            Kind::Interrupted => fatal(error),
            kind => Complaint {
                trouble: if kind == Kind::Tool { Trouble::Hangs } else { Trouble::Fatal },
                error: Error::new(Kind::Remote, format!("`{}` did not end", self.short(call)))
                    .source(error)
                    .hint("run the same command again: it carries on"),
            },
        })?;
        if !said.status.success() {
            let text = String::from_utf8_lossy(&said.stderr);
            let message = format!("`{}` failed", self.short(call));
            let error = explain(message, failure::essence(&text), &text, &self.project, call.area());
            return Err(Complaint { trouble: trouble(&text), error });
        }
        let text = said.stdout.trim_ascii();
        if text.is_empty() || secret.is_some() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(text)
            .context(Kind::Tool, || format!("`{}` answered with something that is no JSON", self.short(call)))
            .map_err(fatal)
    }

    /// The words up to the first flag, for messages.
    fn short(&self, call: &Call) -> String {
        let words = call.words().iter().take_while(|word| !word.starts_with("--"));
        words.fold("gcloud".to_owned(), |text, word| format!("{text} {word}"))
    }

    fn program(&self, call: &Call, secret: Option<&Secret>) -> Result<Program> {
        let timeout = std::env::var(HTTP_TIMEOUT.0).unwrap_or_else(|_| HTTP_TIMEOUT.1.to_owned());
        // gcloud prints the password of a user that it has made, and writes it to its own log.
        let format = if call.has_secret() { "none" } else { "json" };
        let mut program = Program::new(&self.path)
            .args(call.words())
            .arg(format!("--project={}", self.project))
            .arg(format!("--format={format}"))
            .args(["--quiet", "--verbosity=error"])
            .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
            .env("CLOUDSDK_CORE_DISABLE_USAGE_REPORTING", "1")
            .env("CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK", "1")
            .env(HTTP_TIMEOUT.0, timeout)
            .env("KUBECONFIG", self.scratch.path().join("kubeconfig"));
        if let Some((name, text)) = call.attachment() {
            let file = self.scratch.path().join(format!("{name}.json"));
            std::fs::write(&file, text).on_machine(|| format!("cannot write {}", file.display()))?;
            program = program.arg(format!("--{name}={}", file.display()));
        }
        if call.has_secret() {
            let secret = secret.ok_or_else(|| {
                Error::new(Kind::Internal, format!("`{}` needs a password and got none", self.short(call)))
            })?;
            program = program
                .arg("--flags-file=/dev/stdin")
                .env("CLOUDSDK_CORE_DISABLE_FILE_LOGGING", "1")
                .stdin(json!({ "--password": secret.expose() }).to_string());
        }
        Ok(program)
    }
}

fn fatal(error: Error) -> Complaint {
    Complaint { trouble: Trouble::Fatal, error }
}
