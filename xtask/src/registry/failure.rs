//! What a registry's refusal means, and what the user can do about it.

use std::time::Duration;

use crate::error::{Error, Kind};
use crate::report::shorten;

use super::retry::Fault;

/// The most of an answer's text that is shown.
const SHOWN: usize = 300;

/// What was being done when it failed; all that an error message needs.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The registry as the user names it.
    pub registry: String,
    /// The repository on it.
    pub repository: String,
    /// Whether Google serves it.
    pub google: bool,
    /// Whether this was a push.
    pub push: bool,
    /// Who was logged in, by which source; or that nobody was.
    pub identity: String,
}

/// An answer that is not what was asked for.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Code and message of each error in the body (distribution-spec, "Error Codes").
    pub errors: Vec<(String, String)>,
    /// The body, where it is not the spec's JSON.
    pub text: String,
    /// How long the registry asks to wait.
    pub retry_after: Option<Duration>,
    /// The `WWW-Authenticate` header.
    pub challenge: Option<String>,
}

impl Answer {
    /// Reads the body of a refusal.
    pub fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Envelope {
            #[serde(default)]
            errors: Vec<Item>,
        }
        #[derive(serde::Deserialize)]
        struct Item {
            #[serde(default)]
            code: String,
            #[serde(default)]
            message: String,
            #[serde(default)]
            detail: serde_json::Value,
        }
        let envelope = serde_json::from_slice::<Envelope>(body).ok();
        let errors: Vec<_> = envelope
            .into_iter()
            .flat_map(|envelope| envelope.errors)
            .map(|item| {
                let message = match item.detail {
                    serde_json::Value::Null => item.message,
                    detail => format!("{} ({})", item.message, shorten(SHOWN, &detail.to_string())),
                };
                (item.code, message)
            })
            .collect();
        let text = if errors.is_empty() { shorten(SHOWN, &String::from_utf8_lossy(body)) } else { String::new() };
        Self { status, errors, text, ..Self::default() }
    }

    fn has(&self, code: &str) -> bool {
        self.errors.iter().any(|(found, _)| found == code)
    }

    fn says(&self, words: &[&str]) -> bool {
        let mut all = self.errors.iter().map(|(_, message)| message.as_str()).chain([self.text.as_str()]);
        all.any(|text| {
            let text = text.to_lowercase();
            words.iter().any(|word| text.contains(word))
        })
    }

    /// The registry's own words.
    fn words(&self) -> String {
        let errors: Vec<String> = self
            .errors
            .iter()
            .map(|(code, message)| if message.is_empty() { code.clone() } else { format!("{code}: {message}") })
            .collect();
        let text = if errors.is_empty() { self.text.clone() } else { errors.join("; ") };
        if text.is_empty() { format!("HTTP {}", self.status) } else { format!("HTTP {}: {text}", self.status) }
    }
}

