//! How long something big may be in the making.

use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// How long an instance or a cluster may take, in seconds.
const OPERATION_VARIABLE: &str = "XTASK_INFRA_OPERATION_SECONDS";
const OPERATION_SECONDS: u64 = 2400;

/// How long an instance or a cluster may take.
///
/// # Errors
/// `Config` where the variable says something else than a number of seconds.
pub fn operation_deadline() -> Result<Duration> {
    let seconds = match std::env::var(OPERATION_VARIABLE) {
        Err(_) => OPERATION_SECONDS,
        Ok(text) => text.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)).ok_or_else(|| {
            Error::new(Kind::Config, format!("{OPERATION_VARIABLE}={text} is not a number of seconds"))
                .hint(format!("give 1 to 86400 seconds; the default is {OPERATION_SECONDS}"))
        })?,
    };
    Ok(Duration::from_secs(seconds))
}

/// It took longer.
pub fn unended(title: &str, after: Duration) -> Error {
    let message = format!("{title} is not ready after {} s", after.as_secs());
    Error::new(Kind::Remote, message).hint("Google goes on with it: run the same command again to wait for it")
}
