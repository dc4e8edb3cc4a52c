//! Where the login for a registry comes from: the command line, docker's or podman's configuration
//! and its helper programs, the login at Google, or nowhere.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde_json::json;

use crate::error::{Context as _, Error, Kind, Result};
use crate::google;
use crate::secret::Secret;

use super::Reference;

/// The user name that Artifact Registry expects beside an OAuth access token.
const GOOGLE_USER: &str = "oauth2accesstoken";
/// How long a helper program may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The flags of every command that talks to a registry.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LoginArgs {
    /// User name for the registry; the password is read from stdin.
    #[arg(long, requires = "password_stdin", value_name = "NAME")]
    username: Option<String>,
    /// Read the registry's password or token from stdin.
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

impl LoginArgs {
    /// Reads stdin if the flags say so.
    pub fn source(&self) -> Result<CredentialSource> {
        let Some(username) = &self.username else { return Ok(CredentialSource::Machine) };
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).on_machine(|| "cannot read the password from stdin")?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password);
        if password.is_empty() {
            return Err(Error::new(Kind::Usage, "--password-stdin, but stdin is empty")
                .hint("pipe the password in: printf %s \"$PASSWORD\" | cargo xtask ..."));
        }
        Ok(CredentialSource::Given { username: username.clone(), password: Secret::new(password) })
    }
}

/// Where to look for a login.
#[derive(Clone, Debug)]
pub enum CredentialSource {
    /// What this machine is logged in with, looked up when a registry asks for a login.
    Machine,
    /// By the command line.
    Given {
        /// The user's name.
        username: String,
        /// The password or token.
        password: Secret,
    },
    /// Never log in.
    #[cfg(test)]
    Anonymous,
}

/// A login that was found.
#[derive(Clone, Debug)]
pub struct Login {
    secret: LoginSecret,
    identity: String,
}

#[derive(Clone, Debug)]
enum LoginSecret {
    None,
    Password(String, Secret),
    IdentityToken(Secret),
    Google(google::Login),
}

/// A login that others can use: what a pull secret of a cluster holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passable {
    /// User and password.
    Password(String, Secret),
    /// User and access token. It expires within hours, as this says.
    ShortLived(String, Secret, &'static str),
    /// There is one, but it is worth nothing to others; who it is.
    Bound(String),
    /// There is none, and why.
    Nothing(String),
}

/// What to send to a registry or its token service.
pub enum Proof {
    /// Nothing.
    None,
    /// User and password (RFC 7617).
    Basic(String, Secret),
    /// A refresh token (distribution, "OAuth2 token authentication").
    Refresh(Secret),
}

impl Login {
    /// Who this is, and by which source; for messages.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The proof as of now: Google's access tokens last an hour and are renewed here.
    pub async fn proof(&self) -> Result<Proof> {
        match &self.secret {
            LoginSecret::None => Ok(Proof::None),
            LoginSecret::Password(user, password) => Ok(Proof::Basic(user.clone(), password.clone())),
            LoginSecret::IdentityToken(token) => Ok(Proof::Refresh(token.clone())),
            LoginSecret::Google(login) => Ok(Proof::Basic(GOOGLE_USER.to_owned(), login.token().await?)),
        }
    }

    /// The login in a form that can be handed over.
    pub async fn passable(&self) -> Result<Passable> {
        Ok(match (&self.secret, self.proof().await?) {
            (LoginSecret::None, _) | (_, Proof::None) => Passable::Nothing(self.identity.clone()),
            (_, Proof::Refresh(_)) => Passable::Bound(self.identity.clone()),
            (_, Proof::Basic(user, password)) => passable(user, password),
        })
    }

    /// The login as docker's configuration file has it (docker, "config.json"), for a program that reads
    /// one; without a login it names none.
    pub async fn docker_config(&self, reference: &Reference) -> Result<Secret> {
        let entry = match self.proof().await? {
            Proof::None => None,
            Proof::Basic(user, password) => {
                let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
                Some(json!({ "auth": pair }))
            }
            Proof::Refresh(token) => Some(json!({ "identitytoken": token.expose() })),
        };
        let auths: BTreeMap<_, _> = servers(reference).into_iter().zip(entry).collect();
        Ok(Secret::new(json!({ "auths": auths }).to_string()))
    }

    fn password(user: String, password: Secret, from: &str) -> Self {
        let identity = format!("user {user} ({from})");
        Self { secret: LoginSecret::Password(user, password), identity }
    }

    fn anonymous(why: &str) -> Self {
        Self { secret: LoginSecret::None, identity: format!("an anonymous user ({why})") }
    }
}

/// The clouds' own logins are access tokens under a user name that means nothing else.
fn passable(user: String, password: Secret) -> Passable {
    let lifetime = match user.as_str() {
        GOOGLE_USER | "_dcgcloud_token" => Some("an hour"),
        // Elastic Container Registry, Azure Container Registry.
        "AWS" => Some("12 hours"),
        "00000000-0000-0000-0000-000000000000" => Some("3 hours"),
        _ => None,
    };
    match lifetime {
        Some(lifetime) => Passable::ShortLived(user, password, lifetime),
        None => Passable::Password(user, password),
    }
}

