//! A run that is stopped in the middle: the next one carries on from there.

use std::process::{Child, Stdio};

use testbed::google::{Fault, OperationFault, Rule};

use super::site::{Site, Via, until};

/// An apply that is at work on the instance.
fn begun(site: &Site) -> Child {
    site.google.fail(&Rule::once("sql", "POST", "/instances$", Fault::Operation(OperationFault::Slow(4))));
    let mut command = site.command(&["apply", "--yes"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("xtask starts");
    let is_making = || {
        let log = site.google.log();
        log.iter().any(|entry| entry.service == "sql" && entry.method == "POST" && entry.path.ends_with("/instances"))
    };
    until("the instance's beginning", is_making);
    child
}

/// The same command again completes, and the next has nothing to do.
fn is_carried_on(site: &Site) {
    let ran = site.apply();
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let ran = site.apply();
    assert_eq!((ran.code, ran.changed()), (Some(0), Some(false)), "{}", ran.out);
    let clean = Site::new(site.via).expect("what the other had");
    assert_eq!(clean.apply().code, Some(0));
    assert_eq!(site.state(), clean.state());
}

/// Looking changes nothing: what terraform would make anew is only shown to be kept, and no plan that
/// would make it anew is handed out.
fn is_only_looked_at(site: &Site) {
    let state = || {
        let folder = site.root().join("terraform/terraform.tfstate.d/cloud");
        std::fs::read_to_string(folder.join("terraform.tfstate")).expect("terraform's state")
    };
    let before = state();
    assert!(before.contains("\"status\": \"tainted\""), "{before}");
    let ran = site.infra(&["plan"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("it is kept") && !ran.out.contains("replace"), "{}", ran.out);
    let out = site.home.path().join("kept");
    let ran = site.infra(&["plan", "--out", &out.display().to_string()]);
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert!(ran.cause().contains("google_sql_database_instance") && !out.exists(), "{}", ran.err);
    assert_eq!(state(), before);
}

fn kill(signal: &str, of: &[String]) {
    let status = testbed::command("kill").arg(format!("-{signal}")).arg("--").args(of).status();
    assert!(status.expect("kill starts").success(), "{signal} {of:?}");
}

#[test]
fn ctrl_c_in_the_middle_of_an_apply() {
    for via in [Via::Terraform, Via::Gcloud] {
        let Some(site) = Site::new(via) else { return };
        let mut child = begun(&site);
        kill("INT", &[child.id().to_string()]);
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{via:?}");
        is_carried_on(&site);
    }
}

#[test]
fn what_holds_data_is_kept_though_nobody_saw_its_making_end() {
    let Some(site) = Site::new(Via::Terraform) else { return };
    // terraform calls it tainted: made, and not read.
    site.google.fail(&Rule::once("sql", "GET", "/instances/mlflow$", Fault::PermissionDenied));
    let ran = site.apply();
    assert_eq!(ran.code, Some(15), "{}", ran.err);
    is_only_looked_at(&site);
    let made = |site: &Site| {
        let log = site.google.log();
        log.iter().filter(|entry| entry.method == "POST" && entry.path.ends_with("/instances")).count()
    };
    assert_eq!(made(&site), 1);
    is_carried_on(&site);
    assert_eq!(made(&site), 1, "the instance was made anew");
}

#[test]
fn death_in_the_middle_of_an_apply() {
    for via in [Via::Terraform, Via::Gcloud] {
        let Some(site) = Site::new(via) else { return };
        let mut child = begun(&site);
        let id = child.id();
        let children = std::fs::read_dir(format!("/proc/{id}/task"))
            .expect("threads")
            .filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("children")).ok());
        // Each is the leader of its group.
        let groups = children.collect::<Vec<_>>().join(" ");
        let mut all: Vec<String> = groups.split_whitespace().map(|leader| format!("-{leader}")).collect();
        assert!(!all.is_empty(), "{via:?} is not at work");
        all.push(id.to_string());
        kill("KILL", &all);
        assert_eq!(child.wait().expect("it ends").code(), None);
        is_carried_on(&site);
    }
}
