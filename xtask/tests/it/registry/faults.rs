//! The table of push faults: what happens, what the user reads, and that a second run finishes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use testbed::{Fault, Home, Options, Proxy, Registry, Rule, Storage};

use super::layout::SyntheticLayout;
use super::{Outcome, assert_no_broken_tag, finish, push, push_command, read_with_skopeo, wait};

/// Sizes of the layers that are pushed.
const LAYERS: [usize; 4] = [3_000_000, 1_000_000, 200_000, 5_000];
const UPLOAD: &str = "/blobs/uploads/";

/// One fault and what is expected of it.
struct Row {
    name: &'static str,
    rules: Vec<Rule>,
    /// The exit code of the first run.
    code: i32,
    /// What stderr must contain.
    says: Vec<&'static str>,
    /// Further expectations of the first run.
    check: fn(&Outcome, &Proxy),
}

fn row(name: &'static str, rules: Vec<Rule>, code: i32, says: &[&'static str]) -> Row {
    Row { name, rules, code, says: says.to_vec(), check: |_, _| {} }
}

fn answer(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Fault {
    Fault::Answer { status, headers: headers.to_vec(), body }
}

/// No layer arrived twice: what was sent is what the image weighs.
fn nothing_twice(_: &Outcome, proxy: &Proxy) {
    let weight: usize = LAYERS.iter().sum();
    assert!(proxy.received_bytes() < weight as u64 + 5_000, "{} bytes for {weight}", proxy.received_bytes());
}

fn rows(layout: &SyntheticLayout) -> Vec<Row> {
    let largest = layout.layer(0).file_name().expect("a name").to_string_lossy().into_owned();
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let unknown = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#;
    let challenge = [("WWW-Authenticate", "Basic realm=\"test\"")];
    vec![
        row(
            "401, and there is no login",
            vec![Rule::always("POST", UPLOAD, answer(401, &challenge, denied))],
            5,
            &["does not accept an anonymous user (no docker login found)", "run `docker login 127.0.0.1:", "team/"],
        ),
        row(
            "403 on upload",
            vec![Rule::always("POST", UPLOAD, answer(403, &[], denied))],
            5,
            &[
                "does not let a request without login push layer",
                "requested access to the resource is denied",
                "docker login",
            ],
        ),
        row(
            "404, no such repository",
            vec![Rule::always("POST", UPLOAD, answer(404, &[], unknown))],
            6,
            &["there is no repository 127.0.0.1:", "NAME_UNKNOWN", "created before the first push"],
        ),
        row(
            "413 from a proxy",
            vec![Rule::always("PUT", UPLOAD, answer(413, &[], "<h1>Request Entity Too Large</h1>"))],
            6,
            &["refuses the size", "client_max_body_size"],
        ),
        Row {
            check: |outcome, _| assert!(outcome.seconds >= 2.0, "Retry-After was not kept: {} s", outcome.seconds),
            ..row(
                "429 with Retry-After, then fine",
                vec![Rule::once("PUT", UPLOAD, answer(429, &[("Retry-After", "2")], ""))],
                0,
                &["Retrying", "limits the rate"],
            )
        },
        row(
            "429 that asks for an hour",
            vec![Rule::always("POST", UPLOAD, answer(429, &[("Retry-After", "3600")], ""))],
            6,
            &["limits the rate", "the registry asks to wait 3600 s", "log in for a higher limit"],
        ),
        row("500 once", vec![Rule::once("PUT", UPLOAD, answer(500, &[], "oops"))], 0, &["HTTP 500: oops"]),
        row(
            "502 for as long as it is tried",
            vec![Rule::always("POST", UPLOAD, answer(502, &[], ""))],
            6,
            &["after 6 attempts", "HTTP 502", "run the same command again"],
        ),
        row("503 on the manifest", vec![Rule::once("PUT", "/manifests/", answer(503, &[], ""))], 0, &["HTTP 503"]),
        row(
            "reset in mid-body",
            vec![Rule::once("PUT", &largest, Fault::ResetAfter(1_000_000))],
            0,
            &["Retrying", "connection to 127.0.0.1:"],
        ),
        Row {
            check: nothing_twice,
            ..row("reset in place of the answer", vec![Rule::once("PUT", UPLOAD, Fault::ResetAnswer)], 0, &["Retrying"])
        },
        row(
            "stall in mid-body",
            vec![Rule::once("PUT", &largest, Fault::StallAfter(1_000_000))],
            0,
            &["Retrying", "took nothing for"],
        ),
        row("stall before any answer", vec![Rule::once("HEAD", "", Fault::StallAfter(0))], 0, &["does not answer"]),
        Row {
            check: nothing_twice,
            ..row("truncated answer to a layer", vec![Rule::once("PUT", UPLOAD, Fault::Truncate)], 0, &["Retrying"])
        },
        row(
            "truncated answer to the manifest",
            vec![Rule::once("PUT", "/manifests/", Fault::Truncate)],
            0,
            &["Retrying"],
        ),
        row(
            "wrong digest answered for a layer",
            vec![Rule::once("PUT", UPLOAD, Fault::WrongDigest)],
            6,
            &["answers with the digest sha256:0000", "something between here and the registry"],
        ),
        row(
            "wrong digest answered for the manifest",
            vec![Rule::once("PUT", "/manifests/", Fault::WrongDigest)],
            6,
            &["answers with the digest sha256:0000"],
        ),
        row(
            "a network that answers everything itself",
            vec![Rule::always("", "", answer(200, &[], "<html>Welcome to our hotel</html>"))],
            6,
            &["answers with the digest", "something between here and the registry"],
        ),
        row(
            "an upload session that is forgotten",
            vec![Rule::once(
                "PUT",
                UPLOAD,
                answer(404, &[], r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown"}]}"#),
            )],
            0,
            &["lost the upload"],
        ),
    ]
}

/// The first line of the error, or of the retry.
fn what_was_read(outcome: &Outcome) -> String {
    let line = |verb: &str| outcome.stderr.lines().find(|line| line.trim_start().starts_with(verb));
    let line = line("error").or_else(|| line("Retrying")).unwrap_or_default();
    line.trim().to_owned()
}

fn print_row(name: &str, outcome: &Outcome, second: &Outcome) {
    let (code, second_code) = (outcome.code.unwrap_or(-1), second.code.unwrap_or(-1));
    let what = what_was_read(outcome);
    println!("{name:<42} | exit {code:>3} | second run: exit {second_code}, {} B | {what}", second.pushed_bytes());
}

#[test]
fn every_push_fault_is_told_and_a_second_run_finishes() {
    let (Some(registry), Some(_)) = (Registry::start(), testbed::require("skopeo", "skopeo")) else { return };
    let layout = SyntheticLayout::new(100, &LAYERS);
    std::thread::scope(|scope| {
        for (number, row) in rows(&layout).into_iter().enumerate() {
            let (registry, layout) = (&registry, &layout);
            scope.spawn(move || {
                let proxy = Proxy::start(registry.address());
                let home = Home::new();
                let path = format!("team/fault-{number}:1");
                let (through, direct) = (format!("{}/{path}", proxy.host()), format!("{}/{path}", registry.host()));
                proxy.set_rules(row.rules.clone());
                let outcome = push(&home, layout, &through);
                assert_eq!(outcome.code, Some(row.code), "{}: {outcome:?}", row.name);
                for words in &row.says {
                    let flat = outcome.stderr.split_whitespace().collect::<Vec<_>>().join(" ");
                    assert!(flat.contains(words), "{}: {words:?} is not in {}", row.name, outcome.stderr);
                }
                (row.check)(&outcome, &proxy);
                assert_no_broken_tag(&home, &direct, None);

                proxy.set_rules(Vec::new());
                let second = push(&home, layout, &through);
                assert_eq!(second.code, Some(0), "{}: {second:?}", row.name);
                read_with_skopeo(&home, &direct, None).unwrap();
                print_row(row.name, &outcome, &second);
            });
        }
    });
}

#[test]
fn a_full_registry_is_named_and_the_push_goes_on_when_there_is_room() {
    if !testbed::have_namespaces() {
        return testbed::skip("this machine lets tests mount no file system of their own");
    }
    let Some(registry) = Registry::start_with(Options { storage: Storage::Small(2), ..Options::default() }) else {
        return;
    };
    let (home, layout) = (Home::new(), SyntheticLayout::new(200, &LAYERS));
    let reference = format!("{}/team/full:1", registry.host());
    let outcome = push(&home, &layout, &reference);
    assert_eq!(outcome.code, Some(6), "{outcome:?}\n{}", registry.log());
    assert!(outcome.stderr.contains("is full"), "{outcome:?}\n{}", registry.log());
    registry.grow(64);
    let second = push(&home, &layout, &reference);
    assert_eq!(second.code, Some(0), "{second:?}");
    if testbed::require("skopeo", "skopeo").is_some() {
        read_with_skopeo(&home, &reference, None).unwrap();
    }
    print_row("disk full on the registry", &outcome, &second);
}

/// Kills a push while its largest layer is on its way, the others being there.
fn killed(signal: &str, code: Option<i32>, name: &str) {
    let Some(registry) = Registry::start() else { return };
    let proxy = Proxy::start(registry.address());
    let (home, layout) = (Home::new(), SyntheticLayout::new(300, &LAYERS));
    let reference = format!("{}/team/killed:1", proxy.host());
    // The path of an upload's last request ends with the blob's digest.
    let largest = layout.layer(0).file_name().expect("a digest").to_string_lossy().into_owned();
    proxy.set_rules(vec![Rule::once("PUT", largest.as_str(), Fault::Slow(20_000))]);
    let mut command = push_command(&home, &layout, &reference);
    let begun = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Four of five blobs have arrived, one is slow.
    while proxy.log().iter().filter(|exchange| exchange.method == "PUT" && exchange.status == 201).count() < 4 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", proxy.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    testbed::run(std::path::Path::new("/bin/kill"), &[signal, &child.id().to_string()]);
    let told = Instant::now();
    let outcome = wait(child, begun);
    assert!(told.elapsed() < Duration::from_secs(3), "it took {:?} to end", told.elapsed());
    assert_eq!(outcome.code, code, "{outcome:?}");
    assert_no_broken_tag(&home, &format!("{}/team/killed:1", registry.host()), None);

    proxy.set_rules(Vec::new());
    proxy.reset();
    let second = push(&home, &layout, &reference);
    assert_eq!(second.code, Some(0), "{second:?}");
    // What the proxy had of the first push may be noted late, but then it did not arrive.
    let log = proxy.log();
    let arrived = log
        .iter()
        .filter(|exchange| exchange.method == "PUT" && exchange.path.contains(UPLOAD) && exchange.status == 201);
    let arrived: Vec<_> = arrived.map(|exchange| exchange.path.contains(&largest)).collect();
    assert_eq!(arrived, [true], "only the layer that was not finished: {log:?}");
    read_with_skopeo(&home, &reference, None).unwrap();
    print_row(name, &outcome, &second);
}

#[test]
fn a_push_goes_on_after_ctrl_c() {
    if testbed::require("skopeo", "skopeo").is_some() {
        killed("-INT", Some(130), "Ctrl-C");
    }
}

#[test]
fn a_push_goes_on_after_sigkill() {
    if testbed::require("skopeo", "skopeo").is_some() {
        killed("-KILL", None, "SIGKILL");
    }
}

#[test]
fn a_registry_that_is_not_there_is_named() {
    let (home, layout) = (Home::new(), SyntheticLayout::new(400, &[10]));
    let reference = format!("127.0.0.1:{}/team/mlflow:1", testbed::free_port());
    let outcome = push(&home, &layout, &reference);
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
    for part in ["cannot connect to 127.0.0.1:", "Connection refused", "check that the registry runs"] {
        assert!(outcome.stderr.contains(part), "{part}: {}", outcome.stderr);
    }
    // `.invalid` never resolves (RFC 2606).
    let outcome = push(&home, &layout, "registry.invalid/team/mlflow:1");
    assert_eq!(outcome.code, Some(6), "{outcome:?}");
    assert!(outcome.stderr.contains("address of registry.invalid cannot be looked up"), "{}", outcome.stderr);
}

#[test]
fn a_damaged_layer_never_reaches_the_registry() {
    let Some(registry) = Registry::start() else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(500, &[40_000, 10]));
    let file = layout.layer(0);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let reference = format!("{}/team/damaged:1", registry.host());
    for (change, why) in [(bytes.clone(), "its content has the digest"), (bytes[..100].to_vec(), "it has 100 bytes")] {
        std::fs::write(&file, change).unwrap();
        let outcome = push(&home, &layout, &reference);
        assert_eq!(outcome.code, Some(8), "{outcome:?}");
        assert!(outcome.stderr.contains("is damaged") && outcome.stderr.contains(why), "{}", outcome.stderr);
    }
    bytes[20_000] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    assert_eq!(finish(&mut push_command(&home, &layout, &reference)).code, Some(0));
}

#[test]
fn a_registry_that_lost_a_link_is_healed() {
    let Some(registry) = Registry::start() else { return };
    let (home, layout) = (Home::new(), SyntheticLayout::new(600, &[40_000, 10]));
    let reference = format!("{}/team/healed:1", registry.host());
    assert_eq!(push(&home, &layout, &reference).code, Some(0));
    // What a full disk leaves behind: empty files where the registry keeps its links.
    let repository = registry.folder().join("docker/registry/v2/repositories/team/healed");
    let digest = layout.layer(0).file_name().unwrap().to_str().unwrap().to_owned();
    let links = [format!("_layers/sha256/{digest}/link"), "_manifests/tags/1/current/link".to_owned()];
    for link in links {
        std::fs::write(repository.join(link), "").unwrap();
    }
    std::fs::remove_dir_all(repository.join("_manifests/revisions")).unwrap();
    let second = push(&home, &layout, &reference);
    assert_eq!(second.code, Some(0), "{second:?}");
    if testbed::require("skopeo", "skopeo").is_some() {
        read_with_skopeo(&home, &reference, None).unwrap();
    }
}
