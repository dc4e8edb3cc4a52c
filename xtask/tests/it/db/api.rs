//! As much of an API server as a Job needs: it keeps one Deployment, Jobs and their pods. A Job's
//! program is really run, with the pod's environment and the test's Python.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::Home;

/// What becomes of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They run after so many milliseconds.
    Run(u64),
    /// They wait with this reason.
    Wait(&'static str, &'static str),
    /// They are refused, with this event.
    Refuse(&'static str),
    /// They are put out, with the Job, while they run.
    Remove,
}

/// The API server.
#[derive(Clone)]
pub struct Api {
    shared: Arc<Mutex<Shared>>,
    pub address: String,
}

struct Shared {
    python: PathBuf,
    deployment: Option<Value>,
    fate: Fate,
    jobs: BTreeMap<String, Job>,
    made: usize,
    asked: Vec<String>,
    away: bool,
}

struct Job {
    object: Value,
    pods: Vec<Value>,
    events: Vec<Value>,
    log: String,
}

impl Api {
    /// Without a Deployment.
    pub fn start(python: PathBuf) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Shared {
            python,
            deployment: None,
            fate: Fate::Run(0),
            jobs: BTreeMap::new(),
            made: 0,
            asked: Vec::new(),
            away: false,
        };
        let api = Self { shared: Arc::new(Mutex::new(shared)), address };
        let serving = api.clone();
        // It ends with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let api = serving.clone();
                std::thread::spawn(move || api.serve(stream));
            }
        });
        api
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Deploys a server with this environment.
    pub fn deploy(&self, env: &[(&str, &str)]) {
        let env: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let labels = json!({"app.kubernetes.io/name": "mlflow", "app.kubernetes.io/component": "server"});
        let container = json!({"name": "mlflow", "image": "registry/mlflow@sha256:abc", "env": env});
        self.shared().deployment = Some(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mlflow", "namespace": "mlflow"},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }));
    }

    /// What becomes of pods from now on.
    pub fn set(&self, fate: Fate) {
        self.shared().fate = fate;
    }

    /// Whether connections are closed without an answer from now on.
    pub fn away(&self, away: bool) {
        self.shared().away = away;
    }

    /// How many Jobs were made so far, and the names of those that are there.
    pub fn jobs(&self) -> (usize, Vec<String>) {
        let shared = self.shared();
        (shared.made, shared.jobs.keys().cloned().collect())
    }

    /// Whether the only Job has ended.
    pub fn has_ended(&self) -> bool {
        self.shared().jobs.values().all(|job| !job.object["status"]["conditions"].is_null())
    }

    /// The requests so far, as METHOD PATH.
    pub fn asked(&self) -> Vec<String> {
        self.shared().asked.clone()
    }

    /// Waits until something is so.
    pub fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(120);
        while !is_so(self) {
            assert!(Instant::now() < end, "{what}: {:?}", self.asked());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn serve(&self, stream: TcpStream) {
        if self.shared().away {
            return;
        }
        let mut reader = BufReader::new(stream);
        let mut start = String::new();
        if reader.read_line(&mut start).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                break;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let mut words = start.split_whitespace();
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        self.shared().asked.push(format!("{method} {path}"));
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (status, answer) = self.answer(method, path, query, &body);
        let text = format!(
            "HTTP/1.1 {status} Test\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
            answer.len()
        );
        // Whoever has gone needs no answer.
        let _ = reader.into_inner().write_all(text.as_bytes());
    }

    fn answer(&self, method: &str, path: &str, query: &str, body: &Value) -> (u16, String) {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let json = |value: &Value| (200, value.to_string());
        match (method, parts.as_slice()) {
            ("GET", ["apis", "apps", "v1", "namespaces", "mlflow", "deployments", "mlflow"]) => {
                self.shared().deployment.as_ref().map_or_else(missing, json)
            }
            ("POST", ["apis", "batch", "v1", "namespaces", "mlflow", "jobs"]) => self.make(body),
            ("GET", ["apis", "batch", "v1", "namespaces", "mlflow", "jobs", name]) => {
                self.shared().jobs.get(*name).map_or_else(missing, |job| json(&job.object))
            }
            ("DELETE", ["apis", "batch", "v1", "namespaces", "mlflow", "jobs", name]) => {
                let mut shared = self.shared();
                let Some(job) = shared.jobs.get(*name) else { return missing() };
                if job.object["metadata"]["uid"] != body["preconditions"]["uid"] {
                    return failure(409, "Conflict", "the UID in the precondition does not match");
                }
                shared.jobs.remove(*name);
                json(&json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            ("GET", ["api", "v1", "namespaces", "mlflow", "pods", name, "log"]) => {
                let shared = self.shared();
                let job = shared.jobs.values().find(|job| job.pods.iter().any(|pod| pod["metadata"]["name"] == *name));
                job.map_or_else(missing, |job| (200, job.log.clone()))
            }
            ("GET", ["api", "v1", "namespaces", "mlflow", kind @ ("pods" | "events")]) => {
                let shared = self.shared();
                let of = |job: &Job| if *kind == "pods" { job.pods.clone() } else { job.events.clone() };
                let wanted = |name: &str| *kind == "events" || query.contains(&format!("job-name%3D{name}"));
                let items: Vec<Value> =
                    shared.jobs.iter().filter(|(name, _)| wanted(name)).flat_map(|(_, job)| of(job)).collect();
                json(&json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            _ => missing(),
        }
    }

    fn make(&self, body: &Value) -> (u16, String) {
        let mut shared = self.shared();
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if shared.jobs.contains_key(&name) {
            return failure(409, "AlreadyExists", &format!("jobs.batch {name:?} already exists"));
        }
        shared.made += 1;
        let uid = format!("uid-{}", shared.made);
        let mut object = body.clone();
        object["metadata"]["uid"] = json!(uid);
        let (fate, python) = (shared.fate, shared.python.clone());
        let mut job = Job { object: object.clone(), pods: Vec::new(), events: Vec::new(), log: String::new() };
        match fate {
            Fate::Refuse(message) => job.events.push(json!({
                "metadata": {"name": "e"}, "involvedObject": {"uid": uid}, "reason": "FailedCreate",
                "message": message, "firstTimestamp": "2026-11-28T00:00:00Z",
            })),
            Fate::Wait(reason, message) => {
                job.pods.push(pod(
                    &uid,
                    &object,
                    "Pending",
                    json!({"waiting": {"reason": reason, "message": message}}),
                ));
            }
            Fate::Run(_) | Fate::Remove => job.pods.push(pod(&uid, &object, "Running", json!({"running": {}}))),
        }
        shared.jobs.insert(name.clone(), job);
        drop(shared);
        let api = self.clone();
        let created = object.clone();
        match fate {
            Fate::Run(wait) => {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(wait));
                    api.run(&python, &name, &uid, &object);
                });
            }
            Fate::Remove => {
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(300));
                    let mut shared = api.shared();
                    shared.jobs.remove(&name);
                    shared.fate = Fate::Run(0);
                });
            }
            Fate::Wait(..) | Fate::Refuse(_) => {}
        }
        (201, created.to_string())
    }

    /// As the kubelet and the Job controller do.
    fn run(&self, python: &Path, name: &str, uid: &str, object: &Value) {
        let container = &object["spec"]["template"]["spec"]["containers"][0];
        let mut program: Vec<&str> =
            container["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(program.remove(0), "python");
        let home = Home::new();
        let mut command = home.command(python);
        command.args(program).env("MLFLOW_DISABLE_TELEMETRY", "true").env("GIT_PYTHON_REFRESH", "quiet");
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap_or_default(), variable["value"].as_str().unwrap_or_default());
        }
        let output = command.stdin(Stdio::null()).output().expect("python starts");
        let code = output.status.code().unwrap_or(-1);
        let log = [output.stderr, output.stdout].concat();
        let mut shared = self.shared();
        // It may have been removed, or made anew, meanwhile.
        let Some(job) = shared.jobs.get_mut(name).filter(|job| job.object["metadata"]["uid"] == uid) else { return };
        job.log = String::from_utf8_lossy(&log).into_owned();
        let (phase, condition, reason) = match code {
            0 => ("Succeeded", "Complete", "CompletionsReached"),
            _ => ("Failed", "Failed", "BackoffLimitExceeded"),
        };
        job.pods = vec![pod(uid, object, phase, json!({"terminated": {"exitCode": code, "reason": "Ended"}}))];
        job.object["status"] = json!({"conditions": [{"type": condition, "status": "True", "reason": reason}]});
    }
}

fn pod(uid: &str, job: &Value, phase: &str, state: Value) -> Value {
    let name = job["metadata"]["name"].as_str().unwrap_or_default();
    let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "controller": true});
    let status =
        json!({"name": "mlflow", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    json!({
        "metadata": {"name": format!("{name}-{uid}"), "uid": format!("pod-{uid}"), "ownerReferences": [owner]},
        "spec": job["spec"]["template"]["spec"],
        "status": {"phase": phase, "containerStatuses": [status]},
    })
}

fn missing() -> (u16, String) {
    failure(404, "NotFound", "not found")
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, String) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message,
    });
    (code, status.to_string())
}
