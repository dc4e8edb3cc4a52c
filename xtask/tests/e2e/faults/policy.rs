//! What the cluster does not allow.

use std::time::Duration;

use serde_json::{Value, json};

use super::trial::{End, Expected, FATAL, Within, settled, trial};
use crate::Result;
use crate::kube::{Kube, wait_for};
use crate::report::Row;
use crate::site::Site;
use crate::world::World;

const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";

pub fn quota(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let quota = json!({ "metadata": { "name": "one-pod" }, "spec": { "hard": { "pods": "1" } } });
    world.kube.create(&site.path("v1", "resourcequotas"), &quota)?;
    wait_for("the quota is counted", Duration::from_secs(30), || {
        let quota = world.kube.get(&site.path("v1", "resourcequotas/one-pod"))?;
        Ok((quota["status"]["used"]["pods"] == "1").then_some(()))
    })?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "quota".into())))?;
    let expected = Expected {
        exit: 10,
        cause: &["the namespace's quota is used up", "one-pod"],
        sign: &["exceeded quota"],
        log: None,
        within: FATAL,
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    world.kube.delete(&site.path("v1", "resourcequotas/one-pod"))?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

pub fn admission(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let policy = Policy::refuse(&site, "deployments", "apps", "this team deploys on weekdays only")?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "admission".into())))?;
    let expected = Expected {
        exit: 18,
        cause: &["this team deploys on weekdays only"],
        sign: &[],
        log: None,
        within: Within::NoSign,
        end: End::NotApplied,
    };
    let row = trial(&site, &expected, &[])?;
    policy.delete(&site, "deployments")?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

pub fn admission_of_pods(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let policy = Policy::refuse(&site, "pods", "", "pods need a cost centre")?;
    site.set(|settings| drop(settings.env.insert("ROUND".into(), "pods".into())))?;
    let expected = Expected {
        exit: 10,
        cause: &["the cluster's policy refuses the pods", "pods need a cost centre"],
        sign: &["pods need a cost centre"],
        log: None,
        within: FATAL,
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    policy.delete(&site, "pods")?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

pub fn pod_security(world: &World) -> Result<Row> {
    let mut site = world.healthy()?;
    let change = (
        "allowPrivilegeEscalation: false\n          readOnlyRootFilesystem: true\n          capabilities:\n            drop:\n            - ALL\n        volumeMounts",
        "allowPrivilegeEscalation: true\n          readOnlyRootFilesystem: true\n          capabilities:\n            drop:\n            - ALL\n        volumeMounts",
    );
    site.edit("kubernetes/deployment.yaml", &[change])?;
    let expected = Expected {
        exit: 10,
        cause: &["the cluster's policy refuses the pods", "allowPrivilegeEscalation"],
        sign: &["violates PodSecurity"],
        log: None,
        within: FATAL,
        end: End::RolledBack,
    };
    let row = trial(&site, &expected, &[])?;
    settled(&mut site)?;
    world.give_back(site);
    Ok(row)
}

/// A ValidatingAdmissionPolicy for one namespace; deleted when dropped.
struct Policy {
    kube: Kube,
    name: String,
}

impl Policy {
    /// Refuses to create or update objects of this kind in the site, and waits until it does.
    fn refuse(site: &Site<'_>, plural: &str, group: &str, message: &str) -> Result<Self> {
        let policy = Self { kube: site.world.kube.clone(), name: format!("{}-{plural}", site.name) };
        let rule = json!({
            "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [plural],
        });
        let object = json!({
            "metadata": { "name": policy.name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [rule] },
                "validations": [{ "expression": "false", "message": message }],
            },
        });
        policy.kube.create(&format!("{ADMISSION}/validatingadmissionpolicies"), &object)?;
        let selector = json!({ "matchLabels": { "kubernetes.io/metadata.name": site.name } });
        let binding = json!({
            "metadata": { "name": policy.name },
            "spec": {
                "policyName": policy.name,
                "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": selector },
            },
        });
        policy.kube.create(&format!("{ADMISSION}/validatingadmissionpolicybindings"), &binding)?;
        policy.wait(site, plural, true)?;
        Ok(policy)
    }

    fn delete(self, site: &Site<'_>, plural: &str) -> Result<()> {
        self.remove()?;
        self.wait(site, plural, false)
    }

    /// The API server takes a moment to heed it, and to forget it.
    fn wait(&self, site: &Site<'_>, plural: &str, refuses: bool) -> Result<()> {
        let group = if plural == "pods" { "v1" } else { "apps/v1" };
        let path = format!("{}?dryRun=All", site.path(group, plural));
        wait_for("the policy is heeded or forgotten", Duration::from_secs(60), || {
            let refused = self.kube.create(&path, &sample(plural)).err();
            let refused = refused.is_some_and(|error| error.to_string().contains(&self.name));
            Ok((refused == refuses).then_some(()))
        })
    }

    fn remove(&self) -> Result<()> {
        self.kube.delete(&format!("{ADMISSION}/validatingadmissionpolicybindings/{}", self.name))?;
        self.kube.delete(&format!("{ADMISSION}/validatingadmissionpolicies/{}", self.name))
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("the policy {} is not removed: {error}", self.name);
        }
    }
}

/// An object that would be taken but for the policy.
fn sample(plural: &str) -> Value {
    let security = json!({
        "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let pod = json!({ "containers": [{ "name": "a", "image": "a", "securityContext": security }] });
    let labels = json!({ "sample": "yes" });
    match plural {
        "pods" => json!({ "metadata": { "name": "sample" }, "spec": pod }),
        _ => json!({
            "metadata": { "name": "sample" },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        }),
    }
}
