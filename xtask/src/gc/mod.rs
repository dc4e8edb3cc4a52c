//! What deleted runs, models and experiments still hold, and the program that frees it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// The program: `python -c PROGRAM`, where there is an MLflow. As text, so that an image need not have
/// it: it works with an older one of ours, after a rollback, and with someone else's.
pub const PROGRAM: &str = include_str!("collect.py");

/// What the Jobs are called.
pub const TASK: &str = "gc";

/// How every line of the program's begins.
const START: &str = "{\"gc\": ";

/// What is to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How long ago it must have been deleted.
    pub older_than: Duration,
    /// Whether it is only said what would be freed.
    pub dry_run: bool,
}

impl Wish {
    /// Program and arguments. Without `answer` the program fails where something was refused.
    pub fn command(self, answer: bool) -> Vec<String> {
        let seconds = self.older_than.as_secs().to_string();
        let mut command = ["python", "-c", PROGRAM, "--older-than", &seconds].map(str::to_owned).to_vec();
        command.extend(
            [("--dry-run", self.dry_run), ("--answer", answer)]
                .iter()
                .filter(|(_, on)| *on)
                .map(|(flag, _)| (*flag).to_owned()),
        );
        command
    }
}

/// A time as people write it, in one unit: `30d`, `12h`, `90m`, `45s`. Anything else is refused with the reason.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write it like 30d, 12h, 90m or 45s");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        'd' => 86_400,
        'h' => 3_600,
        'm' => 60,
        's' => 1,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    let number = digits.parse::<u32>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    Ok(Duration::from_secs(u64::from(number.ok_or_else(wrong)?) * seconds))
}

/// The same, back: in the largest unit that fits.
pub fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    let fits = |size: &(u64, char)| seconds > 0 && seconds.is_multiple_of(size.0);
    let (size, unit) = [(86_400, 'd'), (3_600, 'h'), (60, 'm')].into_iter().find(fits).unwrap_or((1, 's'));
    format!("{}{unit}", seconds / size)
}

/// What was freed, or would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    /// Whether nothing was deleted.
    pub dry_run: bool,
    /// Seconds that it must have been deleted for.
    pub older_than: u64,
    /// Whether the program was stopped before it had seen all.
    pub stopped: bool,
    /// Runs.
    pub runs: u64,
    /// Logged models.
    pub models: u64,
    /// Traces of experiments.
    pub traces: u64,
    /// Experiments.
    pub experiments: u64,
    /// Things that were left alone, with reason.
    pub kept: u64,
    /// Things that should have been deleted and could not be.
    pub refused: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the things had artifacts.
    pub artifacts: Artifacts,
}

/// How many things had artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// They had some.
    pub deleted: u64,
    /// They had none, or none any more.
    pub absent: u64,
    /// Their store did not let them be deleted.
    pub refused: u64,
}

impl Freed {
    /// Whether there was nothing to free, and nothing that could not be.
    pub fn is_nothing(&self) -> bool {
        self.runs + self.models + self.traces + self.experiments + self.refused + self.files == 0
    }
}

/// A thing that is still there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// `run`, `model`, `trace` or `experiment`.
    #[serde(rename(deserialize = "gc"))]
    pub kind: String,
    /// Its id.
    pub id: String,
    /// `kept` or `refused`.
    pub end: String,
    /// Why.
    pub why: Option<String>,
}

/// Reads the sums, and what is left, from the last lines that were printed.
///
/// # Errors
/// `Remote` for an answer that is none.
pub fn read(lines: &[String]) -> Result<(Freed, Vec<Left>)> {
    let ours: Vec<&str> = lines.iter().map(String::as_str).filter(|line| line.starts_with(START)).collect();
    let freed = ours.last().and_then(|line| serde_json::from_str::<Freed>(line).ok());
    let freed = freed.ok_or_else(|| {
        let last = lines.last().map_or("nothing", String::as_str);
        Error::new(Kind::Remote, "the pod that was to free what is deleted printed no good answer")
            .source(format!("it printed: {}", crate::report::shorten(200, last)))
            .hint("run the same command again: it carries on where this one stopped")
    })?;
    let left = ours.iter().filter_map(|line| serde_json::from_str::<Left>(line).ok());
    Ok((freed, left.filter(|left| left.end != "deleted").collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_one_unit() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(duration(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        };
        check("30d", Some(2_592_000));
        check("12h", Some(43_200));
        check("90m", Some(5_400));
        check("45s", Some(45));
        check("0s", Some(0));
        for wrong in ["", "d", "30", "30D", "1d12h", "-1d", "+1d", "1.5d", "30 d", "99999999999d", "3ö"] {
            check(wrong, None);
        }
        for (seconds, text) in [(2_592_000, "30d"), (86_401, "86401s"), (90_000, "25h"), (60, "1m"), (0, "0s")] {
            assert_eq!(words(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn the_sums_are_the_last_line_and_what_is_left_has_its_reason() {
        let sums = r#"{"gc": "summary", "dry_run": false, "older_than": 60, "stopped": false, "runs": 1, "models": 0,
            "traces": 0, "experiments": 0, "kept": 0, "refused": 1, "files": 2, "bytes": 3,
            "artifacts": {"deleted": 1, "absent": 0, "refused": 1}, "severity": "ERROR", "message": "x"}"#
            .replace('\n', "");
        let run = r#"{"gc": "run", "id": "a", "end": "deleted", "artifacts": "deleted", "files": 2, "bytes": 3, "why": null}"#;
        let refused = r#"{"gc": "run", "id": "b", "end": "refused", "artifacts": "refused", "files": 0, "bytes": 0, "why": "403"}"#;
        let read = |lines: &[&str]| read(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        let (freed, left) = read(&["INFO words", run, refused, &sums]).unwrap();
        assert_eq!((freed.runs, freed.bytes, freed.artifacts.refused), (1, 3, 1));
        assert!(!freed.is_nothing());
        assert_eq!(
            left.iter().map(|left| (left.id.as_str(), left.why.as_deref())).collect::<Vec<_>>(),
            [("b", Some("403"))]
        );
        for lines in [&[] as &[&str], &["words"], &[run], &[&sums, run], &[&sums[..60]]] {
            assert_eq!(read(lines).unwrap_err().kind(), Kind::Remote, "{lines:?}");
        }
    }

    #[test]
    fn the_program_reaches_python_as_it_is() {
        // Kubernetes puts variables in for `$(NAME)` in a command, and makes one of two dollar signs.
        assert!(!PROGRAM.contains('$'));
        // Linux takes no longer argument (MAX_ARG_STRLEN).
        assert!(PROGRAM.len() < 128 << 10, "{}", PROGRAM.len());
        let wish = Wish { older_than: Duration::from_secs(86_400), dry_run: true };
        assert_eq!(wish.command(true)[3..], ["--older-than", "86400", "--dry-run", "--answer"]);
        assert_eq!(Wish { dry_run: false, ..wish }.command(false)[3..], ["--older-than", "86400"]);
    }
}
