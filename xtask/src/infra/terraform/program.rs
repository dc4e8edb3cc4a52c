//! terraform itself: found, initialised, called. Its folder is `terraform/`, each environment is a
//! workspace of its own, and secrets go to it by environment variables.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::diagnosis::{self, Failed};
use super::events::{Diagnostic, Event};
use super::imports;
use crate::cache;
use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Context as _, Error, Kind, Result};
use crate::infra::way::Given;
use crate::process::{self, Program};

/// The oldest terraform that knows write-only arguments.
const LEAST: (u32, u32) = (1, 11);

/// How long a question that touches nothing but this machine may take.
const QUESTION: Duration = Duration::from_secs(60);

/// How long terraform may take to end in order after Ctrl-C: it writes the state down.
pub const TIDY_UP: Duration = Duration::from_secs(300);

/// Files in `terraform/` that are written for one call, and are in no commit.
const BACKEND: &str = "backend_override.tf.json";
const IMPORTS: &str = "adopt.tf.json";

/// A terraform that fits, and an environment's workspace.
pub struct Terraform {
    program: PathBuf,
    /// `terraform/`.
    folder: PathBuf,
    workspace: String,
    /// Providers, modules, backend: apart for each environment.
    data: PathBuf,
    var_file: PathBuf,
}

#[derive(Deserialize)]
struct Version {
    terraform_version: String,
}

impl Terraform {
    /// Finds terraform.
    ///
    /// # Errors
    /// `Tool` when it is not installed or too old.
    pub async fn find(run: &Run, root: &Path, env: &str, folder: &Path) -> Result<Self> {
        let (program, _) = locate(run).await?;
        let modules = root.join("terraform");
        Ok(Self {
            program,
            var_file: modules.join(format!("environments/{env}.tfvars.json")),
            folder: modules,
            workspace: env.to_owned(),
            data: folder.join("terraform"),
        })
    }

    fn call(&self, args: &[String]) -> Program {
        Program::new(&self.program)
            .args(args)
            .dir(&self.folder)
            .env("TF_DATA_DIR", &self.data)
            .env("TF_WORKSPACE", &self.workspace)
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_INPUT", "0")
            .env("CHECKPOINT_DISABLE", "1")
    }

    /// The flag that names the variables' file.
    pub fn var_file(&self) -> String {
        format!("-var-file={}", self.var_file.display())
    }

    /// Writes the variables, for us and for a terraform that is called by hand.
    pub fn write_vars(&self, vars: &Value) -> Result<()> {
        cache::write(&self.var_file, format!("{vars:#}\n").as_bytes())
    }

    /// Says where the state is: in a bucket, or without one in a file here.
    pub fn backend(&self, bucket: Option<&str>, prefix: &str) -> Result<()> {
        let block = bucket
            .map(|bucket| json!({ "terraform": { "backend": { "gcs": { "bucket": bucket, "prefix": prefix } } } }));
        self.place(BACKEND, block)
    }

    /// Says which resources are to be taken over.
    pub fn imports(&self, infra: &InfraConfig, addresses: &[String]) -> Result<()> {
        self.place(IMPORTS, imports::blocks(infra, addresses))
    }

