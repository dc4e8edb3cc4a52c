//! `smoke`: proves that a running server works.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use url::Url;

use crate::cluster::Cluster;
use crate::cluster::smoke as in_cluster;
use crate::cluster::target::Target as Pods;
use crate::commands::Run;
use crate::config::{self, Config, Environment};
use crate::error::{Context as _, Error, Kind, Result};
use crate::local::state::Home;
use crate::mlflow::smoke::{self, Check, SmokeReport, Target};
use crate::mlflow::{Auth, is_loopback};

/// Prove that a running server works, and remove what the proof left behind
///
/// Exit code 12 when a check fails, 6 when nothing answers. The login is --username with
/// --password-stdin, else MLFLOW_TRACKING_USERNAME with MLFLOW_TRACKING_PASSWORD, else
/// MLFLOW_TRACKING_TOKEN.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml whose server is asked.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The address of any other server, a static prefix included.
    #[arg(long, conflicts_with = "env")]
    url: Option<Url>,
    /// Send this Host header instead of the URL's host, as a port-forward needs.
    #[arg(long, value_name = "HOST")]
    host_header: Option<String>,
    /// Seconds that each check may take.
    #[arg(long, value_name = "SECONDS", default_value_t = smoke::TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// The MLflow version that must answer; an environment's server is asked for its image's.
    #[arg(long, value_name = "VERSION")]
    expect_version: Option<String>,
    /// Bytes to send through the server and read back.
    #[arg(long, value_name = "BYTES", default_value_t = smoke::ARTIFACT_SIZE)]
    artifact_size: u64,
    /// Leave a check out; can be given more than once.
    #[arg(long, value_name = "CHECK")]
    leave_out: Vec<Check>,
    /// Log in as this user.
    #[arg(long, requires = "password_stdin")]
    username: Option<String>,
    /// Read the user's password from stdin.
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let auth = login(args.username.clone(), |name| std::env::var(name).ok())?;
    let report = match args.url.clone() {
        Some(url) => ask(run, args.target(server_url(url)?, auth, None)).await?,
        None => {
            let config = Config::load(&args.env)?;
            match config.environment()? {
                Environment::Local(_) => {
                    let (url, version) = deployed(&args.env)?;
                    ask(run, args.target(url, auth, version)).await?
                }
                Environment::Cluster(cluster) => {
                    let cluster = Cluster::connect(cluster).await?;
                    let (url, version) = in_cluster::deployed(&cluster).await?;
                    let wanted = args.target(url, auth, version);
                    in_cluster::run(run, &cluster, &Pods::Newest, &wanted).await?
                }
            }
        }
    };
    run.answer(&report)?;
    Ok(match report.error() {
        // The report has said why: one more error object would spoil its JSON.
        Some(error) => ExitCode::from(error.kind().exit_code()),
        None => ExitCode::SUCCESS,
    })
}

impl Args {
    fn target(&self, url: Url, auth: Option<Auth>, deployed_version: Option<String>) -> Target {
        Target {
            host_header: self.host_header.clone(),
            auth,
            expect_version: self.expect_version.clone().or(deployed_version),
            timeout: Duration::from_secs(self.timeout),
            artifact_size: self.artifact_size,
            leave_out: self.leave_out.clone(),
            ..Target::new(url)
        }
    }
}

async fn ask(run: &Run, target: Target) -> Result<SmokeReport> {
    if target.auth.is_some() && target.url.scheme() == "http" && !is_loopback(&target.url) {
        run.ui.warn(format!("the login is sent to {} unencrypted", target.url));
    }
    smoke::run(run, &target).await
}

/// Address and MLflow version of what an environment of this machine runs.
fn deployed(env: &str) -> Result<(Url, Option<String>)> {
    let running = Home::of(env)?.running()?.ok_or_else(|| {
        Error::new(Kind::Check, format!("environment {env} runs no server"))
            .hint(format!("run `cargo xtask deploy --env {env}`, or name a server with --url"))
    })?;
    let url = running.release.url.parse().context(Kind::Internal, || {
        format!("the state of environment {env} holds the address {:?}", running.release.url)
    })?;
    Ok((url, running.release.version))
}

/// An http(s) address without a login, query or fragment.
fn server_url(url: Url) -> Result<Url> {
    let wrong = |message: &str, hint: &str| Err(Error::new(Kind::Usage, message).hint(hint));
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return wrong(&format!("{url} is no address of a server"), "use http://HOST[:PORT] or https://HOST[:PORT]");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return wrong(
            "the URL holds a login, which every user of this machine can read",
            "use --username with --password-stdin, or MLFLOW_TRACKING_TOKEN",
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return wrong(&format!("{url} has a query or a fragment"), "give the server's address alone");
    }
    Ok(url)
}

/// The same order as MLflow's own client: user and password before the token.
fn login(username: Option<String>, var: impl Fn(&str) -> Option<String>) -> Result<Option<Auth>> {
    if let Some(username) = username {
        return Ok(Some(Auth::Basic { username, password: password_from_stdin()? }));
    }
    let var = |name| var(name).filter(|value| !value.is_empty());
    Ok(match (var("MLFLOW_TRACKING_USERNAME"), var("MLFLOW_TRACKING_PASSWORD"), var("MLFLOW_TRACKING_TOKEN")) {
        (Some(username), Some(password), _) => Some(Auth::Basic { username, password }),
        (_, _, Some(token)) => Some(Auth::Bearer(token)),
        _ => None,
    })
}

fn password_from_stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .take(64 << 10)
        .read_to_string(&mut text)
        .context(Kind::Usage, || "cannot read the password from stdin")?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(
            Error::new(Kind::Usage, "stdin holds no password").hint("pipe it in: `... --password-stdin < FILE`")
        );
    }
    Ok(password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_taken() {
        for (url, expected) in [
            ("http://127.0.0.1:5000", ""),
            ("https://mlflow.example.com/prefix", ""),
            ("ftp://example.com", "no address"),
            ("file:///etc/passwd", "no address"),
            ("https://ann:hush@example.com", "holds a login"),
            ("https://example.com/?a=b", "query"),
            ("https://example.com/#/experiments", "fragment"),
        ] {
            let found = server_url(url.parse().unwrap());
            match (found, expected) {
                (Ok(_), "") => {}
                (Err(error), text) if !text.is_empty() => {
                    assert!(error.to_string().contains(text), "{error}");
                    assert!(!error.to_string().contains("hush"));
                }
                (found, _) => panic!("{url}: {found:?}"),
            }
        }
    }

    #[test]
    fn the_login_is_found_as_mlflow_does() {
        let check = |vars: &[(&str, &str)], expected: &str| {
            let vars = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(format!("{:?}", login(None, vars).unwrap()), expected);
        };
        let (user, password, token) =
            (("MLFLOW_TRACKING_USERNAME", "ann"), ("MLFLOW_TRACKING_PASSWORD", "p"), ("MLFLOW_TRACKING_TOKEN", "t"));
        check(&[], "None");
        check(&[token], "Some(Bearer)");
        check(&[user, password, token], "Some(Basic(ann))");
        check(&[user, token], "Some(Bearer)");
        check(&[user, password], "Some(Basic(ann))");
        check(&[("MLFLOW_TRACKING_TOKEN", "")], "None");
    }
}
