//! Calls that fail on purpose.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::google::{Fault, Google, OperationFault, Options, Rule};

use super::{Calls as _, Cloud, PROJECT, enabled};

fn start() -> Google {
    Google::start(Options { projects: vec![enabled()], ..Options::default() })
}

#[test]
fn a_rule_makes_the_calls_fail_that_it_names() {
    let google = start();
    let path = format!("iam/v1/projects/{PROJECT}/serviceAccounts");
    let policy = "iam.disableServiceAccountKeyCreation";
    for (fault, status, name, reason) in [
        (Fault::PermissionDenied, 403, "PERMISSION_DENIED", "forbidden"),
        (Fault::RateLimited, 429, "RESOURCE_EXHAUSTED", "rateLimitExceeded"),
        (Fault::QuotaExceeded("CPUS".into()), 403, "PERMISSION_DENIED", "quotaExceeded"),
        (Fault::Policy(policy.into()), 400, "FAILED_PRECONDITION", "failedPrecondition"),
        (Fault::Status(500), 500, "INTERNAL", "backendError"),
        (Fault::Status(503), 503, "UNAVAILABLE", "backendError"),
    ] {
        google.clear_faults();
        google.fail(&Rule { skip: 1, ..Rule::once("iam", "GET", "projects/*/serviceAccounts", fault.clone()) });
        let answers: Vec<(u16, Value)> =
            (0..3).map(|_| google.call("GET", &path, Some("owner"), &Value::Null).unwrap()).collect();
        let codes: Vec<u16> = answers.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes, [200, status, 200], "{fault:?}");
        let error = &answers[1].1["error"];
        assert_eq!((&error["status"], &error["errors"][0]["reason"]), (&json!(name), &json!(reason)), "{error:#}");
    }
    let broken = google.log().iter().filter(|entry| entry.broken && entry.status >= 400).count();
    assert_eq!(broken, 6);
}

#[test]
fn a_lost_answer_has_its_effect_and_a_closed_connection_has_none() {
    let google = start();
    let path = format!("iam/v1/projects/{PROJECT}/serviceAccounts");
    let made =
        |google: &Google| google.state()["resources"]["iam.serviceAccounts"].as_object().map_or(0, |all| all.len());
    for (fault, name, count) in [(Fault::Closed, "closed", 0), (Fault::AnswerLost, "lost-answer", 1)] {
        google.fail(&Rule::once("iam", "POST", "serviceAccounts", fault));
        let body = json!({ "accountId": name });
        google.call("POST", &path, Some("owner"), &body).unwrap_err();
        assert_eq!(made(&google), count, "{name}");
    }
    google.fail(&Rule::once("iam", "GET", "", Fault::Hang));
    let waits = google.call("GET", &path, Some("owner"), &Value::Null).unwrap_err();
    assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock, "{waits}");
}

#[test]
fn operations_are_slow_endless_or_fail() {
    let Some(cloud) = Cloud::start(Options { projects: vec![enabled()], ..Options::default() }) else { return };
    let google = &cloud.google;
    let (instances, repositories) = ("/instances", "/repositories");
    let fails = OperationFault::Fails { code: 429, message: "The quota of instances is used up.".into() };
    google.fail(&Rule::once("sql", "POST", instances, Fault::Operation(fails)));
    google.fail(&Rule::once("artifactregistry", "POST", repositories, Fault::Operation(OperationFault::Slow(4))));
    let sql = "sql instances create mlflow --database-version=POSTGRES_15 --tier=db-f1-micro --edition=ENTERPRISE \
        --region=europe-west4";
    let (failed, slow) = std::thread::scope(|scope| {
        let failed = scope.spawn(|| cloud.try_run(sql));
        let slow = scope.spawn(|| {
            cloud.run("artifacts repositories create mlflow --repository-format=docker --location=europe-west4")
        });
        (failed.join().unwrap(), slow.join().unwrap())
    });
    assert!(!failed.ok && failed.stderr.contains("The quota of instances is used up."), "{failed:?}");
    assert!(slow.ok);
    let state = google.state();
    let instance = &state["resources"]["sql.instances"][format!("projects/{PROJECT}/instances/mlflow")];
    assert_eq!(instance["state"], "FAILED", "{state:#}");
    let polls = google
        .log()
        .iter()
        .filter(|entry| entry.service == "artifactregistry" && entry.path.contains("/operations/"))
        .count();
    // Four times running, then done; on a busy machine time counts for the polls that gcloud did not make.
    assert!((2..=5).contains(&polls), "asked {polls} times");
    google.fail(&Rule::once("sql", "POST", instances, Fault::Operation(OperationFault::Endless)));
    let body = json!({ "name": "never", "databaseVersion": "POSTGRES_15", "settings": { "tier": "db-f1-micro" } });
    let begun = google.ask("POST", &format!("sql/v1/projects/{PROJECT}/instances"), body);
    std::thread::sleep(Duration::from_millis(3200));
    let path = format!("sql/v1/projects/{PROJECT}/operations/{}", begun["name"].as_str().unwrap());
    assert_eq!(google.ask("GET", &path, Value::Null)["status"], "RUNNING");
    let busy = format!("sql/v1/projects/{PROJECT}/instances/never/databases");
    let (status, answer) = google.call("POST", &busy, Some("owner"), &json!({ "name": "x" })).unwrap();
    assert_eq!((status, &answer["error"]["errors"][0]["reason"]), (409, &json!("operationInProgress")), "{answer:#}");
}
