//! What a person reads.

use super::super::{Memory, Verdict, verdict};
use super::scene::{LIMITS, Scene, at, ended, expected, good, pod, rolled, rolling, running, unscheduled, waiting};

fn progress(scene: &Scene) -> String {
    let (expected, snapshot) = (expected(), scene.snapshot(10));
    let mut memory = Memory::default();
    memory.learn(&expected, &snapshot);
    match verdict(&expected, &LIMITS, &memory, &snapshot) {
        Verdict::Wait(progress) => progress.text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_state_is_told_in_words() {
    let check = |scene: Scene, expected: &str| assert_eq!(progress(&scene), expected);
    check(rolling([]).generation(2, 1), "the Deployment controller has not seen the change yet");
    check(rolling([]).without_set(2), "0 of 2 pods ready; no new ReplicaSet yet");
    check(rolling([good("a"), pod("b", &[running()])]), "1 of 2 pods ready; b: mlflow starts");
    check(rolling([pod("a", &[waiting("ContainerCreating", "")])]), "0 of 2 pods ready; a: its containers are created");
    check(
        rolling([pod("a", &[running().named("migrate").init(), waiting("PodInitializing", "")])]),
        "0 of 2 pods ready; a: migrate starts",
    );
    check(
        rolling([unscheduled("a", "0/1 nodes are available: 1 Insufficient cpu.")]),
        "0 of 2 pods ready; a: no node takes the pod (Unschedulable)",
    );
    check(
        rolling([pod("a", &[ended(1, "Error").restarts(1)])]),
        "0 of 2 pods ready; a: mlflow: it exits again and again (Error, restarted 1x)",
    );
    check(
        rolled([good("a"), good("b")]).counts(2, 3, 2).with(good("x").old()),
        "2 of 2 pods ready; 1 old pod is still there",
    );
}

#[test]
fn the_first_sign_is_the_earliest_that_the_cluster_showed() {
    let expected = expected();
    let mut memory = Memory::default();
    let missing = || pod("a", &[waiting("ErrImagePull", "connection refused")]);
    let looks = [
        rolling([missing()]).event("a", 7, "Failed", "Failed to pull image \"a\": connection refused"),
        // The event is forgotten by the cluster; we remember its time.
        rolling([missing()]),
    ];
    let mut last = None;
    for (seconds, scene) in [(10, &looks[0]), (140, &looks[1])] {
        let snapshot = scene.snapshot(seconds);
        memory.learn(&expected, &snapshot);
        last = Some(verdict(&expected, &LIMITS, &memory, &snapshot));
    }
    match last {
        Some(Verdict::Failed { cause, .. }) => assert_eq!(cause.first_sign, at(7)),
        other => panic!("{other:?}"),
    }
}
