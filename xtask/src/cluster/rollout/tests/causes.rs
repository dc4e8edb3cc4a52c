//! What a failure is called, and which of several is told.

use serde_json::json;

use super::scene::{LIMITS, Scene, ended, good, pod, rolled, rolling, running, unscheduled, up, verdicts, waiting};

/// One look, ten seconds after the apply.
fn check(what: &str, scene: Scene, expected: &str) {
    assert_eq!(verdicts(&LIMITS, &[(10, scene)]), [expected], "{what}");
}

fn one(containers: &[super::scene::Container]) -> Scene {
    rolling([pod("a", containers)])
}

#[test]
fn what_does_not_pass_by_itself_fails_at_once() {
    check("an image's name", one(&[waiting("InvalidImageName", "couldn't parse")]), "failed image-name mlflow");
    check("an image that may not be pulled", one(&[waiting("ErrImageNeverPull", "")]), "failed image-absent mlflow");
    check(
        "a missing image",
        one(&[waiting("ErrImagePull", "r/a@sha256:0: not found")]),
        "failed image-not-found mlflow",
    );
    check(
        "and later",
        one(&[waiting("ImagePullBackOff", "Back-off pulling image \"a\": ErrImagePull: r/a: not found")]),
        "failed image-not-found mlflow",
    );
    let older = one(&[waiting("ImagePullBackOff", "Back-off pulling image \"a\"")]);
    check(
        "an older kubelet tells it in an event",
        older.event("a", 3, "Failed", "Failed to pull image \"a\": r/a: not found"),
        "failed image-not-found mlflow",
    );
    check(
        "a platform",
        one(&[waiting("ErrImagePull", "no match for platform in manifest: not found")]),
        "failed image-platform mlflow",
    );
    check(
        "a key",
        one(&[waiting("CreateContainerConfigError", "couldn't find key uri in Secret ns/s")]),
        "failed config-error mlflow",
    );
    check(
        "a program",
        one(&[waiting("RunContainerError", "exec: \"/x\": stat /x: no such file or directory")]),
        "failed cannot-start mlflow",
    );
    check(
        "a program of another platform",
        one(&[waiting("RunContainerError", "exec /usr/bin/mlflow: exec format error")]),
        "failed image-platform mlflow",
    );
    let schema = "mlflow.exceptions.MlflowException: Detected out-of-date database schema (found version a, but expected b). Take a backup";
    check("a schema", one(&[ended(1, "Error")]).log("a", false, &[schema]), "failed schema-mismatch mlflow");
    check(
        "a schema, before the restart",
        one(&[running().restarts(1).after(1, "Error")]).log("a", true, &[schema]),
        "failed schema-mismatch mlflow",
    );
    check(
        "a policy",
        rolling([]).refused("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\""),
        "failed admission",
    );
    check("a webhook", rolling([]).refused("admission webhook \"w\" denied the request"), "failed admission");
}

#[test]
fn what_may_pass_by_itself_is_waited_for() {
    check("it is just made", one(&[waiting("ContainerCreating", "")]), "wait");
    check("its init containers run", one(&[running().named("migrate").init(), waiting("PodInitializing", "")]), "wait");
    check("it starts", one(&[running()]), "wait");
    check(
        "a Secret that was made a moment ago",
        one(&[waiting("CreateContainerConfigError", "failed to sync secret cache: timed out")]),
        "wait",
    );
    check("a registry that does not answer", one(&[waiting("ErrImagePull", "dial tcp: connection refused")]), "wait");
    check("one exit", one(&[ended(1, "Error")]), "wait");
    check("one restart", one(&[waiting("CrashLoopBackOff", "back-off 10s").restarts(1).after(1, "Error")]), "wait");
    check("a third start", one(&[running().restarts(2).after(1, "Error")]), "wait");
    check("no node", rolling([unscheduled("a", "0/1 nodes are available")]), "wait");
    check(
        "a webhook that does not answer",
        rolling([]).refused("failed calling webhook \"w\": connection refused"),
        "wait",
    );
    check(
        "a ServiceAccount",
        rolling([]).refused("pods \"a\" is forbidden: error looking up service account n/s"),
        "wait",
    );
    check(
        "a mount",
        one(&[waiting("ContainerCreating", "")]).event("a", 3, "FailedMount", "timed out waiting"),
        "wait",
    );
}

#[test]
fn the_second_restart_is_the_end_of_patience() {
    let looping = |restarts| waiting("CrashLoopBackOff", "back-off 20s").restarts(restarts).after(1, "Error");
    check("an app", one(&[looping(2)]), "failed crash-loop mlflow");
    check(
        "as newer kubelets say it",
        one(&[ended(3, "Error").restarts(2).after(3, "Error")]),
        "failed crash-loop mlflow",
    );
    check("an exit without error", one(&[ended(0, "Completed").restarts(2)]), "failed crash-loop mlflow");
    check(
        "memory",
        one(&[waiting("CrashLoopBackOff", "").restarts(2).after(137, "OOMKilled")]),
        "failed oom-killed mlflow",
    );
    check(
        "an init container",
        one(&[looping(2).named("migrate").init(), waiting("PodInitializing", "")]),
        "failed init-crash migrate",
    );
    check("a sidecar, while the server is ready", one(&[looping(2).sidecar(), up()]), "failed sidecar-crash proxy");
    let probed = one(&[waiting("CrashLoopBackOff", "").restarts(2).after(137, "Error")])
        .event("a", 4, "Unhealthy", "Startup probe failed: connection refused")
        .event("a", 5, "Killing", "Container mlflow failed startup probe, will be restarted");
    check("a probe", probed, "failed probe-failing mlflow");
}

