use super::*;
use crate::local::state::Backup;

fn release(id: &str, image: &str, port: u16) -> Release {
    Release {
        id: id.to_owned(),
        image: Digest::of(image),
        source: "build".to_owned(),
        version: None,
        port,
        url: format!("http://127.0.0.1:{port}"),
        workers: 1,
        data: "/data".into(),
        at: String::new(),
        by: String::new(),
        commit: None,
        engine: None,
    }
}

fn pending(release: Release, phase: Phase, replaces: Option<Release>) -> Option<Pending> {
    let backup = Backup { name: "b1".to_owned(), schema: Some(Digest::of("one")) };
    let backup = (phase == Phase::Migrating).then_some(backup);
    Some(Pending { release, phase, backup, migrated: false, replaces })
}

/// Everything is on this machine, nothing runs, nothing was ever deployed.
fn fresh() -> Observed {
    Observed { state: State::default(), running: None, healthy: false, database: false, fetched: true, installed: true }
}

/// `one` was deployed and runs.
fn deployed() -> Observed {
    let one = release("r1", "one", 5000);
    let state = State { current: Some(one.clone()), schema: Some(one.image), ..State::default() };
    Observed { state, running: Some(one), healthy: true, database: true, ..fresh() }
}

fn check(observed: &Observed, wanted: &Release, expected: &str, back_to: Option<&str>) {
    let name = |step: &Step| match step {
        Step::Load { .. } => "load",
        Step::Fetch { .. } => "fetch",
        Step::Unpack { .. } => "unpack",
        Step::Stop { .. } => "stop",
        Step::Restore { .. } => "restore",
        Step::Backup => "backup",
        Step::Migrate { .. } => "migrate",
        Step::Start { .. } => "start",
        Step::Wait => "wait",
        Step::Smoke => "smoke",
        Step::Record => "record",
    };
    let steps: Vec<&str> = plan(observed, wanted, true).iter().map(name).collect();
    assert_eq!(steps.join(" "), expected);
    assert_eq!(fallback(observed, wanted).map(|release| release.id).as_deref(), back_to);
}

#[test]
fn another_way_to_run_it_is_another_server() {
    let one = release("r2", "one", 5000);
    let contained = Release { engine: Some(super::super::engine::Tool::Podman), ..one.clone() };
    check(&deployed(), &one, "", None);
    let absent = Observed { installed: false, ..deployed() };
    check(&absent, &contained, "load stop start wait smoke record", Some("r1"));
}

#[test]
fn the_first_deploy() {
    let one = release("r1", "one", 5000);
    check(&fresh(), &one, "start wait smoke record", None);
    check(&Observed { installed: false, ..fresh() }, &one, "unpack start wait smoke record", None);
    let nothing = Observed { installed: false, fetched: false, ..fresh() };
    check(&nothing, &one, "fetch unpack start wait smoke record", None);
    // A data folder that someone brings along may have any schema.
    check(&Observed { database: true, ..fresh() }, &one, "backup migrate start wait smoke record", None);
}

#[test]
fn nothing_changed() {
    check(&deployed(), &release("r2", "one", 5000), "", None);
}

#[test]
fn what_does_not_serve_is_started_again() {
    let again = release("r2", "one", 5000);
    check(&Observed { healthy: false, ..deployed() }, &again, "stop start wait smoke record", None);
    let dead = Observed { running: None, healthy: false, ..deployed() };
    check(&dead, &again, "start wait smoke record", None);
    check(&Observed { installed: false, ..dead }, &again, "unpack start wait smoke record", None);
}

#[test]
fn changes_replace_the_server() {
    let image = release("r2", "two", 5000);
    check(&deployed(), &image, "stop backup migrate start wait smoke record", Some("r1"));
    check(
        &Observed { installed: false, fetched: false, ..deployed() },
        &image,
        "fetch unpack stop backup migrate start wait smoke record",
        Some("r1"),
    );
    check(&Observed { database: false, ..deployed() }, &image, "stop start wait smoke record", Some("r1"));
    check(&deployed(), &release("r2", "one", 5001), "stop start wait smoke record", Some("r1"));
    let workers = Release { workers: 2, ..release("r2", "one", 5000) };
    check(&deployed(), &workers, "stop start wait smoke record", Some("r1"));
    // After `down` there is nothing to go back to, but the database has the old schema.
    let down = Observed { running: None, healthy: false, ..deployed() };
    check(&down, &image, "backup migrate start wait smoke record", None);
}

#[test]
fn a_deploy_that_died_is_carried_on() {
    let (one, two) = (release("r1", "one", 5000), release("r2", "two", 5000));
    let died = |phase, running: Option<&Release>| {
        let mut observed = deployed();
        observed.state.pending = pending(two.clone(), phase, Some(one.clone()));
        if phase == Phase::Started {
            observed.state.schema = Some(two.image);
        }
        Observed { running: running.cloned(), healthy: running.is_some(), ..observed }
    };
    let again = release("r3", "two", 5000);
    let all = "backup migrate start wait smoke record";
    check(&died(Phase::Stopped, Some(&one)), &again, &format!("stop {all}"), Some("r1"));
    check(&died(Phase::Stopped, None), &again, all, Some("r1"));
    check(&died(Phase::Migrating, None), &again, &format!("restore {all}"), Some("r1"));
    check(&died(Phase::Started, None), &again, "start wait smoke record", Some("r1"));
    check(&died(Phase::Started, Some(&two)), &again, "wait smoke record", Some("r1"));
    // It was never healthy, and may just be starting.
    check(&Observed { healthy: false, ..died(Phase::Started, Some(&two)) }, &again, "wait smoke record", Some("r1"));
    // Back to the old image instead.
    let back = release("r3", "one", 5000);
    check(&died(Phase::Stopped, Some(&one)), &back, "stop start wait smoke record", None);
    check(&died(Phase::Migrating, None), &back, "restore start wait smoke record", None);
    check(&died(Phase::Started, Some(&two)), &back, &format!("stop {all}"), None);
    // Or to a third one.
    let third = release("r3", "three", 5000);
    check(&died(Phase::Migrating, None), &third, &format!("restore {all}"), Some("r1"));
    check(&died(Phase::Started, Some(&two)), &third, &format!("stop {all}"), Some("r1"));
}

#[test]
fn the_smoke_test_can_be_left_out() {
    let steps = plan(&fresh(), &release("r1", "one", 5000), false);
    assert!(!steps.contains(&Step::Smoke) && steps.contains(&Step::Record));
}
