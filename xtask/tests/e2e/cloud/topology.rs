//! From nothing to a proven server with terraform, and in full with gcloud, too: both give the same.

use serde_json::Value;

use super::account;
use super::site::{BUCKET, Cloud, ENV};
use crate::report::Row;
use crate::scenario::leave_out;
use crate::world::World;
use crate::{Result, ensure};

/// What one of the two ways has given.
struct Way {
    outputs: Value,
    state: Value,
    steps: Vec<(&'static str, f64)>,
}

pub fn run(world: &World) -> Result<Row> {
    let terraform = way(world, "terraform")?;
    if !world.full {
        // Each of its calls is a process: it takes twice as long. What it makes is compared without a cluster, too.
        leave_out("topology", "the way by gcloud: --full takes it, too, and compares");
        let notes = terraform.steps.iter().map(|(name, seconds)| format!("{name:32} {seconds:>10.1} s")).collect();
        return Ok(Row { notes, ..Row::default() });
    }
    let gcloud = way(world, "gcloud")?;
    ensure!(
        terraform.outputs == gcloud.outputs,
        "the two ways give other outputs: {:#} and {:#}",
        terraform.outputs,
        gcloud.outputs
    );
    ensure!(account::granted(&terraform.state) == account::granted(&gcloud.state), "the two ways grant other roles");
    let mut notes = vec![format!("{:32} {:>10} {:>10}", "seconds", "terraform", "gcloud")];
    for ((name, one), (_, other)) in terraform.steps.iter().zip(&gcloud.steps) {
        notes.push(format!("{name:32} {one:>10.1} {other:>10.1}"));
    }
    let total = |way: &Way| way.steps.iter().map(|(_, seconds)| seconds).sum::<f64>();
    notes.push(format!("{:32} {:>10.1} {:>10.1}", "all", total(&terraform), total(&gcloud)));
    notes.push("the outputs of both ways are the same, and so are the roles that they grant".to_owned());
    Ok(Row { notes, ..Row::default() })
}

fn way(world: &World, via: &str) -> Result<Way> {
    let cloud = Cloud::new(world, "gke", "", &format!("via = {via:?}"))?;
    let mut steps = Vec::new();

    let planned = cloud.xtask(&["infra", "plan", "--env", ENV, "--exit-code"])?.expect(12)?;
    ensure!(cloud.writes().is_empty(), "a plan writes: {:?}", cloud.writes());
    steps.push(("infra plan", planned.seconds));

    let (applied, seconds) = cloud.answer(&["infra", "apply", "--yes"])?;
    ensure!(applied["changed"] == true, "the first apply changes nothing: {applied}");
    steps.push(("infra apply", seconds));
    let outputs = applied["outputs"].clone();

    cloud.google.clear_log();
    let (again, seconds) = cloud.answer(&["infra", "apply", "--yes"])?;
    ensure!(again["changed"] == false, "the second apply changes something: {again}");
    ensure!(cloud.writes().is_empty(), "the second apply writes: {:?}", cloud.writes());
    ensure!(again["outputs"] == outputs, "the second apply gives other outputs");
    steps.push(("infra apply, again", seconds));

    let (built, seconds) = cloud.answer(&["build-image", "--push"])?;
    let image = built["image"].as_str().ok_or("build-image names no image")?.to_owned();
    let repository = outputs["registry"]["repository"].as_str().unwrap_or("?");
    ensure!(image.starts_with(repository), "{image} is not in {repository}");
    steps.push(("build-image --push", seconds));

    let (deployed, seconds) = cloud.answer(&["deploy", "--image", &image])?;
    ensure!(deployed["changed"] == true, "nothing was deployed: {deployed}");
    steps.push(("deploy", seconds));
    expect_the_real_thing(&cloud)?;

    let (smoked, seconds) = cloud.answer(&["smoke"])?;
    ensure!(smoked["ok"] == true, "smoke: {smoked}");
    steps.push(("smoke", seconds));
    cloud.expect_artifacts_in_bucket()?;

    let state = cloud.google.state();
    account::expect_granted(&state, &account::granted_with_a_cluster())?;
    let keys = cloud.resources("iam.keys");
    ensure!(keys.is_empty(), "keys were made: {keys:?}");

    let (_, seconds) = cloud.answer(&["infra", "destroy", "--yes"])?;
    steps.push(("infra destroy", seconds));
    ensure!(cloud.resources("storage.buckets") == [BUCKET], "the bucket is gone: {:#}", cloud.google.state());
    ensure!(cloud.resources("sql.instances").len() == 1, "the database is gone: {:#}", cloud.google.state());
    for kind in ["container.clusters", "artifactregistry.repositories", "iam.serviceAccounts"] {
        ensure!(cloud.resources(kind).is_empty(), "{kind} are left: {:?}", cloud.resources(kind));
    }
    let (_, seconds) = cloud.answer(&["infra", "destroy", "--yes", "--delete-data"])?;
    steps.push(("infra destroy --delete-data", seconds));
    let left = cloud.google.state()["resources"].clone();
    let left: Vec<&String> = left.as_object().into_iter().flatten().map(|(kind, _)| kind).collect();
    ensure!(left.is_empty(), "left after everything was deleted: {left:?}");
    let granted = account::granted(&cloud.google.state());
    ensure!(granted.is_empty(), "granted after everything was deleted: {granted:?}");
    cloud.close()?;
    Ok(Way { outputs, state, steps })
}

/// The pods have the proxy, and it has asked Google as the server's account, not as anyone else.
fn expect_the_real_thing(cloud: &Cloud<'_>) -> Result<()> {
    let server = format!("mlflow@{}.iam.gserviceaccount.com", super::site::PROJECT);
    let log = cloud.google.log();
    for call in ["connectSettings", "generateEphemeralCert"] {
        let by: Vec<&str> =
            log.iter().filter(|entry| entry.path.contains(call)).map(|entry| entry.principal.as_str()).collect();
        ensure!(!by.is_empty() && by.iter().all(|by| *by == server), "{call} was asked by {by:?}");
    }
    Ok(())
}
