//! The issue about drift: opened once, kept up to date, closed.

use testbed::actions::{Conclusion, JobResult};

use super::runner::{Runner, account, says};

const OUTPUTS: &str = "xtask infra outputs --env staging";
const PLAN: &str = "xtask infra plan --env staging --exit-code";
const STATUS: &str = "xtask status --env staging --exit-code";

/// A day on which the plan and the status end so.
fn day(runner: &mut Runner, plan: (&str, i32), status: (&str, i32)) -> JobResult {
    runner.cargo(&[says(OUTPUTS, "", 0), says(PLAN, plan.0, plan.1), says(STATUS, status.0, status.1)]);
    runner.run_for("staging", "drift.yml", "drift")
}

#[test]
fn one_issue_from_the_first_day_of_drift_to_the_last() {
    let Some(mut runner) = Runner::configured() else { return };
    runner.need("drift.yml", "environments");
    let marker = "<!-- drift: staging -->\n";
    // Neither is ours: a person's text, and another environment's issue.
    runner.api.open("someone", "looks the same", Some(marker), false);
    runner.api.open("github-actions[bot]", "other", Some("<!-- drift: production -->\nx"), false);
    runner.api.open("github-actions[bot]", "no text", None, true);
    for number in 0..120 {
        runner.api.open("someone", &format!("issue {number}"), Some("x"), false);
    }
    let ours = |runner: &Runner| runner.api.issues().split_off(123);

    let quiet = day(&mut runner, ("nothing\n", 0), ("fine\n", 0));
    assert_eq!(quiet.conclusion, Conclusion::Success, "{}", quiet.log());
    assert_eq!(account(&quiet), "mlflow-plan@staging.iam.gserviceaccount.com");
    assert_eq!(runner.calls(), [OUTPUTS, PLAN, STATUS]);
    assert!(ours(&runner).is_empty());

    let first = day(&mut runner, ("the tier is ~~~ db-f1\n", 12), ("fine\n", 0));
    assert_eq!(first.conclusion, Conclusion::Success, "{}", first.log());
    let [issue] = &ours(&runner)[..] else { panic!("one issue: {:?}", ours(&runner)) };
    let body = issue.body.clone().expect("a text");
    assert!(body.starts_with(marker) && body.contains("octo/mlflow/actions/runs/77"), "{body}");
    // The fence is longer than what looks like one.
    assert!(body.contains("cargo xtask infra plan:\n\n~~~~\nthe tier is ~~~ db-f1\n~~~~\n"), "{body}");
    assert!(!body.contains("fine") && issue.title.contains("staging"), "{body}");

    let asked = runner.calls_of("curl").join("\n");
    assert!(asked.contains("POST") && asked.contains("--header @-"), "the token goes by stdin: {asked}");

    // A hundred people write issues; ours is on the second page now.
    for number in 0..100 {
        runner.api.open("someone", &format!("issue {number}"), None, false);
    }
    let long = "replicas \u{e9}\n".repeat(20_000);
    let next = day(&mut runner, ("nothing\n", 0), (&long, 12));
    assert_eq!(next.conclusion, Conclusion::Success, "{}", next.log());
    let all = ours(&runner);
    assert_eq!(all.iter().filter(|issue| issue.author == "github-actions[bot]").count(), 1);
    let body = all[0].body.clone().expect("a text");
    assert!(body.contains("cargo xtask status:") && !body.contains("infra plan"), "{body}");
    assert!(body.contains("[... the rest is in the log]") && all[0].open);

    // That the check fails says nothing about drift.
    for code in [6, 1] {
        let broken = day(&mut runner, ("", code), ("", 0));
        assert_eq!(broken.conclusion, Conclusion::Failure);
        assert_eq!(broken.step("Compare").code, Some(code));
        assert_eq!(broken.step("Issue").conclusion, Conclusion::Skipped);
        assert!(ours(&runner)[0].open);
    }

    let gone = day(&mut runner, ("nothing\n", 0), ("fine\n", 0));
    assert_eq!(gone.conclusion, Conclusion::Success, "{}", gone.log());
    let [comment] = &runner.api.comments()[..] else { panic!("one comment") };
    assert!(comment.issue == 124 && comment.body.contains("It is gone"), "{comment:?}");
    assert!(!ours(&runner)[0].open);
    let untouched = runner.api.issues().into_iter().filter(|issue| issue.number != 124);
    assert!(untouched.into_iter().all(|issue| issue.open));

    // Closed, it stays closed; new drift is a new issue.
    day(&mut runner, ("nothing\n", 0), ("fine\n", 0));
    assert_eq!(runner.api.comments().len(), 1);
    day(&mut runner, ("again\n", 12), ("and again\n", 12));
    let last = runner.api.issues().pop().expect("an issue");
    let body = last.body.expect("a text");
    assert!(last.open && body.contains("\nagain\n") && body.contains("\nand again\n"), "{body}");
}

#[test]
fn a_refused_token_fails_the_job_and_says_why() {
    let Some(mut runner) = Runner::configured() else { return };
    runner.need("drift.yml", "environments");
    runner.api = testbed::actions::Api::start(super::runner::REPOSITORY, "another");
    let result = day(&mut runner, ("x\n", 12), ("fine\n", 0));
    assert_eq!(result.conclusion, Conclusion::Failure);
    assert!(result.step("Issue").log.contains("401"), "{}", result.log());
    assert!(runner.api.issues().is_empty());
}
