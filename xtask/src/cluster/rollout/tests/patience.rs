//! How long is waited: budgets, the soak, the deadline.

use std::time::Duration;

use serde_json::json;

use super::super::Limits;
use super::scene::{LIMITS, Scene, ended, good, pod, rolled, rolling, running, unscheduled, up, verdicts, waiting};

fn check(what: &str, limits: &Limits, rows: &[(i64, Scene, &str)]) {
    let scenes: Vec<(i64, Scene)> = rows.iter().map(|(at, scene, _)| (*at, scene.clone())).collect();
    let expected: Vec<&str> = rows.iter().map(|(.., expected)| *expected).collect();
    assert_eq!(verdicts(limits, &scenes), expected, "{what}");
}

fn one(container: super::scene::Container) -> Scene {
    rolling([pod("a", &[container])])
}

#[test]
fn a_budget_is_spent_by_what_lasts() {
    let refused = || one(waiting("ErrImagePull", "dial tcp: connection refused"));
    let back_off = || one(waiting("ImagePullBackOff", "Back-off pulling image: dial tcp: connection refused"));
    let rows = [(10, refused(), "wait"), (60, back_off(), "wait"), (131, refused(), "failed image-pull mlflow")];
    check("a registry", &LIMITS, &rows);
    let rows = [(10, refused(), "wait"), (60, one(running()), "wait"), (131, refused(), "wait")];
    check("a registry that came back", &LIMITS, &rows);
    let login = || one(waiting("ErrImagePull", "401 Unauthorized"));
    check("a login", &LIMITS, &[(10, login(), "wait"), (41, login(), "failed image-auth mlflow")]);
    let absent = || one(waiting("ContainerCreating", "")).event("a", 3, "FailedMount", "secret \"s\" not found");
    check("a volume", &LIMITS, &[(10, absent(), "wait"), (131, absent(), "failed volume-mount")]);
}

#[test]
fn a_database_is_named_long_before_the_server_gives_up() {
    let engine = "INFO mlflow.store.db.utils: Create SQLAlchemy engine with pool options {}";
    let refused = "(psycopg2.OperationalError) connection to server at \"db\", port 5432 failed: Connection refused";
    let login = "(psycopg2.OperationalError) connection failed: FATAL:  password authentication failed for user \"a\"";
    let starts = |lines: &[&str]| one(running()).log("a", false, lines);
    let rows = |lines: [&str; 2], spent: i64, expected: &'static str| {
        [(10, starts(&lines), "wait"), (9 + spent, starts(&lines), "wait"), (10 + spent, starts(&lines), expected)]
    };
    check("no answer", &LIMITS, &rows([engine, refused], 25, "failed database-unreachable mlflow"));
    check("no login", &LIMITS, &rows([engine, login], 10, "failed database-refused mlflow"));
    check("silence", &LIMITS, &rows(["", engine], 40, "failed database-unreachable mlflow"));
    let over = starts(&[engine, refused, engine, "INFO Application startup complete."]);
    check("it was got over", &LIMITS, &[(10, starts(&[engine, refused]), "wait"), (40, over, "wait")]);
    let crashed = one(ended(1, "Error").restarts(2)).log("a", false, &[engine, refused]);
    check(
        "it names a crash loop",
        &LIMITS,
        &[(10, crashed.clone(), "wait"), (36, crashed, "failed database-unreachable mlflow")],
    );
}

