//! `kubernetes/policy/image-policy.yaml`: in the namespace run digests of the named repository, and nothing else.

use std::time::Duration;

use serde_json::{Value, json};

use crate::kube::wait_for;
use crate::report::Row;
use crate::scenario::Scenario;
use crate::site::{Site, repository};
use crate::world::World;
use crate::{Result, ensure};

/// See the functions.
pub const SCENARIOS: &[Scenario] = &[Scenario {
    name: "image-policy",
    about: "the policy for images lets deploy's digests run, and no tag and no other repository",
    alone: false,
    needs: None,
    run: image_policy,
}];

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// The policy and its binding, for one site; taken out of the cluster at the end.
struct Policy<'w> {
    world: &'w World,
    name: String,
}

impl<'w> Policy<'w> {
    fn make(site: &Site<'w>) -> Result<Self> {
        let world = site.world;
        let text = std::fs::read_to_string(repository().join("kubernetes/policy/image-policy.yaml"))?;
        let mut text = text.replace("name: mlflow-images", &format!("name: {}", site.name));
        for (from, to) in [
            ("europe-west1-docker.pkg.dev/my-project/mlflow/server", world.repository.as_str()),
            ("policyName: mlflow-images", &format!("policyName: {}", site.name)),
            ("metadata.name: mlflow\n", &format!("metadata.name: {}\n", site.name)),
        ] {
            ensure!(text.contains(from), "the policy has no {from:?}");
            text = text.replace(from, to);
        }
        let made = Self { world, name: site.name.clone() };
        for (part, plural) in text.split("---\n").zip(["policies", "policybindings"]) {
            let object: Value = serde_saphyr::from_str(part).map_err(|error| format!("image-policy.yaml: {error}"))?;
            world.kube.create(&format!("{GROUP}/validatingadmission{plural}"), &object)?;
        }
        Ok(made)
    }
}

impl Drop for Policy<'_> {
    fn drop(&mut self) {
        for plural in ["policybindings", "policies"] {
            if let Err(error) = self.world.kube.delete(&format!("{GROUP}/validatingadmission{plural}/{}", self.name)) {
                eprintln!("the policy {} stays: {error}", self.name);
            }
        }
    }
}

/// A pod as the restricted level of Pod Security wants it.
fn pod(image: &str) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
        "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
    });
    let container = json!({ "name": "c", "image": image, "command": ["/bin/true"], "securityContext": security });
    json!({ "metadata": { "generateName": "try-" }, "spec": { "restartPolicy": "Never", "containers": [container] } })
}

fn image_policy(world: &World) -> Result<Row> {
    let site = Site::new(world, "policy")?;
    let policy = Policy::make(&site)?;
    // What deploy applies is let in, jobs of the same pods too.
    site.deploy(&[])?.expect(0)?;
    site.xtask(&["db", "status", "--env", crate::site::ENV])?.expect(0)?;
    let digest = format!("@sha256:{}", "0".repeat(64));
    let repository = &world.repository;
    let dry = site.path("v1", "pods?dryRun=All");
    let mut told = String::new();
    for (image, is_in) in [
        (world.image.clone(), true),
        (format!("{repository}{digest}"), true),
        (world.place.busybox.clone(), false),
        (format!("{repository}:latest"), false),
        (format!("{repository}-other{digest}"), false),
        (format!("example.com/{repository}{digest}"), false),
        (format!("{repository}{digest}0"), false),
    ] {
        let refusal = || match world.kube.create(&dry, &pod(&image)) {
            Ok(_) => Ok(None),
            Err(error) if error.to_string().contains("not an allowed image") => Ok(Some(error.to_string())),
            Err(error) => Err(error),
        };
        // The API server learns of a policy some moments after it is made.
        let refused = match is_in {
            true => refusal()?,
            false => Some(wait_for(&format!("{image} is refused"), Duration::from_secs(20), refusal)?),
        };
        ensure!(refused.is_none() == is_in, "{image}: {refused:?}");
        told = refused.unwrap_or(told);
    }
    drop(policy);
    site.close()?;
    Ok(Row { cause: Some(told), ..Row::default() })
}
