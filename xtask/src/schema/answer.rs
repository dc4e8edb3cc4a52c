//! What the programs that run beside a database print: a line of JSON for each store, behind a mark.

use serde::de::DeserializeOwned;

use super::Store;
use crate::error::{Context as _, Error, Kind, Result};

/// Reads the lines behind `mark` from all that was printed: one for the tracking store, and one for the
/// login's where there is one. `whose` completes "the pod that ... printed no good answer".
///
/// # Errors
/// `Remote` for an answer that is none.
pub fn read<T: DeserializeOwned>(mark: &str, lines: &[String], whose: &str, of: fn(&T) -> Store) -> Result<Vec<T>> {
    let odd = || format!("the pod that {whose} printed no good answer");
    let found = lines.iter().filter_map(|line| line.strip_prefix(mark)).map(serde_json::from_str::<T>);
    let found: Vec<T> = found.collect::<std::result::Result<_, _>>().context(Kind::Remote, odd)?;
    let count = |store: Store| found.iter().filter(|found| of(found) == store).count();
    match (count(Store::Tracking), count(Store::Login)) {
        (1, 0 | 1) => Ok(found),
        _ => {
            let last = lines.last().map_or("nothing", String::as_str);
            Err(Error::new(Kind::Remote, odd()).source(format!("it printed: {}", crate::report::shorten(200, last))))
        }
    }
}
