//! checkov, a scanner for infrastructure code, at a pinned version from PyPI.

use std::path::PathBuf;

use testbed::{Home, command, require};

use super::{folder, told};
use crate::node::programs;

/// The scanner in an environment of its own, kept in the cache until other versions are pinned.
fn checkov() -> Option<PathBuf> {
    let python = require("python3", "python3-venv")?;
    let requirements = folder().join("tests/requirements.txt");
    let pinned = std::fs::read_to_string(&requirements).expect("the pinned packages");
    let dir = programs().join("checkov");
    let program = dir.join("bin/checkov");
    // Written last, so that what a crash left is not taken for whole.
    let whole = dir.join("requirements.txt");
    if std::fs::read_to_string(&whole).ok().as_deref() != Some(&pinned) {
        std::fs::create_dir_all(programs()).expect("a cache");
        let venv = command(&python).args(["-m", "venv", "--clear"]).arg(&dir).output();
        told(&["venv"], &venv.expect("python starts"));
        let mut pip = command(dir.join("bin/pip"));
        pip.args(["install", "--quiet", "--no-cache-dir", "--require-hashes", "-r"]).arg(&requirements);
        told(&["pip"], &pip.output().expect("pip starts"));
        std::fs::write(&whole, &pinned).expect("a file");
    }
    Some(program)
}

#[test]
fn a_scanner_finds_nothing_that_is_not_explained() {
    if !testbed::nightly("checkov's look at terraform/") {
        return;
    }
    let Some(checkov) = checkov() else { return };
    let home = Home::new();
    let mut scan = home.command(checkov);
    scan.args(["--framework", "terraform", "--skip-download", "-o", "json", "-d"]);
    scan.arg(folder());
    // Nobody is to be called: whoever is would not be reached.
    scan.env("HTTPS_PROXY", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
    let report: serde_json::Value =
        serde_json::from_str(&told(&["checkov"], &scan.output().expect("checkov starts"))).expect("a report");
    let summary = &report["summary"];
    assert_eq!((summary["failed"].as_u64(), summary["parsing_errors"].as_u64()), (Some(0), Some(0)), "{summary}");
    assert!(summary["passed"].as_u64() > Some(40), "{summary}");
    let explained = report["results"]["skipped_checks"].as_array().map_or(0, Vec::len);
    assert_eq!(Some(explained as u64), summary["skipped"].as_u64());
    for skipped in report["results"]["skipped_checks"].as_array().into_iter().flatten() {
        let reason = skipped["check_result"]["suppress_comment"].as_str().unwrap_or_default();
        assert!(reason.split_whitespace().count() > 3, "{} is not explained: {reason:?}", skipped["check_id"]);
    }
}
