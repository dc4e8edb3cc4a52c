//! Any cluster, with Google's database, bucket and registry: a password and two keys, which are in the
//! cluster's Secrets and nowhere else.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::account;
use super::site::{Cloud, NAMESPACE, PROJECT};
use super::watch::Watch;
use crate::report::Row;
use crate::world::World;
use crate::{Result, ensure};

pub fn run(world: &World) -> Result<Row> {
    let notes = ["terraform", "gcloud"].iter().map(|via| with(world, via)).collect::<Result<_>>()?;
    Ok(Row { notes, ..Row::default() })
}

fn with(world: &World, via: &str) -> Result<String> {
    let place = &world.place;
    let own = format!("context = {:?}\nkubeconfig = {:?}", place.context, place.kubeconfig.display().to_string());
    let lines = format!("via = {via:?}\nlogin = \"password\"\nserver-key = true\npull-key = true");
    let cloud = Cloud::new(world, "kubernetes", &own, &lines)?;
    let watch = Watch::start();

    let (applied, seconds) = cloud.answer(&["infra", "apply", "--yes"])?;
    ensure!(applied["changed"] == true, "the first apply changes nothing: {applied}");
    let secrets = Secrets::read(&cloud)?;
    let (again, _) = cloud.answer(&["infra", "apply", "--yes"])?;
    ensure!(again["changed"] == false, "the second apply changes something: {again}");
    ensure!(Secrets::read(&cloud)? == secrets, "the second apply makes other secrets");
    let (_, deploy) = cloud.answer(&["deploy", "--image", &world.image])?;
    let (smoked, _) = cloud.answer(&["smoke"])?;
    ensure!(smoked["ok"] == true, "smoke: {smoked}");
    let pull = cloud.world.kube.get(&format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/mlflow"))?;
    ensure!(pull["imagePullSecrets"][0]["name"] == "mlflow-google-pull", "the pods do not pull with the key: {pull}");

    let state = cloud.google.state();
    let mut granted = account::granted_by_default();
    granted.retain(|[_, role, _]| role != "roles/cloudsql.instanceUser");
    account::expect_granted(&state, &granted)?;
    ensure!(cloud.resources("iam.keys").len() == 2, "keys: {:?}", cloud.resources("iam.keys"));

    let texts = [secrets.password.as_str(), secrets.key.as_str(), secrets.pull.as_str()];
    let seen = watch.expect_none_of(&texts, "infra\0apply")?;
    for text in texts {
        cloud.expect_nowhere(text)?;
        let log = serde_json::to_string(&cloud.google.log())?;
        ensure!(!log.contains(text), "a secret is in a log");
    }
    cloud.answer(&["infra", "destroy", "--yes", "--delete-data"])?;
    ensure!(cloud.resources("iam.keys").is_empty(), "keys are left: {:?}", cloud.resources("iam.keys"));
    cloud.close()?;
    Ok(format!(
        "{via}: a password and two keys, in the cluster only: in none of {seen} command lines, no file, no log; \
         infra apply {seconds:.1} s, deploy {deploy:.1} s"
    ))
}

/// What must be nowhere else.
#[derive(PartialEq, Eq)]
struct Secrets {
    password: String,
    /// A line of the private key in the middle: headers are no secret.
    key: String,
    pull: String,
}

impl Secrets {
    fn read(cloud: &Cloud<'_>) -> Result<Self> {
        let secret = |name: &str| cloud.world.kube.get(&format!("/api/v1/namespaces/{NAMESPACE}/secrets/{name}"));
        let text = |secret: &Value, key: &str| -> Result<String> {
            let data = secret["data"][key].as_str().ok_or_else(|| format!("no {key} in the Secret"))?;
            Ok(String::from_utf8(STANDARD.decode(data)?)?)
        };
        let (own, pull) = (secret("mlflow-google")?, secret("mlflow-google-pull")?);
        let config: Value = serde_json::from_str(&text(&pull, ".dockerconfigjson")?)?;
        let (host, entry) = config["auths"].as_object().and_then(|all| all.iter().next()).ok_or("no registry")?;
        ensure!(*host == cloud.world.place.registry, "the pull secret is for {host}");
        let auth = String::from_utf8(STANDARD.decode(entry["auth"].as_str().unwrap_or_default())?)?;
        let pull = auth.strip_prefix("_json_key:").ok_or("the pull secret's user is not _json_key")?;
        Ok(Self {
            password: text(&own, "password")?,
            key: private(&text(&own, "key.json")?, "mlflow@")?,
            pull: private(pull, "mlflow-nodes@")?,
        })
    }
}

fn private(json: &str, account: &str) -> Result<String> {
    let key: Value = serde_json::from_str(json)?;
    let email = key["client_email"].as_str().unwrap_or_default();
    ensure!(email.starts_with(account) && email.contains(PROJECT), "a key of {email}");
    let pem = key["private_key"].as_str().ok_or("no private key")?;
    let line = pem.lines().nth(3).ok_or("a short private key")?;
    Ok(line.to_owned())
}
