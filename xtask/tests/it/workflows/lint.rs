//! What others say of `.github`: actionlint, with shellcheck for the run steps, and zizmor.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use testbed::cluster::{ACTIONLINT, Silent, go_candidates, provide_in};
use testbed::{Home, require};

use super::repository;
use crate::mlflow::envs::Python;
use crate::node::programs;

fn says_nothing(mut command: Command) {
    let output = command.current_dir(repository()).stdin(Stdio::null()).output().expect("the checker starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
}

fn below(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join(folder)).expect("a folder of .github");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn actionlint_and_shellcheck_report_nothing() {
    let Some(shellcheck) = require("shellcheck", "shellcheck") else { return };
    if go_candidates().is_empty() {
        assert!(std::env::var_os("CI").is_none(), "{}", testbed::cluster::GO);
        return testbed::skip(testbed::cluster::GO);
    }
    let home = Home::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an async runtime");
    let dir = runtime.block_on(provide_in(&programs(), false, &ACTIONLINT, &Silent)).expect("actionlint is built");
    let mut actionlint = home.command(dir.join("actionlint"));
    actionlint.arg("-no-color").arg("-shellcheck").arg(&shellcheck).arg("-pyflakes=").args(below(".github/workflows"));
    says_nothing(actionlint);
    let mut scripts = home.command(shellcheck);
    scripts.args(below(".github/scripts"));
    says_nothing(scripts);
}

#[test]
fn zizmor_reports_nothing() {
    let Some(zizmor) = Python::tool("zizmor", include_str!("../../workflows/zizmor.txt")) else { return };
    let home = Home::new();
    let mut command = home.command(zizmor.program("zizmor"));
    // Its strictest persona, and a file that it cannot read is a failure.
    command.args(["--offline", "--persona", "auditor", "--strict-collection", "--no-progress", "--color=never", "."]);
    says_nothing(command);
}
