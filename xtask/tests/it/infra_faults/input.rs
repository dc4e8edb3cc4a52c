//! What people get wrong, and what others do: a clear error with its exit code, and nothing lost.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use serde_json::{Value, json};
use testbed::google::{Fault, OperationFault, Project, Rule};

use super::site::{OTHER, PROJECT, Ran, Site, Via, ended, until};

/// The run has ended with this code, and says all of this.
fn fails(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, Some(code), "{}", ran.err);
    let cause = ran.cause();
    says.iter().for_each(|text| assert!(cause.contains(text), "{text:?} is not in: {cause}"));
    println!("exit {code}: {cause:.300}");
}

/// The run is through.
fn completes(site: &Site) {
    let ran = site.apply();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(site.apply().changed(), Some(false));
}

fn both() -> impl Iterator<Item = Site> {
    [Via::Terraform, Via::Gcloud].into_iter().filter_map(Site::new)
}

#[test]
fn nobody_is_logged_in() {
    for site in both() {
        let mut command = site.command(&["apply", "--yes"]);
        command.env_remove("GOOGLE_OAUTH_ACCESS_TOKEN").env_remove("CLOUDSDK_AUTH_ACCESS_TOKEN_FILE");
        fails(&ended(command), 5, &["login"]);
        assert!(site.google.log().is_empty());
    }
}

#[test]
fn the_project_is_not_one() {
    for site in both() {
        site.configure("nobodys-project", "");
        fails(&site.apply(), 3, &["nobodys-project", "project", "gcloud projects list"]);
    }
}

#[test]
fn an_api_is_switched_off_by_someone() {
    for site in both() {
        completes(&site);
        let api = format!("serviceusage/v1/projects/{PROJECT}/services/sqladmin.googleapis.com");
        site.by_hand("POST", &format!("{api}:disable"), json!({}));
        // terraform asks for the instance before it switches anything on.
        if site.via == Via::Terraform {
            let hint = "gcloud services enable sqladmin.googleapis.com";
            fails(&site.apply(), 18, &["google_sql", hint]);
            site.by_hand("POST", &format!("{api}:enable"), json!({}));
        }
        completes(&site);
    }
}

#[test]
fn nobody_pays_for_the_project() {
    for site in both() {
        site.google.set_project(&Project { billing: false, ..Project::new(PROJECT) });
        fails(&site.apply(), 18, &["billing account"]);
        site.google.set_project(&Project::new(PROJECT));
        completes(&site);
    }
}

#[test]
fn a_quota_is_used_up() {
    for site in both() {
        let quota = Fault::QuotaExceeded("INSTANCES".to_owned());
        site.google.fail(&Rule::once("sql", "POST", "/instances$", quota));
        fails(&site.apply(), 18, &["INSTANCES", "quota"]);
        completes(&site);
    }
}

#[test]
fn the_bucket_is_somebody_elses() {
    for site in both() {
        let enable = format!("serviceusage/v1/projects/{OTHER}/services/storage.googleapis.com:enable");
        site.by_hand("POST", &enable, json!({}));
        let bucket = format!("{PROJECT}-mlflow");
        site.by_hand("POST", &format!("storage/storage/v1/b?project={OTHER}"), json!({ "name": bucket }));
        fails(&site.apply(), 16, &["bucket", "set `bucket`"]);
        site.configure(PROJECT, "bucket = \"another-bucket\"\n");
        completes(&site);
    }
}

#[test]
fn the_name_is_of_an_instance_that_was_deleted() {
    for site in both() {
        let enable = format!("serviceusage/v1/projects/{PROJECT}/services/sqladmin.googleapis.com:enable");
        site.by_hand("POST", &enable, json!({}));
        let instances = format!("sql/v1/projects/{PROJECT}/instances");
        let settings = json!({ "tier": "db-f1-micro", "edition": "ENTERPRISE" });
        let body = json!({ "name": "mlflow", "databaseVersion": "POSTGRES_17", "region": "europe-west1", "settings": settings });
        let made = site.by_hand("POST", &instances, body);
        operation_ends(&site, &made);
        let gone = site.by_hand("DELETE", &format!("{instances}/mlflow"), Value::Null);
        operation_ends(&site, &gone);
        fails(&site.apply(), 16, &["instance", "week", "`instance`"]);
        site.configure(PROJECT, "instance = \"another\"\n");
        completes(&site);
    }
}

fn operation_ends(site: &Site, operation: &Value) {
    let path = format!("sql/v1/projects/{PROJECT}/operations/{}", operation["name"].as_str().unwrap_or_default());
    until("an operation's end", || site.by_hand("GET", &path, Value::Null)["status"] == "DONE");
}

