//! `render`: what is printed for those who apply objects with another tool.

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use testbed::Home;

use crate::image;

const IMAGE: &str = "a.example.com/b@sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const DEPLOY: &str = r#"
[image]
repository = "a.example.com/b"
platforms = ["linux/amd64"]
[environment.lab]
kind = "kubernetes"
context = "nowhere"
[environment.lab.database]
uri-variable = "URI"
[environment.lab.artifacts]
uri = "gs://bucket"
"#;

fn render(project: &Path, home: &Home, uri: &str, args: &[&str]) -> Output {
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.args(["render"]).args(args).env("URI", uri).env("CARGO_MANIFEST_DIR", project).stdin(Stdio::null());
    command.output().expect("xtask starts")
}

fn project(home: &Home) -> std::path::PathBuf {
    let root = home.path().join("project");
    image::copy_project(&root);
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    image::copy(&from.join("kubernetes"), &root.join("kubernetes"));
    fs::write(root.join("deploy.toml"), DEPLOY).expect("a file");
    root
}

#[test]
fn the_locks_foretell_the_image_and_no_secret_is_printed() {
    let home = Home::new();
    let project = project(&home);
    // A password that is in nothing else.
    let password = format!("p{}", std::process::id());
    let uri = format!("postgresql://user:{password}@db/mlflow");
    let printed = render(&project, &home, &uri, &["--env", "lab"]);
    let text = String::from_utf8(printed.stdout).expect("UTF-8");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    assert!(text.contains("image: a.example.com/b@sha256:"), "{text}");
    assert!(text.contains("# data: database-uri (left out"), "{text}");
    assert!(!text.contains(&password));
    assert_eq!(text.matches("\n---\n").count() + 1, text.matches("apiVersion: ").count());
    let again = render(&project, &home, &uri, &["--env", "lab"]);
    assert_eq!(String::from_utf8_lossy(&again.stdout), text, "the same objects again");

    let json = render(&project, &home, &uri, &["--env", "lab", "--json", "--image", IMAGE]);
    let answer: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(answer["image"], IMAGE);
    let kinds: Vec<_> = answer["objects"].as_array().expect("objects").iter().map(|one| &one["kind"]).collect();
    assert_eq!(kinds.len(), text.matches("apiVersion: ").count());
    assert!(
        answer["objects"]
            .as_array()
            .expect("objects")
            .iter()
            .all(|one| one["kind"] != "Secret" || one["data"].is_null())
    );
}

#[test]
fn what_cannot_be_rendered_is_refused_with_the_fix() {
    let home = Home::new();
    let project = project(&home);
    let uri = "postgresql://db/mlflow";
    for (uri, args, code, expected) in [
        (uri, &["--env", "local"][..], 2, "not in a cluster"),
        (uri, &["--env", "lab", "--image", "a.example.com/b:latest"], 2, "has no digest"),
        (uri, &["--env", "lba"], 3, "did you mean \"lab\"?"),
        ("", &["--env", "lab"], 3, "database.uri-variable"),
        ("mysql://db/mlflow", &["--env", "lab"], 3, "PostgreSQL only"),
    ] {
        let output = render(&project, &home, uri, args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.contains(expected) && output.stdout.is_empty(), "{args:?}: {text}");
    }
    fs::remove_file(project.join("kubernetes/service.yaml")).expect("a file");
    let output = render(&project, &home, uri, &["--env", "lab", "--image", IMAGE]);
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
}