#[test]
fn old_leaving_and_ended_pods_are_no_cause() {
    let broken = || pod("x", &[waiting("InvalidImageName", "")]);
    check("an old pod", rolling([pod("a", &[running()])]).with(broken().old()), "wait");
    check("a leaving pod", rolling([pod("a", &[running()])]).with(broken().leaving()), "wait");
    check(
        "an evicted pod that was replaced",
        rolling([pod("a", &[running()]), good("b").phase("Failed", "Evicted")]),
        "wait",
    );
    check("what an older generation left behind", rolling([broken()]).generation(2, 1), "wait");
}

#[test]
fn a_cause_is_not_hidden_by_what_stands_before_it() {
    let missing = || waiting("ErrImagePull", "r/a: not found");
    let other = |container: super::scene::Container| container.named("other");
    check(
        "one that is just made",
        one(&[other(waiting("ContainerCreating", "")), missing()]),
        "failed image-not-found mlflow",
    );
    check("one that crashes", one(&[other(ended(1, "Error")), missing()]), "failed image-not-found mlflow");
    check(
        "one that cannot be pulled yet",
        one(&[other(waiting("ErrImagePull", "connection refused")), missing()]),
        "failed image-not-found mlflow",
    );
    check(
        "a sidecar comes first",
        one(&[waiting("ErrImagePull", "r/p: not found").sidecar(), missing()]),
        "failed image-not-found proxy",
    );
    check(
        "a pod without a node",
        rolling([unscheduled("a", ""), pod("b", &[missing()])]),
        "failed image-not-found mlflow",
    );
    check(
        "a pod that starts",
        rolling([pod("a", &[running()]), pod("b", &[missing()])]),
        "failed image-not-found mlflow",
    );
}

#[test]
fn a_fatal_cause_of_one_node_is_given_time() {
    let scene = || rolling([good("a"), pod("b", &[waiting("ErrImagePull", "r/a: not found")])]);
    let seen = verdicts(&LIMITS, &[(10, scene()), (40, scene()), (71, scene())]);
    assert_eq!(seen, ["wait", "wait", "failed image-not-found mlflow"]);
}

#[test]
fn a_quota_is_fatal_only_where_no_pod_can_give_way() {
    let quota = "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2";
    let twice = |what: &str, scene: &dyn Fn() -> Scene, expected: &str| {
        assert_eq!(verdicts(&LIMITS, &[(2, scene()), (8, scene())]), ["wait", expected], "{what}");
    };
    twice("no pods at all", &|| rolling([]).refused(quota), "failed quota");
    let serving = || rolling([]).refused(quota).with(good("x").old()).with(good("y").old());
    twice("all old pods must stay", &serving, "failed quota");
    twice("an old pod leaves", &|| serving().with(good("z").old().leaving()), "wait");
    twice("an old pod may go", &|| serving().with(good("z").old()), "wait");
    twice(
        "the strategy lets them go",
        &|| serving().set("/spec/strategy/rollingUpdate/maxUnavailable", json!(1)),
        "wait",
    );
    twice("all may go", &|| serving().set("/spec/strategy", json!({ "type": "Recreate" })), "wait");
    twice("a new pod comes up", &|| serving().with(pod("a", &[running()])), "wait");
    twice("the new pod does not come up", &|| serving().with(pod("a", &[ended(1, "Error")])), "failed quota");
}

#[test]
fn a_broken_wait_after_success_is_told_by_its_cause() {
    // Complete once, then a crash loop: what was complete is not any more.
    let up_again = || rolled([good("a"), good("b")]);
    let crashed = rolled([good("a"), pod("b", &[ended(1, "Error").restarts(2)])]);
    let limits = super::super::Limits { soak: std::time::Duration::from_secs(30), ..LIMITS };
    assert_eq!(verdicts(&limits, &[(10, up_again()), (20, crashed)]), ["soak", "failed crash-loop mlflow"]);
}

#[test]
fn a_quota_that_old_pods_have_freed_is_tried_again_in_time() {
    let quota = "pods \"a\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    let leaving = || rolling([]).refused(quota).with(good("x").old().leaving());
    let gone = || rolling([]).refused(quota);
    let seen = verdicts(&LIMITS, &[(2, leaving()), (40, leaving()), (42, gone()), (60, gone()), (102, gone())]);
    assert_eq!(seen, ["wait", "wait", "wait", "wait", "failed quota"]);
}
