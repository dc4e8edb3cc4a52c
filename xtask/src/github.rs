//! What GitHub Actions shows of a command: a summary page and annotations
//! (<https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>).

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

use crate::error::Error;
use crate::report::Report;

/// The workflow run that this program is part of.
#[derive(Clone, Debug)]
pub struct Workflow {
    summary: Option<PathBuf>,
}

impl Workflow {
    /// `None` outside GitHub Actions.
    pub fn from_env() -> Option<Self> {
        let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        var("GITHUB_ACTIONS")?;
        Some(Self { summary: var("GITHUB_STEP_SUMMARY").map(PathBuf::from) })
    }

    /// Adds a command's answer to the step's summary page.
    pub fn summarize(&self, report: &impl Report) -> io::Result<()> {
        let mut text = Vec::new();
        report.human(&mut text)?;
        self.append(&text)
    }

    /// The annotation of an error, a line for stderr; and the error on the summary page.
    pub fn annotate(&self, error: &Error) -> String {
        let mut lines = error.lines();
        lines.extend(error.hint_text().map(str::to_owned));
        // The log shows the error in any case.
        let _ = self.append(lines.join("\n").as_bytes());
        annotation(&lines)
    }

    fn append(&self, text: &[u8]) -> io::Result<()> {
        let Some(path) = &self.summary else { return Ok(()) };
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        file.write_all(&block(text))
    }
}

/// A fenced block whose fence does not occur in `text`.
fn block(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{}\n{fence}\n", text.trim_end()).into_bytes()
}

fn annotation(lines: &[String]) -> String {
    let text = lines.join("\n").replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    format!("::error::{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_any_in_the_text() {
        let check = |text: &str, expected: &str| assert_eq!(block(text.as_bytes()), expected.as_bytes());
        check("a\n", "```\na\n```\n");
        check("a ```` b", "`````\na ```` b\n`````\n");
    }

    #[test]
    fn an_annotation_is_one_line() {
        let lines = ["100% wrong".to_owned(), "because".to_owned()];
        assert_eq!(annotation(&lines), "::error::100%25 wrong%0Abecause");
    }
}
