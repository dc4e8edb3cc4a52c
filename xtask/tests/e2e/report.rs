//! What the scenarios have shown, as a table and as JSON.

use serde::Serialize;
use serde_json::Value;

use crate::beside::Kubectl;

/// What a scenario has shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// The exit code of the command that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// The line that names the cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The cluster's first sign of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign: Option<String>,
    /// Seconds from that sign to the first line that names the cause, while it may yet get better.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named_after_sign: Option<f64>,
    /// Seconds from that sign to the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_after_sign: Option<f64>,
    /// Requests to the old server all the while, and how many of them failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_server: Option<Answered>,
    /// What was undone, or was not done at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone: Option<String>,
    /// What kubectl made of the same rollout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubectl: Option<Kubectl>,
    /// What was measured; the names end with the unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub figures: Option<Value>,
    /// What else was shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Requests and failures.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Answered {
    /// Requests.
    pub requests: u64,
    /// Of these, without a good answer.
    pub failed: usize,
}

/// A scenario's end.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub scenario: String,
    /// Whether all held that had to.
    pub passed: bool,
    /// Seconds that it took.
    pub seconds: f64,
    /// What was shown.
    #[serde(flatten)]
    pub row: Row,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The table for people: `named` and `verdict` are seconds after the cluster's first sign.
pub fn table(outcomes: &[Outcome]) -> String {
    let head = ["scenario", "", "exit", "named", "verdict", "old server", "undone", "cause", "kubectl rollout status"];
    let mut rows = vec![head.map(str::to_owned)];
    for outcome in outcomes.iter().filter(|outcome| outcome.row.exit.is_some()) {
        let row = &outcome.row;
        rows.push([
            outcome.scenario.clone(),
            if outcome.passed { "ok" } else { "FAILED" }.to_owned(),
            row.exit.map(|code| code.to_string()).unwrap_or_default(),
            row.named_after_sign.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default(),
            row.seconds_after_sign.map(|seconds| format!("{seconds:.1} s")).unwrap_or_default(),
            row.old_server
                .map(|Answered { requests, failed }| format!("{failed} of {requests} failed"))
                .unwrap_or_default(),
            row.undone.clone().unwrap_or_default(),
            row.cause.as_deref().map(|cause| cut(cause, 90)).unwrap_or_default(),
            row.kubectl.as_ref().map(of_kubectl).unwrap_or_default(),
        ]);
    }
    let mut text = String::new();
    if rows.len() > 1 {
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text.push('\n');
    }
    for outcome in outcomes {
        for note in &outcome.row.notes {
            text.push_str(&format!("{}: {note}\n", outcome.scenario));
        }
    }
    for outcome in outcomes {
        if let Some(error) = &outcome.error {
            text.push_str(&format!("FAILED {}: {error}\n", outcome.scenario));
        }
    }
    text
}

fn of_kubectl(kubectl: &Kubectl) -> String {
    let end = match kubectl.exit {
        Some(0) => format!("success after {:.0} s", kubectl.seconds),
        Some(code) => format!("exit {code} after {:.0} s", kubectl.seconds),
        None => format!("still waiting after {:.0} s", kubectl.seconds),
    };
    let then = kubectl.at_verdict.as_deref().map(|state| format!("at our verdict: {state}; ")).unwrap_or_default();
    format!("{then}{end}: {}", cut(&kubectl.last, 70))
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// One decimal.
pub fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
