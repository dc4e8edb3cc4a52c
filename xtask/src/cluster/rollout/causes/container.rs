//! A container that is not up.

use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::jiff::Timestamp;

use super::super::pods::{self, Role, View};
use super::super::snapshot::{Snapshot, last_time};
use super::{Budget, Cause, Code, RESTARTS, first_event, server_log};

/// Seconds for a registry or network that does not answer.
const PULL: i64 = 120;
/// Seconds for a registry that refuses the login: a pull secret that was made at the same time.
const LOGIN: i64 = 30;
/// Seconds for a runtime that cannot make the container.
const CREATE: i64 = 60;

/// Why a container is not up; `None` while nothing speaks against it.
pub fn of_container(pod: &Pod, view: View<'_>, snapshot: &Snapshot) -> Option<Cause> {
    if view.is_up() {
        return None;
    }
    let seen = Seen { pod, view, snapshot };
    let cause = server_log::of_container(pod, view, snapshot)
        .or_else(|| seen.waiting())
        .or_else(|| seen.ended())
        .or_else(|| seen.probe())?;
    Some(Cause {
        pod: Some(pods::name(pod).to_owned()),
        container: Some(view.spec.name.clone()),
        uid: pods::uid(pod).to_owned(),
        restarts: view.restarts(),
        exit_code: cause.exit_code.or_else(|| view.last_end().map(|end| end.exit_code)),
        ..cause
    })
}

struct Seen<'a> {
    pod: &'a Pod,
    view: View<'a>,
    snapshot: &'a Snapshot,
}

impl<'a> Seen<'a> {
    /// The events about this container.
    fn events(&self) -> impl Iterator<Item = &'a Event> + use<'a> {
        let suffix = format!("{{{}}}", self.view.spec.name);
        let events = self.snapshot.events_of(pods::uid(self.pod));
        events.filter(move |event| event.involved_object.field_path.as_deref().is_some_and(|at| at.ends_with(&suffix)))
    }

    fn sign(&self, is_sign: impl Fn(&str, &str) -> bool) -> Timestamp {
        first_event(self.events(), is_sign).unwrap_or(self.snapshot.at)
    }

