//! Pushing to a real registry, in peace and behind a proxy that breaks things.

mod faults;
pub mod layout;
mod login;
mod tls;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use testbed::{Home, Proxy, Registry};

use layout::SyntheticLayout;

/// Longer than any push of a synthetic layout takes, retries included.
const DEADLINE: Duration = Duration::from_secs(90);

/// What a run of the program answered.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    seconds: f64,
}

impl Outcome {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn pushed_bytes(&self) -> u64 {
        self.json()["pushed_bytes"].as_u64().expect("pushed_bytes")
    }
}

fn push_command(home: &Home, layout: &SyntheticLayout, reference: &str) -> Command {
    let mut command = home.command(env!("CARGO_BIN_EXE_xtask"));
    command.args(["push-layout", "--json"]).arg(layout.dir()).arg(reference).env("XTASK_REGISTRY_STALL_SECONDS", "2");
    command
}

fn push(home: &Home, layout: &SyntheticLayout, reference: &str) -> Outcome {
    finish(push_command(home, layout, reference).stdin(std::process::Stdio::null()))
}

/// Runs to the end, within a deadline.
fn finish(command: &mut Command) -> Outcome {
    use std::process::Stdio;
    let begun = Instant::now();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("xtask starts");
    wait(child, begun)
}

fn wait(mut child: std::process::Child, begun: Instant) -> Outcome {
    let id = child.id();
    let watch = std::thread::spawn(move || {
        let Output { status, stdout, stderr } = {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
            std::thread::scope(|scope| {
                use std::io::Read as _;
                scope.spawn(|| stdout.as_mut().map(|pipe| pipe.read_to_end(&mut out)));
                scope.spawn(|| stderr.as_mut().map(|pipe| pipe.read_to_end(&mut err)));
            });
            Output { status: child.wait().expect("xtask ends"), stdout: out, stderr: err }
        };
        (status, stdout, stderr)
    });
    while !watch.is_finished() {
        assert!(begun.elapsed() < DEADLINE, "process {id} has not ended in {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (status, stdout, stderr) = watch.join().expect("the output");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Outcome { code: status.code(), stdout: text(stdout), stderr: text(stderr), seconds }
}

/// What skopeo, a reader of other people's, makes of a tag: `Ok` when it could copy the manifest
/// and every blob, with right digests.
fn read_with_skopeo(home: &Home, reference: &str, login: Option<&str>) -> Result<(), String> {
    let target = tempfile::tempdir().expect("a temporary folder");
    let mut command = home.command("skopeo");
    command.args(["--insecure-policy", "copy", "--all", "--quiet", "--src-tls-verify=false"]);
    if let Some(login) = login {
        command.args(["--src-creds", login]);
    }
    command.arg(format!("docker://{reference}")).arg(format!("dir:{}", target.path().display()));
    let output = command.output().expect("skopeo starts");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A tag is absent or complete.
fn assert_no_broken_tag(home: &Home, reference: &str, login: Option<&str>) {
    if let Err(why) = read_with_skopeo(home, reference, login) {
        assert!(why.contains("manifest unknown") || why.contains("name unknown"), "{reference}: {why}");
    }
}

#[test]
fn a_push_that_changes_nothing_is_one_question() {
    let (Some(registry), Some(_)) = (Registry::start(), testbed::require("skopeo", "skopeo")) else { return };
    let proxy = Proxy::start(registry.address());
    let (home, layout) = (Home::new(), SyntheticLayout::new(1, &[300_000, 20_000, 5]));
    let reference = format!("{}/team/mlflow:1", proxy.host());

    let first = push(&home, &layout, &reference);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert_eq!(first.pushed_bytes(), proxy.received_bytes(), "what is reported is what arrived");
    assert_eq!(first.json()["tag_moved"], true);
    assert!(!proxy.log().iter().any(|exchange| exchange.chunked), "a body was sent in chunks");
    assert_eq!(proxy.count("PATCH", ""), 0);
    let order: Vec<_> = proxy.log().iter().filter(|e| e.method == "PUT").map(|e| e.path.clone()).collect();
    assert!(order.last().is_some_and(|path| path.ends_with("/manifests/1")), "the tag comes last: {order:?}");
    read_with_skopeo(&home, &reference, None).unwrap();

    proxy.reset();
    let second = push(&home, &layout, &reference);
    assert_eq!((second.pushed_bytes(), &second.json()["tag_moved"]), (0, &serde_json::Value::Bool(false)));
    let asked: Vec<_> = proxy.log().iter().map(|e| format!("{} {}", e.method, e.path)).collect();
    assert_eq!(asked, ["HEAD /v2/team/mlflow/manifests/1"]);

    // A new tag on an image that is there is one question more and the manifest.
    proxy.reset();
    let third = push(&home, &layout, &format!("{}/team/mlflow:2", proxy.host()));
    assert!(third.pushed_bytes() < 2_000, "{third:?}");
    let asked: Vec<_> = proxy.log().iter().map(|e| e.method.clone()).collect();
    assert_eq!(asked, ["HEAD", "HEAD", "PUT"]);
    eprintln!("nothing changed: {:.3} s", second.seconds);
}

#[test]
fn two_pushes_at_once_both_succeed() {
    let (Some(registry), Some(_)) = (Registry::start(), testbed::require("skopeo", "skopeo")) else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(10, &[2_000_000, 30_000]));
    let reference = format!("{}/team/mlflow:1", registry.host());
    let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| push(&home, &layout, &reference))).collect();
        runs.into_iter().map(|run| run.join().expect("a run")).collect()
    });
    assert!(outcomes.iter().all(|outcome| outcome.code == Some(0)), "{outcomes:?}");
    read_with_skopeo(&home, &reference, None).unwrap();
}

