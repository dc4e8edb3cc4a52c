//! The two ways to the same resources, behind one face.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::gcloud;
use super::plan::Plan;
use super::terraform::{self, Workspace};
use crate::cache;
use crate::commands::Run;
use crate::config::Config;
use crate::config::infra::{InfraConfig, Via};
use crate::error::{Context as _, Error, Kind, Result};
use crate::outputs::Outputs;
use crate::registry::Secret;

/// What the resources are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// There.
    Have,
    /// Gone, but for bucket and database.
    Destroy,
    /// Gone.
    DestroyData,
}

impl Wish {
    /// Gone, with or without the data.
    pub fn destruction(delete_data: bool) -> Self {
        if delete_data { Self::DestroyData } else { Self::Destroy }
    }
}

/// What is handed in besides the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'a> {
    /// The database user's password, where there is one, and its version: it is set when the version
    /// changes.
    pub password: Option<(&'a Secret, u64)>,
    /// How long another run's lock of the state is waited for, in seconds.
    pub lock_wait: u64,
}

/// What would be done, in a form that can be carried out.
pub struct Proposal {
    /// For people and scripts.
    pub plan: Plan,
    /// The version of the password that it was made for.
    pub password: Option<u64>,
    doing: Doing,
}

enum Doing {
    /// terraform's own plan.
    Terraform(PathBuf),
    /// Commands.
    Gcloud(Vec<gcloud::Step>),
}

/// One of the two ways.
pub enum Way {
    /// terraform, from `terraform/`.
    Terraform(Box<Workspace>),
    /// The Google Cloud CLI.
    Gcloud(Box<InfraConfig>),
}

impl Way {
    /// Finds the tool and what it needs.
    ///
    /// # Errors
    /// `Tool` where it is missing.
    pub async fn open(run: &Run, config: &Config, infra: &InfraConfig, folder: &Path) -> Result<Self> {
        match infra.via {
            Via::Terraform => {
                let workspace = Workspace::open(run, &config.root, &config.env, infra, folder.to_owned()).await?;
                Ok(Self::Terraform(Box::new(workspace)))
            }
            Via::Gcloud => Ok(Self::Gcloud(Box::new(infra.clone()))),
        }
    }

    /// What would be done to have what is wished. Changes nothing.
    pub async fn plan(&self, run: &Run, given: &Given<'_>, wish: Wish) -> Result<Proposal> {
        match self {
            Self::Terraform(workspace) => {
                let planned = match wish {
                    Wish::Have => workspace.plan(run, *given, &[]).await?,
                    Wish::Destroy | Wish::DestroyData => workspace.plan_destruction(run, *given, wish).await?,
                };
                Ok(Proposal::terraform(planned, workspace.plan_file()))
            }
            Self::Gcloud(infra) => {
                let observed = gcloud::observe(run, infra).await?;
                let (plan, steps) = match wish {
                    Wish::Have => gcloud::plan(infra, &observed),
                    Wish::Destroy => gcloud::destruction(infra, &observed, false),
                    Wish::DestroyData => gcloud::destruction(infra, &observed, true),
                };
                let password = given.password.map(|(_, version)| version);
                Ok(Proposal { plan, password, doing: Doing::Gcloud(steps) })
            }
        }
    }

    /// A plan that was kept in a file.
    ///
    /// # Errors
    /// `Input` where it is none, or no longer what would be done.
    pub async fn kept(&self, run: &Run, given: &Given<'_>, file: &Path) -> Result<Proposal> {
        let kept = Kept::read(file)?;
        match self {
            Self::Terraform(workspace) => {
                let bytes = kept.terraform.ok_or_else(|| kept_by(file, Via::Gcloud))?;
                let path = workspace.plan_file();
                cache::write_private(&path, &bytes)?;
                Ok(Proposal::terraform(workspace.read_plan(run, &path).await?, path))
            }
            Self::Gcloud(_) => {
                if kept.terraform.is_some() {
                    return Err(kept_by(file, Via::Terraform));
                }
                let proposal = self.plan(run, given, Wish::Have).await?;
                match proposal.plan == kept.plan {
                    true => Ok(proposal),
                    false => Err(Error::new(Kind::Input, "the infrastructure has changed since the plan was made")
                        .hint("plan again, and look at what is different")),
                }
            }
        }
    }

    /// Carries a proposal out. Gives the resources that turned out to exist, where that is all that kept
    /// it from its end.
    pub async fn apply(&self, run: &Run, given: &Given<'_>, proposal: Proposal) -> Result<Vec<String>> {
        match (self, proposal.doing) {
            (Self::Terraform(workspace), Doing::Terraform(path)) => {
                workspace.apply(run, *given, &path, proposal.plan.changes.len()).await
            }
            (Self::Gcloud(infra), Doing::Gcloud(steps)) => {
                gcloud::execute(run, infra, &steps, given.password.map(|(password, _)| password)).await?;
                Ok(Vec::new())
            }
            _ => Err(Error::new(Kind::Internal, "a proposal of the other way")),
        }
    }

