//! Artifacts in a bucket, through a server whose temporary folder is smaller than they are.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::google::{Google, Options, Project};

use super::server::{Database, Server};

const BUCKET: &str = "artifacts";

/// Two chunks and a half.
const LARGE: usize = 20 << 20;

/// Room for 8 MiB, beside what is never given away.
const SCRATCH: usize = 72 << 20;

/// A server, and the bucket behind it.
struct World {
    google: Google,
    server: Server,
}

impl World {
    fn new() -> Option<Self> {
        let project = Project { enabled: vec!["storage.googleapis.com".to_owned()], ..Project::default() };
        let path = format!("storage/storage/v1/b?project={}", project.id);
        let google = Google::start(Options { projects: vec![project], ..Options::default() });
        let made = google.call("POST", &path, Some("testbed-owner"), &json!({ "name": BUCKET })).expect("an answer");
        assert_eq!(made.0, 200, "{}", made.1);
        let server = Server::start_with(&Database::sqlite(), |home, command| {
            super::as_in_the_image(command);
            command.args(["--artifacts-destination", &format!("gs://{BUCKET}")]);
            command.env("STORAGE_EMULATOR_HOST", google.url());
            command
                .env("MLFLOW_SERVER_SCRATCH", SCRATCH.to_string())
                .env("TMPDIR", home.file("tmp/x").parent().unwrap());
        })?;
        Some(Self { google, server })
    }

    /// Begins a request; the body is for the caller to send.
    fn begin(&self, method: &str, name: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let path = format!("/api/2.0/mlflow-artifacts/artifacts/{name}");
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        write!(stream, "{head}Content-Length: {length}\r\n\r\n").expect("the server reads");
        stream
    }

    /// Status and body.
    fn ask(&self, method: &str, name: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut stream = self.begin(method, name, body.len());
        stream.write_all(body).expect("the server reads");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("the server answers");
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = &answer[end..];
        (status, if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_vec() })
    }

    /// The objects in the bucket: name and content type.
    fn objects(&self) -> Vec<(String, String)> {
        let state = self.google.state();
        let objects = state["resources"]["storage.objects"].as_object().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        objects.values().map(|object| (text(&object["name"]), text(&object["contentType"]))).collect()
    }

    /// Requests to the bucket that send bytes.
    fn sent(&self) -> usize {
        let log = self.google.log();
        log.iter().filter(|entry| entry.path.contains("upload/") && entry.method != "GET").count()
    }

    /// Bytes of the files in the server's temporary folder.
    fn spooled(&self) -> u64 {
        let mut folders = vec![self.server.home.path().join("tmp")];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.metadata() {
                    Ok(data) if data.is_dir() => folders.push(entry.path()),
                    Ok(data) => bytes += data.len(),
                    Err(_) => {}
                }
            }
        }
        bytes
    }
}

/// A chunked body (RFC 9112, section 7.1).
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n").expect("a size");
        let size = std::str::from_utf8(&body[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let size = size.expect("a number");
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ (at >> 16) as u8).collect()
}

#[test]
fn artifacts_pass_through_and_downloads_that_do_not_fit_are_refused() {
    let Some(world) = World::new() else { return };
    let large = content(LARGE);
    for (name, size) in [("1/empty", 0), ("1/small.json", 1_000), ("1/exact.bin", 16 << 20), ("1/large.bin", LARGE)] {
        let before = world.sent();
        assert_eq!(world.ask("PUT", name, &large[..size]).0, 200, "{name}");
        // One request for a small one; otherwise one that begins, one for each chunk and one for the rest.
        let requests = if size < 8 << 20 { 1 } else { 2 + size / (8 << 20) };
        assert_eq!(world.sent() - before, requests, "{name}: {:#?}", world.google.log());
    }
    assert_eq!(world.spooled(), 0, "an upload is on the disk");
    let kinds = world.objects();
    assert!(kinds.contains(&("1/small.json".to_owned(), "application/json".to_owned())), "{kinds:?}");
    assert!(kinds.contains(&("1/large.bin".to_owned(), "application/octet-stream".to_owned())), "{kinds:?}");

    for (name, size) in [("1/empty", 0), ("1/small.json", 1_000)] {
        let (status, body) = world.ask("GET", name, b"");
        assert!(status == 200 && body == large[..size], "{name}: {status}, {} bytes", body.len());
    }
    let (status, body) = world.ask("GET", "1/large.bin", b"");
    let said = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 400, "{said}");
    assert!(said.contains("set scratch to 1Gi or more") && said.contains("INVALID_PARAMETER_VALUE"), "{said}");
    assert_eq!(world.ask("GET", "1/nothing", b"").0, 500, "as MLflow answers it");
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let Some(world) = World::new() else { return };
    let mut stream = world.begin("PUT", "1/broken.bin", LARGE);
    stream.write_all(&content(12 << 20)).expect("the server reads");
    let deadline = Instant::now() + Duration::from_secs(60);
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(Instant::now() < deadline, "{what}: {:#?}\n{}", world.google.log(), world.server.log_tail());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    until("a chunk is sent", &|| world.sent() >= 2);
    drop(stream);
    let is_ended = || world.google.log().iter().any(|entry| entry.service == "storage" && entry.method == "DELETE");
    until("the upload is ended", &is_ended);
    assert_eq!(world.objects(), []);
    // It is none that hangs: the next one is served.
    assert_eq!(world.ask("PUT", "1/whole.bin", &content(LARGE)).0, 200);
    assert_eq!(world.objects().len(), 1);
}
