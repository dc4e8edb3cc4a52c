//! Which rights a deploy needs, and which of them are missing.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use crate::error::{Error, Kind, Result};

use super::super::connect::Cluster;
use super::super::object::ObjectKind;
use super::super::{call, failure};
use super::DEADLINE;

/// Questions that are asked at the same time.
const AT_ONCE: usize = 16;

/// A right: to do something with the objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Right {
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
    verb: &'static str,
}

/// To keep the namespace as it should be.
pub(super) const PATCH_NAMESPACE: Right = right("", "namespaces", "", "patch");

const fn right(group: &'static str, resource: &'static str, subresource: &'static str, verb: &'static str) -> Right {
    Right { group, resource, subresource, verb }
}

impl Right {
    /// As `kubectl` takes it: `deployments.apps`, `pods/log`.
    fn resource(&self) -> String {
        let Self { group, resource, subresource, .. } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{resource}{dot}{group}{slash}{subresource}")
    }

    fn is_namespaced(&self) -> bool {
        self.resource != "namespaces"
    }
}

/// All that a deploy does with the kinds that it applies, and beside them.
pub(super) fn needed(kinds: &[ObjectKind], make_namespace: bool) -> Vec<Right> {
    let mut needed = Vec::new();
    let mut add = |group, resource, subresource, verbs: &[&'static str]| {
        needed.extend(verbs.iter().map(|verb| right(group, resource, subresource, verb)));
    };
    for kind in kinds.iter().filter(|kind| kind.is_namespaced()) {
        add(kind.group(), kind.plural(), "", &["get", "list", "create", "patch", "delete"]);
    }
    if make_namespace {
        add("", "namespaces", "", &["create", "patch"]);
    }
    // Releases and the lock.
    add("", "configmaps", "", &["get", "list", "create", "patch", "delete"]);
    add("coordination.k8s.io", "leases", "", &["get", "create", "update"]);
    // Asking the databases, backing them up, migrating them.
    add("batch", "jobs", "", &["get", "list", "create", "delete"]);
    // Following a rollout, and naming what is wrong.
    add("apps", "deployments", "", &["list", "watch"]);
    add("apps", "replicasets", "", &["list", "watch"]);
    add("", "pods", "", &["get", "list", "watch"]);
    add("", "pods", "log", &["get"]);
    add("", "events", "", &["list", "watch"]);
    // Proving that the server works. A port is opened with either verb, as versions differ.
    add("", "pods", "portforward", &["get", "create"]);
    add("", "services", "proxy", &["get", "create"]);
    needed.sort_unstable();
    needed.dedup();
    needed
}

/// Which of `needed` the API server would refuse.
pub(super) async fn lacking(cluster: &Cluster, needed: &[Right]) -> Result<Vec<Right>> {
    let asked = needed.iter().map(async |right| Ok::<_, Error>((*right, is_allowed(cluster, right).await?)));
    let answers: Vec<(Right, bool)> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    Ok(answers.into_iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right).collect())
}

