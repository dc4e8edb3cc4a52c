//! The real `cargo xtask infra` in a workflow: terraform, and a Google that is not the real one.

use testbed::actions::{Action, Conclusion};
use testbed::cluster::{Silent, go_candidates};
use testbed::google::{Google, Options};
use testbed::terraform::{TOOLS, prepare};
use testbed::{require, skip};

use super::infra::pull_request;
use super::repository;
use super::runner::Runner;
use crate::image::{copy, copy_project};
use crate::node::programs;

const DEPLOY: &str = r#"
[environment.staging]
kind = "gke"
[environment.staging.infra]
project = "testbed-project"
region = "europe-west4"
"#;

#[test]
fn a_change_is_shown_approved_and_applied_with_terraform() {
    for (tool, package) in TOOLS.iter().chain([&("terraform", "terraform, from HashiCorp's own packages")]) {
        let Some(_) = require(tool, package) else { return };
    }
    if go_candidates().is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{}", testbed::cluster::GO);
        return skip(testbed::cluster::GO);
    }
    let Some(mut runner) = Runner::configured() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an async runtime");
    let mirror = runtime.block_on(prepare(&programs(), &Silent)).expect("terraform's mirror");
    let google = Google::start(Options { polls: 0, ..Options::default() });
    let checkout = runner.home.path().join("checkout");
    copy_project(&checkout);
    for folder in [".github", "terraform", "kubernetes"] {
        copy(&repository().join(folder), &checkout.join(folder));
    }
    std::fs::write(checkout.join("deploy.toml"), DEPLOY).expect("a file");
    runner.workspace = checkout;
    // What the login leaves behind, as far as terraform and its provider look at it.
    let mirror = mirror
        .environment()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.into_string().expect("a path that is text")));
    let env = google.terraform_env().into_iter().chain(mirror).collect();
    runner.actions.insert("./.github/actions/setup".to_owned(), Action { env, ..Action::default() });
    runner.real_cargo();
    pull_request(&mut runner, super::runner::REPOSITORY);
    runner.need("infra-plan.yml", "environments");

    let result = runner.run_for("staging", "infra-plan.yml", "plan");
    assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
    let [comment] = &runner.api.comments()[..] else { panic!("one comment") };
    for text in [&comment.body, &result.summary] {
        assert!(text.contains("to create") && text.contains("google_storage_bucket"), "{text}");
    }

    // What was shown is approved and applied; then there is nothing left to show.
    runner.inputs.insert("environment".to_owned(), "staging".into());
    let pull_request = std::mem::take(&mut runner.needs);
    runner.need("infra-apply.yml", "environments");
    let plan = runner.need("infra-apply.yml", "plan");
    assert_ne!(plan.outputs["changes"], "0");
    let apply = runner.run("infra-apply.yml", "apply");
    assert_eq!(apply.conclusion, Conclusion::Success, "{}", apply.log());
    assert!(runner.workspace.join(".infra/staging/outputs.json").is_file());
    // The same approval again: it is no longer what would be done.
    let again = runner.run("infra-apply.yml", "apply");
    assert_eq!(again.step("It is what was approved").conclusion, Conclusion::Failure, "{}", again.log());
    runner.needs = pull_request;
    let result = runner.run_for("staging", "infra-plan.yml", "plan");
    assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
    let [comment] = &runner.api.comments()[..] else { panic!("still one comment") };
    assert!(comment.body.contains("nothing to change"), "{}", comment.body);
}