/// Finds the login for the registry of `reference`. Starts helper programs; may ask Google.
pub async fn find(source: &CredentialSource, reference: &Reference) -> Result<Login> {
    match source {
        #[cfg(test)]
        CredentialSource::Anonymous => Ok(Login::anonymous("no login was asked for")),
        CredentialSource::Given { username, password } => {
            Ok(Login::password(username.clone(), password.clone(), "--username"))
        }
        CredentialSource::Machine => {
            let servers = servers(reference);
            let lookup = tokio::task::spawn_blocking(move || from_files(&servers));
            let found = match tokio::time::timeout(PATIENCE, lookup).await {
                Ok(Ok(found)) => found,
                Ok(Err(_)) => Found::Trouble("the look-up of docker's logins ended early".to_owned()),
                Err(_) => Found::Trouble(format!("docker's credential helper did not answer in {PATIENCE:?}")),
            };
            match found {
                Found::Login(login) => Ok(login),
                _ if reference.is_google() => Ok(at_google(found).await),
                Found::Nothing => Ok(Login::anonymous("no docker login found")),
                Found::Trouble(why) => Ok(Login::anonymous(&why)),
            }
        }
    }
}

enum Found {
    Login(Login),
    Nothing,
    /// Something is configured, but does not work. It is told if the registry then refuses.
    Trouble(String),
}

/// The names under which docker and podman keep the login of a registry.
fn servers(reference: &Reference) -> Vec<String> {
    if reference.is_hub() {
        return vec!["https://index.docker.io/v1/".to_owned(), "docker.io".to_owned()];
    }
    vec![reference.registry().to_owned()]
}

fn from_files(servers: &[String]) -> Found {
    let mut trouble = None;
    type Lookup = fn(&str) -> std::result::Result<DockerCredential, CredentialRetrievalError>;
    let stores: [(&str, Lookup); 2] = [
        ("docker login", docker_credential::get_credential),
        ("podman login", docker_credential::get_podman_credential),
    ];
    for (store, get) in stores {
        for server in servers {
            match get(server) {
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Found::Login(Login::password(user, Secret::new(password), store));
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    let identity = format!("an identity token ({store})");
                    let secret = LoginSecret::IdentityToken(Secret::new(token));
                    return Found::Login(Login { secret, identity });
                }
                Err(error) => trouble = trouble.or(complaint(store, &error)),
            }
        }
    }
    trouble.map_or(Found::Nothing, Found::Trouble)
}

/// What is wrong with a login that is configured; `None` where simply none is.
fn complaint(store: &str, error: &CredentialRetrievalError) -> Option<String> {
    use CredentialRetrievalError as E;
    match error {
        // An absent file is read as an unreadable one by the crate.
        E::NoCredentialConfigured | E::ConfigNotFound | E::ConfigReadError => None,
        // What docker-credential-helpers print for a server that they do not know.
        E::HelperFailure { stdout, stderr, .. }
            if stdout.contains("credentials not found") || stderr.contains("credentials not found") =>
        {
            None
        }
        // Its output is not shown: some helpers print tokens.
        E::HelperFailure { helper, .. } => Some(format!("{store}: {helper} failed")),
        E::HelperCommunicationError => Some(format!("{store}: the credential helper cannot be started")),
        E::MalformedHelperResponse => Some(format!("{store}: the credential helper answered nonsense")),
        E::CredentialDecodingError | E::CredentialMismatchError => {
            Some(format!("{store}: its configuration file is damaged"))
        }
    }
}

/// The login at Google.
async fn at_google(found: Found) -> Login {
    let also = match found {
        Found::Trouble(why) => format!("; {why}"),
        _ => String::new(),
    };
    match google::Login::find().await {
        Ok(login) => Login { identity: login.whose().to_owned(), secret: LoginSecret::Google(login) },
        Err(error) => {
            let why = error.lines().pop().unwrap_or_default();
            Login::anonymous(&format!("no login at Google: {why}{also}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_tokens_of_the_clouds_are_known_by_their_user() {
        for (user, expected) in [
            ("ada", None),
            ("_json_key", None),
            ("oauth2accesstoken", Some("an hour")),
            ("AWS", Some("12 hours")),
            ("00000000-0000-0000-0000-000000000000", Some("3 hours")),
        ] {
            let found = match passable(user.to_owned(), Secret::new("x")) {
                Passable::ShortLived(_, _, lifetime) => Some(lifetime),
                _ => None,
            };
            assert_eq!(found, expected, "{user}");
        }
    }

    #[tokio::test]
    async fn only_a_login_that_others_can_use_is_passed_on() {
        let token = Login { secret: LoginSecret::IdentityToken(Secret::new("x")), identity: "a token".to_owned() };
        assert_eq!(token.passable().await.unwrap(), Passable::Bound("a token".to_owned()));
        let nobody = Login::anonymous("no docker login found").passable().await.unwrap();
        assert_eq!(nobody, Passable::Nothing("an anonymous user (no docker login found)".to_owned()));
        let ada = Login::password("ada".to_owned(), Secret::new("x"), "docker login");
        assert_eq!(ada.passable().await.unwrap(), Passable::Password("ada".to_owned(), Secret::new("x")));
    }
    #[tokio::test]
    async fn a_login_is_handed_over_as_docker_keeps_it() {
        let check = async |login: Login, image: &str, expected: &str| {
            let found = login.docker_config(&image.parse().unwrap()).await.unwrap();
            assert_eq!(found.expose(), expected);
        };
        let ada = Login::password("ada".to_owned(), Secret::new("x"), "docker login");
        check(ada.clone(), "r.example.com/a", r#"{"auths":{"r.example.com":{"auth":"YWRhOng="}}}"#).await;
        check(ada, "a/b", r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWRhOng="}}}"#).await;
        let token = Login { secret: LoginSecret::IdentityToken(Secret::new("x")), identity: String::new() };
        check(token, "127.0.0.1:1/a", r#"{"auths":{"127.0.0.1:1":{"identitytoken":"x"}}}"#).await;
        check(Login::anonymous(""), "r.example.com/a", r#"{"auths":{}}"#).await;
    }
}
