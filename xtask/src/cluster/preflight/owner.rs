//! Whose Deployment it is, and whether it may be rolled out now.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ObjectMeta;

use crate::error::{Error, Kind, Result};

use super::super::connect::Cluster;
use super::super::{MANAGED_BY, MANAGER, NAME};

/// Labels and annotations by which tools mark what they keep in step with their own sources.
const MARKS: [(&str, &str); 6] = [
    ("argocd.argoproj.io/tracking-id", "Argo CD"),
    ("argocd.argoproj.io/instance", "Argo CD"),
    ("kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("helm.toolkit.fluxcd.io/name", "Flux"),
    ("meta.helm.sh/release-name", "Helm"),
    ("kapp.k14s.io/app", "kapp"),
];

/// Refuses a Deployment that is paused, on its way out, or someone else's.
pub(super) fn check(cluster: &Cluster, deployment: &Deployment, adopt: bool) -> Result<()> {
    let object = format!("Deployment/{NAME} in namespace {}", cluster.namespace);
    if deployment.metadata.deletion_timestamp.is_some() {
        return Err(Error::new(Kind::Conflict, format!("{object} is being deleted"))
            .hint("wait until it is gone, then run the same command again"));
    }
    let owner = owner(&deployment.metadata);
    if let Some(owner) = owner.filter(|_| !adopt) {
        return Err(Error::new(Kind::Conflict, format!("{object} belongs to {owner}"))
            .hint("deploy to another namespace, or take it over with --adopt once nothing else changes it"));
    }
    if deployment.spec.as_ref().is_some_and(|spec| spec.paused == Some(true)) {
        return Err(Error::new(Kind::Conflict, format!("{object} is paused: nothing would roll out"))
            .hint(format!("kubectl -n {} rollout resume deployment/{NAME}", cluster.namespace)));
    }
    Ok(())
}

/// Who else keeps an object; `None`: we do.
fn owner(metadata: &ObjectMeta) -> Option<String> {
    if let Some(owner) = metadata.owner_references.iter().flatten().next() {
        return Some(format!("{}/{}", owner.kind, owner.name));
    }
    let value = |key: &str| {
        let labels = metadata.labels.iter().flatten();
        labels.chain(metadata.annotations.iter().flatten()).find(|(known, _)| *known == key).map(|(_, value)| value)
    };
    if let Some((tool, name)) = MARKS.iter().find_map(|(key, tool)| Some((tool, value(key)?))) {
        return Some(format!("{tool} ({name})"));
    }
    match metadata.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY)) {
        Some(manager) if manager == MANAGER => None,
        Some(manager) => Some(manager.clone()),
        None => Some(format!("someone else: it has no label {MANAGED_BY}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_owner_is_known_by_its_marks() {
        let check = |metadata: Value, expected: Option<&str>| {
            let read: ObjectMeta = serde_json::from_value(metadata.clone()).unwrap();
            assert_eq!(owner(&read).as_deref(), expected, "{metadata}");
        };
        let ours = json!({MANAGED_BY: MANAGER});
        check(json!({"labels": ours}), None);
        check(json!({}), Some("someone else: it has no label app.kubernetes.io/managed-by"));
        check(json!({"labels": {MANAGED_BY: "Helm"}}), Some("Helm"));
        let helm = json!({"labels": {MANAGED_BY: "Helm"}, "annotations": {"meta.helm.sh/release-name": "ml"}});
        check(helm, Some("Helm (ml)"));
        // What `render` printed and Argo CD applies has our labels.
        check(
            json!({"labels": ours, "annotations": {"argocd.argoproj.io/tracking-id": "ml:a"}}),
            Some("Argo CD (ml:a)"),
        );
        check(json!({"labels": {"kustomize.toolkit.fluxcd.io/name": "ml"}}), Some("Flux (ml)"));
        let reference = json!({"apiVersion": "v1", "kind": "MLflow", "name": "ml", "uid": "u"});
        check(json!({"labels": ours, "ownerReferences": [reference]}), Some("MLflow/ml"));
    }
}