    /// A proposal that takes over what exists already. `known` grows by what was found.
    ///
    /// # Errors
    /// `Conflict` where it is other than wanted, and `adopt` does not say to change it.
    pub async fn take_over(
        &self,
        run: &Run,
        given: &Given<'_>,
        agreed: &Plan,
        known: &mut Vec<String>,
        existing: Vec<String>,
        adopt: bool,
    ) -> Result<Proposal> {
        let names = existing.join(", ");
        let unseen = || {
            Error::new(Kind::Conflict, format!("Google says that it exists, and cannot show it: {names}")).hint(
                "it may belong to another project, or have been deleted: the name of a Cloud SQL instance is free again \
                 after a week. Choose another one (`instance`, `bucket`, `name`) in [environment.NAME.infra]",
            )
        };
        if existing.iter().all(|address| known.contains(address)) {
            return Err(unseen());
        }
        run.ui.warn(format!("exists already, and is compared with what is wanted: {names}"));
        known.extend(existing);
        match self {
            Self::Terraform(workspace) => {
                let planned = workspace.plan(run, *given, known).await.map_err(|error| {
                    let is_absent = error.lines().iter().any(|line| line.contains(terraform::IS_ABSENT));
                    if is_absent { unseen().source(error) } else { error }
                })?;
                if let (false, Err(why)) = (adopt, terraform::is_within(agreed, &planned.plan)) {
                    return Err(Error::new(Kind::Conflict, "a resource exists with other settings").source(why).hint(
                        "make deploy.toml say what it is, or use --adopt to change it to what deploy.toml says",
                    ));
                }
                Ok(Proposal::terraform(planned, workspace.plan_file()))
            }
            // It looks for itself what is there.
            Self::Gcloud(_) => Err(Error::new(Kind::Internal, "gcloud takes nothing over")),
        }
    }

    /// Deletes what the proposal says.
    ///
    /// # Errors
    /// The tool's; what is deleted is noted as such, and a second run goes on.
    pub async fn destroy(&self, run: &Run, given: &Given<'_>, proposal: Proposal, wish: Wish) -> Result<()> {
        match self {
            Self::Terraform(workspace) => {
                workspace.unprotect(run, *given, wish, &proposal.plan).await?;
                // The first plan is stale where something was unprotected.
                let planned = workspace.plan_destruction(run, *given, wish).await?;
                if planned.plan != proposal.plan {
                    let message = "the infrastructure has changed since the plan was shown";
                    return Err(Error::new(Kind::Input, message).hint("run the same command again"));
                }
                let (path, total) = (workspace.plan_file(), planned.plan.changes.len());
                workspace.apply(run, *given, &path, total).await.map(drop)
            }
            Self::Gcloud(_) => self.apply(run, given, proposal).await.map(drop),
        }
    }

    /// Tells Google a password that the cluster did not hold. terraform does so by itself: it knows by
    /// the version that it is another one.
    pub async fn set_password(&self, run: &Run, password: &Secret) -> Result<()> {
        match self {
            Self::Terraform(_) => Ok(()),
            Self::Gcloud(infra) => gcloud::set_password(run, infra, password).await,
        }
    }

    /// What there is; `None` where nothing is.
    pub async fn outputs(&self, run: &Run) -> Result<Option<Outputs>> {
        match self {
            Self::Terraform(workspace) => workspace.outputs(run).await,
            Self::Gcloud(infra) => match gcloud::outputs(run, infra).await {
                Ok(outputs) => Ok(Some(outputs)),
                Err(error) if error.kind() == Kind::Check => Ok(None),
                Err(error) => Err(error),
            },
        }
    }
}

impl Proposal {
    fn terraform(planned: terraform::Planned, path: PathBuf) -> Self {
        Self { plan: planned.plan, password: planned.password, doing: Doing::Terraform(path) }
    }

    /// Keeps it in a file.
    pub fn keep(&self, file: &Path) -> Result<()> {
        let kept = match &self.doing {
            Doing::Terraform(path) => Kept {
                terraform: Some(std::fs::read(path).on_machine(|| format!("cannot read {}", path.display()))?),
                plan: self.plan.clone(),
            },
            Doing::Gcloud(_) => Kept { terraform: None, plan: self.plan.clone() },
        };
        let text = serde_json::to_vec(&kept).context(Kind::Internal, || "cannot write the plan")?;
        cache::write_private(file, &text)
    }
}

/// A plan in a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// terraform's own plan.
    #[serde(default, with = "base64_bytes")]
    terraform: Option<Vec<u8>>,
    plan: Plan,
}

impl Kept {
    fn read(file: &Path) -> Result<Self> {
        let named = file.display().to_string();
        let text = std::fs::read(file).context(Kind::Input, || format!("cannot read the plan {named}"))?;
        serde_json::from_slice(&text)
            .context(Kind::Input, || format!("{named} is not a plan"))
            .map_err(|error| error.hint("write one with: cargo xtask infra plan --env NAME --out FILE"))
    }
}

fn kept_by(file: &Path, via: Via) -> Error {
    let name = if via == Via::Gcloud { "gcloud" } else { "terraform" };
    Error::new(Kind::Input, format!("{} is a plan for {name}", file.display())).hint(format!("add --via {name}"))
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
