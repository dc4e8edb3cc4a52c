//! The registry of the image: who pushes, and how nodes pull.

use crate::cache::Cache;
use crate::cluster::pull_secret::{self, Outlook};
use crate::commands::Run;
use crate::config::Config;
use crate::config::cluster::{ClusterConfig, Database};
use crate::error::{Context as _, Error, Result};
use crate::registry::{Access, Client, CredentialSource, Reference};

use super::{Check, State, within};

/// Looks at the registry of an environment, if it has one.
pub(super) async fn of(run: &Run, config: &Config, cluster: Option<&ClusterConfig>) -> Vec<Check> {
    let (push, pull) = ("registry", "image pulls");
    let Some(repository) = &config.image.repository else {
        let fix = "set image.repository in deploy.toml, or deploy an image that is in a registry with --image";
        return match cluster {
            Some(_) => vec![Check::missing(push, "there is none to push the image to", fix)],
            None => Vec::new(),
        };
    };
    if config.infra.is_some() && config.environment().is_err() {
        let why = format!("`infra apply` has still to make {repository}");
        return vec![Check::not_asked(push, &why)];
    }
    let asked = async {
        let client = match connect(run, repository) {
            Ok(client) => client,
            Err(error) => return vec![needed(push, &error)],
        };
        let pushes = within(push, pushes(&client, repository)).await;
        let Some(settings) = cluster else { return vec![pushes] };
        if pushes.state != State::Ok {
            return vec![pushes, Check::not_asked(pull, "the registry comes first")];
        }
        let pulls = within(pull, async { pulls(&client, settings).await.unwrap_or_else(|error| needed(pull, &error)) });
        vec![pushes, pulls.await]
    };
    asked.await
}

fn connect(run: &Run, repository: &str) -> Result<Client> {
    // What is remembered of earlier pushes is not needed, and nothing is to be remembered.
    let dir = tempfile::tempdir().on_machine(|| "cannot create a temporary folder")?;
    let reference = Reference::parse(repository)?;
    Client::connect(run, &Cache::at(dir.path())?, &reference, Access::Push, CredentialSource::Machine)
}

async fn pushes(client: &Client, repository: &str) -> Check {
    let pushed = client.may_push().await;
    let who = match client.asked_for_login().await {
        true => client.identity().await.unwrap_or_else(|error| error.to_string()),
        false => "anyone".to_owned(),
    };
    match pushed {
        Ok(()) => Check::ok("registry", format!("{who} may push to {repository}")),
        Err(error) => needed("registry", &error),
    }
}

async fn pulls(client: &Client, settings: &ClusterConfig) -> Result<Check> {
    let name = "image pulls";
    let gke = matches!(settings.database, Database::CloudSql(_));
    let registry = client.reference().registry();
    Ok(match pull_secret::foretell(client, &settings.pull_secret, gke).await? {
        Outlook::Without => Check::ok(name, "the nodes pull without a secret of ours"),
        Outlook::With => Check::ok(name, "the nodes get the login that pushes, as a pull secret"),
        Outlook::Expiring(lifetime, fix) => {
            let seen = format!("the nodes get the login that pushes, which expires within {lifetime}");
            Check::warning(name, seen, format!("{fix}, then set pull-secret = \"never\""))
        }
        Outlook::Impossible(who) => Check::missing(
            name,
            format!("{registry} asks for a login, and {who} cannot be passed on to the nodes"),
            format!("run `docker login {registry}` with a user and a password or token that lasts"),
        ),
    })
}

/// Without its registry a deploy cannot begin, whatever is the matter with it.
fn needed(name: &str, error: &Error) -> Check {
    Check { state: State::Missing, ..Check::failed(name, error) }
}
