//! What is attached to a pushed image.

use std::process::Stdio;

use serde_json::Value;
use testbed::{Home, Registry};

use super::{Project, answer, failure, lend};

#[test]
fn what_is_attached_to_a_pushed_image_is_verified_and_can_be_required() {
    let Some(registry) = Registry::start() else { return };
    let repository = format!("{}/mlflow", registry.host());
    let home = Home::new();
    ["downloads", "blobs", "layers", "bytecode"].iter().for_each(|folder| lend(&home, folder));
    let project = Project::new(home.path().join("project"));
    let push = |tag: &str| {
        answer(project.command(&home, &["--locked", "--offline", "--push", "--repository", &repository, "--tag", tag]))
    };
    let verify = |reference: &str| {
        let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
        command.args(["verify-image", "--json", reference]).current_dir(&project.root).stdin(Stdio::null());
        command.env("XTASK_IMAGE_REQUIRE", "sbom,provenance");
        command
    };
    let pushed = push("1");
    let first = answer(verify(&format!("{repository}:1")));
    assert_eq!((&first["digest"], &first["foretold_by_locks"]), (&pushed["digest"], &Value::Bool(true)));
    let kinds: Vec<_> = first["attached"].as_array().expect("a list").iter().map(|found| &found["kind"]).collect();
    assert_eq!(kinds, ["sbom", "provenance", "sbom", "sbom"], "of the index, then of each platform");
    assert_eq!(first["manifests"], 3);

    // The same image again, under another tag: nothing piles up.
    assert_eq!(push("2")["digest"], pushed["digest"]);
    assert_eq!(answer(verify(&format!("{repository}:2")))["attached"], first["attached"]);

    // An image that came without documents, and one that is not there.
    let layout = home.path().join("out");
    let output = format!("oci:{}", layout.display());
    answer(project.command(&home, &["--locked", "--offline", "--no-bytecode", "--output", &output]));
    let bare = format!("{repository}/bare:1");
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.args(["push-layout", "--json"]).arg(&layout).arg(&bare).stdin(Stdio::null());
    answer(command);
    let (code, error) = failure(verify(&bare));
    assert_eq!(code, 17, "{error}");
    assert!(error.contains("has no bill of materials, which is required"), "{error}");
    assert_eq!(failure(verify(&format!("{repository}:3"))).0, 17);
}