    fn waiting(&self) -> Option<Cause> {
        let waiting = self.view.waiting()?;
        let reason = waiting.reason.as_deref()?;
        let message = waiting.message.as_deref().unwrap_or_default();
        let named = |code, budget, is_sign: &dyn Fn(&str, &str) -> bool| {
            Some(Cause::new(code, budget, reason, message, self.sign(is_sign)))
        };
        let is_failure = |reason: &str, _: &str| reason == "Failed" || reason == "InspectFailed";
        match reason {
            "InvalidImageName" => named(Code::ImageName, Budget::Now, &is_failure),
            "ErrImageNeverPull" => named(Code::ImageAbsent, Budget::Now, &is_failure),
            "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
                Some(self.pull(reason, message))
            }
            "SignatureValidationFailed" => named(Code::Admission, Budget::Now, &is_failure),
            // The kubelet has not yet heard of a Secret that was made a moment ago.
            "CreateContainerConfigError" if message.contains("failed to sync") && message.contains("cache") => {
                named(Code::ConfigError, Budget::Deadline, &is_failure)
            }
            "CreateContainerConfigError" => named(Code::ConfigError, Budget::Now, &is_failure),
            "CreateContainerError"
            | "RunContainerError"
            | "PreCreateHookError"
            | "PreStartHookError"
            | "PostStartHookError" => Some(self.start(reason, message)),
            "CrashLoopBackOff" => self.ended(),
            _ => named(Code::NotReady, Budget::Deadline, &is_failure),
        }
    }

    fn pull(&self, reason: &str, message: &str) -> Cause {
        let is_failure = |reason: &str, message: &str| reason == "Failed" && message.starts_with("Failed to pull");
        // Older kubelets tell the reason in the event only.
        let told = self.events().filter(|event| {
            is_failure(event.reason.as_deref().unwrap_or_default(), event.message.as_deref().unwrap_or_default())
        });
        let told = told.max_by_key(|event| last_time(event)).and_then(|event| event.message.as_deref());
        let message = if message.contains(": ") { message } else { told.unwrap_or(message) };
        let (code, budget) = pull_error(message);
        Cause::new(code, budget, reason, pull_detail(message), self.sign(is_failure))
    }

    fn start(&self, reason: &str, message: &str) -> Cause {
        let (code, budget) = start_error(message).unwrap_or(match reason {
            // Counted as a restart each time.
            "RunContainerError" => (Code::CannotStart, Budget::Restarts(RESTARTS)),
            _ => (Code::CannotStart, Budget::Seconds(CREATE)),
        });
        let is_failure = |reason: &str, message: &str| reason == "Failed" && message.starts_with("Error:");
        Cause::new(code, budget, reason, start_detail(message), self.sign(is_failure))
    }

    /// A process that ended, though it should run; or, of an init container, that failed.
    fn ended(&self) -> Option<Cause> {
        let end = self.view.last_end()?;
        if let Some(message) = end.message.as_deref()
            && let Some((code, budget)) = start_error(message)
        {
            return Some(Cause::new(
                code,
                budget,
                end.reason.as_deref().unwrap_or("StartError"),
                start_detail(message),
                self.snapshot.at,
            ));
        }
        let probe = self.killed_by_probe();
        let code = match self.view.role {
            _ if end.reason.as_deref() == Some("OOMKilled") => Code::OomKilled,
            _ if probe.is_some() => Code::ProbeFailing,
            Role::Init => Code::InitCrash,
            Role::Sidecar => Code::SidecarCrash,
            Role::App => Code::CrashLoop,
        };
        // While it runs once more it may yet come up.
        let budget = if self.view.is_running() { Budget::Deadline } else { Budget::Restarts(RESTARTS) };
        let words = end.message.clone().or_else(|| self.last_words());
        let memory = (code == Code::OomKilled).then(|| self.memory());
        let message = memory.or(probe).or(words).unwrap_or_else(|| format!("exit code {}", end.exit_code));
        let reason = self.view.waiting().and_then(|waiting| waiting.reason.as_deref()).or(end.reason.as_deref());
        let exit = end.finished_at.as_ref().map_or(self.snapshot.at, |time| time.0);
        let backoff = first_event(self.events(), |reason, _| reason == "BackOff").unwrap_or(exit);
        let cause = Cause::new(code, budget, reason.unwrap_or("Error"), &message, exit.min(backoff));
        Some(Cause { exit_code: Some(end.exit_code), ..cause })
    }

    fn memory(&self) -> String {
        let limits = self.view.spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        match limits.and_then(|limits| limits.get("memory")) {
            Some(memory) => format!("ended by the kernel at its memory limit of {}", memory.0),
            None => "ended by the kernel: the node had no memory left".to_owned(),
        }
    }

    /// The kubelet's words about the probe for which it ended the container.
    fn killed_by_probe(&self) -> Option<String> {
        self.events().find(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("Killing") && message.contains("failed") && message.contains("probe")
        })?;
        let told = self.unhealthy().and_then(|event| event.message.clone());
        Some(told.unwrap_or_else(|| "a probe failed".to_owned()))
    }

    fn unhealthy(&self) -> Option<&'a Event> {
        self.events().filter(|event| event.reason.as_deref() == Some("Unhealthy")).max_by_key(|event| last_time(event))
    }

    fn last_words(&self) -> Option<String> {
        let uid = pods::uid(self.pod);
        let name = &self.view.spec.name;
        let current = self.snapshot.log(uid, name, false);
        let previous = self.snapshot.log(uid, name, true);
        let log = if self.view.is_running() || current.is_empty() { previous } else { current };
        log.iter().rev().map(|line| line.text.trim()).find(|text| !text.is_empty()).map(str::to_owned)
    }

    /// It runs, but a probe gets no good answer.
    fn probe(&self) -> Option<Cause> {
        let event = self.unhealthy()?;
        let message = event.message.as_deref().unwrap_or_default();
        let first = self.sign(|reason, _| reason == "Unhealthy");
        Some(Cause::new(Code::ProbeFailing, Budget::Deadline, "Unhealthy", message, first))
    }
}

/// What a failed pull means, by the words of containerd, CRI-O and the registries.
fn pull_error(message: &str) -> (Code, Budget) {
    let has = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
    if has(&["no match for platform", "no matching manifest", "no image found in"]) {
        (Code::ImagePlatform, Budget::Now)
    } else if has(&[
        "401 ",
        "403 ",
        "nauthorized",
        "authorization failed",
        "denied",
        "authentication required",
        "no basic auth",
    ]) {
        (Code::ImageAuth, Budget::Seconds(LOGIN))
    } else if has(&["not found", "manifest unknown", "name unknown"]) && !has(&["no such host", "executable file"]) {
        (Code::ImageNotFound, Budget::Now)
    } else if has(&["invalid reference format"]) {
        (Code::ImageName, Budget::Now)
    } else {
        (Code::ImagePull, Budget::Seconds(PULL))
    }
}

