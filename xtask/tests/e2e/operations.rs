//! What a release's owner does: goes back, looks for drift, meets other managers, pulls from a
//! registry with a login.

use serde_json::json;

use crate::faults::{State, back_to_the_beginning};
use crate::images::Registry;
use crate::report::Row;
use crate::scenario::Scenario;
use crate::site::{ENV, Site};
use crate::world::World;
use crate::{Result, ensure};

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "rollback", about: "back to a chosen release", alone: false, needs: None, run: rollback },
    Scenario {
        name: "drift",
        about: "a change by hand is shown, and healed by a deploy",
        alone: false,
        needs: None,
        run: drift,
    },
    Scenario {
        name: "field-conflict",
        about: "another manager's field is named",
        alone: false,
        needs: None,
        run: conflict,
    },
    Scenario {
        name: "pull-secret",
        about: "an image behind a login",
        alone: false,
        needs: Some("login-registry"),
        run: pull_secret,
    },
    Scenario {
        name: "db-status",
        about: "a schema that fits, is behind or ahead is told by a Job, which leaves nothing",
        alone: false,
        needs: None,
        run: db_status,
    },
];

/// MLflow's first migration.
const FIRST_REVISION: &str = "451aebb31d03";

fn rollback(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let first = release(&site)?;
    let before = State::of(&site)?;
    for round in ["one", "two"] {
        site.set(|settings| drop(settings.env.insert("ROUND".into(), round.into())))?;
        site.deploy(&[])?.expect(0)?;
    }
    let ran = site.xtask(&["rollback", "--env", ENV, "--to", &first])?.expect(0)?;
    let undone = State::of(&site)?.back_to(&before)?;
    let unknown = site.xtask(&["rollback", "--env", ENV, "--to", "9999"])?;
    ensure!(
        unknown.code != Some(0) && unknown.first(&["hint"]).is_some(),
        "a release that is none:\n{}",
        unknown.text()
    );
    site.reset()?;
    site.xtask(&["status", "--env", ENV, "--exit-code"])?.expect(0)?;
    world.give_back(site);
    Ok(Row {
        exit: ran.code,
        cause: Some(format!("rollback --to {first}, two releases later")),
        undone: Some(undone),
        ..Row::default()
    })
}

fn db_status(world: &World) -> Result<Row> {
    let site = world.healthy()?;
    let version = world.database.sql(&site.name, "SELECT version_num FROM alembic_version")?;
    let set = |revision: &str| {
        world.database.sql(&site.name, &format!("UPDATE alembic_version SET version_num = '{}'", revision.trim()))
    };
    let mut told = Vec::new();
    for (revision, code) in [(version.as_str(), 0), (FIRST_REVISION, 12), ("ffffffffffff", 14), (&version, 0)] {
        set(revision)?;
        let ran = site.xtask(&["db", "status", "--env", ENV])?.expect(code)?;
        ensure!(ran.out.contains(revision.trim()), "revision {revision} is not told:\n{}", ran.text());
        let jobs = world.kube.list(&site.path("batch/v1", "jobs"))?;
        ensure!(jobs.is_empty(), "{} Jobs are left", jobs.len());
        told.push(format!("exit {code} in {:.0} s", ran.seconds));
    }
    let head = site.xtask(&["db", "head", "--json"])?.expect(0)?;
    ensure!(head.out.contains(version.trim()), "the image's head is not {version}: {}", head.out);
    world.give_back(site);
    Ok(Row { exit: Some(0), cause: Some(told.join(", ")), ..Row::default() })
}

/// The release that runs.
fn release(site: &Site<'_>) -> Result<String> {
    let deployment = site.deployment()?.ok_or("there is no Deployment")?;
    let release = &deployment["metadata"]["annotations"]["mlflow-on-kubernetes/release"];
    Ok(release.as_str().ok_or("the Deployment names no release")?.to_owned())
}

fn drift(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let path = site.path("v1", "services/mlflow");
    world.kube.edit(&path, &json!({ "spec": { "sessionAffinity": "ClientIP" } }))?;
    let container = json!([{ "name": "mlflow", "resources": { "limits": { "memory": "1500Mi" } } }]);
    world.kube.edit_strategic(
        &site.deployment_path(),
        &json!({ "spec": { "template": { "spec": { "containers": container } } } }),
    )?;
    let status = site.xtask(&["status", "--env", ENV, "--exit-code"])?;
    let text = status.text();
    ensure!(status.code == Some(12), "exit {:?}:\n{text}", status.code);
    ensure!(text.contains("Deployment/mlflow") && text.contains("memory"), "the drift is not named:\n{text}");
    // The memory belongs to kubectl-edit now: only with force is it taken back.
    let healed = site.deploy(&["--force-conflicts"])?.expect(0)?;
    site.xtask(&["status", "--env", ENV, "--exit-code"])?.expect(0)?;
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: status.code,
        cause: status.text().lines().find(|line| line.contains("memory")).map(|line| line.trim().to_owned()),
        undone: Some(format!("a deploy healed it in {:.0} s", healed.seconds)),
        ..Row::default()
    })
}

fn conflict(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let container = json!([{ "name": "mlflow", "resources": { "limits": { "memory": "1500Mi" } } }]);
    world.kube.edit_strategic(
        &site.deployment_path(),
        &json!({ "spec": { "template": { "spec": { "containers": container } } } }),
    )?;
    let before = State::of(&site)?;
    let ran = site.deploy(&[])?.expect(16)?;
    let text = ran.text();
    ensure!(text.contains("kubectl-edit") && text.contains("memory"), "manager and field are not named:\n{text}");
    ensure!(ran.first(&["hint"]).is_some_and(|line| line.text.contains("--force-conflicts")), "no hint:\n{text}");
    let undone = State::of(&site)?.unchanged_since(&before)?;
    site.deploy(&["--force-conflicts"])?.expect(0)?;
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    let cause = ran.first(&["kubectl-edit"]).map(|line| line.text.clone());
    Ok(Row { exit: ran.code, cause, undone: Some(undone), ..Row::default() })
}

fn pull_secret(world: &World) -> Result<Row> {
    let _alone = world.login_registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let registry = Registry::with_login(world)?;
    // A digest that the node has never pulled from the open registry.
    let image = registry.copy_of_the_real("behind-a-login")?;
    let mut site = world.healthy()?;
    let before = State::of(&site)?;
    // Nobody has logged in.
    let without = site.deploy(&["--image", &image])?.expect(5)?;
    ensure!(without.first(&["hint"]).is_some(), "no hint:\n{}", without.text());
    State::of(&site)?.unchanged_since(&before)?;
    registry.lend_login(&site)?;
    let ran = site.deploy(&["--image", &image])?.expect(0)?;
    let account = world.kube.get(&site.path("v1", "serviceaccounts/mlflow"))?;
    let name = account["imagePullSecrets"][0]["name"].as_str().ok_or("the ServiceAccount has no pull secret")?;
    let secret = world.kube.get(&site.path("v1", &format!("secrets/{name}")))?;
    ensure!(secret["type"] == "kubernetes.io/dockerconfigjson", "the pull secret is {}", secret["type"]);
    ensure!(!ran.text().contains(&world.place.login()?.password), "the password is on the screen");
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(Row {
        exit: ran.code,
        cause: Some(format!("pods pulled {image} with {name}; without a login exit 5")),
        ..Row::default()
    })
}
