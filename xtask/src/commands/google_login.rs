//! `google-login`: the login for a cluster of Google's, for Kubernetes' clients.

use std::io::Write as _;
use std::process::ExitCode;

use crate::error::{Context as _, Result};
use crate::google::gke_login;

/// Print an ExecCredential with an access token; for kubeconfig files, which run it
#[derive(clap::Args)]
pub struct Args {}

pub async fn run(_: Args) -> Result<ExitCode> {
    let credential = gke_login::credential(std::env::var("KUBERNETES_EXEC_INFO").ok().as_deref()).await?;
    // Not as an answer: those go to the summary page of a workflow as well.
    writeln!(std::io::stdout(), "{credential}").on_machine(|| "cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}
