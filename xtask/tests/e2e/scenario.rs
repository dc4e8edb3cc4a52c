//! The scenarios, and running them: some side by side, those that break the cluster alone.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::report::{Outcome, Row, tenths};
use crate::stamp::Stamp;
use crate::world::World;
use crate::{
    Result, access, backup, bad_input, capacity, cloud, faults, first_deploy, image_policy, operations, rolling,
    upgrade,
};

/// What a scenario does.
pub type Run = fn(&World) -> Result<Row>;

/// A scenario.
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Whether it breaks something that all scenarios share.
    pub alone: bool,
    /// The component of the testbed that it stops or needs besides the usual ones.
    pub needs: Option<&'static str>,
    /// What it does.
    pub run: Run,
}

/// All, the longest first: they decide when the last one ends.
fn all() -> impl Iterator<Item = &'static Scenario> {
    let groups: [&'static [Scenario]; 12] = [
        upgrade::SCENARIOS,
        rolling::SCENARIOS,
        first_deploy::SCENARIOS,
        image_policy::SCENARIOS,
        access::SCENARIOS,
        faults::SCENARIOS,
        operations::SCENARIOS,
        backup::SCENARIOS,
        bad_input::SCENARIOS,
        cloud::SCENARIOS,
        faults::ALONE,
        capacity::SCENARIOS,
    ];
    groups.into_iter().flatten()
}

/// Those that do not run for each commit, which has an hour: they take long, or break one more thing in a
/// way that others show. They run each night (`.github/workflows/nightly.yml`), with `--full`, and when they
/// are named.
const NIGHTLY: &[&str] = &[
    "upgrade-faults",
    "image-policy",
    "access-oidc",
    "fault-unschedulable",
    "fault-registry-gone",
    "fault-sidecar",
    "fault-image-layer",
    "fault-registry-down",
    "fault-secret-key",
    "fault-quota",
    "fault-admission-pods",
    "fault-pod-security",
    "fault-token",
    "fault-node",
    "fault-oom",
    "fault-api-server",
    "killed-locked",
    "killed-applied",
    "killed-soak",
    "killed-smoke",
    "killed-bad-rollout",
    "pull-secret",
    "desktop",
    "workflows",
    "load",
    "large-artifact",
    "metrics",
    "gc",
];

/// Which of the scenarios that are not named one by one are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// For each commit.
    Commit,
    /// Those that are left to the night.
    Night,
    /// All.
    Full,
}

/// What is to be run.
pub struct Choice {
    /// The scenarios.
    pub chosen: Vec<&'static Scenario>,
    /// Those that are left to the night.
    pub left_out: Vec<&'static str>,
    /// The first name that fits none.
    pub unknown: Option<String>,
}

/// The scenarios with these names, or whose names begin with these; without any, those of `when`.
pub fn choose(wanted: &[String], when: When) -> Choice {
    let fits = |scenario: &Scenario, name: &String| match all().any(|scenario| scenario.name == name) {
        true => scenario.name == name,
        false => scenario.name.starts_with(name.as_str()),
    };
    let unknown = wanted.iter().find(|name| !all().any(|scenario| fits(scenario, name))).cloned();
    if !wanted.is_empty() {
        let chosen = all().filter(|scenario| wanted.iter().any(|name| fits(scenario, name))).collect();
        return Choice { chosen, left_out: Vec::new(), unknown };
    }
    let (night, commit): (Vec<_>, Vec<_>) = all().partition(|scenario| NIGHTLY.contains(&scenario.name));
    let left_out = night.iter().map(|scenario| scenario.name).collect();
    match when {
        When::Commit => Choice { chosen: commit, left_out, unknown },
        When::Night => Choice { chosen: night, left_out: Vec::new(), unknown },
        When::Full => Choice { chosen: all().collect(), left_out: Vec::new(), unknown },
    }
}

/// Runs scenarios, so many at a time.
pub fn run(world: &World, chosen: &[&'static Scenario], jobs: usize) -> Vec<Outcome> {
    let able = chosen.iter().filter(|scenario| is_able(world, scenario));
    let (alone, together): (Vec<_>, Vec<_>) = able.partition(|scenario| scenario.alone);
    let mut outcomes = side_by_side(world, &together, jobs);
    outcomes.extend(side_by_side(world, &alone, 1));
    let place = |outcome: &Outcome| chosen.iter().position(|scenario| scenario.name == outcome.scenario);
    outcomes.sort_by_key(place);
    outcomes
}

/// Whether the testbed has what a scenario needs: one made with kind lacks some components.
fn is_able(world: &World, scenario: &Scenario) -> bool {
    let lacks = scenario.needs.filter(|name| !world.place.components.iter().any(|component| component == name));
    if let Some(component) = lacks {
        skip(scenario.name, &format!("this testbed has no component {component}"));
    }
    lacks.is_none()
}

/// As [`testbed::skip`], for a scenario instead of the running thread's test.
pub fn skip(scenario: &str, why: &str) {
    as_test(scenario, || testbed::skip(why));
}

/// As [`testbed::leave_out`], for a scenario instead of the running thread's test.
pub fn leave_out(scenario: &str, what: &str) {
    as_test(scenario, || testbed::leave_out(what));
}

/// Runs what tells something of a test, whose name is the thread's.
fn as_test(scenario: &str, tell: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("e2e::{scenario}")).spawn_scoped(scope, tell);
        if let Err(error) = thread {
            eprintln!("e2e::{scenario} cannot tell what it leaves out: {error}");
        }
    });
}

fn side_by_side(world: &World, scenarios: &[&&'static Scenario], jobs: usize) -> Vec<Outcome> {
    let (next, outcomes) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(scenarios.len()) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = one(world, scenario);
                    outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(outcome);
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn one(world: &World, scenario: &Scenario) -> Outcome {
    eprintln!("{} {} ...", Stamp::now(), scenario.name);
    let begun = Instant::now();
    // A defect of one scenario is no reason to tell nothing of the others.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (scenario.run)(world)));
    let result = result.unwrap_or_else(|_| Err("it panicked; the message is above".into()));
    let seconds = tenths(begun.elapsed().as_secs_f64());
    let (row, error) = match result {
        Ok(row) => (row, None),
        Err(error) => (Row::default(), Some(error.to_string())),
    };
    let word = if error.is_none() { "ok" } else { "FAILED" };
    eprintln!("{} {} ... {word} ({seconds} s)", Stamp::now(), scenario.name);
    if let Some(error) = &error {
        eprintln!("{error}");
    }
    Outcome { scenario: scenario.name.to_owned(), passed: error.is_none(), seconds, row, error }
}
