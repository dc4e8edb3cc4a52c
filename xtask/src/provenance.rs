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
        let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            by: var("GITHUB_ACTOR").unwrap_or_else(user),
            commit: commit(root).or_else(|| var("GITHUB_SHA")),
            run: workflow_run(var),
        }
    }
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
    let named = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let uid = nix::unistd::getuid();
    let known = || nix::unistd::User::from_uid(uid).ok().flatten().map(|user| user.name);
    named.or_else(known).unwrap_or_else(|| format!("user {uid}"))
}

/// The checkout's commit, where git is installed and this is a checkout.
fn commit(root: &Path) -> Option<String> {
    let git = Program::new("git").args(["rev-parse", "--verify", "--quiet", "HEAD"]).dir(root);
    let text = String::from_utf8(git.read().ok()?).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
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
}