/// Whether the API server would allow it.
pub(super) async fn is_allowed(cluster: &Cluster, right: &Right) -> Result<bool> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let attributes = ResourceAttributes {
        namespace: right.is_namespaced().then(|| cluster.namespace.clone()),
        name: (!right.is_namespaced()).then(|| cluster.namespace.clone()),
        group: given(right.group),
        resource: given(right.resource),
        subresource: given(right.subresource),
        verb: given(right.verb),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let (reviews, params): (Api<SelfSubjectAccessReview>, _) =
        (Api::all(cluster.client.clone()), PostParams::default());
    let answer = call::repeat(DEADLINE, || reviews.create(&params, &review)).await;
    let answer = answer.map_err(|error| failure::explain(cluster, "ask for our rights", error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// One error for all rights that are missing, with the commands that grant what is needed; `None`
/// where none is missing.
pub(super) fn forbidden(cluster: &Cluster, user: Option<&str>, needed: &[Right], lacking: &[Right]) -> Option<Error> {
    let (namespace, context) = (&cluster.namespace, &cluster.context);
    let lines = failure::Lines::chain(lines(lacking))?;
    let message = format!("{} lacks rights in namespace {namespace} of context {context}", user.unwrap_or("the user"));
    let mut commands = grant(namespace, user, needed);
    if lacking.iter().any(|right| !right.is_namespaced()) {
        commands.insert(0, format!("kubectl create namespace {namespace}"));
    }
    let hint = format!("an administrator of the cluster can grant them:\n{}", commands.join("\n"));
    Some(Error::new(Kind::Forbidden, message).source(lines).hint(hint))
}

/// What is missing: a line for all resources that lack the same.
fn lines(lacking: &[Right]) -> Vec<String> {
    let mut by_resource: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for right in lacking {
        by_resource.entry(right.resource()).or_default().push(right.verb);
    }
    let mut by_verbs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (resource, verbs) in by_resource {
        by_verbs.entry(verbs.join(", ")).or_default().push(resource);
    }
    by_verbs.iter().map(|(verbs, resources)| format!("{}: {verbs}", resources.join(", "))).collect()
}

/// The commands with which an administrator grants the rights. They are complete: granting only what
/// is missing now would take back what was granted the same way before.
fn grant(namespace: &str, user: Option<&str>, needed: &[Right]) -> Vec<String> {
    let mut by_resource: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for right in needed.iter().filter(|right| right.is_namespaced()) {
        let slash = if right.subresource.is_empty() { "" } else { "/" };
        let resource = format!("{}{slash}{}", right.resource, right.subresource);
        by_resource.entry((right.group, resource)).or_default().push(right.verb);
    }
    let mut rules: BTreeMap<(&str, Vec<&str>), Vec<String>> = BTreeMap::new();
    for ((group, resource), verbs) in by_resource {
        rules.entry((group, verbs)).or_default().push(resource);
    }
    let subject = match user.and_then(|user| user.strip_prefix("system:serviceaccount:")) {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={}", user.unwrap_or("USER")),
    };
    let mut commands = vec![
        format!("kubectl -n {namespace} apply -f - <<'END'"),
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: mlflow-deploy}, rules: [".to_owned(),
    ];
    commands.extend(rules.iter().map(|((group, verbs), resources)| {
        let (verbs, resources) = (verbs.join(", "), resources.join(", "));
        format!("{{apiGroups: [\"{group}\"], resources: [{resources}], verbs: [{verbs}]}},")
    }));
    commands.extend([
        "]}".to_owned(),
        "END".to_owned(),
        format!("kubectl -n {namespace} create rolebinding mlflow-deploy --role=mlflow-deploy {subject}"),
    ]);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_right_is_asked_for_once() {
        let needed = needed(&ObjectKind::ALL, true);
        let mut unique = needed.clone();
        unique.dedup();
        assert_eq!(needed, unique);
        let check = |resource: &str, expected: &[&str]| {
            let verbs = needed.iter().filter(|right| right.resource() == resource).map(|right| right.verb);
            let verbs: Vec<_> = verbs.collect();
            assert_eq!(verbs, expected, "{resource}");
        };
        check("deployments.apps", &["create", "delete", "get", "list", "patch", "watch"]);
        check("configmaps", &["create", "delete", "get", "list", "patch"]);
        check("httproutes.gateway.networking.k8s.io", &["create", "delete", "get", "list", "patch"]);
        check("namespaces", &["create", "patch"]);
        check("pods/log", &["get"]);
        check("jobs.batch", &["create", "delete", "get", "list"]);
        check("leases.coordination.k8s.io", &["create", "get", "update"]);
    }

    #[test]
    fn rights_are_asked_only_for_what_is_applied() {
        let needed = needed(&[ObjectKind::Service], false);
        let about = |resource: &str| needed.iter().any(|right| right.resource == resource);
        assert!(about("services") && !about("namespaces") && !about("secrets"));
    }

    #[test]
    fn missing_rights_are_listed_in_few_lines() {
        assert_eq!(lines(&[]), [""; 0]);
        let lacking = [
            right("", "pods", "log", "get"),
            right("apps", "deployments", "", "create"),
            right("apps", "deployments", "", "patch"),
            right("", "services", "", "create"),
            right("", "services", "", "patch"),
        ];
        assert_eq!(lines(&lacking), ["deployments.apps, services: create, patch", "pods/log: get"]);
    }

    #[test]
    fn rights_are_granted_by_one_role() {
        let needed = [
            right("", "namespaces", "", "create"),
            right("", "pods", "log", "get"),
            right("", "secrets", "", "create"),
            right("", "secrets", "", "patch"),
            right("", "services", "", "create"),
            right("", "services", "", "patch"),
            right("apps", "deployments", "", "create"),
        ];
        let check = |user: Option<&str>, subject: &str| {
            let text = grant("ml", user, &needed).join("\n").replace(subject, "SUBJECT");
            insta::allow_duplicates! {
                insta::assert_snapshot!(text, @r#"
                kubectl -n ml apply -f - <<'END'
                {apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: mlflow-deploy}, rules: [
                {apiGroups: [""], resources: [secrets, services], verbs: [create, patch]},
                {apiGroups: [""], resources: [pods/log], verbs: [get]},
                {apiGroups: ["apps"], resources: [deployments], verbs: [create]},
                ]}
                END
                kubectl -n ml create rolebinding mlflow-deploy --role=mlflow-deploy SUBJECT
                "#);
            }
        };
        check(Some("system:serviceaccount:ci:deployer"), "--serviceaccount=ci:deployer");
        check(Some("ada@example.com"), "--user=ada@example.com");
        check(None, "--user=USER");
    }
}
