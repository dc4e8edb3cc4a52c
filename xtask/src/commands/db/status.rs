//! `db status`: the database's schema beside that of an image.

use std::io;
use std::process::ExitCode;

use super::Wanted;
use crate::cluster::{Cluster, deploy, job, server_image};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::config::{Config, Environment, LocalConfig};
use crate::error::{Kind, Result};
use crate::local::server;
use crate::local::state::Home;
use crate::report::{self, Report};
use crate::schema::status::Found;
use crate::schema::verdict::{Verdict, verdict};
use crate::schema::{Schema, sqlite};

/// Compare the database's schema with the one that an image's MLflow works with
///
/// In a cluster a Job of the running server's own pod model asks the database; it changes nothing, and
/// is removed afterwards. Exit code 12 when the database has to be migrated before the image can run, 14 when it
/// is ahead of the image, 0 when they fit.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
}

pub async fn run(args: Args, run: &Run) -> Result<ExitCode> {
    let Wanted { env, image } = args.wanted;
    let config = Config::load(&env)?;
    let asked = match config.environment()? {
        Environment::Local(local) => on_this_machine(&env, local)?,
        Environment::Cluster(settings) => in_cluster(&env, run, settings).await?,
    };
    let (image, schema) = tokio::select! {
        () = run.cancel.cancelled() => return Err(Run::interrupted()),
        told = super::schema_of(run, &config, image) => told?,
    };
    let stores = asked.found.into_iter().map(|found| Line::of(found, &schema)).collect();
    let answer = Answer { env, place: asked.place, image, runs: asked.runs, stores };
    run.answer(&answer)?;
    Ok(answer.failure().map_or(ExitCode::SUCCESS, |kind| ExitCode::from(kind.exit_code())))
}

/// What was asked of whom.
struct Asked {
    /// Where the database is, for people.
    place: String,
    /// The image that runs.
    runs: Option<String>,
    found: Vec<Found>,
}

/// The local server has SQLite, and no login.
fn on_this_machine(env: &str, local: &LocalConfig) -> Result<Asked> {
    let home = Home::of(env)?;
    let data = local.data.clone().unwrap_or_else(|| home.data_dir());
    let path = server::database(&data);
    let found = tokio::task::block_in_place(|| sqlite::look(&path))?;
    let runs = home.state()?.current.map(|release| release.image.to_string());
    Ok(Asked { place: path.display().to_string(), runs, found: vec![found] })
}

async fn in_cluster(env: &str, run: &Run, settings: &ClusterConfig) -> Result<Asked> {
    let cluster = Cluster::connect(settings).await?;
    let deployment = job::deployment(&cluster, env).await?;
    let found = deploy::ask(run, &cluster, &deployment).await?;
    Ok(Asked { place: cluster.place(), runs: server_image(&deployment).map(str::to_owned), found })
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    /// Where the database is, or whose pods reach it.
    place: String,
    /// The image that is compared.
    image: String,
    /// The image that runs.
    runs: Option<String>,
    stores: Vec<Line>,
}

/// A store.
#[derive(serde::Serialize)]
struct Line {
    #[serde(flatten)]
    found: Found,
    /// The revision that the compared image works with; `None` where it has no such store.
    wanted: Option<String>,
    #[serde(flatten)]
    verdict: Verdict,
}

impl Line {
    fn of(found: Found, schema: &Schema) -> Self {
        let known = schema.of(found.store);
        Self {
            verdict: known.map_or(Verdict::Ahead, |known| verdict(&found, known)),
            wanted: known.map(|known| known.head().to_owned()),
            found,
        }
    }

    fn words(&self) -> String {
        let wanted = self.wanted.as_deref().unwrap_or("none");
        match self.verdict {
            Verdict::Same => "fits the image".to_owned(),
            Verdict::Empty => format!("nothing yet; the image makes it, at {wanted}"),
            Verdict::Behind { migrations: Some(1) } => format!("behind the image's {wanted} by 1 migration"),
            Verdict::Behind { migrations: Some(n) } => format!("behind the image's {wanted} by {n} migrations"),
            Verdict::Behind { migrations: None } => format!("of an MLflow before 3.6; the image works with {wanted}"),
            Verdict::Ahead => format!("ahead of the image, which knows nothing after {wanted}"),
            Verdict::Unclear => {
                format!("holds what MLflow keeps but names no single revision; the image works with {wanted}")
            }
        }
    }
}

impl Answer {
    fn failure(&self) -> Option<Kind> {
        let has = |wanted: fn(&Verdict) -> bool| self.stores.iter().any(|line| wanted(&line.verdict));
        if has(|verdict| *verdict == Verdict::Ahead) {
            return Some(Kind::RollbackRefused);
        }
        has(|verdict| *verdict != Verdict::Same).then_some(Kind::Check)
    }
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let fits = match self.failure() {
            None => "the database fits the image",
            Some(Kind::RollbackRefused) => "the database is ahead of the image: deploy a newer one",
            Some(_) => "the database does not fit the image",
        };
        writeln!(out, "{:10} {fits}", self.env)?;
        writeln!(out, "  image     {}", self.image)?;
        match &self.runs {
            Some(runs) if *runs != self.image => writeln!(out, "  runs      {runs}")?,
            _ => {}
        }
        for line in &self.stores {
            let found = match line.found.revisions.as_slice() {
                [] => "-".to_owned(),
                revisions => revisions.join(" "),
            };
            writeln!(out, "  {:9} {found}  {}", line.found.store.to_string(), line.words())?;
            let size = line.found.bytes.map(|bytes| format!(", {}", report::bytes(bytes))).unwrap_or_default();
            writeln!(out, "            in {}{size}", line.found.server)?;
        }
        writeln!(out, "  in        {}", self.place)
    }
}
