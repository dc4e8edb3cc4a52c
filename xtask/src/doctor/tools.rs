//! The programs that `infra` drives, and the login for clusters of Google's.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::commands::Run;
use crate::config::infra::{InfraConfig, Via};
use crate::error::{Error, Kind, Result};
use crate::infra::terraform;
use crate::outputs::GKE_LOGIN;
use crate::process::{self, Program};

use super::{Check, asked};

/// How long gcloud may take to say its version. It is slow.
const ANSWERS_WITHIN: Duration = Duration::from_secs(25);

/// What `infra` needs of this machine.
pub(super) async fn of(run: &Run, infra: &InfraConfig) -> Vec<Check> {
    let via = async {
        match infra.via {
            Via::Terraform => asked("terraform", terraform(run)).await,
            Via::Gcloud => asked("gcloud", gcloud(run)).await,
        }
    };
    let mut checks = vec![via.await];
    if infra.cluster.is_some() {
        checks.push(gke_login());
    }
    checks
}

async fn terraform(run: &Run) -> Result<Check> {
    let (program, version) = terraform::locate(run).await?;
    Ok(Check::ok("terraform", format!("{version} ({})", program.display())))
}

async fn gcloud(run: &Run) -> Result<Check> {
    const FIX: &str = "install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install), or set via = \
        \"terraform\" in deploy.toml";
    let program = process::require("gcloud", FIX)?;
    let asked = Program::new(&program).args(["version", "--format=json"]).env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1");
    let answer: Value = json(&asked.ask(&run.cancel, ANSWERS_WITHIN).await?, "gcloud")?;
    let version = answer["Google Cloud SDK"].as_str().unwrap_or("a version that it does not tell");
    Ok(Check::ok("gcloud", format!("{version} ({})", program.display())))
}

/// What a kubeconfig of `infra`'s logs in with.
fn gke_login() -> Check {
    let found: Option<PathBuf> = process::find(&[GKE_LOGIN]);
    match found {
        Some(program) => Check::ok("cluster login", program.display().to_string()),
        None => Check::ok("cluster login", format!("xtask itself; for kubectl: gcloud components install {GKE_LOGIN}")),
    }
}

fn json(text: &[u8], program: &str) -> Result<Value> {
    serde_json::from_slice(text)
        .map_err(|error| Error::new(Kind::Tool, format!("{program} does not tell its version")).source(error))
}
