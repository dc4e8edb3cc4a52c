//! Who runs this program, and from which commit: what a release is recorded with.

use crate::process::Program;

use std::path::Path;

/// Who deploys what from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Provenance {
    /// A person, or a workflow's actor.
    pub by: String,
    /// The checkout's commit.
    pub commit: Option<String>,
    /// The address of the CI run.
    pub run: Option<String>,
}

impl Provenance {
    /// As the environment, this machine and the checkout at `root` say.
    pub fn of(root: &Path) -> Self {
        Self {
            by: var("GITHUB_ACTOR").unwrap_or_else(user),
            commit: commit(root).or_else(|| var("GITHUB_SHA")),
            run: workflow_run(var),
        }
    }
}

/// A variable of the environment that says something.
fn var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address of the GitHub Actions run
/// (<https://docs.github.com/en/actions/reference/workflows-and-actions/variables>).
fn workflow_run(var: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (server, repository, id) = (var("GITHUB_SERVER_URL")?, var("GITHUB_REPOSITORY")?, var("GITHUB_RUN_ID")?);
    Some(format!("{server}/{repository}/actions/runs/{id}"))
}

/// This machine's own name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// As the login says, else as this machine knows the user.
pub fn user() -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(var);
    let uid = nix::unistd::getuid();
    let known = || nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    named.or_else(known).unwrap_or_else(|| format!("user {uid}"))
}

/// The checkout's commit, where git is installed and this is a checkout.
fn commit(root: &Path) -> Option<String> {
    git(root, &["rev-parse", "--verify", "--quiet", "HEAD"]).filter(|text| !text.is_empty())
}

/// What git answers, without the white space around it; `None` where it refuses or is not installed.
fn git(root: &Path, args: &[&str]) -> Option<String> {
    let git = Program::new("git").args(args).env("GIT_OPTIONAL_LOCKS", "0").dir(root);
    Some(String::from_utf8(git.read().ok()?).ok()?.trim().to_owned())
}

/// The checkout that an image is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it was cloned from: a URL without a login. `None` for a folder of this machine.
    pub repository: Option<String>,
    /// The commit.
    pub commit: String,
    /// Whether files differ from the commit.
    pub modified: bool,
}

impl Source {
    /// The checkout at `root`; `None` where git knows none.
    pub fn of(root: &Path) -> Option<Self> {
        let commit = commit(root)?;
        let workflow = || Some(format!("{}/{}", var("GITHUB_SERVER_URL")?, var("GITHUB_REPOSITORY")?));
        let origin = || repository(&git(root, &["remote", "get-url", "origin"])?);
        let modified = git(root, &["status", "--porcelain"]).is_none_or(|changes| !changes.is_empty());
        Some(Self { repository: workflow().or_else(origin), commit, modified })
    }
}

/// The URL of a remote, without user, password and query; `None` for what is only on this machine.
fn repository(remote: &str) -> Option<String> {
    let url = match remote.contains("://") {
        true => remote.to_owned(),
        // As ssh has it: USER@HOST:PATH (git-clone(1), "GIT URLS").
        false => {
            let (host, path) = remote.split_once(':').filter(|(host, _)| !host.contains('/'))?;
            format!("ssh://{host}/{}", path.trim_start_matches('/'))
        }
    };
    let url = url::Url::parse(&url).ok().filter(|url| url.scheme() != "file")?;
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}://{}{port}{}", url.scheme(), url.host_str()?, url.path().trim_end_matches(".git")))
}

/// Who builds, as a URI: a workflow by its file and branch, as in the certificate that it can get for a
/// signature, or somebody's machine.
pub fn builder() -> String {
    workflow_ref(var).unwrap_or_else(|| ON_A_MACHINE.to_owned())
}

/// The builder that is no workflow.
pub const ON_A_MACHINE: &str = "urn:mlflow-on-kubernetes:builder:machine";

fn workflow_ref(var: impl Fn(&str) -> Option<String>) -> Option<String> {
    Some(format!("{}/{}", var("GITHUB_SERVER_URL")?, var("GITHUB_WORKFLOW_REF")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_run_has_an_address_when_all_its_parts_are_known() {
        let check = |vars: &[(&str, &str)], expected: Option<&str>| {
            let vars = |name: &str| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(workflow_run(vars).as_deref(), expected);
        };
        let (server, repository, id) =
            (("GITHUB_SERVER_URL", "https://github.com"), ("GITHUB_REPOSITORY", "a/b"), ("GITHUB_RUN_ID", "7"));
        check(&[server, repository, id], Some("https://github.com/a/b/actions/runs/7"));
        check(&[server, id], None);
    }

    #[test]
    fn a_repository_is_named_without_a_login() {
        for (remote, expected) in [
            ("https://github.com/a/b.git", Some("https://github.com/a/b")),
            ("https://github.com/a/b", Some("https://github.com/a/b")),
            ("https://me:word@git.example.com:8443/a/b.git?x=y", Some("https://git.example.com:8443/a/b")),
            ("git@github.com:a/b.git", Some("ssh://github.com/a/b")),
            ("ssh://git@github.com/a/b.git", Some("ssh://github.com/a/b")),
            ("/srv/git/b.git", None),
            ("../b", None),
            ("file:///srv/git/b.git", None),
            ("", None),
        ] {
            assert_eq!(repository(remote).as_deref(), expected, "{remote}");
        }
    }

    #[test]
    fn a_checkout_is_its_commit_and_whether_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(Source::of(root), None);
        std::fs::write(root.join("a"), "1").unwrap();
        let name = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"];
        git(root, &["init", "--quiet"]).unwrap();
        git(root, &["add", "a"]).unwrap();
        git(root, &[&name[..], &["commit", "--quiet", "--message", "a"]].concat()).unwrap();
        let clean = Source::of(root).unwrap();
        assert!(clean.commit.len() == 40 && !clean.modified, "{clean:?}");
        std::fs::write(root.join("a"), "2").unwrap();
        assert_eq!(Source::of(root), Some(Source { modified: true, ..clean }));
    }
}
