//! Time as rows hold it, and the two columns that are derived from it when a row is taken in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time: microseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// Microseconds of a day.
pub const DAY_US: i64 = 86_400_000_000;

impl Micros {
    /// Microseconds from `earlier` to `self`, never negative.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }

    /// This point in time, `micros` later.
    #[must_use]
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Micros {
    /// RFC 3339 in UTC with microseconds, as people read it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.6}"),
            Err(_) => write!(f, "{}us", self.0),
        }
    }
}

/// The column `day`: days since 1970-01-01 of `at` in UTC, clamped to seven days before and one
/// day after `uploaded_at`, so that a service with a wrong clock cannot scatter partitions.
pub fn day_of(at: Micros, uploaded_at: Micros) -> i32 {
    let clamped =
        at.0.clamp(uploaded_at.0.saturating_sub(7 * DAY_US), uploaded_at.0.saturating_add(DAY_US));
    clamped.div_euclid(DAY_US) as i32
}

/// The column `cluster_key`: what files are clustered by, so that a flow lies together.
pub fn cluster_key<'a>(
    transaction_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    message: Option<&'a str>,
) -> Option<&'a str> {
    transaction_id.or(trace_id).or(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_clamped_to_the_upload_time() {
        let uploaded = Micros(20_000 * DAY_US + 5);
        assert_eq!(day_of(Micros(20_000 * DAY_US), uploaded), 20_000);
        assert_eq!(day_of(Micros(0), uploaded), 19_993);
        assert_eq!(day_of(Micros(i64::MAX), uploaded), 20_001);
        assert_eq!(day_of(Micros(-1), Micros(0)), -1);
    }

    #[test]
    fn times_print_as_rfc3339_with_microseconds() {
        assert_eq!(Micros(1_000_001).to_string(), "1970-01-01T00:00:01.000001Z");
    }
}
