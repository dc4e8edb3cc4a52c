//! A run that is stopped in the middle: the next one carries on from there.

use std::process::{Child, Stdio};

use testbed::google::{Fault, OperationFault, Rule};

use super::is_full;
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
    assert_eq!((ran.code, ran.changed()), (Some(0), Some(false)), "{} {}", ran.out, ran.err);
    let clean = Site::new(site.via, "").expect("what the other had");
    assert_eq!(clean.apply().code, Some(0));
    assert_eq!(site.state(), clean.state());
}

fn kill(signal: &str, of: &[String]) {
    let status = testbed::command("kill").arg(format!("-{signal}")).arg("--").args(of).status();
    assert!(status.expect("kill starts").success(), "{signal} {of:?}");
}

#[test]
fn ctrl_c_in_the_middle_of_an_apply() {
    for via in [Via::Terraform, Via::Gcloud] {
        if via == Via::Gcloud && !is_full() {
            continue;
        }
        let Some(site) = Site::new(via, "") else { return };
        let mut child = begun(&site);
        kill("INT", &[child.id().to_string()]);
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{via:?}");
        is_carried_on(&site);
    }
}

#[test]
fn death_in_the_middle_of_an_apply() {
    for via in [Via::Terraform, Via::Gcloud] {
        if via == Via::Gcloud && !is_full() {
            continue;
        }
        let Some(site) = Site::new(via, "") else { return };
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
