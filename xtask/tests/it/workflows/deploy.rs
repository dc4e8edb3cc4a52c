//! One image, through staging to production.

use serde_json::json;
use testbed::actions::{Conclusion, JobResult};

use super::runner::{Runner, account, says};

const IMAGE: &str = "europe-west1-docker.pkg.dev/p/mlflow/server@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// What `config` says where nothing is signed, as far as it is read.
const NOTHING_SIGNED: &str =
    r#"{"settings":[{"key":"image.sign","value":null},{"key":"image.require","value":"sbom, provenance"}]}"#;

/// A runner that has built the image.
fn built() -> Option<Runner> {
    let mut runner = Runner::configured()?;
    runner.need("deploy.yml", "environments");
    let answer = json!({ "image": IMAGE, "pushed": true }).to_string();
    runner.cargo(&[
        says("xtask config --env staging --json", NOTHING_SIGNED, 0),
        says("xtask infra outputs --env staging", "", 0),
        says("xtask build-image --push --env staging --json", &answer, 0),
    ]);
    let build = runner.need("deploy.yml", "build");
    assert_eq!(build.outputs["image"], IMAGE);
    assert_eq!(account(&build), "mlflow-deploy@staging.iam.gserviceaccount.com");
    Some(runner)
}

fn deploy(runner: &mut Runner, environment: &str, codes: [i32; 2]) -> JobResult {
    let [config, outputs, deploy, smoke, doctor] = ["config", "infra outputs", "deploy", "smoke", "doctor"]
        .map(|what| format!("xtask {what} --env {environment}"));
    let config = format!("{config} --json");
    let deploy = format!("{deploy} --image {IMAGE}");
    let [first, second] = codes;
    runner.cargo(&[
        says(&config, NOTHING_SIGNED, 0),
        says(&outputs, "", 0),
        says(&deploy, "", first),
        says(&smoke, "", second),
        says(&doctor, "", 12),
    ]);
    runner.run("deploy.yml", environment)
}

#[test]
fn the_digest_that_staging_proved_goes_to_production() {
    let Some(mut runner) = built() else { return };
    for environment in ["staging", "production"] {
        let result = deploy(&mut runner, environment, [0, 0]);
        assert_eq!(result.conclusion, Conclusion::Success, "{}", result.log());
        assert_eq!(result.environment.as_deref(), Some(environment));
        assert_eq!(account(&result), format!("mlflow-deploy@{environment}.iam.gserviceaccount.com"));
        assert_eq!(runner.calls().len(), 4, "the doctor is for failures");
        runner.needs.insert(environment.to_owned(), result);
    }
}

#[test]
fn what_fails_in_staging_never_reaches_production() {
    for codes in [[10, 0], [0, 12]] {
        let Some(mut runner) = built() else { return };
        let staging = deploy(&mut runner, "staging", codes);
        assert_eq!(staging.conclusion, Conclusion::Failure);
        assert_eq!(runner.calls().last().map(String::as_str), Some("xtask doctor --env staging"));
        runner.needs.insert("staging".to_owned(), staging);
        assert_eq!(deploy(&mut runner, "production", [0, 0]).conclusion, Conclusion::Skipped);
        assert!(runner.calls().is_empty());
    }
}

#[test]
fn staging_alone_is_enough() {
    let Some(mut runner) = built() else { return };
    runner.vars.insert("MLFLOW_PRODUCTION".to_owned(), String::new());
    let environments = runner.need("deploy.yml", "environments");
    assert!(environments.log().contains("MLFLOW_PRODUCTION is not set"), "{}", environments.log());
    let staging = deploy(&mut runner, "staging", [0, 0]);
    runner.needs.insert("staging".to_owned(), staging);
    assert_eq!(deploy(&mut runner, "production", [0, 0]).conclusion, Conclusion::Skipped);
}

#[test]
fn a_fresh_fork_builds_nothing() {
    let Some(mut runner) = Runner::new() else { return };
    runner.need("deploy.yml", "environments");
    let build = runner.run("deploy.yml", "build");
    assert_eq!(build.conclusion, Conclusion::Skipped);
    runner.needs.insert("build".to_owned(), build);
    assert_eq!(deploy(&mut runner, "staging", [0, 0]).conclusion, Conclusion::Skipped);
    assert!(runner.calls().is_empty());
}

#[test]
fn only_a_digest_is_passed_on() {
    for answer in [r#"{"image":"r/mlflow:latest"}"#, r#"{"image":null}"#, "{}", ""] {
        let Some(mut runner) = Runner::configured() else { return };
        runner.need("deploy.yml", "environments");
        runner.cargo(&[
            says("xtask config --env staging --json", NOTHING_SIGNED, 0),
            says("xtask infra outputs --env staging", "", 0),
            says("xtask build-image --push --env staging --json", answer, 0),
        ]);
        assert_eq!(runner.run("deploy.yml", "build").conclusion, Conclusion::Failure, "{answer}");
    }
}

#[test]
fn cosign_is_installed_where_there_are_signatures() {
    for (sign, require, wanted) in [
        ("null", "null", false),
        ("\"none\"", "\"sbom, provenance\"", false),
        ("\"keyless\"", "null", true),
        ("null", "\"sbom, signature\"", true),
        ("null", "\"signature\"", true),
    ] {
        let Some(mut runner) = Runner::configured() else { return };
        runner.need("deploy.yml", "environments");
        let settings = format!(
            r#"{{"settings":[{{"key":"image.sign","value":{sign}}},{{"key":"image.require","value":{require}}}]}}"#
        );
        let answer = json!({ "image": IMAGE }).to_string();
        runner.cargo(&[
            says("xtask config --env staging --json", &settings, 0),
            says("xtask infra outputs --env staging", "", 0),
            says("xtask build-image --push --env staging --json", &answer, 0),
        ]);
        let build = runner.need("deploy.yml", "build");
        let expected = if wanted { Conclusion::Success } else { Conclusion::Skipped };
        assert_eq!(build.step("cosign").conclusion, expected, "{sign} {require}: {}", build.log());
    }
}
