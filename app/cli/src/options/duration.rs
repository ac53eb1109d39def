//! Durations as Go writes them.

/// A duration in nanoseconds: `1h30m`, `1.5s`, `300ms`, `-5s`, `0`.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let total = if digits == "0" {
        0
    } else {
        super::timestamp::duration(digits)
            .and_then(|nanoseconds| i64::try_from(nanoseconds).ok())
            .ok_or_else(|| format!("time: invalid duration \"{text}\""))?
    };
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(duration("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration("500ms"), Ok(500_000_000));
        assert_eq!(duration("-1s"), Ok(-1_000_000_000));
        assert_eq!(duration("0"), Ok(0));
        for text in ["", "-", "1", "1 s", "s", "1x"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
