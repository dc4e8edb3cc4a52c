//! What Google refuses, and what people have to be told.

use serde_json::{Value, json};
use testbed::google::{Google, Handle, Options, Project, serve};

use super::{Calls as _, Cloud, PROJECT, REGION, enabled};

/// The status and the error's fields of a call by the owner.
fn refused(google: &Google, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = google.call(method, path, Some("owner"), &body).expect("an answer");
    (status, answer["error"].clone())
}

#[test]
fn gcloud_says_what_the_project_lacks() {
    let broke = Project { billing: false, ..Project::new(PROJECT) };
    let strict = Project { constraints: vec!["iam.disableServiceAccountKeyCreation".into()], ..enabled() };
    let (Some(broke), Some(strict)) = (
        Cloud::start(Options { projects: vec![broke], ..Options::default() }),
        Cloud::start(Options { projects: vec![strict], ..Options::default() }),
    ) else {
        return;
    };
    strict.google.account("mlflow");
    let email = format!("mlflow@{PROJECT}.iam.gserviceaccount.com");
    let key = format!("iam service-accounts keys create {} --iam-account={email}", strict.home.file("key").display());
    let cases: [(&Cloud, &str, &str); 6] = [
        (&broke, "sql instances list", "SERVICE_DISABLED"),
        (&broke, "services enable sqladmin.googleapis.com", "Billing must be enabled"),
        (&broke, "sql instances list --project=somebody-elses", "does not have permission to access"),
        (&strict, &key, "Key creation is not allowed"),
        (&strict, "sql instances describe mlflow", "does not exist"),
        (&strict, "sql instances create x --tier=db-f1-micro --database-version=POSTGRES_17", "ENTERPRISE_PLUS"),
    ];
    std::thread::scope(|scope| {
        for (cloud, line, says) in cases {
            scope.spawn(move || {
                let ended = cloud.try_run(line);
                assert!(!ended.ok && ended.stderr.contains(says), "{line}: {ended:?}");
            });
        }
        for (cloud, line, pointer, value) in [
            (&broke, format!("billing projects describe {PROJECT}"), "/billingEnabled", json!(false)),
            (
                &strict,
                format!("org-policies describe iam.disableServiceAccountKeyCreation --effective --project={PROJECT}"),
                "/spec/rules/0/enforce",
                json!(true),
            ),
            (&strict, format!("compute regions describe {REGION}"), "/quotas/0/metric", json!("CPUS")),
        ] {
            scope.spawn(move || assert_eq!(cloud.run(&line).json().pointer(pointer), Some(&value), "{line}"));
        }
    });
}

#[test]
fn a_name_is_blocked_and_a_policy_is_checked() {
    let google = Google::start(Options { projects: vec![enabled()], polls: 0, ..Options::default() });
    let instances = format!("sql/v1/projects/{PROJECT}/instances");
    google.instance("mlflow");
    google.wait("DELETE", &format!("{instances}/mlflow"), Value::Null);
    let email = google.account("mlflow");
    let policy = format!("cloudresourcemanager/v1/projects/{PROJECT}:setIamPolicy");
    let bind = |member: &str| json!({ "policy": { "bindings": [{ "role": "roles/viewer", "members": [member] }] } });
    let stale = json!({ "policy": { "etag": "c3RhbGU=", "bindings": [] } });
    let again = json!({ "name": "mlflow", "databaseVersion": "POSTGRES_15", "settings": { "tier": "db-f1-micro" } });
    let pool = format!("serviceAccount:{PROJECT}.svc.id.goog[mlflow/mlflow]");
    let disk = json!({ "name": "x", "databaseVersion": "POSTGRES_15",
        "settings": { "tier": "db-f1-micro", "ipConfiguration": { "ipv4Enabled": false } } });
    for (path, body, status, says) in [
        (&instances, again, 409, "until one week from the deletion date"),
        (&instances, disk, 400, "At least one of Public IP"),
        (&policy, bind("serviceAccount:nobody@testbed-project.iam.gserviceaccount.com"), 400, "does not exist"),
        (&policy, bind(&pool), 400, "Identity Pool does not exist"),
        (&policy, bind("mlflow"), 400, "Invalid value for member"),
        (&policy, stale, 409, "concurrent policy changes"),
    ] {
        let (code, error) = refused(&google, "POST", path, body);
        assert_eq!(code, status, "{error:#}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(says)), "{error:#}");
    }
    let set = google.ask("POST", &policy, bind(&format!("serviceAccount:{email}")));
    assert_eq!(set["bindings"][0]["members"][0], format!("serviceAccount:{email}"));
}

#[test]
fn an_account_may_do_what_its_roles_allow() {
    let google = Google::start(Options { projects: vec![enabled()], polls: 0, enforce: true, ..Options::default() });
    google.instance("mlflow");
    let email = google.account("mlflow");
    let member = format!("serviceAccount:{email}");
    google.ask("POST", &format!("storage/storage/v1/b?project={PROJECT}"), json!({ "name": "mine" }));
    let token = google.token(&email);
    let settings = format!("sql/v1/projects/{PROJECT}/instances/mlflow/connectSettings");
    let (object, bucket) = ("storage/upload/storage/v1/b/mine/o?uploadType=media&name=a", "storage/storage/v1/b/mine");
    let status = |method: &str, path: &str| google.call(method, path, Some(&token), &json!("text")).unwrap().0;
    assert_eq!(status("GET", &settings), 403);
    assert_eq!(status("POST", object), 403);
    google.grant(&format!("cloudresourcemanager/v1/projects/{PROJECT}"), "roles/cloudsql.client", &member);
    let policy = json!({ "bindings": [{ "role": "roles/storage.objectUser", "members": [member] }] });
    google.ask("PUT", "storage/storage/v1/b/mine/iam", policy);
    assert_eq!(status("GET", &settings), 200);
    assert_eq!(status("POST", object), 200);
    assert_eq!(status("GET", bucket), 403, "a user of objects does not see the bucket");
    assert_eq!(status("DELETE", &format!("sql/v1/projects/{PROJECT}/instances/mlflow")), 403);
    let log = google.log();
    assert!(log.iter().any(|entry| entry.principal == email && entry.status == 403), "{log:#?}");
}

#[test]
fn one_that_runs_elsewhere_is_spoken_to_by_its_address() {
    let (send, receive) = std::sync::mpsc::channel();
    let options = Options { projects: vec![enabled()], ..Options::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(serve(options, move |handle| send.send(handle.url()).unwrap()));
    let handle = Handle::new(&receive.recv().unwrap());
    handle.set_project(&Project { billing: false, ..Project::new("second") });
    let path = "cloudbilling/v1/projects/second/billingInfo";
    let (status, answer) = handle.call("GET", path, Some("owner"), &Value::Null).unwrap();
    assert_eq!((status, &answer["billingEnabled"]), (200, &json!(false)), "{answer:#}");
    assert_eq!(handle.log().len(), 1);
    handle.clear_log();
    assert!(handle.log().is_empty());
    assert_eq!(handle.state()["projects"]["second"]["billing"], false);
    runtime.shutdown_background();
}
