//! The guest's clocks: wall time in Docker's forms, and time since boot.

use rustix::time::{ClockId, Timespec, clock_gettime};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::error::{Context, Result};

/// Wall time now, Unix nanoseconds.
pub(crate) fn now() -> i64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

/// Sets the wall clock to `time`, Unix nanoseconds.
///
/// # Errors
/// When the kernel refuses, as it does for times before 1970.
pub(crate) fn set(time: i64) -> Result<()> {
    rustix::time::clock_settime(
        ClockId::Realtime,
        Timespec {
            tv_sec: time.div_euclid(1_000_000_000),
            tv_nsec: time.rem_euclid(1_000_000_000),
        },
    )
    .context("cannot set the clock")
}

/// Milliseconds since the kernel started.
pub(crate) fn uptime_ms() -> u64 {
    (nanoseconds(clock_gettime(ClockId::Boottime)) / 1_000_000) as u64
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

/// `time` (Unix nanoseconds) as Docker writes it in logs: RFC 3339 with
/// nanoseconds, UTC.
pub(crate) fn rfc3339(time: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
        time.nanosecond()
    )
}

/// Unix nanoseconds of an RFC 3339 time.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_all_nine_digits() {
        assert_eq!(rfc3339(1), "1970-01-01T00:00:00.000000001Z");
        assert_eq!(
            rfc3339(1_700_000_000_120_000_000),
            "2023-11-14T22:13:20.120000000Z"
        );
    }

    #[test]
    fn what_is_written_is_read_back() {
        let time = 1_763_710_000_123_456_789;
        assert_eq!(parse_rfc3339(&rfc3339(time)), Some(time));
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
