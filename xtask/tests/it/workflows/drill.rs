//! The weekly proof that backups can be restored.

use testbed::actions::{Conclusion, JobResult};

use super::runner::{Runner, account, says};

const CALLS: [&str; 3] = [
    "xtask infra outputs --env staging",
    "xtask db backup --env staging --reason drill",
    "xtask db drill --env staging",
];
const DOCTOR: &str = "xtask doctor --env staging";

/// A runner that knows which environments are drilled.
fn runner(drills: &str) -> Option<Runner> {
    let mut runner = Runner::configured()?;
    runner.vars.insert("MLFLOW_DRILLS".to_owned(), drills.to_owned());
    Some(runner)
}

fn week(runner: &mut Runner, codes: [i32; 2]) -> JobResult {
    runner.inputs.insert("only".to_owned(), "staging".into());
    runner.need("drill.yml", "environments");
    let [backup, drill] = codes;
    let [outputs, first, second] = CALLS;
    runner.cargo(&[says(outputs, "", 0), says(first, "", backup), says(second, "", drill), says(DOCTOR, "", 12)]);
    runner.run_for("staging", "drill.yml", "drill")
}

#[test]
fn a_backup_is_taken_and_proven_as_the_deploy_account() {
    let Some(mut runner) = runner("staging") else { return };
    let result = week(&mut runner, [0, 0]);
    assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
    assert_eq!(account(&result), "mlflow-deploy@staging.iam.gserviceaccount.com");
    assert_eq!(result.environment.as_deref(), Some("staging"));
    assert_eq!(runner.calls(), CALLS);
}

#[test]
fn a_drill_that_fails_fails_the_week() {
    for (codes, step) in [([6, 0], "Back up"), ([0, 12], "Drill")] {
        let Some(mut runner) = runner("staging") else { return };
        let result = week(&mut runner, codes);
        assert_eq!((result.conclusion, result.step(step).code), (Conclusion::Failure, Some(codes.into_iter().sum())));
        assert_eq!(runner.calls().last().map(String::as_str), Some(DOCTOR));
    }
}

#[test]
fn nobody_is_drilled_who_did_not_ask() {
    let Some(runner) = runner("") else { return };
    assert_eq!(runner.run("drill.yml", "environments").conclusion, Conclusion::Skipped);
    assert!(runner.calls().is_empty());
}
