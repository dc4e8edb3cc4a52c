//! An access token for Google's APIs, and whose it is.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use google_cloud_auth::credentials::{AccessTokenCredentials, Builder};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind, Result};
use crate::process::{self, Program};
use crate::secret::Secret;

const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// How long gcloud or Google's token service may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the metadata server may take, which most machines do not have.
const METADATA: Duration = Duration::from_secs(5);

/// How long a token of gcloud's is used: it hands out one that lasts for five minutes at least.
const FRESH: Duration = Duration::from_secs(240);

/// Variables that hold a token: terraform's, and the one that gcloud's property would have.
const VARIABLES: [&str; 2] = ["GOOGLE_OAUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN"];

/// The variable that names a file with a token: gcloud's property `auth/access_token_file`.
const FILE_VARIABLE: &str = "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE";

/// The variable that names a file with credentials.
const CREDENTIALS_VARIABLE: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// What helps against having no login, or one that is not accepted.
pub(super) const LOG_IN: &str = "run `gcloud auth application-default login`; or name a file with credentials in \
    GOOGLE_APPLICATION_CREDENTIALS, or put an access token into GOOGLE_OAUTH_ACCESS_TOKEN";

/// A login at Google that gives access tokens.
#[derive(Clone, Debug)]
pub struct Login {
    source: Source,
    whose: String,
    quota_project: Option<String>,
    kept: Arc<Mutex<Option<(Secret, Instant)>>>,
}

/// Where tokens come from.
#[derive(Clone, Debug)]
enum Source {
    Given(Secret),
    File(PathBuf),
    Default(AccessTokenCredentials),
    Gcloud(PathBuf),
}

/// What the environment says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Named {
    Variable(&'static str, Secret),
    File(PathBuf),
}

impl Login {
    /// Looks for a login: a token in a variable, one in a file, application-default credentials,
    /// gcloud's own.
    ///
    /// # Errors
    /// `Auth` where there is none that gives a token, with what was tried.
    pub async fn find() -> Result<Self> {
        match named(&|name| std::env::var(name).ok()) {
            Some(Named::Variable(name, token)) => {
                return Ok(Self::new(Source::Given(token), format!("the access token in {name}")));
            }
            Some(Named::File(path)) => {
                let whose = format!("the access token in {} ({FILE_VARIABLE})", path.display());
                let login = Self::new(Source::File(path), whose);
                login.token().await?;
                return Ok(login);
            }
            None => {}
        }
        let without = match application_default().await {
            Ok(login) => return Ok(login),
            Err(why) => why,
        };
        let refused = match gcloud().await {
            Ok(login) => return Ok(login),
            Err(why) => why,
        };
        Err(Error::new(Kind::Auth, "there is no login at Google")
            .source(format!("application-default credentials: {without}; gcloud: {refused}"))
            .hint(LOG_IN))
    }

    fn new(source: Source, whose: String) -> Self {
        Self { source, whose, quota_project: None, kept: Arc::default() }
    }

    /// A login with one token.
    #[cfg(test)]
    pub(super) fn given(token: Secret) -> Self {
        Self::new(Source::Given(token), "a token of the test".to_owned())
    }

    /// Who this is, as far as it is known without asking Google, and from where.
    pub fn whose(&self) -> &str {
        &self.whose
    }

    /// The project whose quota calls count against, where the credentials name one.
    pub(super) fn quota_project(&self) -> Option<&str> {
        self.quota_project.as_deref()
    }

