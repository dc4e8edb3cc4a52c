//! Bad input: one screen with the cause and the fix, an exit code of its own, and nothing applied.

use serde_json::{Value, json};

use crate::faults::{State, back_to_the_beginning, settled};
use crate::images::Registry;
use crate::report::Row;
use crate::scenario::Scenario;
use crate::site::Site;
use crate::user::{self, User};
use crate::world::World;
use crate::{Result, ensure};

/// Lines of a screen that a person sees without scrolling.
const SCREEN: usize = 25;

const fn input(name: &'static str, about: &'static str, run: crate::scenario::Run) -> Scenario {
    Scenario { name, about, alone: false, needs: None, run }
}

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[
    input("input-no-context", "deploy.toml names no context", no_context),
    input("input-wrong-context", "a context that the kubeconfig does not have", wrong_context),
    input("input-unreachable", "an API server that does not answer", unreachable),
    input("input-expired", "credentials that have expired", expired),
    input("input-forbidden", "a user who may only look", forbidden),
    input("input-manifest", "a manifest that the API server refuses", manifest),
    input("input-unknown-key", "an unknown key in deploy.toml", unknown_key),
    input("input-platform", "an image for another CPU", platform),
    input("input-digest", "a digest that the registry does not have", digest),
    input("input-paused", "a Deployment that is paused", paused),
    input("input-other-owner", "a Deployment that Helm manages", other_owner),
];

/// Deploys a healthy site whose input was spoiled: it must be refused with `exit` and these words.
fn refused(site: &Site<'_>, exit: i32, words: &[&str], args: &[&str]) -> Result<Row> {
    let before = State::of(site)?;
    let ran = site.deploy(args)?.expect(exit)?;
    let from = ran.lines.iter().position(|line| line.text.starts_with("error"));
    let from = from.ok_or_else(|| format!("no error:\n{}", ran.said()))?;
    let error = &ran.lines[from..];
    let text: String = error.iter().map(|line| format!("{}\n", line.text)).collect();
    ensure!(error.len() <= SCREEN, "the error has {} lines:\n{text}", error.len());
    ensure!(error.iter().any(|line| line.text.starts_with("hint")), "the error has no hint:\n{text}");
    for word in words {
        ensure!(text.contains(word), "the error does not name {word:?}:\n{text}");
    }
    let undone = State::of(site)?.unchanged_since(&before)?;
    Ok(Row {
        exit: ran.code,
        cause: Some(error[0].text.trim_start_matches("error").trim().to_owned()),
        undone: Some(undone),
        ..Row::default()
    })
}

/// The same, for input that is right again as soon as the site is reset.
fn spoiled(
    world: &World,
    exit: i32,
    words: &[&str],
    args: &[&str],
    spoil: impl FnOnce(&mut Site<'_>) -> Result<()>,
) -> Result<Row> {
    let mut site = world.healthy()?;
    spoil(&mut site)?;
    let row = refused(&site, exit, words, args)?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

fn no_context(world: &World) -> Result<Row> {
    spoiled(world, 3, &["context"], &[], |site| site.edit("deploy.toml", &[("context = ", "# context = ")]))
}

fn wrong_context(world: &World) -> Result<Row> {
    spoiled(world, 3, &["elsewhere"], &[], |site| site.set(|settings| settings.context = "elsewhere".into()))
}

fn unreachable(world: &World) -> Result<Row> {
    spoiled(world, 6, &["127.0.0.1:1"], &[], |site| {
        let text = std::fs::read_to_string(&site.settings.kubeconfig)?;
        let mut config: Value = serde_saphyr::from_str(&text)?;
        config["clusters"][0]["cluster"]["server"] = json!("https://127.0.0.1:1");
        let kubeconfig = site.file("unreachable.kubeconfig", &config.to_string())?;
        site.set(|settings| settings.kubeconfig = kubeconfig)
    })
}

fn expired(world: &World) -> Result<Row> {
    as_user(world, user::ADMIN, 5, &[], User::revoke)
}

fn forbidden(world: &World) -> Result<Row> {
    as_user(world, "view", 15, &["deployments"], |_| Ok(()))
}

fn as_user(
    world: &World,
    role: &str,
    exit: i32,
    words: &[&str],
    then: impl FnOnce(&User) -> Result<()>,
) -> Result<Row> {
    let mut site = world.healthy()?;
    let user = User::new(&site, "somebody", role)?;
    then(&user)?;
    site.set(|settings| {
        settings.kubeconfig.clone_from(&user.kubeconfig);
        settings.context = user::CONTEXT.into();
        settings.env.insert("ROUND".into(), "somebody".into());
    })?;
    let row = refused(&site, exit, words, &[])?;
    user.delete()?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

fn manifest(world: &World) -> Result<Row> {
    spoiled(world, 18, &["terminationGracePeriodSeconds"], &[], |site| {
        let key = "terminationGracePeriodSeconds: ";
        site.edit("kubernetes/deployment.yaml", &[(key, "terminationGracePeriodSeconds: -")])
    })
}

fn unknown_key(world: &World) -> Result<Row> {
    spoiled(world, 3, &["replicsa", "replicas"], &[], |site| {
        site.set(|settings| settings.lines.push("replicsa = 3".into()))
    })
}

fn platform(world: &World) -> Result<Row> {
    let image = Registry::open(world)?.other_platform("other-platform")?;
    spoiled(world, 17, &["linux/"], &["--image", &image], |_| Ok(()))
}

fn digest(world: &World) -> Result<Row> {
    let image = format!("{}@sha256:{}", world.repository, "0".repeat(64));
    spoiled(world, 17, &["sha256:0000"], &["--image", &image], |_| Ok(()))
}

fn paused(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    world.kube.edit(&site.deployment_path(), &json!({ "spec": { "paused": true } }))?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "paused".into())))?;
    let row = refused(&site, 16, &["paused"], &[])?;
    world.kube.edit(&site.deployment_path(), &json!({ "spec": { "paused": null } }))?;
    back_to_the_beginning(&mut site)?;
    world.give_back(site);
    Ok(row)
}

fn other_owner(world: &World) -> Result<Row> {
    let site = Site::new(world, "helm")?;
    let namespace = json!({ "metadata": { "name": site.name } });
    world.kube.create("/api/v1/namespaces", &namespace)?;
    let labels = json!({ "app": "mlflow" });
    let deployment = json!({
        "metadata": { "name": "mlflow", "labels": { "app.kubernetes.io/managed-by": "Helm" } },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": [{ "name": "mlflow", "image": world.place.busybox }] },
            },
        },
    });
    world.kube.create(&site.path("apps/v1", "deployments"), &deployment)?;
    let row = refused(&site, 16, &["Helm"], &[])?;
    site.close()?;
    Ok(row)
}
