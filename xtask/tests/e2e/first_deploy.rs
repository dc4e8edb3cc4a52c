//! From nothing to a proven server, as the README says it; and the same again, which changes nothing.

#[expect(dead_code, reason = "the integration tests need the server's packages too")]
#[path = "../it/mlflow/envs.rs"]
pub mod envs;

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::faults::State;
use crate::report::Row;
use crate::run::Running;
use crate::scenario::Scenario;
use crate::site::{ENV, LONGEST, Site};
use crate::world::World;
use crate::{Result, ensure};

/// How long a second deploy may take that finds nothing to do, in seconds. The promise is 5 s on an
/// idle machine; here other scenarios are at work.
const NOTHING: f64 = 10.0;

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "first-deploy",
    about: "deploy into an empty namespace and database, then status, logs, smoke, render, open",
    alone: false,
    needs: None,
    run: first_deploy,
}];

fn first_deploy(world: &World) -> Result<Row> {
    let mut site = Site::new(world, "first")?;
    // Two servers on an empty database: both want to make the schema.
    site.set(|settings| settings.replicas = 2)?;
    let dry = site.xtask(&["deploy", "--env", ENV, "--dry-run"])?.expect(0)?;
    ensure!(dry.text().contains("Deployment/mlflow"), "the dry run shows no Deployment:\n{}", dry.text());
    ensure!(site.deployment()?.is_none(), "the dry run has made a Deployment");

    // Without --image: the image is built, which finds it pushed.
    let first = site.xtask(&["deploy", "--env", ENV, "--json"])?.expect(0)?;
    let answer = first.json()?;
    ensure!(answer["changed"] == true, "the first deploy changes nothing: {answer}");
    let checks = answer["smoke"]["checks"].as_array().map_or(0, Vec::len);
    ensure!(checks >= 8, "the smoke test has {checks} checks: {answer}");
    let deployment = site.deployment()?.ok_or("there is no Deployment")?;
    ensure!(deployment["status"]["readyReplicas"] == 2, "not all pods are ready: {}", deployment["status"]);
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(*image == world.image.as_str(), "{image} runs instead of {}", world.image);

    let (before, sets) = (State::of(&site)?, replica_sets(&site)?);
    let second = site.deploy(&["--json"])?.expect(0)?;
    ensure!(second.json()?["changed"] == false, "the second deploy changes something: {}", second.out);
    State::of(&site)?.unchanged_since(&before)?;
    ensure!(replica_sets(&site)? == sets, "the second deploy makes a ReplicaSet");
    ensure!(second.seconds < NOTHING, "the second deploy took {:.1} s", second.seconds);

    let status = site.xtask(&["status", "--env", ENV, "--exit-code", "--json"])?.expect(0)?;
    let (_, digest) = world.image.split_once('@').ok_or("an image without a digest")?;
    ensure!(status.out.contains(digest), "status does not name the image: {}", status.out);
    let logs = site.xtask(&["logs", "--env", ENV])?.expect(0)?;
    ensure!(logs.out.contains("Uvicorn running on"), "logs does not show the server's: {}", logs.out);
    site.xtask(&["smoke", "--env", ENV])?.expect(0)?;
    let rendered = site.xtask(&["render", "--env", ENV, "--image", &world.image])?.expect(0)?;
    ensure!(!rendered.out.contains(&site.settings.database_uri), "render prints the database's password");
    ensure!(rendered.out.contains(digest), "render does not name the image");
    let client = client_through_open(&site)?;

    let row = Row {
        notes: vec![
            format!("first deploy with 2 replicas on an empty database: {:.1} s, {checks} checks", first.seconds),
            format!("second deploy: nothing to do, {:.1} s", second.seconds),
            client,
        ],
        ..Row::default()
    };
    site.close()?;
    Ok(row)
}

fn replica_sets(site: &Site<'_>) -> Result<usize> {
    Ok(site.world.kube.list(&site.path("apps/v1", "replicasets"))?.len())
}

/// MLflow's own client, with `open` between it and the server.
fn client_through_open(site: &Site<'_>) -> Result<String> {
    let port = testbed::free_port().to_string();
    let mut open = site.start(&["open", "--env", ENV, "--port", &port])?;
    let url = format!("http://127.0.0.1:{port}");
    open.wait_for_answer(&url, Duration::from_secs(30))?;
    let Some(python) = envs::Python::client() else {
        return Ok("MLflow's client was not tried: no Python 3.13".to_owned());
    };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mlflow/seed_check.py");
    let mut client = site.home.command(python.interpreter());
    client.arg(script).arg(&url).env("PYTHONWARNINGS", "ignore").env("GIT_PYTHON_REFRESH", "quiet");
    let ran = site.keep(Running::start("MLflow's client", client)?.end(LONGEST)?)?.expect(0)?;
    open.signal(Signal::SIGINT)?;
    open.end(Duration::from_secs(30))?;
    Ok(format!("MLflow's client through `open`: {}", ran.out.trim()))
}
