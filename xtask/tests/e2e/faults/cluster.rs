//! Parts of the cluster that go away. These scenarios run alone.

use std::time::Duration;

use super::connection::back_to_the_beginning;
use crate::kube::wait_for;
use crate::load::Shape;
use crate::report::{Answered, Row};
use crate::site::{LONGEST, Site};
use crate::world::World;
use crate::{Result, ensure, steps};

/// Without its database no server is ready, old or new: the old one runs on and serves again as
/// soon as the database is back.
pub fn database_down(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let old = pods(&site)?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "database".into())))?;
    let stopped = world.place.stop("postgres")?;
    let ran = site.deploy(&[])?;
    stopped.start()?;
    let cause = ran.first(&["the database does not answer"]).map(|line| line.text.clone());
    ensure!(matches!(ran.code, Some(10..=12 | 19)), "exit {:?}:\n{}", ran.code, ran.said());
    ensure!(cause.is_some(), "the cause is not named:\n{}", ran.said());
    let begun = std::time::Instant::now();
    wait_for("the old pods serve again", Duration::from_secs(60), || {
        let now = pods(&site)?;
        Ok(old.iter().all(|pod| now.contains(pod)).then_some(()))
    })?;
    let probe = site.load(Shape::PROBE)?;
    std::thread::sleep(Duration::from_secs(2));
    let probe = probe.stop();
    ensure!(probe.requests > 0 && probe.failures.is_empty(), "the old server does not answer: {:?}", probe.failures);
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: ran.code,
        cause,
        undone: Some(format!("the same pods serve {:.0} s after the database is back", begun.elapsed().as_secs_f64())),
        ..Row::default()
    })
}

/// A deploy outlives its API server's restart.
pub fn api_server_restart(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let probe = site.load(Shape::PROBE)?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "api-server".into())))?;
    let mut running = site.start_deploy(&[])?;
    running.wait_for(steps::FOLLOWING, Duration::from_secs(60))?;
    let stopped = world.place.stop("apiserver")?;
    std::thread::sleep(Duration::from_secs(5));
    ensure!(running.is_running(), "it gave up");
    stopped.start()?;
    let ran = site.keep(running.end(LONGEST)?)?.expect(0)?;
    let probe = probe.stop();
    ensure!(probe.failures.is_empty(), "the server failed to answer: {:?}", probe.failures);
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: ran.code,
        cause: Some("none: the rollout went on".into()),
        old_server: Some(Answered { requests: probe.requests, failed: 0 }),
        undone: Some("nothing".into()),
        ..Row::default()
    })
}

/// The kubelet stops: the new pod is never started, and nobody says so but the node's silence.
pub fn node_stopped(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    site.set(|settings| {
        settings.env.insert("ROUND".into(), "node".into());
        settings.deadline = 70;
    })?;
    let stopped = world.place.stop("kubelet")?;
    let ran = site.deploy(&[])?;
    stopped.start()?;
    let cause = ran.first(&["the pod's node does not answer"]).map(|line| line.text.clone());
    ensure!(matches!(ran.code, Some(10 | 11 | 19)), "exit {:?}:\n{}", ran.code, ran.said());
    ensure!(cause.is_some(), "the cause is not named:\n{}", ran.said());
    wait_for(
        "the old pods are ready again",
        Duration::from_secs(120),
        || Ok((!pods(&site)?.is_empty()).then_some(())),
    )?;
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: ran.code,
        cause,
        undone: Some("the old release is applied; its pods are ready once the node is back".into()),
        notes: vec!["the only node: Kubernetes itself takes its pods out of the Service".into()],
        ..Row::default()
    })
}

/// The names of the pods that are ready, and are to stay.
fn pods(site: &Site<'_>) -> Result<Vec<String>> {
    let mut ready = Vec::new();
    for pod in site.world.kube.list(&site.path("v1", "pods"))? {
        if pod["metadata"]["deletionTimestamp"].is_string() {
            continue;
        }
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True") {
            ready.push(pod["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(ready)
}
