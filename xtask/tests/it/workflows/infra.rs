//! The infrastructure's plan on a pull request, and its way through an approval.

use serde_json::json;
use testbed::actions::{Conclusion, JobResult};

use super::runner::{Runner, account, says};

const PLAN: &str = "xtask infra plan --env staging";

pub fn pull_request(runner: &mut Runner, from: &str) -> u64 {
    let number = runner.api.open("someone", "a change", None, true);
    runner.event = json!({
        "pull_request": { "number": number, "head": { "sha": "c0ffee", "repo": { "full_name": from } } },
    });
    number
}

fn plan(runner: &mut Runner, text: &str, code: i32) -> JobResult {
    runner.cargo(&[says(PLAN, text, code)]);
    runner.run_for("staging", "infra-plan.yml", "plan")
}

#[test]
fn a_pull_request_has_one_comment_for_each_environment() {
    let Some(mut runner) = Runner::configured() else { return };
    let number = pull_request(&mut runner, "octo/mlflow");
    assert_eq!(runner.run("infra-plan.yml", "fork").conclusion, Conclusion::Skipped);
    runner.need("infra-plan.yml", "environments");
    assert_eq!(runner.matrix("infra-plan.yml", "plan").len(), 2);
    // A person who quotes ours, and so much talk that ours comes on the second page.
    runner.api.comment("someone", number, "<!-- infra plan: staging -->\nmine");
    for talk in 0..99 {
        runner.api.comment("someone", number, &format!("{talk}"));
    }
    let ours = |runner: &Runner| runner.api.comments().split_off(100);

    let first = plan(&mut runner, "1 to add\n```\n", 0);
    assert_eq!(first.conclusion, Conclusion::Success, "{}", first.log());
    assert_eq!(account(&first), "mlflow-plan@staging.iam.gserviceaccount.com");
    let [comment] = &ours(&runner)[..] else { panic!("one comment: {:?}", ours(&runner)) };
    assert!(comment.body.starts_with("<!-- infra plan: staging -->\n### Infrastructure of staging\n"), "{comment:?}");
    assert!(comment.body.contains("\n~~~\n1 to add\n```\n~~~\n\nAs of c0ffee, from [this run]"), "{comment:?}");

    plan(&mut runner, "2 to add\n", 0);
    let [again] = &ours(&runner)[..] else { panic!("still one comment") };
    assert!(again.id == comment.id && again.body.contains("2 to add") && !again.body.contains("1 to add"));

    let failed = plan(&mut runner, "half a plan\n", 5);
    assert_eq!((failed.conclusion, failed.step("Plan").code), (Conclusion::Failure, Some(5)));
    let [comment] = &ours(&runner)[..] else { panic!("still one comment") };
    assert!(comment.body.contains("There is no plan: it failed.") && !comment.body.contains("half"), "{comment:?}");

    runner.cargo(&[says("xtask infra plan --env production", "x\n", 0)]);
    let other = runner.run_for("production", "infra-plan.yml", "plan");
    assert_eq!(account(&other), "mlflow-plan@production.iam.gserviceaccount.com");
    assert_eq!(ours(&runner).len(), 2);
    assert_eq!(runner.api.comments()[0].body, "<!-- infra plan: staging -->\nmine");
}

#[test]
fn the_real_xtask_says_on_the_summary_page_why_there_is_no_plan() {
    let Some(mut runner) = Runner::configured() else { return };
    pull_request(&mut runner, "octo/mlflow");
    runner.need("infra-plan.yml", "environments");
    runner.real_cargo();
    // This repository's own deploy.toml has no such environment.
    let result = runner.run_for("staging", "infra-plan.yml", "plan");
    assert_eq!((result.conclusion, result.step("Plan").code), (Conclusion::Failure, Some(3)), "{}", result.log());
    assert!(result.step("Plan").log.contains("::error::"), "{}", result.log());
    assert!(result.summary.contains("staging"), "{}", result.summary);
    assert!(runner.api.comments()[0].body.contains("There is no plan: it failed."));
}

#[test]
fn a_fork_gets_a_notice_and_nothing_is_asked_for() {
    let Some(mut runner) = Runner::configured() else { return };
    pull_request(&mut runner, "fork/mlflow");
    assert_eq!(runner.run("infra-plan.yml", "environments").conclusion, Conclusion::Skipped);
    let fork = runner.run("infra-plan.yml", "fork");
    assert!(fork.log().contains("::notice title=No plan::"), "{}", fork.log());
}

