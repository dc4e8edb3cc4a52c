//! When a request is tried again: what kind of failure it was, how long to wait, when to give up.
//! Deciding is pure; [`super::transport`] does the waiting.

use std::time::Duration;

use crate::error::{Error, Kind};

use super::failure::Answer;

/// How patient the client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A transfer that moves no byte for this long counts as stalled.
    pub stall: Duration,
    /// The wait before the second attempt; doubled for each further one.
    pub first_wait: Duration,
    /// The longest wait that is chosen without the registry asking for it.
    pub longest_wait: Duration,
    /// Attempts in all.
    pub attempts: u32,
    /// No further attempt begins when the waiting and the failed attempts took this long together.
    pub deadline: Duration,
}

/// Seconds without a byte after which a transfer counts as stalled.
const STALL_VARIABLE: &str = "XTASK_REGISTRY_STALL_SECONDS";

impl Patience {
    /// The default, with the stall time of `XTASK_REGISTRY_STALL_SECONDS` where that is set.
    pub fn from_env() -> Result<Self, Error> {
        let stall = match std::env::var(STALL_VARIABLE) {
            Err(_) => 30,
            Ok(text) => text.parse::<u64>().ok().filter(|seconds| (1..=3600).contains(seconds)).ok_or_else(|| {
                Error::new(Kind::Config, format!("{STALL_VARIABLE}={text} is not a number of seconds"))
                    .hint("give 1 to 3600 seconds; the default is 30")
            })?,
        };
        Ok(Self { stall: Duration::from_secs(stall), ..Self::default() })
    }

    /// How long to wait before attempt `attempt + 1`, or `None` when it is time to give up.
    ///
    /// Half of the wait is fixed, half is random (`jitter` in 0..1), so that parallel uploads do
    /// not come back as one crowd. A registry's `Retry-After` is a lower bound.
    pub fn wait(&self, attempt: u32, asked: Option<Duration>, elapsed: Duration, jitter: f64) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << (attempt - 1).min(16)).min(self.longest_wait);
        let wait = doubled / 2 + doubled.mul_f64(jitter.clamp(0.0, 1.0) / 2.0);
        let wait = wait.max(asked.unwrap_or_default());
        (elapsed + wait <= self.deadline).then_some(wait)
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(30),
            first_wait: Duration::from_millis(500),
            longest_wait: Duration::from_secs(20),
            attempts: 6,
            deadline: Duration::from_secs(300),
        }
    }
}

/// One attempt that failed.
#[derive(Debug)]
pub enum Fault {
    /// May pass: try again, no sooner than the registry asked for.
    Transient(Error, Option<Duration>),
    /// The registry wants a login, or a newer token; this is what it said.
    Unauthorized(Box<Answer>),
    /// Trying again would not help.
    Fatal(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Reads `Retry-After`: seconds or an HTTP date (RFC 9110, section 10.2.3).
pub fn retry_after(value: &str, now: time::OffsetDateTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    // The zone of IMF-fixdate is always GMT; RFC 2822 wants an offset.
    let date = value.strip_suffix("GMT").map_or_else(|| value.to_owned(), |date| format!("{date}+0000"));
    let date = time::OffsetDateTime::parse(&date, &time::format_description::well_known::Rfc2822).ok()?;
    Some(Duration::try_from(date - now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let patience = Patience { attempts: 9, ..Patience::default() };
        for (attempt, asked, elapsed, jitter, expected) in [
            (1, None, 0, 0.0, Some(250)),
            (1, None, 0, 1.0, Some(500)),
            (2, None, 0, 1.0, Some(1_000)),
            (3, None, 0, 1.0, Some(2_000)),
            (8, None, 0, 1.0, Some(20_000)),
            (9, None, 0, 1.0, None),
            (1, Some(7), 0, 1.0, Some(7_000)),
            (1, Some(0), 0, 1.0, Some(500)),
            (1, Some(120), 0, 1.0, Some(120_000)),
            (1, Some(400), 0, 1.0, None),
            (2, None, 300, 1.0, None),
        ] {
            let wait = patience.wait(attempt, asked.map(Duration::from_secs), Duration::from_secs(elapsed), jitter);
            let expected = expected.map(Duration::from_millis);
            assert_eq!(wait, expected, "attempt {attempt}, asked {asked:?}, elapsed {elapsed}, jitter {jitter}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = time::macros::datetime!(2026-11-23 12:00:00 UTC);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Mon, 23 Nov 2026 12:01:30 GMT", Some(90)),
            ("Mon, 23 Nov 2026 11:00:00 GMT", Some(0)),
            ("soon", None),
            ("-3", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text}");
        }
    }
}
