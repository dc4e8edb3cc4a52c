//! What would be done, in a form that can be carried out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gcloud;
use super::plan::Plan;
use super::terraform::{self, Planned, Workspace};
use super::way::{Given, Wish};
use crate::cache;
use crate::commands::Run;
use crate::config::infra::InfraConfig;
use crate::error::{Context as _, Error, Kind, Result};

/// A plan, and the way to it.
pub struct Proposal<'a> {
    /// For people and scripts.
    pub plan: Plan,
    /// The version of the password that it was made for.
    pub password: Option<u64>,
    doing: Doing<'a>,
}

enum Doing<'a> {
    /// terraform's own plan.
    Terraform { workspace: &'a Workspace, path: PathBuf, unfinished: Vec<String>, wish: Wish },
    /// Commands.
    Gcloud { infra: &'a InfraConfig, steps: Vec<gcloud::Step> },
}

/// How far a proposal got.
pub enum Reached<'a> {
    /// To its end.
    End,
    /// To its end, but for resources that turned out to exist.
    Existing(Existing<'a>),
}

/// Resources that exist without being in terraform's state.
pub struct Existing<'a> {
    workspace: &'a Workspace,
    addresses: Vec<String>,
}

impl<'a> Proposal<'a> {
    /// What terraform has planned.
    pub fn terraform(workspace: &'a Workspace, planned: Planned, wish: Wish) -> Self {
        let Planned { plan, unfinished, password } = planned;
        Self { plan, password, doing: Doing::Terraform { workspace, path: workspace.plan_file(), unfinished, wish } }
    }

    /// Commands of gcloud.
    pub fn gcloud(infra: &'a InfraConfig, plan: Plan, steps: Vec<gcloud::Step>, password: Option<u64>) -> Self {
        Self { plan, password, doing: Doing::Gcloud { infra, steps } }
    }

    /// Keeps it in a file.
    ///
    /// # Errors
    /// `Input` for a plan that terraform would carry out otherwise than it is shown.
    pub fn keep(&self, file: &Path) -> Result<()> {
        let kept = match &self.doing {
            Doing::Terraform { path, unfinished, .. } => {
                refuse_unfinished(unfinished)?;
                let bytes = std::fs::read(path).on_machine(|| format!("cannot read {}", path.display()))?;
                Kept { terraform: Some(bytes), plan: self.plan.clone() }
            }
            Doing::Gcloud { .. } => Kept { terraform: None, plan: self.plan.clone() },
        };
        let text = serde_json::to_vec(&kept).context(Kind::Internal, || "cannot write the plan")?;
        cache::write_private(file, &text)
    }

    /// Carries it out.
    ///
    /// # Errors
    /// The tool's; what is done is noted as such, and a second run goes on. `Input` where the
    /// infrastructure has changed since it was planned.
    pub async fn carry_out(self, run: &Run, given: &Given<'_>) -> Result<Reached<'a>> {
        match self.doing {
            Doing::Gcloud { infra, steps } => {
                gcloud::execute(run, infra, &steps, given.password.map(|(password, _)| password)).await?;
                Ok(Reached::End)
            }
            Doing::Terraform { workspace, path, unfinished, wish: Wish::Have } => {
                let mut total = self.plan.changes.len();
                if !unfinished.is_empty() {
                    total = workspace.keep_unfinished(run, *given, &self.plan, &unfinished).await?;
                }
                let addresses = workspace.apply(run, *given, &path, total).await?;
                match addresses.is_empty() {
                    true => Ok(Reached::End),
                    false => Ok(Reached::Existing(Existing { workspace, addresses })),
                }
            }
            Doing::Terraform { workspace, path, wish, .. } => {
                workspace.unprotect(run, *given, wish, &self.plan).await?;
                // The first plan is stale where something was unprotected.
                let planned = workspace.plan_destruction(run, *given, wish).await?;
                if planned.plan != self.plan {
                    return Err(has_changed());
                }
                workspace.apply(run, *given, &path, planned.plan.changes.len()).await?;
                Ok(Reached::End)
            }
        }
    }
}

impl<'a> Existing<'a> {
    /// A proposal that takes over what exists already. `known` grows by what was found.
    ///
    /// # Errors
    /// `Conflict` where it is other than wanted, and `adopt` does not say to change it.
    pub async fn take_over(
        self,
        run: &Run,
        given: &Given<'_>,
        agreed: &Plan,
        known: &mut Vec<String>,
        adopt: bool,
    ) -> Result<Proposal<'a>> {
        let names = self.addresses.join(", ");
        let unseen = || {
            Error::new(Kind::Conflict, format!("Google says that it exists, and cannot show it: {names}")).hint(
                "it may belong to another project, or have been deleted: the name of a Cloud SQL instance is free again \
                 after a week. Choose another one (`instance`, `bucket`, `name`) in [environment.NAME.infra]",
            )
        };
        if self.addresses.iter().all(|address| known.contains(address)) {
            return Err(unseen());
        }
        run.ui.warn(format!("exists already, and is compared with what is wanted: {names}"));
        known.extend(self.addresses);
        let planned = self.workspace.plan(run, *given, known).await.map_err(|error| {
            let is_absent = error.lines().iter().any(|line| line.contains(terraform::IS_ABSENT));
            if is_absent { unseen().source(error) } else { error }
        })?;
        if let (false, Err(why)) = (adopt, terraform::is_within(agreed, &planned.plan)) {
            return Err(Error::new(Kind::Conflict, "a resource exists with other settings")
                .source(why)
                .hint("make deploy.toml say what it is, or use --adopt to change it to what deploy.toml says"));
        }
        Ok(Proposal::terraform(self.workspace, planned, Wish::Have))
    }
}

/// What is to be done is no longer what was shown.
pub fn has_changed() -> Error {
    Error::new(Kind::Input, "the infrastructure has changed since the plan was shown")
        .hint("run the same command again")
}

/// terraform's own plan deletes and remakes what was being made when a run was stopped; ours keeps it.
///
/// # Errors
/// `Input`, where there is such a thing.
pub fn refuse_unfinished(unfinished: &[String]) -> Result<()> {
    match unfinished.is_empty() {
        true => Ok(()),
        false => {
            let names = unfinished.join(", ");
            Err(Error::new(Kind::Input, format!("a run was stopped while making {names}: such a plan is not kept"))
                .hint("run `cargo xtask infra apply` without a kept plan: it finishes them"))
        }
    }
}

/// A plan in a file.
#[derive(Serialize, Deserialize)]
pub struct Kept {
    /// terraform's own plan.
    #[serde(default, with = "base64_bytes")]
    pub terraform: Option<Vec<u8>>,
    /// What it does.
    pub plan: Plan,
}

impl Kept {
    /// Reads it.
    ///
    /// # Errors
    /// `Input` where it is something else.
    pub fn read(file: &Path) -> Result<Self> {
        let named = file.display().to_string();
        let text = std::fs::read(file).context(Kind::Input, || format!("cannot read the plan {named}"))?;
        serde_json::from_slice(&text)
            .context(Kind::Input, || format!("{named} is not a plan"))
            .map_err(|error| error.hint("write one with: cargo xtask infra plan --env NAME --out FILE"))
    }
}

/// Bytes as base64 in JSON.
mod base64_bytes {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => to.serialize_str(&STANDARD.encode(bytes)),
            None => to.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| STANDARD.decode(text).map_err(serde::de::Error::custom)).transpose()
    }
}