    /// A token that is good for some minutes.
    ///
    /// # Errors
    /// `Auth` where the login gives none any more.
    pub async fn token(&self) -> Result<Secret> {
        let failed = |why: String| {
            Error::new(Kind::Auth, format!("{} gives no access token", self.whose)).source(why).hint(LOG_IN)
        };
        match &self.source {
            Source::Given(token) => Ok(token.clone()),
            // Whoever keeps the file may have written a newer one.
            Source::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
                match text.trim() {
                    "" => Err(failed("the file is empty".to_owned())),
                    token => Ok(Secret::new(token)),
                }
            }
            // They keep their token, and renew it in time.
            Source::Default(credentials) => ask(credentials, PATIENCE).await.map_err(failed),
            Source::Gcloud(program) => {
                let mut kept = self.kept.lock().await;
                if let Some((token, _)) = kept.as_ref().filter(|(_, since)| since.elapsed() < FRESH) {
                    return Ok(token.clone());
                }
                let token = print_token(program).await.map_err(failed)?;
                *kept = Some((token.clone(), Instant::now()));
                Ok(token)
            }
        }
    }

    /// Whether the next token may be another one than the last, which was refused.
    pub(super) async fn renew(&self) -> bool {
        *self.kept.lock().await = None;
        matches!(self.source, Source::File(_) | Source::Gcloud(_))
    }
}

/// What the environment says about a token. An empty variable says nothing.
fn named(vars: &dyn Fn(&str) -> Option<String>) -> Option<Named> {
    let text = |name: &str| vars(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    VARIABLES
        .into_iter()
        .find_map(|name| text(name).map(|token| Named::Variable(name, Secret::new(token))))
        .or_else(|| text(FILE_VARIABLE).map(|path| Named::File(path.into())))
}

/// Application-default credentials: a user, a service account's key, workload federation, or the
/// machine's metadata server.
async fn application_default() -> Result<Login, String> {
    let credentials = Builder::default().with_scopes([SCOPE]).build_access_token_credentials();
    let credentials = credentials.map_err(|error| last_cause(&error))?;
    let path = std::env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from).or_else(well_known);
    let file = path.and_then(|path| std::fs::read(path).ok());
    match &file {
        Some(_) => ask(&credentials, PATIENCE).await?,
        None => ask(&credentials, METADATA).await.map_err(|why| format!("no file, and no metadata server ({why})"))?,
    };
    let mut login = Login::new(Source::Default(credentials), whose(file.as_deref()));
    let value = file.and_then(|file| serde_json::from_slice::<Value>(&file).ok());
    login.quota_project = std::env::var("GOOGLE_CLOUD_QUOTA_PROJECT")
        .ok()
        .filter(|project| !project.is_empty())
        .or_else(|| Some(value?.get("quota_project_id")?.as_str()?.to_owned()));
    Ok(login)
}

/// Where `gcloud auth application-default login` leaves them (AIP-4110).
fn well_known() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    Some(Path::new(&home).join(".config/gcloud/application_default_credentials.json"))
}

/// Whose a file of credentials is (AIP-4110 and its siblings name the types).
fn whose(file: Option<&[u8]>) -> String {
    let Some(file) = file else { return "this machine's service account (metadata server)".to_owned() };
    let value: Value = serde_json::from_slice(file).unwrap_or_default();
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let acts_as = text("service_account_impersonation_url")
        .and_then(|url| url.rsplit('/').next())
        .and_then(|last| last.split(':').next());
    let who = match (text("type"), text("client_email").or(acts_as)) {
        (_, Some(account)) => account,
        (Some("authorized_user"), None) => "the user of `gcloud auth application-default login`",
        (Some("external_account"), None) => "a workload's identity",
        _ => "someone",
    };
    format!("{who} (application-default credentials)")
}

async fn ask(credentials: &AccessTokenCredentials, patience: Duration) -> Result<Secret, String> {
    match tokio::time::timeout(patience, credentials.access_token()).await {
        Ok(Ok(token)) => Ok(Secret::new(token.token)),
        Ok(Err(error)) => Err(last_cause(&error)),
        Err(_) => Err(format!("no answer in {patience:?}")),
    }
}

/// The account that gcloud is logged in with.
async fn gcloud() -> Result<Login, String> {
    let program = process::find(&["gcloud"]).ok_or("it is not installed")?;
    let never = CancellationToken::new();
    let account = command(&program).args(["config", "get-value", "account", "--quiet"]).ask(&never, PATIENCE);
    let (token, account) = tokio::join!(print_token(&program), account);
    let token = token?;
    let account = account.ok().and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
    let who = if account.trim().is_empty() { "its account" } else { account.trim() };
    let login = Login::new(Source::Gcloud(program), format!("{who} (gcloud)"));
    *login.kept.lock().await = Some((token, Instant::now()));
    Ok(login)
}

