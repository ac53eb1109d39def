//! `--since` and `--until`: a date, Unix seconds, or how long ago.

use time::{
    Date, OffsetDateTime, PrimitiveDateTime, UtcOffset, format_description::well_known::Rfc3339,
    macros::format_description,
};

/// Unix seconds with nanoseconds, as the API takes them: `1700000000.000000000`.
/// Durations (`42m`, `1h30m`) count back from `now`; dates without a zone are in
/// the zone of `now`.
pub(crate) fn parse(text: &str, now: OffsetDateTime) -> Result<String, String> {
    if let Some(nanoseconds) = duration(text) {
        return Ok(seconds(now.unix_timestamp_nanos() - nanoseconds));
    }
    if let Some(moment) = date(text, now.offset()) {
        return Ok(seconds(moment.unix_timestamp_nanos()));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if is_number(whole) && is_number(fraction) && whole.len() <= 12 && fraction.len() <= 9 {
        return Ok(text.to_owned());
    }
    Err(format!(
        "failed to parse value as time or duration: \"{text}\""
    ))
}

fn seconds(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let nanoseconds = nanoseconds.unsigned_abs();
    format!(
        "{sign}{}.{:09}",
        nanoseconds / 1_000_000_000,
        nanoseconds % 1_000_000_000
    )
}

fn date(text: &str, offset: UtcOffset) -> Option<OffsetDateTime> {
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment);
    }
    let (text, offset) = match text.strip_suffix('Z') {
        Some(text) => (text, UtcOffset::UTC),
        None => (text, offset),
    };
    for format in [format_description!(
        "[year]-[month]-[day]T[hour]:[minute][optional [:[second][optional [.[subsecond]]]]]"
    )] {
        if let Ok(moment) = PrimitiveDateTime::parse(text, format) {
            return Some(moment.assume_offset(offset));
        }
    }
    let date = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    Some(date.midnight().assume_offset(offset))
}

/// A duration as Go writes it, in nanoseconds: `1h30m`, `1.5s`, `300ms`.
pub(super) fn duration(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total = 0_i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: f64 = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let nanoseconds = number.parse::<f64>().ok()? * scale;
        if !nanoseconds.is_finite() || nanoseconds > 1e19 {
            return None;
        }
        total = total.checked_add(nanoseconds as i128)?;
        rest = tail;
    }
    // 292 years, the longest that Go's durations reach.
    (total <= i128::from(i64::MAX)).then_some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 08:00:00 +02:00);

    #[test]
    fn all_the_forms_that_docker_takes() {
        let now = NOW.unix_timestamp();
        for (text, expected) in [
            ("42m", format!("{}.000000000", now - 42 * 60)),
            ("1h30m", format!("{}.000000000", now - 5400)),
            ("1.5s", format!("{}.500000000", now - 2)),
            ("0s", format!("{now}.000000000")),
            ("1700000000", "1700000000".into()),
            ("1700000000.5", "1700000000.5".into()),
            ("2026-11-21T06:00:00Z", format!("{now}.000000000")),
            ("2026-11-21T08:00:00", format!("{now}.000000000")),
            ("2026-11-21T08:00", format!("{now}.000000000")),
            ("2026-11-21T08:00:00.25+02:00", format!("{now}.250000000")),
            ("2026-11-21", format!("{}.000000000", now - 8 * 3600)),
        ] {
            assert_eq!(parse(text, NOW).as_ref(), Ok(&expected), "{text}");
        }
        for text in ["", "x", "5x", "m", "2026-13-01", "1.2.3", "--1"] {
            assert!(parse(text, NOW).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = parse(&text, NOW);
        }

        #[test]
        fn durations_add_up(hours in 0_i64..1000, minutes in 0_i64..1000, seconds_ in 0_i64..1000) {
            let parsed = parse(&format!("{hours}h{minutes}m{seconds_}s"), NOW).unwrap();
            let expected = NOW.unix_timestamp() - hours * 3600 - minutes * 60 - seconds_;
            prop_assert_eq!(parsed, format!("{expected}.000000000"));
        }
    }
}
