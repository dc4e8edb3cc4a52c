//! Points in time that can be compared with those of the cluster, which is on the same machine.

use std::fmt;

use ::time::OffsetDateTime;
use ::time::format_description::well_known::Rfc3339;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp(OffsetDateTime);

impl Stamp {
    /// Now.
    pub fn now() -> Self {
        Self(OffsetDateTime::now_utc())
    }

    /// A time of the API server: RFC 3339, with or without fractions.
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(Self)
    }

    /// Seconds from `earlier` to this, negative if this is the earlier one.
    pub fn since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0).as_seconds_f64()
    }

    /// Milliseconds since 1970.
    pub fn millis(self) -> i64 {
        (self.0.unix_timestamp_nanos() / 1_000_000) as i64
    }

    /// Seconds since 1970 in few characters.
    pub fn short(self) -> String {
        format!("{:x}", self.0.unix_timestamp())
    }

    /// A text that no other point in time has.
    pub fn unique(self) -> String {
        format!("{:x}", self.0.unix_timestamp_nanos())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (h, m, s, ms) = self.0.to_hms_milli();
        write!(f, "{h:02}:{m:02}:{s:02}.{ms:03}")
    }
}