/// Turns an answer into a fault: whether to try again, and the error if that does not help.
pub fn explain(scene: &Scene, doing: &str, answer: &Answer) -> Fault {
    let name = format!("{}/{}", scene.registry, scene.repository);
    let registry = &scene.registry;
    let error = |kind, message: String| Error::new(kind, message).source(answer.words());
    let disk_full = answer.status == 507 || answer.says(&["no space left", "disk quota exceeded", "disk full"]);
    match answer.status {
        _ if disk_full => Fault::Fatal(
            error(Kind::Remote, format!("the disk of {registry} is full: cannot {doing}"))
                .hint("free space on the registry, then run the same command again: finished layers are not sent twice"),
        ),
        401 => Fault::Unauthorized(Box::new(answer.clone())),
        403 if answer.says(&["quota"]) => Fault::Fatal(
            error(Kind::Remote, format!("{name} is over its quota: cannot {doing}"))
                .hint("raise the quota or delete old images there, then run the same command again"),
        ),
        403 => Fault::Fatal(denied(scene, doing, answer)),
        // An upload session that the registry has forgotten (a restart, another replica).
        400 | 404 | 416 if answer.has("BLOB_UPLOAD_INVALID") || answer.has("BLOB_UPLOAD_UNKNOWN") => Fault::Transient(
            error(Kind::Remote, format!("{registry} lost the upload: cannot {doing}"))
                .hint("run the same command again: it carries on where this one stopped"),
            None,
        ),
        404 if answer.has("MANIFEST_BLOB_UNKNOWN") || answer.has("BLOB_UNKNOWN") => Fault::Fatal(
            error(Kind::Remote, format!("{name} has lost a part of the image: cannot {doing}"))
                .hint("run the same command again: it sends what is missing"),
        ),
        404 if answer.has("MANIFEST_UNKNOWN") => Fault::Fatal(
            error(Kind::Remote, format!("there is no such image in {name}: cannot {doing}"))
                .hint("check the tag or digest"),
        ),
        404 => Fault::Fatal(
            error(Kind::Remote, format!("there is no repository {name}: cannot {doing}")).hint(create_hint(scene)),
        ),
        408 | 425 => Fault::Transient(
            error(Kind::Remote, format!("{registry} was too slow: cannot {doing}"))
                .hint("run the same command again: it carries on where this one stopped"),
            answer.retry_after,
        ),
        413 => Fault::Fatal(error(Kind::Remote, format!("{registry} refuses the size: cannot {doing}")).hint(
            "raise the limit of the registry or of the proxy in front of it (nginx: client_max_body_size 0)",
        )),
        429 => Fault::Transient(
            error(Kind::Remote, format!("{registry} limits the rate of requests: cannot {doing}"))
                .hint("wait some minutes or log in for a higher limit, then run the same command again"),
            answer.retry_after,
        ),
        status @ 500..=599 if status != 501 && status != 505 => Fault::Transient(
            error(Kind::Remote, format!("{registry} failed: cannot {doing}"))
                .hint("run the same command again: it carries on where this one stopped"),
            answer.retry_after,
        ),
        400 if answer.has("DIGEST_INVALID") => Fault::Transient(
            error(Kind::Remote, format!("what {registry} received is not what was sent: cannot {doing}")).hint(
                "something between here and the registry changes what is sent; try without the proxy, or another network",
            ),
            None,
        ),
        ..400 => Fault::Fatal(
            error(Kind::Remote, format!("{registry} does not answer as a registry does: cannot {doing}"))
                .hint("check the registry's address, and whether this network asks for a login of its own"),
        ),
        _ => Fault::Fatal(error(Kind::Remote, format!("{registry} refuses to {doing}"))),
    }
}

/// The error of a refused login.
pub fn denied(scene: &Scene, doing: &str, answer: &Answer) -> Error {
    let name = format!("{}/{}", scene.registry, scene.repository);
    let message = match answer.status {
        403 => format!("{} does not let {} {doing} ({name})", scene.registry, scene.identity),
        _ => format!("{} does not accept {} for {name}: cannot {doing}", scene.registry, scene.identity),
    };
    Error::new(Kind::Auth, message).hint(login_hint(scene)).source(answer.words())
}

/// The command that logs in, or what to ask the owner of the repository for.
fn login_hint(scene: &Scene) -> String {
    let registry = &scene.registry;
    if scene.google {
        let role = if scene.push { "roles/artifactregistry.writer" } else { "roles/artifactregistry.reader" };
        return format!(
            "run `gcloud auth application-default login`, and let the owner of the project grant you {role} on the repository"
        );
    }
    let right = if scene.push { "push" } else { "pull" };
    let token = if registry == "ghcr.io" && scene.push { " (the token needs write:packages)" } else { "" };
    format!(
        "run `docker login {registry}` or pass --username NAME --password-stdin, with a login that may {right}{token}"
    )
}