#[test]
fn without_variables_everything_is_skipped_and_green() {
    let Some(mut runner) = Runner::new() else { return };
    pull_request(&mut runner, "octo/mlflow");
    runner.inputs.insert("environment".to_owned(), json!("production"));
    for (workflow, job) in [("infra-plan.yml", "plan"), ("drift.yml", "drift"), ("infra-apply.yml", "plan")] {
        runner.needs.clear();
        let environments = runner.need(workflow, "environments");
        assert!(environments.log().contains("is left out"), "{workflow}");
        assert_eq!(runner.run(workflow, job).conclusion, Conclusion::Skipped, "{workflow}");
    }
    assert!(runner.calls().is_empty() && runner.api.log().is_empty());
}

/// A runner that was asked to apply to staging and has a plan of these changes.
fn approved(changes: &str) -> Option<Runner> {
    let mut runner = Runner::configured()?;
    runner.inputs.insert("environment".to_owned(), json!("staging"));
    runner.need("infra-apply.yml", "environments");
    runner.cargo(&[says("xtask infra plan --env staging --json", changes, 0)]);
    let plan = runner.need("infra-apply.yml", "plan");
    assert_eq!(account(&plan), "mlflow-plan@staging.iam.gserviceaccount.com");
    assert_eq!(plan.environment, None, "the plan waits for nobody");
    Some(runner)
}

fn apply(runner: &Runner, changes: &str, code: i32) -> JobResult {
    runner.cargo(&[
        says("xtask infra plan --env staging --out *temp/plan --json", changes, 0),
        says("xtask infra apply --env staging --yes --plan *temp/plan", "", code),
    ]);
    runner.run("infra-apply.yml", "apply")
}

#[test]
fn what_was_approved_is_applied_by_an_account_of_its_own() {
    let Some(runner) = approved(r#"{"changes":[{"address":"a","action":"create"}],"seconds":1}"#) else { return };
    let result = apply(&runner, r#"{"seconds":2,"changes":[{"action":"create","address":"a"}]}"#, 0);
    assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
    assert_eq!(result.environment.as_deref(), Some("staging"));
    assert_eq!(account(&result), "mlflow-apply@staging.iam.gserviceaccount.com");
    assert_eq!(runner.calls().len(), 2);
    let failed = apply(&runner, r#"{"changes":[{"action":"create","address":"a"}]}"#, 8);
    assert_eq!((failed.conclusion, failed.step("Apply").code), (Conclusion::Failure, Some(8)));
}

#[test]
fn nothing_is_applied_that_was_not_approved() {
    let Some(runner) = approved(r#"{"changes":[{"address":"a","action":"create"}]}"#) else { return };
    for changes in [
        r#"{"changes":[{"address":"a","action":"delete"}]}"#,
        r#"{"changes":[{"address":"a","action":"create"},{"address":"b","action":"create"}]}"#,
        r#"{"changes":[]}"#,
        "{}",
        "",
    ] {
        let result = apply(&runner, changes, 0);
        assert_eq!(result.conclusion, Conclusion::Failure, "{changes}");
        assert_eq!(runner.calls().len(), 1, "{changes}");
        let said = result.log();
        assert!(said.contains("::error title=Nothing was applied::"), "{changes}: {said}");
    }
}

#[test]
fn no_changes_ask_for_no_approval() {
    let Some(runner) = approved(r#"{"changes":[]}"#) else { return };
    assert_eq!(apply(&runner, "", 0).conclusion, Conclusion::Skipped);
    assert!(runner.calls().is_empty());
}

#[test]
fn an_answer_without_changes_is_no_plan() {
    for answer in ["{}", r#"{"changes":null}"#, r#"{"changes":3}"#, ""] {
        let Some(mut runner) = Runner::configured() else { return };
        runner.inputs.insert("environment".to_owned(), json!("staging"));
        runner.need("infra-apply.yml", "environments");
        runner.cargo(&[says("xtask infra plan --env staging --json", answer, 0)]);
        assert_eq!(runner.run("infra-apply.yml", "plan").conclusion, Conclusion::Failure, "{answer}");
    }
}
