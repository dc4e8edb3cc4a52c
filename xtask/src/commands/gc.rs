//! `gc`: frees what deleted runs, models and experiments of a server still hold.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;

use crate::cluster::{Cluster, job};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::config::{self, Config, Environment};
use crate::error::{Error, Kind, Result};
use crate::gc::{self, Freed, Left, TASK, Wish};
use crate::report::{self, Report};

/// Things that are left, of which the reason is shown.
const SHOWN: usize = 20;

/// Free what deleted runs, models and experiments of a cluster's server still hold
///
/// What is deleted in MLflow is only marked: its rows and artifacts stay, and it can be restored. A Job of
/// the running server's own pod model deletes them for good, with the server's rights: artifacts first,
/// rows last. What a registered model version is made of is left alone. Without --yes it is shown first, and
/// asked for. Exit code 12 when something could not be deleted; the rest is.
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// Say what would be freed, and delete nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long ago it must have been deleted: 30d, 12h, 90m, 45s [default: gc.older-than in deploy.toml, 30d].
    #[arg(long, value_name = "TIME", value_parser = gc::duration)]
    older_than: Option<Duration>,
    /// Do not ask before it is deleted.
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let settings = match config.environment()? {
        Environment::Local(_) => return Err(on_this_machine(&args.env)),
        Environment::Cluster(settings) => settings,
    };
    let older_than = args.older_than.unwrap_or(settings.gc.older_than);
    let cluster = Cluster::connect(settings).await?;
    let server = Server { deployment: job::deployment(&cluster, &args.env).await?, cluster, settings };
    let answer = |(freed, left)| Answer { env: args.env.clone(), place: server.cluster.place(), freed, left };
    if args.dry_run || !args.yes {
        let found = answer(server.free(run, Wish { older_than, dry_run: true }).await?);
        if args.dry_run || found.freed.is_nothing() {
            return found.give(run);
        }
        run.ui.show(|out| found.human(out));
        run.ui.confirm("Delete it for good?", "--yes")?;
    }
    answer(server.free(run, Wish { older_than, dry_run: false }).await?).give(run)
}

/// Its data folder belongs to the server alone while that runs.
fn on_this_machine(env: &str) -> Error {
    let message = format!("environment {env} is on this machine: gc frees what servers in clusters hold");
    Error::new(Kind::Usage, message).hint(format!(
        "name an environment in a cluster with --env; cargo xtask down --env {env} --delete-data deletes all"
    ))
}

/// The server that is asked.
struct Server<'a> {
    cluster: Cluster,
    deployment: Deployment,
    settings: &'a ClusterConfig,
}

impl Server<'_> {
    async fn free(&self, run: &Run, wish: Wish) -> Result<(Freed, Vec<Left>)> {
        let task = job::Task { name: TASK, command: wish.command(true), deadline: self.settings.gc.deadline };
        let what = if wish.dry_run { "look for what is deleted" } else { "free what is deleted" };
        let job = job::build(&self.deployment, &task)?;
        gc::read(&job::run(run, &self.cluster, &job, what).await?)
    }
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    /// Whose pods reach it.
    place: String,
    #[serde(flatten)]
    freed: Freed,
    /// What is left, as far as the log's end tells.
    left: Vec<Left>,
}

impl Answer {
    fn give(&self, run: &Run) -> Result<ExitCode> {
        run.answer(self)?;
        Ok(match self.freed.refused {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(Kind::Check.exit_code()),
        })
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Freed { runs, models, traces, experiments, files, artifacts, .. } = self.freed;
        let size = report::bytes(self.freed.bytes);
        let age = gc::words(Duration::from_secs(self.freed.older_than));
        match (self.freed.is_nothing(), self.freed.dry_run) {
            (true, _) => writeln!(out, "{:10} nothing to free: nothing has been deleted for {age}", self.env)?,
            (false, true) => writeln!(out, "{:10} {size} in {files} files would be freed", self.env)?,
            (false, false) => writeln!(out, "{:10} {size} in {files} files freed", self.env)?,
        }
        if !self.freed.is_nothing() {
            writeln!(
                out,
                "  deleted   {runs} runs, {models} models, {traces} traces, {experiments} experiments ({age} or longer)"
            )?;
            writeln!(out, "  artifacts of {}; {} had none, or none any more", artifacts.deleted, artifacts.absent)?;
        }
        for Left { kind, id, end, why } in self.left.iter().take(SHOWN) {
            writeln!(out, "  {end:9} {kind} {id}: {}", why.as_deref().unwrap_or("-"))?;
        }
        let more = usize::try_from(self.freed.kept + self.freed.refused).unwrap_or(usize::MAX);
        if more > self.left.len().min(SHOWN) {
            writeln!(out, "  in all    {} kept, {} refused", self.freed.kept, self.freed.refused)?;
        }
        writeln!(out, "  in        {}", self.place)
    }
}