async fn print_token(gcloud: &Path) -> Result<Secret, String> {
    let answer = command(gcloud).args(["auth", "print-access-token"]).ask(&CancellationToken::new(), PATIENCE).await;
    let answer = answer.map_err(|error| first_complaint(&error.lines()))?;
    match String::from_utf8_lossy(&answer).trim() {
        "" => Err("it printed no token".to_owned()),
        token => Ok(Secret::new(token)),
    }
}

fn command(gcloud: &Path) -> Program {
    Program::new(gcloud).env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
}

/// The sentence in which gcloud says what is wrong; a page of advice follows it.
fn first_complaint(lines: &[String]) -> String {
    let said = lines.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix("ERROR: "));
    said.or(lines.first().map(String::as_str)).unwrap_or_default().to_owned()
}

/// The cause at the bottom; those above it say that something failed, at length.
fn last_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_beats_the_file_and_an_empty_one_says_nothing() {
        let check = |vars: &[(&str, &str)], expected: Option<Named>| {
            let found = named(&|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()));
            assert_eq!(found, expected, "{vars:?}");
        };
        let (first, second) = (VARIABLES[0], VARIABLES[1]);
        check(&[], None);
        check(&[(first, ""), (second, " ")], None);
        check(&[(first, "a\n"), (second, "b")], Some(Named::Variable(first, Secret::new("a"))));
        check(&[(first, ""), (second, "b"), (FILE_VARIABLE, "/c")], Some(Named::Variable(second, Secret::new("b"))));
        check(&[(FILE_VARIABLE, "/c")], Some(Named::File("/c".into())));
    }

    #[test]
    fn credentials_say_whose_they_are() {
        let check = |file: &str, expected: &str| assert_eq!(whose(Some(file.as_bytes())), expected, "{file}");
        let with = |who: &str| format!("{who} (application-default credentials)");
        check(
            r#"{"type":"service_account","client_email":"a@p.iam.gserviceaccount.com"}"#,
            &with("a@p.iam.gserviceaccount.com"),
        );
        check(r#"{"type":"authorized_user"}"#, &with("the user of `gcloud auth application-default login`"));
        let url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/b@p.iam.gserviceaccount.com:generateAccessToken";
        check(
            &format!(r#"{{"type":"external_account","service_account_impersonation_url":"{url}"}}"#),
            &with("b@p.iam.gserviceaccount.com"),
        );
        check(r#"{"type":"external_account"}"#, &with("a workload's identity"));
        check("nonsense", &with("someone"));
        assert_eq!(whose(None), "this machine's service account (metadata server)");
    }

    #[test]
    fn the_first_sentence_of_gcloud_is_quoted() {
        let lines = ["gcloud failed (exit status: 1)", "ERROR: (gcloud.auth) You do not have an account.\nPlease run:"];
        assert_eq!(first_complaint(&lines.map(str::to_owned)), "(gcloud.auth) You do not have an account.");
        assert_eq!(first_complaint(&["it is gone".to_owned()]), "it is gone");
    }

    #[tokio::test]
    async fn a_file_is_read_anew_and_no_token_shows_in_debug_output() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\n").unwrap();
        let login = Login::new(Source::File(file.path().to_owned()), "a file".to_owned());
        assert_eq!(login.token().await.unwrap(), Secret::new("one"));
        std::fs::write(file.path(), "two").unwrap();
        assert_eq!(login.token().await.unwrap(), Secret::new("two"));
        assert!(login.renew().await);
        std::fs::write(file.path(), "\n").unwrap();
        assert_eq!(login.token().await.unwrap_err().kind(), Kind::Auth);
        let given = Login::new(Source::Given(Secret::new("three")), "a variable".to_owned());
        assert!(!format!("{given:?}").contains("three") && !given.renew().await);
    }
}
