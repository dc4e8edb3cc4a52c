//! `open`: the way to a server's UI.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::cluster::forward::Forward;
use crate::cluster::login::{Login, SignIn};
use crate::cluster::target::Target;
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};
use crate::local::port;
use crate::local::state::Home;
use crate::process::{self, Program};
use crate::report::Report;

/// How long the program that opens a browser may take.
const BROWSER: Duration = Duration::from_secs(10);

/// Print the address of the server's UI; for a cluster, forward a port to it until Ctrl-C
///
/// The forward survives restarts of pods and rollouts: the next connection goes to a pod that is
/// ready.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// The port on 127.0.0.1 [default: the first free one from 5000]. For a cluster only.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Open it in the browser too, where this is a terminal.
    #[arg(long)]
    browser: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    match config.environment()? {
        Environment::Local(_) => local(&args, run).await,
        Environment::Cluster(cluster) => in_cluster(&args, run, cluster).await,
    }
}

async fn local(args: &Args, run: &Run) -> Result<ExitCode> {
    if args.port.is_some() {
        let message = format!("--port is for a cluster, and environment {} is on this machine", args.env);
        return Err(Error::new(Kind::Usage, message).hint("`cargo xtask deploy --port PORT` moves its server"));
    }
    let running = Home::of(&args.env)?.running()?.ok_or_else(|| {
        Error::new(Kind::Check, format!("environment {} runs no server", args.env))
            .hint(format!("run `cargo xtask deploy --env {}`", args.env))
    })?;
    let answer = Answer { env: args.env.clone(), url: running.release.url };
    let code = run.answer(&answer)?;
    browse(args, run, &answer.url).await;
    Ok(code)
}

async fn in_cluster(args: &Args, run: &Run, config: &ClusterConfig) -> Result<ExitCode> {
    let cluster = Cluster::connect(config).await?;
    let port = port::choose(args.port, None, None, port::is_free)?;
    let forward = tokio::select! {
        () = run.cancel.cancelled() => return Err(Run::interrupted()),
        forward = Forward::start(run, &cluster, Target::Newest, Some(port)) => forward?,
    };
    let answer = Answer { env: args.env.clone(), url: forward.url().to_string() };
    let code = run.answer(&answer)?;
    let deployment = cluster.deployment().await.ok().flatten();
    if let Some(login) = deployment.as_ref().and_then(Login::of) {
        run.ui.step("Login", login.words(&cluster.context, &cluster.namespace));
    }
    if let Some(sign_in) = deployment.as_ref().and_then(SignIn::of) {
        let why = "who may forward ports of the namespace is let in without";
        run.ui.step("Login", format!("by {} for others; {why}", sign_in.issuer));
    }
    run.ui.step("Forwarding", "until Ctrl-C");
    browse(args, run, &answer.url).await;
    run.cancel.cancelled().await;
    Ok(code)
}

/// Opens the browser if that is wanted; a machine without one is no failure.
async fn browse(args: &Args, run: &Run, url: &str) {
    if !args.browser {
        return;
    }
    if !io::stdout().is_terminal() {
        run.ui.warn("no browser is opened: this is no terminal");
        return;
    }
    let opened = match process::find(&["xdg-open", "open"]) {
        Some(program) => Program::new(program).arg(url).ask(&run.cancel, BROWSER).await.map(drop),
        None => Err(Error::new(Kind::Tool, "neither xdg-open nor open is installed")),
    };
    if let Err(error) = opened {
        run.ui.warn(format!("no browser is opened: {}", error.lines().join(": ")));
    }
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    url: String,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{}", self.url)
    }
}