/// A message about a failed pull without the runtime's call chain, which names the image up to three
/// times before it says what is wrong.
pub fn pull_detail(message: &str) -> &str {
    let marker = "failed to resolve reference \"";
    let rest = message.rfind(marker).map(|at| &message[at + marker.len()..]);
    rest.and_then(|rest| rest.split_once("\": ")).map_or(message, |(_, detail)| detail)
}

/// A program that can never be started.
fn start_error(message: &str) -> Option<(Code, Budget)> {
    let has = |sign: &str| message.contains(sign);
    if has("exec format error") {
        return Some((Code::ImagePlatform, Budget::Now));
    }
    let is_program = has("exec: ") || has("exec /");
    let is_missing = has("executable file not found") || has("no such file or directory") || has("permission denied");
    (is_program && is_missing).then_some((Code::CannotStart, Budget::Now))
}

/// What the runtime says after its own call chain.
fn start_detail(message: &str) -> &str {
    let marker = "unable to start container process: ";
    let detail = message.rfind(marker).map_or(message, |at| &message[at + marker.len()..]);
    detail.strip_suffix(": unknown").unwrap_or(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_pull_is_told_by_the_words_of_the_runtime() {
        let check =
            |message: &str, code: Code, budget: Budget| assert_eq!(pull_error(message), (code, budget), "{message}");
        let prefix = "failed to pull and unpack image \"r.test/a@sha256:0\": failed to resolve reference \"r.test/a@sha256:0\": ";
        let said = |text: &str| format!("{prefix}{text}");
        check(&said("r.test/a@sha256:0: not found"), Code::ImageNotFound, Budget::Now);
        check(
            &said(
                "failed to do request: Head \"http://r.test/v2/a/manifests/sha256:0\": dial tcp 127.0.0.1:5999: connect: connection refused",
            ),
            Code::ImagePull,
            Budget::Seconds(PULL),
        );
        check(
            &said(
                "failed to do request: Head \"https://r.test/v2/\": dial tcp: lookup r.test on 10.97.0.10:53: no such host",
            ),
            Code::ImagePull,
            Budget::Seconds(PULL),
        );
        check(
            &said("pulling from host r.test failed with status code [manifests sha256:0]: 503 Service Unavailable"),
            Code::ImagePull,
            Budget::Seconds(PULL),
        );
        check(
            &said("unexpected status from HEAD request to https://r.test/v2/a/manifests/sha256:0: 401 Unauthorized"),
            Code::ImageAuth,
            Budget::Seconds(LOGIN),
        );
        check(
            &said("unexpected status from HEAD request to https://r.test/v2/a/manifests/sha256:0: 403 Forbidden"),
            Code::ImageAuth,
            Budget::Seconds(LOGIN),
        );
        check(
            "pull access denied, repository does not exist or may require authorization",
            Code::ImageAuth,
            Budget::Seconds(LOGIN),
        );
        check(
            "failed to pull and unpack image \"r.test/a@sha256:0\": no match for platform in manifest: not found",
            Code::ImagePlatform,
            Budget::Now,
        );
        check("reading manifest sha256:0 in r.test/a: manifest unknown", Code::ImageNotFound, Budget::Now);
        check("toomanyrequests: You have reached your pull rate limit", Code::ImagePull, Budget::Seconds(PULL));
    }

    #[test]
    fn the_runtimes_call_chain_is_left_out() {
        let pull = "rpc error: code = NotFound desc = failed to pull and unpack image \"r/a@sha256:0\": failed to resolve reference \"r/a@sha256:0\": r/a@sha256:0: not found";
        assert_eq!(pull_detail(pull), "r/a@sha256:0: not found");
        let start = "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory: unknown";
        assert_eq!(start_detail(start), "exec: \"/bin/nothing\": stat /bin/nothing: no such file or directory");
        assert_eq!(start_error(start), Some((Code::CannotStart, Budget::Now)));
        assert_eq!(start_error("error mounting \"/var/lib/x\" to rootfs: not a directory"), None);
    }
}
