//! `down`: stops the local server.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::config::{self, Config, Environment};
use crate::error::{Context as _, Error, Kind, Result};
use crate::local::runner;
use crate::local::state::{Home, State};
use crate::report::Report;

/// Stop the server, keep its data
#[derive(clap::Args)]
pub struct Args {
    /// The environment in deploy.toml.
    #[arg(long, default_value = config::LOCAL)]
    env: String,
    /// Delete database, artifacts and backups too.
    #[arg(long)]
    delete_data: bool,
    /// Do not ask before data is deleted.
    #[arg(long, short)]
    yes: bool,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let config = Config::load(&args.env)?;
    let local = match config.environment()? {
        Environment::Local(local) => local,
        Environment::Cluster(cluster) => return Err(in_cluster(&args.env, cluster)),
    };
    let home = Home::of(&args.env)?;
    if !home.dir.exists() {
        let answer = Answer { env: args.env, stopped: false, killed: false, data: None, deleted: false };
        return run.answer(&answer);
    }
    let _lock = home.lock()?;
    let state = home.state();
    // The data of what was deployed, wherever deploy.toml would put the next one's.
    let recorded = state.as_ref().ok().and_then(|state| {
        let release = state.current.as_ref().or(state.pending.as_ref().map(|pending| &pending.release));
        release.map(|release| release.data.clone())
    });
    let data = recorded.or_else(|| local.data.clone()).unwrap_or_else(|| home.data_dir());
    if args.delete_data && !args.yes {
        confirm(&data)?;
    }
    let running = runner::alive(&home, &data).await?;
    let mut killed = false;
    if let Some(running) = &running {
        run.ui.step("Stopping", running.process.to_string());
        killed = !runner::stop(&home, running).await?;
    }
    if args.delete_data {
        delete(&data)?;
        delete(&home.backup_dir())?;
        // Even a damaged record goes with the data.
        home.write_state(&State { previous: None, current: None, pending: None, schema: None })?;
    } else {
        state?;
    }
    let answer = Answer {
        env: args.env,
        stopped: running.is_some(),
        killed,
        data: (data.exists() || args.delete_data).then(|| data.display().to_string()),
        deleted: args.delete_data,
    };
    run.answer(&answer)
}

/// Others use that server: whether it goes, and what of it, is decided with the cluster's own tools.
fn in_cluster(env: &str, cluster: &ClusterConfig) -> Error {
    let ClusterConfig { context, namespace, .. } = cluster;
    let message = format!("environment {env} is in a cluster: down stops servers on this machine only");
    Error::new(Kind::Usage, message).hint(format!(
        "stop it with `kubectl --context {context} -n {namespace} scale deployment/mlflow --replicas=0`; deploy starts it \
         again"
    ))
}

fn confirm(data: &Path) -> Result<()> {
    let refused = |why: &str| Error::new(Kind::Usage, format!("{} is not deleted: {why}", data.display()));
    if !io::stdin().is_terminal() {
        return Err(refused("nobody can be asked").hint("add --yes to delete it without a question"));
    }
    let mut out = io::stderr().lock();
    let asked = write!(out, "delete {} with all experiments and artifacts? [y/N] ", data.display());
    asked.and_then(|()| out.flush()).on_machine(|| "cannot ask")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).on_machine(|| "cannot read the answer")?;
    match line.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(refused("the answer was no")),
    }
}

fn delete(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).on_machine(|| format!("cannot delete {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    stopped: bool,
    killed: bool,
    data: Option<String>,
    deleted: bool,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        match (self.stopped, self.killed) {
            (false, _) => writeln!(out, "nothing runs in environment {}", self.env)?,
            (true, false) => writeln!(out, "the server of environment {} is stopped", self.env)?,
            (true, true) => writeln!(out, "the server of environment {} did not end and was killed", self.env)?,
        }
        match (&self.data, self.deleted) {
            (Some(data), false) => writeln!(out, "its data is kept in {data}"),
            (Some(data), true) => writeln!(out, "its data in {data} is deleted"),
            (None, _) => Ok(()),
        }
    }
}
