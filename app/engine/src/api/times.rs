//! Times as Docker prints and reads them. The agent's are Unix nanoseconds, zero
//! for never.

use time::{OffsetDateTime, UtcDateTime, format_description::well_known::Rfc3339};

/// What Docker prints for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Unix nanoseconds as RFC 3339 with fractions, in UTC.
pub(super) fn rfc3339(nanoseconds: i64) -> String {
    if nanoseconds == 0 {
        return NEVER.to_owned();
    }
    UtcDateTime::from_unix_timestamp_nanos(i128::from(nanoseconds))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| NEVER.to_owned())
}

/// An RFC 3339 text as Unix seconds; zero when it is none.
pub(super) fn unix_seconds(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}

/// Now, as Unix nanoseconds.
pub(crate) fn now() -> i64 {
    UtcDateTime::now().unix_timestamp_nanos() as i64
}

/// Reads a client's timestamp, in Unix nanoseconds: Unix seconds with an optional
/// fraction, RFC 3339, or a duration before now such as `10m`, `1h30m`.
///
/// # Errors
/// A message for the client.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(time.unix_timestamp_nanos() as i64);
    }
    seconds(text)
        .or_else(|| duration(text).map(|duration| now().saturating_sub(duration)))
        .ok_or_else(|| format!("failed to parse value as time or duration: {text:?}"))
}

/// `123` or `123.000000456` seconds, as nanoseconds.
fn seconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<9}").parse().ok()?;
    // Far in the future is as far as there is.
    Some(whole.saturating_mul(1_000_000_000).saturating_add(fraction))
}

/// Go's durations of whole numbers: `1h30m`, `10s`, `250ms`; in nanoseconds.
pub(crate) fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let unit = match &after[..end] {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &after[end..];
    }
    (!text.is_empty()).then_some(total)
}

/// A duration in words, as `docker ps` prints it: "About a minute", "3 weeks".
pub(super) fn in_words(nanoseconds: i64) -> String {
    let seconds = nanoseconds.max(0) / 1_000_000_000;
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_printed_with_their_fraction() {
        assert_eq!(rfc3339(0), NEVER);
        assert_eq!(
            rfc3339(1_700_000_000_123_456_789),
            "2023-11-14T22:13:20.123456789Z"
        );
        assert_eq!(unix_seconds("2023-11-14T23:13:20+01:00"), 1_700_000_000);
        assert_eq!(unix_seconds("yesterday"), 0);
    }

    #[test]
    fn clients_times_are_read() {
        assert_eq!(parse("1700000000"), Ok(1_700_000_000_000_000_000));
        assert_eq!(parse("1700000000.5"), Ok(1_700_000_000_500_000_000));
        assert_eq!(parse("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000_000_000));
        let ago = now() - parse("1h30m").unwrap();
        assert!((ago - 5_400_000_000_000).abs() < 10_000_000_000, "{ago}");
        assert!(parse("soon").is_err() && parse("").is_err() && parse("10").is_ok());
    }

    #[test]
    fn durations_are_docker_s_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(in_words(seconds * 1_000_000_000), words);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_printed_is_read(nanoseconds in 1..i64::MAX) {
            prop_assert_eq!(parse(&rfc3339(nanoseconds)), Ok(nanoseconds));
        }
    }
}
