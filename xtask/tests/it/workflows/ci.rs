//! This repository's own workflow.

use testbed::actions::{Action, Conclusion};

use super::runner::{Runner, says};

#[test]
fn the_tests_run_as_root_with_the_toolchain_that_cargo_toml_asks_for() {
    let Some(mut runner) = Runner::new() else { return };
    runner.actions.insert("actions/setup-python".to_owned(), Action::default());
    for (job, event, command) in [
        ("ci", "push", "cargo xtask ci"),
        ("registry-provider", "schedule", "cargo xtask e2e topology --full --provider registry --install"),
        ("registry-provider", "workflow_dispatch", "cargo xtask e2e topology --full --provider registry --install"),
    ] {
        runner.event_name = event.to_owned();
        runner.script("sudo", &[says("*", "", 0)]);
        let result = runner.run("ci.yml", job);
        assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
        let sudo = runner.calls_of("sudo");
        let run = sudo.iter().find(|call| call.ends_with(command)).unwrap_or_else(|| panic!("{sudo:?}"));
        assert!(run.starts_with("--preserve-env env PATH=/") && run.contains(" HOME=/"), "{run}");
        let rustup = format!("toolchain install {} --profile minimal", env!("CARGO_PKG_RUST_VERSION"));
        assert!(runner.calls_of("rustup").iter().any(|call| call.starts_with(&rustup)));
        assert!(!result.steps.iter().any(|step| step.name == "Login at Google" && !step.with.is_empty()));

        runner.script("sudo", &[says("*cargo xtask*", "", 1), says("*", "", 0)]);
        let failed = runner.run("ci.yml", job);
        assert_eq!(failed.conclusion, Conclusion::Failure);
        assert_eq!(failed.step("Give the caches back").conclusion, Conclusion::Success);
    }
    runner.event_name = "pull_request".to_owned();
    assert_eq!(runner.run("ci.yml", "registry-provider").conclusion, Conclusion::Skipped);
}

#[test]
fn each_night_what_commits_leave_out_is_run() {
    let Some(mut runner) = Runner::new() else { return };
    runner.actions.insert("actions/setup-python".to_owned(), Action::default());
    for (job, command) in [
        ("tests", "test --nightly --install"),
        ("scenarios", "e2e --nightly --install"),
        ("upgrades", "e2e upgrade-faults --full --install"),
        ("capacity", "e2e load large-artifact --full --jobs 1 --install"),
    ] {
        for (code, conclusion) in [(0, Conclusion::Success), (1, Conclusion::Failure)] {
            runner.script("sudo", &[says(&format!("*cargo xtask {command}"), "", code), says("*", "", 0)]);
            let result = runner.run("nightly.yml", job);
            assert_eq!(result.conclusion, conclusion, "{}", result.log());
        }
    }
}

#[test]
fn what_the_program_and_the_image_stand_on_is_looked_at_even_if_one_part_fails() {
    let Some(mut runner) = Runner::new() else { return };
    runner.actions.insert("actions/setup-python".to_owned(), Action::default());
    let deny = "deny check --config .cargo/deny.toml";
    let audit = "--strict --require-hashes --no-deps --disable-pip --requirement mlflow_server/requirements.lock";
    // What `python -m venv` makes are two more programs that note how they are called.
    let pip = says("-m venv *", "", 0);
    for (code, conclusion) in [(0, Conclusion::Success), (1, Conclusion::Failure)] {
        runner.cargo(&[says(deny, "", code), says("install cargo-deny --version *", "", 0)]);
        runner.script("python", std::slice::from_ref(&pip));
        let result = runner.run("ci.yml", "supply-chain");
        assert!(runner.calls().iter().any(|call| call == deny), "{:?}", runner.calls());
        assert_eq!(result.step("cargo deny").conclusion, conclusion, "{}", result.log());
        assert_eq!(runner.calls_of("python").len(), 1, "{}", result.log());
    }
    let text = std::fs::read_to_string(super::repository().join(".github/workflows/ci.yml")).expect("a workflow");
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "\\").collect();
    assert!(words.join(" ").contains(audit), "pip-audit is not called with {audit}");
}