fn create_hint(scene: &Scene) -> String {
    let mut parts = scene.repository.split('/');
    if scene.registry.ends_with("-docker.pkg.dev")
        && let (Some(location), Some(project), Some(repository)) =
            (scene.registry.strip_suffix("-docker.pkg.dev"), parts.next(), parts.next())
    {
        return format!(
            "create it: gcloud artifacts repositories create {repository} --repository-format=docker --location={location} --project={project}"
        );
    }
    if scene.google {
        return "check the project's name; gcr.io repositories are created in Artifact Registry's console".to_owned();
    }
    "check the name; some registries want a repository to be created before the first push".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(registry: &str, status: u16, body: &str, expected: &str) {
        let reference = super::super::Reference::parse(&format!("{registry}/team/images/mlflow:1")).unwrap();
        let scene = Scene {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
            google: reference.is_google(),
            push: true,
            identity: "user ada (docker login)".to_owned(),
        };
        let fault = explain(&scene, "push layer ab", &Answer::parse(status, body.as_bytes()));
        let (sort, error) = match fault {
            Fault::Transient(error, _) => ("retry", error),
            Fault::Unauthorized(answer) => ("login", denied(&scene, "push layer ab", &answer)),
            Fault::Fatal(error) => ("fail", error),
        };
        let text = format!(
            "{sort} {:?} {} | {}",
            error.kind(),
            error.lines().join(" | "),
            error.hint_text().unwrap_or_default()
        );
        for part in expected.split(" & ") {
            assert!(text.contains(part), "{registry} {status} {body}: {text:?} should contain {part:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let host = "registry.example.com";
        let denied = r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#;
        check(host, 401, denied, "login Auth & user ada (docker login) & team/images/mlflow & docker login registry");
        check(host, 403, denied, "fail Auth & does not let user ada (docker login) push layer ab & requested access");
        check("ghcr.io", 403, "", "fail Auth & write:packages");
        check("europe-west1-docker.pkg.dev", 403, "", "fail Auth & roles/artifactregistry.writer & gcloud auth");
        check(
            "europe-west1-docker.pkg.dev",
            404,
            r#"{"errors":[{"code":"NAME_UNKNOWN","message":"Repository \"images\" not found"}]}"#,
            "fail Remote & repositories create images & --location=europe-west1 --project=team",
        );
        check(host, 404, "", "fail Remote & no repository registry.example.com/team/images/mlflow");
        check(host, 404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#, "fail Remote & no such image & tag or digest");
        check(host, 404, r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}"#, "fail Remote & lost & sends what");
        check(host, 413, "<html>too large</html>", "fail Remote & client_max_body_size");
        check(host, 429, "", "retry Remote & limits the rate");
        check(host, 500, "oops", "retry Remote & HTTP 500: oops");
        check(host, 502, "", "retry Remote");
        check(host, 507, "", "fail Remote & disk of registry.example.com is full");
        check(
            host,
            500,
            r#"{"errors":[{"code":"UNKNOWN","message":"unknown error","detail":{"Err":28,"Op":"write no space left on device"}}]}"#,
            "fail Remote & is full",
        );
        check(host, 403, r#"{"errors":[{"code":"DENIED","message":"quota exceeded"}]}"#, "fail Remote & quota");
        check(host, 400, r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#, "retry Remote & not what was sent");
        check(host, 400, r#"{"errors":[{"code":"MANIFEST_INVALID","message":"bad"}]}"#, "fail Remote & MANIFEST_INV");
        check(host, 200, "<html>Welcome to our hotel</html>", "fail Remote & not answer as a registry & hotel");
        check(host, 418, "\u{1f600}", "fail Remote & refuses to push layer ab & HTTP 418");
    }

    #[test]
    fn a_long_answer_is_cut() {
        let answer = Answer::parse(500, "x ".repeat(10_000).as_bytes());
        assert!(answer.words().len() < 400, "{}", answer.words().len());
    }
}
