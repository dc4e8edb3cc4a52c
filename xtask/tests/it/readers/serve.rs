//! MLflow, started from the image by programs that run containers: the image's own entry point and
//! user, a read-only root, and nothing to write to but an empty /tmp.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::{Home, Service, free_port};

use super::containerd::Containerd;
use super::containers::Containers;

/// A start takes 4 to 10 s on a quiet machine.
const DEADLINE: Duration = Duration::from_secs(150);

/// What the server is told by its environment, as in a deployment.
fn settings(port: u16) -> [String; 2] {
    ["MLFLOW_HOST=127.0.0.1".to_owned(), format!("MLFLOW_PORT={port}")]
}

/// Asked inside the container: the server's user, whether the root is read-only, whether /tmp is not.
const PROBE: &str = "import os; status = open('/proc/1/status').read(); \
    uid = status.split('Uid:')[1].split()[0]; read_only = bool(os.statvfs('/').f_flag & os.ST_RDONLY); \
    open('/tmp/probe', 'w').close(); print(uid, os.getuid(), read_only)";

const EXPECTED: &str = "65532 65532 True";

const PYTHON: &str = "/opt/mlflow/bin/python";

/// runc on a bundle as umoci made it, with these changes: no terminal, the host's network, a
/// read-only root, /tmp.
pub fn runc(home: &Home, runc: &Path, bundle: &Path) {
    let port = free_port();
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("a config")).expect("JSON");
    config["process"]["terminal"] = false.into();
    config["root"]["readonly"] = true.into();
    let environment = config["process"]["env"].as_array_mut().expect("an environment");
    environment.extend(settings(port).map(Value::from));
    let mounts = config["mounts"].as_array_mut().expect("mounts");
    // runc cannot mount what this machine's cgroups are not.
    mounts.retain(|mount| mount["type"] != "cgroup");
    mounts.push(json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] }));
    let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
    namespaces.retain(|namespace| namespace["type"] != "network");
    std::fs::write(&path, config.to_string()).expect("a config");

    let id = format!("mlflow-{}", std::process::id());
    let state = home.path().join("runc");
    let with = |args: &[&str]| {
        let mut command = home.command(runc);
        command.arg("--root").arg(&state).args(args);
        command
    };
    let started = with(&["run", "--bundle", bundle.to_str().expect("a UTF-8 path"), &id]);
    let container = Container { service: None, end: vec![with(&["delete", "--force", &id])] };
    let container = container.start(started, home.path().join("runc.log"));
    container.assert_serves(port);
    assert_eq!(output(with(&["exec", &id, PYTHON, "-c", PROBE])), EXPECTED);
}

/// podman on an image.
pub fn podman(podman: &Containers, image: &str) {
    let port = free_port();
    let [host, port_setting] = settings(port);
    let name = "mlflow";
    // Where the limits that podman would raise must not be raised, these are within any.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let mut args = vec!["run", "--name", name, "--network", "host", "--read-only", "--read-only-tmpfs=false"];
    args.extend(["--tmpfs", "/tmp", "--env", &host, "--env", &port_setting]);
    args.extend(limits);
    args.push(image);
    let container = Container { service: None, end: vec![podman.command(&["rm", "--force", "--time", "5", name])] };
    let container = container.start(podman.command(&args), podman.file("log"));
    container.assert_serves(port);
    assert_eq!(output(podman.command(&["exec", name, PYTHON, "-c", PROBE])), EXPECTED);
}

/// containerd's own client on an image.
pub fn containerd(containerd: &Containerd, image: &str) {
    let port = free_port();
    let [host, port_setting] = settings(port);
    let id = "mlflow";
    let tmp = "type=tmpfs,src=tmpfs,dst=/tmp,options=nosuid:nodev:mode=1777";
    let args = ["run", "--net-host", "--read-only", "--mount", tmp, "--env", &host, "--env", &port_setting, image, id];
    let end = vec![
        containerd.ctr(&["tasks", "kill", "--signal", "SIGKILL", "--all", id]),
        containerd.ctr(&["tasks", "delete", "--force", id]),
        containerd.ctr(&["containers", "delete", id]),
    ];
    let container = Container { service: None, end }.start(containerd.ctr(&args), containerd.file("server.log"));
    container.assert_serves(port);
    let probe = ["tasks", "exec", "--exec-id", "probe", "--user", "65532:65532", id, PYTHON, "-c", PROBE];
    assert_eq!(output(containerd.ctr(&probe)), EXPECTED);
}

/// A running container; ended by its own program when dropped.
struct Container {
    service: Option<Service>,
    end: Vec<Command>,
}

impl Container {
    fn start(mut self, command: Command, log: std::path::PathBuf) -> Self {
        self.service = Some(Service::start(command, log));
        self
    }

    /// /health answers 200 within the deadline.
    fn assert_serves(&self, port: u16) {
        let begun = Instant::now();
        let log = || self.service.as_ref().map_or_else(String::new, Service::log);
        loop {
            match status(port, "/health") {
                Some(200) => break,
                Some(other) => panic!("/health answered {other}: {}", log()),
                None => assert!(begun.elapsed() < DEADLINE, "nobody answers on port {port}: {}", log()),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(status(port, "/"), Some(200), "the UI: {}", log());
        eprintln!("served after {:.1} s", begun.elapsed().as_secs_f64());
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        for command in &mut self.end {
            // What has ended already cannot be ended.
            let _ = command.output();
        }
    }
}

/// The status of a GET request; `None` while nobody listens.
fn status(port: u16, path: &str) -> Option<u16> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n").ok()?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.strip_prefix("HTTP/1.1 ")?.parse().ok()
}

fn output(mut command: Command) -> String {
    let output = command.output().expect("the program starts");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
