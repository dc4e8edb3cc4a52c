//! What the cluster says about a namespace, and when it said so first: the clock against which the
//! program's verdict is measured.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::Result;
use crate::kube::Kube;
use crate::stamp::Stamp;

/// How often the cluster is asked: the error of a sign's time.
const INTERVAL: Duration = Duration::from_millis(200);

/// Waiting for this is the ordinary course of things.
const ORDINARY: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// A first sign that something is wrong.
#[derive(Clone, Debug)]
pub struct Sign {
    /// When it happened, by the cluster's own time where it gives one, else when it was seen.
    pub at: Stamp,
    /// The object, the reason and the message.
    pub what: String,
}

/// A line of the new pods' logs that is a sign.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// A part of the line.
    pub text: &'static str,
}

/// Looks at a namespace until it is stopped.
pub struct Watch {
    stop: Arc<AtomicBool>,
    signs: Arc<Mutex<Vec<Sign>>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look; what is wrong already, and the pods that are there, do not count.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub fn start(kube: &Kube, namespace: &str, log: Option<Log>) -> Result<Self> {
        let (stop, signs) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let begun = Stamp::now();
        let old = pods(kube, namespace)?.iter().filter_map(uid).collect::<BTreeSet<_>>();
        let mut known: BTreeSet<String> = events(kube, namespace)?.iter().filter_map(event_key).collect();
        let (kube, namespace) = (kube.clone(), namespace.to_owned());
        let (ended, found) = (Arc::clone(&stop), Arc::clone(&signs));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // An API server that is away has nothing to say.
                let (pods, events) = (pods(&kube, &namespace), events(&kube, &namespace));
                let now = Stamp::now();
                let mut add = |key: String, at: Option<Stamp>, what: String| {
                    if known.insert(key) {
                        // Times without fractions may lie before the beginning.
                        let at = at.map_or(now, |at| at.min(now).max(begun));
                        found.lock().expect("no watcher panics").push(Sign { at, what });
                    }
                };
                for pod in pods.iter().flatten().filter(|pod| uid(pod).is_some_and(|uid| !old.contains(&uid))) {
                    of_pod(pod, &mut add);
                    if let Some(log) = log {
                        of_log(&kube, &namespace, pod, log, &mut add);
                    }
                }
                for event in events.iter().flatten().filter(|event| event["type"] == "Warning") {
                    let Some(key) = event_key(event) else { continue };
                    let time = ["eventTime", "firstTimestamp"].iter().find_map(|key| event[*key].as_str());
                    let object = &event["involvedObject"];
                    let what = format!(
                        "{}/{} {}: {}",
                        text(&object["kind"]),
                        text(&object["name"]),
                        text(&event["reason"]),
                        text(&event["message"])
                    );
                    add(key, time.and_then(Stamp::parse), what);
                }
                std::thread::sleep(INTERVAL);
            }
        });
        Ok(Self { stop, signs, thread: Some(thread) })
    }

    /// What was seen so far, in the order in which it happened.
    pub fn signs(&self) -> Vec<Sign> {
        let mut signs = self.signs.lock().expect("no watcher panics").clone();
        signs.sort_by_key(|sign| sign.at);
        signs
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn pods(kube: &Kube, namespace: &str) -> Result<Vec<Value>> {
    kube.list(&format!("/api/v1/namespaces/{namespace}/pods"))
}

fn events(kube: &Kube, namespace: &str) -> Result<Vec<Value>> {
    kube.list(&format!("/api/v1/namespaces/{namespace}/events"))
}

fn uid(object: &Value) -> Option<String> {
    object["metadata"]["uid"].as_str().map(str::to_owned)
}

/// An event is counted up when it happens again: it is new by its reason, not by its count.
fn event_key(event: &Value) -> Option<String> {
    Some(format!("event {} {}", uid(event)?, text(&event["reason"])))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn of_pod(pod: &Value, add: &mut dyn FnMut(String, Option<Stamp>, String)) {
    let name = text(&pod["metadata"]["name"]);
    for condition in pod["status"]["conditions"].as_array().into_iter().flatten() {
        if condition["type"] == "PodScheduled" && condition["status"] == "False" {
            let what = format!("Pod/{name} {}: {}", text(&condition["reason"]), text(&condition["message"]));
            let at = condition["lastTransitionTime"].as_str().and_then(Stamp::parse);
            add(format!("pod {name} unscheduled"), at, what);
        }
    }
    for list in ["initContainerStatuses", "containerStatuses"] {
        for status in pod["status"][list].as_array().into_iter().flatten() {
            let container = text(&status["name"]);
            let waiting = &status["state"]["waiting"];
            let reason = text(&waiting["reason"]);
            if !reason.is_empty() && !ORDINARY.contains(&reason) {
                let what = format!("Pod/{name} {container} {reason}: {}", text(&waiting["message"]));
                add(format!("pod {name} {container} {reason}"), None, what);
            }
            for state in ["state", "lastState"] {
                let ended = &status[state]["terminated"];
                let Some(code) = ended["exitCode"].as_i64().filter(|code| *code != 0) else { continue };
                let at = ended["finishedAt"].as_str().and_then(Stamp::parse);
                let what = format!("Pod/{name} {container} {}: exit code {code}", text(&ended["reason"]));
                add(format!("pod {name} {container} ended {}", text(&ended["containerID"])), at, what);
            }
        }
    }
}

/// The log's lines carry the node's time.
fn of_log(kube: &Kube, namespace: &str, pod: &Value, log: Log, add: &mut dyn FnMut(String, Option<Stamp>, String)) {
    let name = text(&pod["metadata"]["name"]);
    for (container, previous) in [("schema-gate", false), ("mlflow", true), ("mlflow", false)] {
        // Before the container runs there is none.
        let Ok(lines) = kube.log(namespace, name, container, previous) else { continue };
        let Some(line) = lines.lines().find(|line| line.contains(log.text)) else { continue };
        let (time, words) = line.split_once(' ').unwrap_or_default();
        add(format!("log {name}"), Stamp::parse(time), format!("Pod/{name} log: {words}"));
    }
}
