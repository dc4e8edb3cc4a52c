//! What the nodes need to pull the image: the credentials that pushed it, as the content of a Secret
//! of type `kubernetes.io/dockerconfigjson`.

use base64::Engine as _;
use serde_json::json;

use crate::commands::Run;
use crate::config::cluster::PullSecret;
use crate::error::{Error, Kind, Result};
use crate::registry::{Client, Passable, Reference, Secret};

/// The name under which kubelet and docker look for a login of Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// What is to be done about a pull secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// None: the nodes pull without.
    Leave,
    /// One, if there is a login.
    Make,
    /// One, and it is an error when there is no login.
    Insist,
}

/// How the nodes are going to pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Without a pull secret, or with one that someone else keeps.
    Without,
    /// With a pull secret made of the login.
    With,
    /// With one that expires within this time, and what to do about that.
    Expiring(&'static str, &'static str),
    /// A pull secret is needed, and can't be made of who this is.
    Impossible(String),
}

/// What [`make`] is going to come to. To be asked after the client has spoken to the registry.
///
/// # Errors
/// `Auth` when the login gives nothing any more.
pub async fn foretell(client: &Client, wanted: &PullSecret, gke: bool) -> Result<Outlook> {
    let reference = client.reference();
    if decide(wanted, client.asked_for_login().await, gke, reference.is_google()) == Wish::Leave {
        return Ok(Outlook::Without);
    }
    Ok(match client.login().await? {
        Passable::Password(..) => Outlook::With,
        Passable::ShortLived(_, _, lifetime) => Outlook::Expiring(lifetime, lasting(reference)),
        Passable::Bound(who) | Passable::Nothing(who) => Outlook::Impossible(who),
    })
}

/// The content of the pull secret for the client's image, from the login that the client uses; `None`
/// where none is wanted or none is of use. To be asked after the client has spoken to the registry.
/// `gke`: the cluster is Google's, whose nodes log in to Google's registries themselves.
///
/// # Errors
/// `Auth` when one is wanted always and there is no login that could be passed on.
pub async fn make(run: &Run, client: &Client, wanted: &PullSecret, gke: bool) -> Result<Option<Secret>> {
    let reference = client.reference();
    let wish = decide(wanted, client.asked_for_login().await, gke, reference.is_google());
    if wish == Wish::Leave {
        return Ok(None);
    }
    let registry = reference.registry();
    let refused = |who: &str| match wish {
        Wish::Insist => Err(Error::new(Kind::Auth, format!("no pull secret for {registry} can be made of {who}"))
            .hint(format!("run `docker login {registry}` with a user and a password or token that lasts"))),
        _ => Ok(None),
    };
    match client.login().await? {
        Passable::Password(user, password) => Ok(Some(docker_config(reference, &user, &password))),
        Passable::ShortLived(user, token, lifetime) => {
            run.ui.warn(format!(
                "the pull secret for {registry} expires within {lifetime}: a pod that starts on a new node after that \
                 cannot pull the image. {}, then set pull-secret = \"never\"",
                lasting(reference)
            ));
            Ok(Some(docker_config(reference, &user, &token)))
        }
        Passable::Bound(who) => {
            run.ui.warn(format!(
                "{registry} asks for a login, and {who} cannot be passed on to the cluster: give the namespace a pull \
                 secret of its own, or log in with a password or an access token"
            ));
            refused(&who)
        }
        Passable::Nothing(who) => refused(&who),
    }
}

fn decide(wanted: &PullSecret, asked: bool, gke: bool, google: bool) -> Wish {
    match wanted {
        PullSecret::Never | PullSecret::Existing(_) => Wish::Leave,
        PullSecret::Always => Wish::Insist,
        PullSecret::Auto if asked && !(gke && google) => Wish::Make,
        PullSecret::Auto => Wish::Leave,
    }
}

/// How the nodes of a cluster log in for good.
fn lasting(reference: &Reference) -> &'static str {
    match reference.is_google() {
        true => {
            "let the namespace have a pull secret of a service account with roles/artifactregistry.reader (user \
             _json_key, password: its JSON key)"
        }
        false => "let the nodes themselves log in to the registry (their cloud's credential provider)",
    }
}

/// Kubernetes, "Create a Secret based on existing credentials".
fn docker_config(reference: &Reference, user: &str, password: &Secret) -> Secret {
    let server = if reference.is_hub() { HUB } else { reference.registry() };
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose()));
    let entry = json!({"username": user, "password": password.expose(), "auth": auth});
    Secret::new(json!({"auths": {server: entry}}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_secret_is_made_where_the_nodes_need_one() {
        let check = |wanted: PullSecret, (asked, gke, google), expected| {
            assert_eq!(decide(&wanted, asked, gke, google), expected, "{wanted:?} {asked} {gke} {google}");
        };
        check(PullSecret::Auto, (true, false, false), Wish::Make);
        check(PullSecret::Auto, (true, false, true), Wish::Make);
        check(PullSecret::Auto, (true, true, false), Wish::Make);
        check(PullSecret::Auto, (true, true, true), Wish::Leave);
        check(PullSecret::Auto, (false, false, false), Wish::Leave);
        check(PullSecret::Always, (false, true, true), Wish::Insist);
        check(PullSecret::Never, (true, false, false), Wish::Leave);
        check(PullSecret::Existing("other".to_owned()), (true, false, false), Wish::Leave);
    }

    #[test]
    fn the_content_is_what_kubelet_reads() {
        let check = |image: &str, server: &str| {
            let secret = docker_config(&Reference::parse(image).unwrap(), "ada", &Secret::new("lace:1"));
            let value: serde_json::Value = serde_json::from_str(secret.expose()).unwrap();
            let expected = json!({"username": "ada", "password": "lace:1", "auth": "YWRhOmxhY2U6MQ=="});
            assert_eq!(value, json!({"auths": {server: expected}}), "{image}");
        };
        check("ghcr.io/team/mlflow:1", "ghcr.io");
        check("127.0.0.1:5050/mlflow", "127.0.0.1:5050");
        check("team/mlflow", HUB);
    }
}