#[test]
fn a_bucket_exists_with_other_settings() {
    for site in both() {
        let enable = format!("serviceusage/v1/projects/{PROJECT}/services/storage.googleapis.com:enable");
        site.by_hand("POST", &enable, json!({}));
        let body = json!({ "name": format!("{PROJECT}-mlflow"), "location": "EUROPE-WEST1" });
        site.by_hand("POST", &format!("storage/storage/v1/b?project={PROJECT}"), body);
        let bucket = || site.state()["resources"]["storage.buckets"].clone();
        let before = bucket();
        match site.via {
            Via::Terraform => {
                fails(&site.apply(), 16, &["google_storage_bucket", "versioning", "--adopt"]);
                assert_eq!(bucket(), before);
                let adopted = site.infra(&["apply", "--yes", "--adopt"]);
                assert_eq!(adopted.code, Some(0), "{}", adopted.err);
                assert_ne!(bucket(), before);
                completes(&site);
            }
            Via::Gcloud => {
                let ran = site.apply();
                assert_eq!(ran.code, Some(0), "{}", ran.err);
                let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
                let changes = answer["changes"].as_array().expect("changes");
                assert!(changes.iter().any(|change| change["action"] == "drift"), "{answer:#}");
                let protected = |bucket: &Value| bucket.pointer("/iamConfiguration").cloned();
                assert_eq!(protected(&bucket()), protected(&before));
            }
        }
    }
}

#[test]
fn an_operation_never_ends() {
    // gcloud's is in infra_gcloud.rs.
    let Some(site) = Site::new(Via::Terraform) else { return };
    let endless = Fault::Operation(OperationFault::Slow(8));
    site.google.fail(&Rule::once("sql", "POST", "/instances$", endless));
    let mut command = site.command(&["apply", "--yes"]);
    command.env("XTASK_INFRA_OPERATION_SECONDS", "5");
    fails(&ended(command), 6, &["google_sql_database_instance", "run the same command again"]);
    completes(&site);
}

#[test]
fn the_tool_is_missing_or_too_old() {
    for site in both() {
        let bin = site.home.file("bin/terraform");
        let path = bin.parent().expect("a folder");
        let with_path = |site: &Site| {
            let mut command = site.command(&["apply", "--yes"]);
            command.env("PATH", path);
            ended(command)
        };
        fails(&with_path(&site), 7, &[site.via.name(), "is not installed", "install"]);
        if site.via == Via::Terraform {
            std::fs::write(&bin, "#!/bin/sh\necho '{\"terraform_version\": \"1.5.7\"}'\n").expect("a file");
            std::fs::set_permissions(&bin, std::fs::Permissions::from_mode(0o755)).expect("a mode");
            fails(&with_path(&site), 7, &["terraform 1.5.7 is too old", "1.11"]);
        }
        assert!(site.google.log().is_empty());
        completes(&site);
    }
}

#[test]
fn the_state_is_locked_by_someone() {
    let Some(site) = Site::new(Via::Terraform) else { return };
    // Makes the folder ready for a terraform by hand.
    assert_eq!(site.infra(&["plan"]).code, Some(0));
    let folder = site.root().join("terraform");
    let mut by_hand = site.command(&[]);
    let env: Vec<_> =
        by_hand.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    by_hand = site.home.command("terraform");
    by_hand.args(["apply", "-no-color", "-var-file=environments/cloud.tfvars.json"]).envs(env).current_dir(&folder);
    by_hand.env("TF_DATA_DIR", site.root().join(".infra/cloud/terraform")).env("TF_WORKSPACE", "cloud");
    let mut holder =
        by_hand.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("terraform starts");
    until("the lock", || folder.join("terraform.tfstate.d/cloud/.terraform.tfstate.lock.info").exists());
    let who = site.apply();
    holder.kill().expect("it runs");
    holder.wait().expect("it ends");
    fails(&who, 9, &["Who:", "--lock-wait"]);
    completes(&site);
}

#[test]
fn the_plan_is_an_old_one() {
    for site in both() {
        let file = site.home.file("plan");
        let file = file.to_str().expect("a path");
        let planned = site.infra(&["plan", "--out", file]);
        assert_eq!(planned.code, Some(0), "{}", planned.err);
        completes(&site);
        let before = site.google.state();
        fails(&site.infra(&["apply", "--plan", file]), 4, &["has changed", "plan again"]);
        assert_eq!(site.google.state(), before);
    }
}
