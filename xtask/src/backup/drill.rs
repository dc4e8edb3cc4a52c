//! The restore drill: a backup is loaded beside the live database, and the image's server proves that it
//! serves what was restored.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use serde::{Deserialize, Serialize};

use super::program::{self, Wish};
use super::{Backup, Server, dump};
use crate::cluster::forward::Forward;
use crate::cluster::{Cluster, PORT, job, login, server};
use crate::commands::Run;
use crate::config::cluster::BackupMethod;
use crate::error::{Context as _, Error, Kind, Result};
use crate::mlflow::smoke::{self, SmokeReport, Target};

/// What the Jobs are called.
const TASK: &str = "drill";

/// The program's own port in the pod (`CONTROL` in `program/drill.py`).
const CONTROL: u16 = 5001;

/// Between two questions how far it is.
const PAUSE: Duration = Duration::from_millis(500);

/// How long one of them may take.
const QUESTION: Duration = Duration::from_secs(5);

/// What was restored, and how it went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drilled {
    /// Which backup.
    #[serde(rename(deserialize = "drilled"))]
    pub backup: Backup,
    /// The revisions before and after, where the image's MLflow is newer than the backup's.
    pub migrated: Option<(String, String)>,
    /// Databases of drills that were killed, which this one has removed.
    pub leftovers: Vec<String>,
    /// What each part took.
    pub seconds: BTreeMap<String, f64>,
}

/// Holds a drill: loads the backup (the newest without an id) into a database of its own, compares it with the
/// manifest, starts the image's server with it, and walks through that with real requests. What was made goes
/// again, however it ends.
///
/// # Errors
/// `Check` where the backup is damaged or the server does not start with it, `Forbidden` where the server's
/// database user may not make a database, `Locked` during another drill; otherwise as [`Server::take`]. A
/// smoke test that fails is a part of the report.
pub async fn hold(of: Server<'_>, id: Option<&str>) -> Result<(Drilled, SmokeReport)> {
    let Server { run, cluster, settings, deployment } = of;
    if settings.backup.method == BackupMethod::CloudSql {
        return Err(super::kept_by_google("drilled"));
    }
    let server = starts(deployment);
    let wish = Wish { id: dump::known(id)?, server: &server, ..dump::wish("drill", settings)? };
    let task = job::Task { name: TASK, command: wish.command(), deadline: settings.backup.deadline };
    let job = job::build(deployment, &task)?;
    let auth = login::auth(cluster).await?.map(|(_, auth)| auth);
    let what = "hold a restore drill";
    let own = Run { cancel: run.cancel.child_token(), ..run.clone() };
    let follow = job::run(&own, cluster, &job, what);
    tokio::pin!(follow);
    // The Job ends first only where it has failed.
    let smoked = tokio::select! {
        lines = &mut follow => {
            let none: Drilled = program::read(what, &lines?)?;
            return Err(Error::new(Kind::Remote, format!("the drill of {} ended by itself", none.backup.id)));
        }
        smoked = prove(run, cluster, &job, settings.backup.deadline, auth) => smoked,
    };
    if smoked.is_err() {
        // Removed, the pod still tidies up.
        own.cancel.cancel();
    }
    let ended = follow.await;
    let smoked = smoked?;
    let drilled: Drilled = program::read(what, &ended?)?;
    Ok((drilled, smoked))
}

/// Waits until the drill's server serves, walks through it, and lets the drill end.
async fn prove(
    run: &Run,
    cluster: &Cluster,
    job: &Job,
    deadline: Duration,
    auth: Option<crate::mlflow::Auth>,
) -> Result<SmokeReport> {
    let name = job.metadata.name.as_deref().unwrap_or_default();
    let end = Instant::now() + deadline;
    let control = Control::reach(run, cluster, name, end).await?;
    let mut shown = String::new();
    loop {
        match control.phase().await {
            Ok(phase) if phase == "serving" => break,
            Ok(phase) if phase != shown => {
                run.ui.step("Drilling", &phase);
                shown = phase;
            }
            _ => {}
        }
        pause(end).await?;
    }
    let forward = Forward::to_job(run, cluster, name, PORT).await?;
    let target = Target { auth, ..Target::new(forward.url()) };
    let report = smoke::run(run, &target).await?;
    drop(forward);
    control.finish(end).await?;
    Ok(report)
}

/// The way to the program itself.
struct Control {
    forward: Forward,
    http: reqwest::Client,
}

impl Control {
    /// Waits for the pod.
    async fn reach(run: &Run, cluster: &Cluster, job: &str, end: Instant) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().timeout(QUESTION).build();
        let http = http.context(Kind::Machine, || "cannot set up HTTP")?;
        loop {
            match Forward::to_job(run, cluster, job, CONTROL).await {
                Ok(forward) => return Ok(Self { forward, http }),
                Err(error) if error.kind() == Kind::Check => pause(end).await?,
                Err(error) => return Err(error),
            }
        }
    }

    async fn phase(&self) -> reqwest::Result<String> {
        #[derive(Deserialize)]
        struct State {
            phase: String,
        }
        let mut url = self.forward.url();
        url.set_path("/state");
        Ok(self.http.get(url).send().await?.error_for_status()?.json::<State>().await?.phase)
    }

    async fn finish(&self, end: Instant) -> Result<()> {
        let mut url = self.forward.url();
        url.set_path("/end");
        while self.http.post(url.clone()).send().await.and_then(reqwest::Response::error_for_status).is_err() {
            pause(end).await?;
        }
        Ok(())
    }
}

async fn pause(end: Instant) -> Result<()> {
    if Instant::now() >= end {
        return Err(Error::new(Kind::Remote, "the drill is not done in time")
            .hint("raise deadline in [environment.NAME.backup] of deploy.toml"));
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}

/// What starts the server in its pods: what the Deployment says, else what the image does.
fn starts(deployment: &Deployment) -> Vec<String> {
    let server = server(deployment);
    let command = server.and_then(|server| server.command.clone()).unwrap_or_else(|| vec!["mlflow".to_owned()]);
    let args = server.and_then(|server| server.args.clone()).unwrap_or_else(|| vec!["server".to_owned()]);
    [command, args].concat()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_server_is_started_as_in_its_pods() {
        let check = |fields: Value, expected: &[&str]| {
            let mut container = json!({ "name": "mlflow" });
            container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let spec = json!({ "containers": [{ "name": "other", "args": ["x"] }, container] });
            let deployment: Deployment =
                serde_json::from_value(json!({ "spec": { "selector": {}, "template": { "spec": spec } } })).unwrap();
            assert_eq!(starts(&deployment), expected);
        };
        check(json!({}), &["mlflow", "server"]);
        check(json!({ "args": ["server", "--workers", "2"] }), &["mlflow", "server", "--workers", "2"]);
        let login = ["python", "-m", "mlflow_server_login", "server"];
        check(json!({ "command": login[..3], "args": ["server"] }), &login);
    }

    #[test]
    fn the_programs_port_is_the_one_that_is_asked() {
        assert!(program::PROGRAM.contains(&format!("\nCONTROL = {CONTROL}\n")));
        assert!(program::PROGRAM.contains(&format!("\nSERVER = {PORT}\n")));
    }
}
