//! `token`: what a program sends to a server behind a login of Google's.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::commands::Run;
use crate::config::cluster::{Access, Login};
use crate::config::{Config, Environment};
use crate::error::{Context as _, Error, Kind, Result};
use crate::google::Google;
use crate::google::id_token::{self, Audience};

/// Google as an issuer of OpenID Connect.
const GOOGLE: &str = "https://accounts.google.com";

/// Print a token for MLFLOW_TRACKING_TOKEN: of a service account, for a server behind Google's login
///
/// It needs `login = "iap"`, or `"oidc"` with Google as the issuer, and roles/iam.serviceAccountTokenCreator on
/// the account. With --json: token, expires, audience and account.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long)]
    env: String,
    /// The service account [default: iap.service-account of the environment].
    #[arg(long, value_name = "EMAIL")]
    account: Option<String>,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let access = match config.environment()? {
        Environment::Cluster(cluster) => &cluster.access,
        Environment::Local(_) => {
            let message = format!("environment {} is on this machine and has no login", args.env);
            return Err(Error::new(Kind::Usage, message).hint("name one of a cluster with --env"));
        }
    };
    let (audience, account) = wanted(access)?;
    let account = args.account.or(account).ok_or_else(|| {
        let message = "nothing says whose token is wanted";
        let hint = "name a service account with --account, or as service-account in the table iap of deploy.toml";
        Error::new(Kind::Usage, message).hint(hint)
    })?;
    let made = id_token::make(&Google::connect(run).await?, &account, &audience).await?;
    let (Audience::Client(text) | Audience::Address(text)) = &audience;
    run.ui.step("Token", format!("of {account} for {text}, until {}", made.expires));
    let token = made.token.expose();
    let line = match run.ui.is_json() {
        true => json!({ "token": token, "expires": made.expires, "audience": text, "account": account }).to_string(),
        false => token.to_owned(),
    };
    // Not as an answer: those go to the summary page of a workflow as well.
    writeln!(std::io::stdout(), "{line}").on_machine(|| "cannot write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// For whom a token has to be made, and whose it is, as far as `deploy.toml` says.
fn wanted(access: &Access) -> Result<(Audience, Option<String>)> {
    let refuse = |message: String, hint: &str| Err(Error::new(Kind::Config, message).hint(hint));
    match &access.login {
        Login::Iap(iap) => {
            let audience = match &iap.client {
                Some(client) => Audience::Client(client.id.clone()),
                None => Audience::Address(format!("https://{}/*", first(&access.hosts)?)),
            };
            Ok((audience, iap.account.clone()))
        }
        Login::Oidc(oidc) if oidc.issuer.trim_end_matches('/') == GOOGLE => {
            Ok((Audience::Client(oidc.client.clone()), None))
        }
        Login::Oidc(oidc) => {
            let hint = "get one as its manual says, such as by the client credentials grant, for the client or for one of \
                        oidc.audiences";
            refuse(format!("only {} makes tokens for this server", oidc.issuer), hint)
        }
        Login::Basic { .. } => {
            let hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD";
            refuse("the server's login knows passwords and no tokens".to_owned(), hint)
        }
        Login::None => refuse("the server has no login".to_owned(), "set no token: nobody asks for one"),
    }
}

/// The first name that is one, without its port.
fn first(hosts: &[String]) -> Result<&str> {
    let host = hosts.iter().find(|host| !host.contains('*')).ok_or_else(|| {
        let hint = "put the server's own name into hosts, before those with *";
        Error::new(Kind::Config, "no host says for which address a token is").hint(hint)
    })?;
    Ok(host.rsplit_once(':').map_or(host, |(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cluster::{Iap, IapClient, Secret};

    #[test]
    fn the_login_says_for_whom_a_token_is() {
        let access =
            |login: Login| Access { hosts: vec!["ml.example.com:8443".to_owned()], login, ..Access::default() };
        let client = IapClient { id: "1.apps".to_owned(), secret: Secret::Variable("A".to_owned()) };
        let account = Some("a@p.iam.gserviceaccount.com".to_owned());
        let own = Login::Iap(Iap { client: Some(client), account: account.clone() });
        assert_eq!(wanted(&access(own)).unwrap(), (Audience::Client("1.apps".to_owned()), account));
        let googles = wanted(&access(Login::Iap(Iap::default()))).unwrap();
        assert_eq!(googles, (Audience::Address("https://ml.example.com/*".to_owned()), None));
        for (login, expected) in
            [(Login::None, "has no login"), (Login::Basic { password: None }, "passwords and no tokens")]
        {
            let error = wanted(&access(login)).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
