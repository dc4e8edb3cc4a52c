//! The two ways to the same resources, behind one face.

use std::path::Path;

use super::gcloud;
use super::proposal::{Kept, Proposal, refuse_unfinished};
use super::terraform::Workspace;
use crate::cache;
use crate::commands::Run;
use crate::config::Config;
use crate::config::infra::{InfraConfig, Via};
use crate::error::{Error, Kind, Result};
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
    pub async fn plan(&self, run: &Run, given: &Given<'_>, wish: Wish) -> Result<Proposal<'_>> {
        match self {
            Self::Terraform(workspace) => {
                let planned = match wish {
                    Wish::Have => workspace.plan(run, *given, &[]).await?,
                    Wish::Destroy | Wish::DestroyData => workspace.plan_destruction(run, *given, wish).await?,
                };
                Ok(Proposal::terraform(workspace, planned, wish))
            }
            Self::Gcloud(infra) => {
                let observed = gcloud::observe(run, infra).await?;
                let (plan, steps) = match wish {
                    Wish::Have => gcloud::plan(infra, &observed),
                    Wish::Destroy => gcloud::destruction(infra, &observed, false),
                    Wish::DestroyData => gcloud::destruction(infra, &observed, true),
                };
                let password = given.password.map(|(_, version)| version);
                Ok(Proposal::gcloud(infra, plan, steps, password))
            }
        }
    }

    /// A plan that was kept in a file.
    ///
    /// # Errors
    /// `Input` where it is none, or no longer what would be done.
    pub async fn kept(&self, run: &Run, given: &Given<'_>, file: &Path) -> Result<Proposal<'_>> {
        let kept = Kept::read(file)?;
        match self {
            Self::Terraform(workspace) => {
                let bytes = kept.terraform.ok_or_else(|| kept_by(file, Via::Gcloud))?;
                let path = workspace.plan_file();
                cache::write_private(&path, &bytes)?;
                let planned = workspace.read_plan(run, &path).await?;
                refuse_unfinished(&planned.unfinished)?;
                Ok(Proposal::terraform(workspace, planned, Wish::Have))
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

fn kept_by(file: &Path, via: Via) -> Error {
    let name = if via == Via::Gcloud { "gcloud" } else { "terraform" };
    Error::new(Kind::Input, format!("{} is a plan for {name}", file.display())).hint(format!("add --via {name}"))
}
