//! `status` of a server in a cluster.

use std::io;
use std::process::ExitCode;

use k8s_openapi::jiff::Timestamp;

use crate::cluster::release::Release;
use crate::cluster::status::{self, Drift, Running};
use crate::cluster::{Cluster, connect};
use crate::commands::Run;
use crate::config::cluster::ClusterConfig;
use crate::error::{Kind, Result};
use crate::report::Report;

/// How many releases are listed.
const LISTED: usize = 5;

pub async fn run(env: &str, exit_code: bool, run: &Run, config: &ClusterConfig) -> Result<ExitCode> {
    let cluster = Cluster::connect(config).await?;
    let answer = tokio::select! {
        () = run.cancel.cancelled() => return Err(Run::interrupted()),
        answer = look(env, &cluster) => answer?,
    };
    run.answer(&answer)?;
    let drifted = exit_code && (answer.drift.is_there() || answer.drift.unknown.is_some());
    Ok(if answer.serves && !drifted { ExitCode::SUCCESS } else { ExitCode::from(Kind::Check.exit_code()) })
}

async fn look(env: &str, cluster: &Cluster) -> Result<Answer> {
    let seen = status::observe(cluster).await?;
    let running = status::describe(&seen, Timestamp::now());
    let ((serves, health), drift) =
        tokio::join!(status::health(cluster, &seen), status::drift(cluster, &seen, &running));
    let releases = seen.releases.iter().rev().take(LISTED).cloned().collect();
    Ok(Answer {
        env: env.to_owned(),
        context: cluster.context.clone(),
        namespace: cluster.namespace.clone(),
        deployed: seen.deployment.is_some(),
        serves,
        health,
        running,
        drift: drift?,
        releases,
    })
}

#[derive(serde::Serialize)]
struct Answer {
    env: String,
    context: String,
    namespace: String,
    deployed: bool,
    serves: bool,
    health: String,
    #[serde(flatten)]
    running: Running,
    drift: Drift,
    releases: Vec<Release>,
}

impl Report for Answer {
    fn human(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let Self { env, running, .. } = self;
        let place = connect::place(&self.context, &self.namespace);
        if !self.deployed {
            writeln!(out, "{env:10} nothing is deployed in {place}")?;
        } else {
            let serves = if self.serves { "serves" } else { "does not serve" };
            writeln!(out, "{env:10} {serves}: {}", self.health)?;
        }
        if let Some(words) = &running.unfinished {
            writeln!(out, "  note      {words}")?;
        }
        if !self.deployed {
            return self.history(out);
        }
        let mut line = |name: &str, value: Option<String>| match value {
            Some(value) => writeln!(out, "  {name:9} {value}"),
            None => Ok(()),
        };
        line("in", Some(place))?;
        line("image", running.image.clone())?;
        line("mlflow", running.version.clone())?;
        line("release", running.release.map(|number| number.to_string()))?;
        line("since", running.since.clone())?;
        line("by", running.by.clone())?;
        line("commit", running.commit.clone())?;
        line("run", running.run.clone())?;
        let kind = running.service_type.as_deref().unwrap_or_default();
        line("service", running.address.as_ref().map(|address| format!("{address} ({kind})")))?;
        line("outside", Some(running.external.join(", ")).filter(|text| !text.is_empty()))?;
        line("login", running.login.as_ref().map(|login| login.words(&self.context, &self.namespace)))?;
        line("login", running.sign_in.as_ref().map(|sign_in| format!("{} (oauth2-proxy)", sign_in.issuer)))?;
        let replicas = running.replicas;
        let counts = format!("{} wanted, {} up to date, {} ready", replicas.wanted, replicas.updated, replicas.ready);
        line("pods", Some(counts))?;
        let width = running.pods.iter().map(|pod| pod.name.len()).max().unwrap_or(0);
        for pod in &running.pods {
            let state = if pod.ready { "ready".to_owned() } else { format!("not ready ({})", pod.state) };
            let node = pod.node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
            let since = pod.since.as_deref().map(|since| format!(" since {since}")).unwrap_or_default();
            let restarts = match pod.restarts {
                0 => String::new(),
                1 => ", 1 restart".to_owned(),
                n => format!(", {n} restarts"),
            };
            writeln!(out, "            {:width$}  {state}{restarts}{node}{since}", pod.name)?;
        }
        status::write_drift(&self.drift, out)?;
        self.history(out)
    }
}

impl Answer {
    fn history(&self, out: &mut dyn io::Write) -> io::Result<()> {
        for (index, release) in self.releases.iter().enumerate() {
            let name = if index == 0 { "releases" } else { "" };
            let Release { number, state, at, provenance, image, version, .. } = release;
            let version = version.as_deref().map(|version| format!(", MLflow {version}")).unwrap_or_default();
            let digest = image.rsplit_once('@').map_or(image.as_str(), |(_, digest)| digest);
            let digest: String = digest.chars().take("sha256:".len() + 12).collect();
            writeln!(out, "  {name:9} {number:>3} {state}, {at}, by {}{version}, {digest}", provenance.by)?;
        }
        Ok(())
    }
}