#[test]
fn pods_must_stay_up_before_they_are_believed() {
    let limits = Limits { soak: Duration::from_secs(30), ..LIMITS };
    let whole = || rolled([good("a"), good("b")]);
    check("they do", &limits, &[(10, whole(), "soak"), (39, whole(), "soak"), (40, whole(), "complete")]);
    let restarted = || rolled([good("a"), pod("b", &[up().restarts(1)])]);
    let rows =
        [(10, whole(), "soak"), (30, restarted(), "soak"), (45, restarted(), "soak"), (60, restarted(), "complete")];
    check("one restarts, and is up again at the next look", &limits, &rows);
    let sidecar = |container: super::scene::Container| rolled([pod("a", &[container.sidecar(), up()])]).wanted(1);
    let rows =
        [(10, sidecar(up()), "soak"), (30, sidecar(up().restarts(1)), "soak"), (45, sidecar(up().restarts(1)), "soak")];
    check("its sidecar restarts", &limits, &rows);
    let flapped =
        || rolled([good("a"), good("b").set("/status/conditions/1/lastTransitionTime", json!("2026-01-01T00:00:20Z"))]);
    check(
        "one was not ready for a moment",
        &limits,
        &[(10, whole(), "soak"), (41, flapped(), "soak"), (71, flapped(), "complete")],
    );
    let replaced = || rolled([good("a"), good("c")]);
    check(
        "one was replaced",
        &limits,
        &[(10, whole(), "soak"), (41, replaced(), "soak"), (71, replaced(), "complete")],
    );
    let lost = rolled([good("a"), pod("b", &[running()])]);
    check(
        "one is not ready",
        &limits,
        &[(10, whole(), "soak"), (40, lost, "wait"), (50, whole(), "soak"), (80, whole(), "complete")],
    );
    let changed = whole().generation(3, 3).set("/spec/template/metadata/annotations", json!({ "a": "b" }));
    check("someone changes it", &limits, &[(10, whole(), "soak"), (20, changed, "superseded")]);
}

#[test]
fn the_deadline_is_on_our_own_clock() {
    let slow = || one(running()).event("a", 5, "Unhealthy", "Readiness probe failed: 503");
    check(
        "a probe",
        &LIMITS,
        &[(10, slow(), "wait"), (599, slow(), "wait"), (600, slow(), "late probe-failing mlflow")],
    );
    check("no words at all", &LIMITS, &[(600, one(running()), "late not-ready mlflow")]);
    check("no node", &LIMITS, &[(600, rolling([unscheduled("a", "0/1 nodes are available")]), "late unschedulable")]);
    check(
        "a lost node",
        &LIMITS,
        &[(10, one(running()).lost_node(), "wait"), (600, one(running()).lost_node(), "late node-lost")],
    );
    check("an eviction", &LIMITS, &[(600, rolling([good("a").phase("Failed", "Evicted")]), "late evicted")]);
    check(
        "a budget that is not spent",
        &LIMITS,
        &[(600, one(waiting("ErrImagePull", "connection refused")), "late image-pull mlflow")],
    );
    check("the change was never seen", &LIMITS, &[(600, rolling([]).generation(2, 1), "late deadline-exceeded")]);
    check("no pods", &LIMITS, &[(600, rolling([]), "late deadline-exceeded")]);
    check("old pods stay", &LIMITS, &[(600, rolled([good("a"), good("b")]).counts(2, 3, 2), "late deadline-exceeded")]);
}

#[test]
fn the_clusters_own_deadline_counts_only_for_this_rollout() {
    let exceeded = |scene: Scene| {
        let condition = json!({ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded" });
        scene.set("/status/conditions/0", condition).set("/spec/progressDeadlineSeconds", json!(60))
    };
    let slow = || exceeded(one(running()));
    check("ours", &LIMITS, &[(59, slow(), "wait"), (60, slow(), "late not-ready mlflow")]);
    check("an older one's", &LIMITS, &[(61, slow().generation(2, 1), "wait")]);
}

#[test]
fn the_deadline_lets_a_soak_end_but_begins_none() {
    let limits = Limits { deadline: Duration::from_secs(60), soak: Duration::from_secs(30) };
    let whole = || rolled([good("a"), good("b")]);
    check("in time", &limits, &[(55, whole(), "soak"), (70, whole(), "soak"), (85, whole(), "complete")]);
    let flapping = |restarts| rolled([good("a"), pod("b", &[up().restarts(restarts)])]);
    let rows = [(50, flapping(0), "soak"), (59, flapping(1), "soak"), (61, flapping(2), "soak")];
    let rows = [&rows[..], &[(63, flapping(3), "late deadline-exceeded")]].concat();
    check("a pod that goes on restarting", &limits, &rows);
    let rows = [(61, one(running()), "late not-ready mlflow"), (62, whole(), "late deadline-exceeded")];
    check("too late", &limits, &rows);
    let rows = [(50, one(running()), "wait"), (100, whole(), "soak"), (130, whole(), "complete")];
    check("the API server was away", &limits, &rows);
    check("from the beginning", &limits, &[(100, whole(), "soak"), (130, whole(), "complete")]);
}