#[test]
fn a_proxy_for_the_internet_is_not_asked_for_loopback() {
    let Some(registry) = Registry::start() else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(11, &[100]));
    let mut command = push_command(&home, &layout, &format!("{}/team/mlflow:1", registry.host()));
    let nobody = format!("http://127.0.0.1:{}", testbed::free_port());
    let outcome = finish(command.env("HTTP_PROXY", &nobody).env("http_proxy", &nobody).env("ALL_PROXY", &nobody));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
}

#[test]
fn one_changed_layer_is_all_that_is_sent() {
    let Some(registry) = Registry::start() else { return };
    let proxy = Proxy::start(registry.address());
    let home = Home::new();
    let reference = format!("{}/team/mlflow:1", proxy.host());
    let before = SyntheticLayout::new(1, &[2_000_000, 500_000, 30_000]);
    assert_eq!(push(&home, &before, &reference).code, Some(0));
    proxy.reset();
    let after = before.with_last_layer_changed();
    let outcome = push(&home, &after, &reference);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(proxy.received_bytes() < 33_000, "{} bytes", proxy.received_bytes());
    // Layer and config.
    assert_eq!(proxy.count("PUT", "/blobs/uploads/"), 2);
}

#[test]
fn another_repository_gets_its_layers_by_mounting() {
    let (Some(registry), Some(_)) = (Registry::start(), testbed::require("skopeo", "skopeo")) else { return };
    let proxy = Proxy::start(registry.address());
    let (home, layout) = (Home::new(), SyntheticLayout::new(2, &[400_000, 10_000]));
    assert_eq!(push(&home, &layout, &format!("{}/team/one:1", proxy.host())).code, Some(0));
    proxy.reset();
    let reference = format!("{}/team/two:1", proxy.host());
    let outcome = push(&home, &layout, &reference);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(proxy.count("POST", "mount=sha256"), 3);
    assert!(proxy.received_bytes() < 2_000, "{} bytes", proxy.received_bytes());
    read_with_skopeo(&home, &reference, None).unwrap();

    // A memory that is wrong: the registry answers 202 and gets an upload.
    let other = Registry::start().unwrap();
    let pushed = std::fs::read_dir(home.path().join("cache/mlflow-on-kubernetes/pushed")).unwrap();
    let memory = pushed.flatten().next().unwrap().path();
    std::fs::copy(&memory, memory.with_file_name(format!("{}.json", other.host().replace(':', "_")))).unwrap();
    let reference = format!("{}/team/three:1", other.host());
    let outcome = push(&home, &layout, &reference);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.pushed_bytes() > 410_000);
    read_with_skopeo(&home, &reference, None).unwrap();
}
