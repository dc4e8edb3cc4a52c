//! What a person reads.

use super::super::Code;
use super::super::causes::{Budget, Cause};
use super::super::diagnose::{Diagnosis, Tail, Told, sentence};
use super::super::verdict::{Memory, Verdict, verdict};
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

#[test]
fn a_diagnosis_is_one_screen() {
    let cause = Cause {
        pod: Some("mlflow-a".into()),
        container: Some("mlflow".into()),
        restarts: 2,
        exit_code: Some(1),
        ..Cause::new(Code::CrashLoop, Budget::Restarts(2), "CrashLoopBackOff", "no module", at(3))
    };
    let told = |seconds: i64, kind: &str, reason: &str, message: &str| Told {
        at: at(seconds).to_string(),
        kind: kind.into(),
        reason: reason.into(),
        object: "Pod/mlflow-a".into(),
        message: message.into(),
        count: 3,
    };
    let pull = "Failed to pull image \"r/a\": failed to resolve reference \"r/a\": r/a: not found";
    let mut events = vec![told(1, "Normal", "Created", "Container created"), told(2, "Warning", "Failed", pull)];
    events.extend((3..30).map(|second| told(second, "Warning", "BackOff", "Back-off")));
    let lines = (1..=40).map(|line| format!("line {line}")).chain([String::new()]).collect();
    let diagnosis = Diagnosis {
        name: "mlflow".into(),
        namespace: "ns".into(),
        generation: 2,
        sentence: sentence(&cause, false, 12.6, 14.0),
        deadline_passed: false,
        served: false,
        seconds_after_first_sign: 12.6,
        seconds: 14.0,
        conditions: Vec::new(),
        logs: vec![Tail { pod: "mlflow-a".into(), container: "mlflow".into(), previous: true, lines }],
        events,
        hint: cause.code.hint().into(),
        cause,
    };
    let shown = diagnosis.to_string();
    let first: Vec<&str> = shown.lines().take(5).collect();
    assert_eq!(
        first,
        [
            "Deployment/mlflow failed: container mlflow: it exits again and again (exit code 1, 2 restarts); 13 s after the cluster's first sign",
            "  Pod/mlflow-a: CrashLoopBackOff: no module",
            "",
            "Log of mlflow, before its last restart:",
            "  line 29",
        ]
    );
    let last: Vec<&str> = shown.lines().skip(15).collect();
    assert_eq!(
        last,
        [
            "  line 40",
            "",
            "Events:",
            "  00:00:02 Pod/mlflow-a Failed (3x): r/a: not found",
            "  00:00:28 Pod/mlflow-a BackOff (3x): Back-off",
            "  00:00:29 Pod/mlflow-a BackOff (3x): Back-off",
            "",
            "To do: read the log lines above: they hold its last words",
        ]
    );
}
