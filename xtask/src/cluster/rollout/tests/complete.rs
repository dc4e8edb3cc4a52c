//! When a rollout counts as complete, and when it never does.

use serde_json::json;

use super::scene::{LIMITS, Scene, expected, good, pod, rolled, rolling, running, up, verdicts, waiting};

fn check(scene: Scene, expected: &str) {
    let shown = serde_json::to_string_pretty(&scene.deployment).expect("JSON");
    assert_eq!(verdicts(&LIMITS, &[(10, scene)]), [expected], "{shown}");
}

#[test]
fn a_rollout_is_complete_when_nothing_is_missing() {
    check(rolled([good("a"), good("b")]), "complete");
    check(rolled([good("a"), good("b")]).with(good("x").old().leaving()), "complete");
    check(rolled([pod("a", &[up().sidecar(), up()]), pod("b", &[up().sidecar(), up()])]), "complete");
    check(rolled([good("a"), good("b")]).with(good("c").phase("Failed", "Evicted")), "complete");
}

#[test]
fn a_rollout_is_not_complete_when_anything_is_missing() {
    let whole = || rolled([good("a"), good("b")]);
    let with = |pod| rolled([good("a"), pod]);
    let defects: Vec<(&str, Scene)> = vec![
        ("the change is not observed", whole().generation(2, 1)),
        ("an older state is read", whole().generation(1, 1)),
        ("no status at all", whole().set("/status", json!({}))),
        ("too few are updated", whole().counts(1, 2, 2)),
        ("an old pod is counted still", whole().counts(2, 3, 2)),
        ("one is not available", whole().counts(2, 2, 1)),
        ("nothing is available", whole().counts(2, 2, 0)),
        ("the controller has not finished", whole().set("/status/conditions/0/reason", json!("ReplicaSetUpdated"))),
        (
            "the controller has given up",
            whole().set(
                "/status/conditions/0",
                json!({ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" }),
            ),
        ),
        ("the controller says nothing", whole().set("/status/conditions", json!([]))),
        ("there is no ReplicaSet", whole().without_set(2)),
        ("the ReplicaSet is another Deployment's", whole().new_set("/metadata/ownerReferences/0/uid", json!("theirs"))),
        (
            "the ReplicaSet is of another revision",
            whole().new_set("/metadata/annotations", json!({ "deployment.kubernetes.io/revision": "7" })),
        ),
        (
            "the ReplicaSet has another image",
            whole().new_set("/spec/template/spec/containers/0/image", json!("other@sha256:1111")),
        ),
        ("the pods are not there", rolled([]).counts(2, 2, 2)),
        ("a pod is missing", rolled([good("a")]).counts(2, 2, 2)),
        ("a pod too many", rolled([good("a"), good("b"), good("c")]).counts(2, 2, 2)),
        ("a pod leaves", with(good("b").leaving())),
        ("a pod is an old one", with(good("b").old())),
        ("a pod has ended", with(good("b").phase("Failed", "Evicted"))),
        ("a pod is not ready", with(good("b").set("/status/conditions/1/status", json!("False")))),
        ("a pod's readiness is not known", with(good("b").set("/status/conditions", json!([])))),
        ("a container is not ready", with(pod("b", &[running()]))),
        (
            "a sidecar is not ready",
            with(pod("b", &[running().sidecar(), up()]).set("/status/conditions/1/status", json!("True"))),
        ),
        (
            "a sidecar waits",
            with(
                pod("b", &[waiting("ContainerCreating", "").sidecar(), up()])
                    .set("/status/conditions/1/status", json!("True")),
            ),
        ),
        (
            "a sidecar has no status",
            with(pod("b", &[up().sidecar(), up()]).set("/status/initContainerStatuses", json!([]))),
        ),
    ];
    for (what, scene) in defects {
        assert_eq!(verdicts(&LIMITS, &[(10, scene)]), ["wait"], "{what}");
    }
}

#[test]
fn an_autoscalers_number_of_replicas_is_adopted() {
    let scaled = |pods: Vec<_>| rolled(pods).generation(3, 3).wanted(3);
    check(scaled(vec![good("a"), good("b"), good("c")]), "complete");
    check(scaled(vec![good("a"), good("b")]), "wait");
    check(rolled([good("a"), good("b"), good("c")]).generation(3, 2).wanted(3), "wait");
    check(rolled([good("a")]).generation(3, 3).wanted(1), "complete");
}

#[test]
fn a_change_by_someone_else_stands() {
    let changed = |scene: Scene| scene.set("/spec/template/spec/containers/0/image", json!("other@sha256:3333"));
    check(changed(rolled([good("a"), good("b")])).generation(3, 3), "superseded");
    check(changed(rolling([])).generation(3, 2), "superseded");
    check(
        rolled([good("a"), good("b")])
            .set("/spec/template/metadata/annotations", json!({ "restartedAt": "now" }))
            .generation(3, 3),
        "superseded",
    );
    check(rolled([good("a"), good("b")]).set("/metadata/uid", json!("another")), "superseded");
    check(
        rolled([good("a"), good("b")]).set("/metadata/deletionTimestamp", json!("2026-01-01T00:00:05Z")),
        "superseded",
    );
    let mut deleted = rolled([good("a"), good("b")]);
    deleted.deployment = serde_json::Value::Null;
    check(deleted, "superseded");
}

#[test]
fn nothing_wanted_is_no_success() {
    check(rolled([]).wanted(0), "failed no-replicas");
    check(rolled([]).wanted(0).generation(3, 3), "failed no-replicas");
}

#[test]
fn a_paused_deployment_is_named() {
    check(rolling([]).set("/spec/paused", json!(true)), "failed paused");
    check(rolling([]).set("/spec/paused", json!(true)).generation(3, 3), "failed paused");
}

#[test]
fn a_deployment_without_a_deadline_of_its_own_keeps_no_condition() {
    let none =
        |scene: Scene| scene.set("/spec/progressDeadlineSeconds", json!(i32::MAX)).set("/status/conditions", json!([]));
    // The template is the same, so it is still ours.
    check(none(rolled([good("a"), good("b")])), "complete");
}

#[test]
fn a_mirror_before_the_digest_is_the_same_image_and_another_digest_is_not() {
    let image = |image: &str| good("b").set("/spec/containers/0/image", json!(image));
    check(rolled([good("a"), image("mirror.test/cache/mlflow@sha256:2222")]), "complete");
    check(rolled([image("registry.test/mlflow@sha256:9999")]).wanted(1), "failed image-changed");
    check(rolled([image("registry.test/mlflow:latest")]).wanted(1), "failed image-changed");
    // The runtime knows one content under many digests: an index and its manifest.
    let known = good("b").set("/status/containerStatuses/0/imageID", json!("registry.test/mlflow@sha256:5555"));
    check(rolled([good("a"), known]), "complete");
}

#[test]
fn the_applied_state_is_what_the_api_server_answered() {
    let expected = expected();
    assert_eq!((expected.name.as_str(), expected.uid.as_str(), expected.generation), ("mlflow", "ours", 2));
    assert_eq!((expected.image.as_str(), expected.selector.as_str()), (super::scene::IMAGE, "a=b"));
}