    fn place(&self, name: &str, content: Option<Value>) -> Result<()> {
        let path = self.folder.join(name);
        match content {
            Some(content) => cache::write(&path, format!("{content:#}\n").as_bytes()),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).on_machine(|| format!("cannot remove {}", path.display()))
                }
                _ => Ok(()),
            },
        }
    }

    /// Gets the provider and opens the state.
    pub async fn init(&self, run: &Run) -> Result<()> {
        run.ui.step("Preparing", "terraform");
        // A state that has moved between a file and a bucket is not copied without being asked for:
        // `terraform init -migrate-state` does that.
        let args = ["init", "-input=false", "-no-color"].map(str::to_owned);
        // The workspace may not exist before the first apply.
        let call = self.call(&args);
        let (status, complaint) = call.follow(&run.cancel, TIDY_UP, |_| {}).await?;
        match status.success() {
            true => Ok(()),
            false => Err(diagnosis::explain("init", &status.to_string(), &[], &complaint).into()),
        }
    }

    /// Runs a command that talks in events; `on_event` is told of each.
    ///
    /// # Errors
    /// What its diagnostics say.
    pub async fn follow(
        &self,
        run: &Run,
        command: &str,
        args: &[String],
        given: Given<'_>,
        on_event: impl FnMut(&Event),
    ) -> std::result::Result<(), Failed> {
        self.follow_until(run, &run.cancel, command, args, given, on_event).await
    }

    /// The same until it is told to stop.
    pub async fn follow_until(
        &self,
        run: &Run,
        stop: &CancellationToken,
        command: &str,
        args: &[String],
        given: Given<'_>,
        mut on_event: impl FnMut(&Event),
    ) -> std::result::Result<(), Failed> {
        let mut all = vec![args[0].clone(), "-json".to_owned(), "-input=false".to_owned()];
        all.push(format!("-lock-timeout={}s", given.lock_wait));
        all.extend(args[1..].iter().cloned());
        // A plan file is the last argument of `apply`.
        let mut call = self.call(&all);
        if let Some((password, _)) = given.password {
            call = call.env("TF_VAR_database_password", password.expose());
        }
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        let (status, complaint) = call
            .follow(stop, TIDY_UP, |line| {
                let event = Event::parse(line);
                match &event {
                    Event::Diagnostic(found) if found.severity == "warning" => run.ui.warn(&found.summary),
                    Event::Diagnostic(found) => diagnostics.push(found.clone()),
                    _ => {}
                }
                on_event(&event);
            })
            .await?;
        match status.success() {
            true => Ok(()),
            false => Err(diagnosis::explain(command, &status.to_string(), &diagnostics, &complaint)),
        }
    }

    /// Runs a command for its effect.
    pub async fn run(&self, run: &Run, args: &[String], given: Given<'_>) -> Result<()> {
        let mut all = vec![args[0].clone(), format!("-lock-timeout={}s", given.lock_wait)];
        all.extend(args[1..].iter().cloned());
        self.read(run, &all).await.map(drop)
    }

    /// Runs a command for its answer.
    pub async fn read(&self, run: &Run, args: &[String]) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        let call = self.call(args);
        let (status, complaint) = call
            .follow(&run.cancel, TIDY_UP, |line| {
                answer.extend(line.as_bytes());
                answer.push(b'\n');
            })
            .await?;
        match status.success() {
            true => Ok(answer),
            false => Err(diagnosis::explain(&args[0], &status.to_string(), &[], &complaint).into()),
        }
    }
}

/// terraform's program and version.
///
/// # Errors
/// `Tool` when it is not installed or too old.
pub async fn locate(run: &Run) -> Result<(PathBuf, String)> {
    let get = "install terraform 1.11 or newer (https://developer.hashicorp.com/terraform/install), or set \
               via = \"gcloud\" in [environment.NAME.infra]";
    let program = process::require("terraform", get)?;
    let answer = Program::new(&program)
        .args(["version", "-json"])
        .env("CHECKPOINT_DISABLE", "1")
        .ask(&run.cancel, QUESTION)
        .await?;
    let version: Version =
        serde_json::from_slice(&answer).context(Kind::Tool, || "terraform does not say its version")?;
    if !is_recent(&version.terraform_version) {
        let message = format!("terraform {} is too old", version.terraform_version);
        return Err(Error::new(Kind::Tool, message).hint(get));
    }
    Ok((program, version.terraform_version))
}

fn is_recent(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version >= LEAST)
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_old_terraform_is_told_apart() {
        for (version, expected) in
            [("1.11.4", true), ("1.2.7", false), ("2.0.0", true), ("1.11.0-rc1", true), ("", false), ("1.9.8", false)]
        {
            assert_eq!(super::is_recent(version), expected, "{version}");
        }
    }
}
