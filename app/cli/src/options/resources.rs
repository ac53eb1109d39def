//! Limits: sizes, CPUs, ulimits, restart policies, tmpfs mounts.

use bollard_stubs::models::{ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum};

/// A size in bytes, in binary units: `512m`, `1.5g`, `64KiB`.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("invalid size: '{text}'"))?;
    let unit = unit.trim_start_matches(' ').to_ascii_lowercase();
    let exponent = match unit.strip_suffix('b').unwrap_or(&unit) {
        "" => 0,
        "k" | "ki" => 1,
        "m" | "mi" => 2,
        "g" | "gi" => 3,
        "t" | "ti" => 4,
        "p" | "pi" => 5,
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    let bytes = number * 1024_f64.powi(exponent);
    // 2^63 is exact in a double; what is below it fits.
    if bytes < 9_223_372_036_854_775_808.0 {
        Ok(bytes as i64)
    } else {
        Err(format!("invalid size: '{text}' is too large"))
    }
}

/// A size in bytes, or -1 for no limit.
pub(crate) fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text == "-1" { Ok(-1) } else { bytes(text) }
}

/// A number of CPUs, in billionths of one: `1.5`.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    let failed = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !is_number(whole) || !is_number(fraction) {
        return Err(failed());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".into());
    }
    let digits = format!("{whole}{fraction:0<9}");
    digits.parse().map_err(|_| failed())
}

/// The limits that setrlimit(2) knows, as Docker names them.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`, -1 for no limit.
pub(crate) fn ulimit(text: &str) -> Result<ResourcesUlimits, String> {
    let (name, limits) = text
        .split_once('=')
        .ok_or_else(|| format!("invalid ulimit argument: {text}"))?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| -> Result<i64, String> {
        text.parse()
            .ok()
            .filter(|limit| *limit >= -1)
            .ok_or_else(|| format!("invalid ulimit value: {text}"))
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft),
        hard: Some(hard),
    })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:times]`.
pub(crate) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    let (name, times) = match text.split_once(':') {
        Some((name, times)) => (name, Some(times)),
        None => (text, None),
    };
    let policy = match name {
        "" if times.is_some() => {
            return Err("invalid restart policy format: no policy provided before colon".into());
        }
        "" | "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        _ => {
            return Err(format!(
                "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
            ));
        }
    };
    let times = match times {
        None => 0,
        Some(_) if policy != RestartPolicyNameEnum::ON_FAILURE => {
            return Err(
                "invalid restart policy: maximum retry count can only be used with 'on-failure'"
                    .into(),
            );
        }
        Some(times) => times
            .parse()
            .ok()
            .filter(|times| *times >= 0)
            .ok_or("invalid restart policy format: maximum retry count must be an integer")?,
    };
    Ok(RestartPolicy {
        name: Some(policy),
        maximum_retry_count: Some(times),
    })
}

/// `/path[:options]`.
pub(crate) fn tmpfs(text: &str) -> Result<(String, String), String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    if !path.starts_with('/') {
        return Err(format!(
            "invalid tmpfs mount '{text}': the path must be absolute"
        ));
    }
    Ok((path.to_owned(), options.to_owned()))
}

/// `name=value`; both as they are.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("invalid option \"{text}\": it must be of the form NAME=VALUE"))
}

/// 0 to 100, or -1 for the machine's.
pub(crate) fn swappiness(text: &str) -> Result<i64, String> {
    text.parse()
        .ok()
        .filter(|number| (-1..=100).contains(number))
        .ok_or_else(|| format!("invalid value: {text}. Valid memory swappiness range is 0-100"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("1k", 1024),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("64 KiB", 65536),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in ["", "m", "1q", "-1", "1..2", "1e3", "9999999p", "1 m m"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes("1q").unwrap_err(), "invalid suffix: 'q'");
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn cpus() {
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus(".25"), Ok(250_000_000));
        assert_eq!(nano_cpus("2"), Ok(2_000_000_000));
        assert_eq!(
            nano_cpus("0.0000000001").unwrap_err(),
            "value is too precise"
        );
        for text in ["", ".", "a", "-1", "1.2.3", "99999999999999"] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits() {
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (Some(1024), Some(2048)));
        assert_eq!(ulimit("core=-1").unwrap().hard, Some(-1));
        for text in [
            "foo",
            "foo=1",
            "nofile=",
            "nofile=2:1",
            "nofile=1:2:3",
            "nofile=-2",
        ] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn restart_policies() {
        let policy = restart_policy("on-failure:3").unwrap();
        assert_eq!(policy.name, Some(RestartPolicyNameEnum::ON_FAILURE));
        assert_eq!(policy.maximum_retry_count, Some(3));
        for text in ["foo", ":1", "always:1", "on-failure:x", "on-failure:-1"] {
            assert!(restart_policy(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tmpfs_mounts() {
        assert_eq!(
            tmpfs("/run:size=1m,mode=700"),
            Ok(("/run".into(), "size=1m,mode=700".into()))
        );
        assert!(tmpfs("run").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            if let Ok(size) = bytes(&text) {
                prop_assert!(size >= 0);
            }
            let _ = nano_cpus(&text);
            let _ = ulimit(&text);
            let _ = restart_policy(&text);
        }

        #[test]
        fn whole_numbers_of_bytes_are_exact(size in 0_i64..1 << 52) {
            prop_assert_eq!(bytes(&size.to_string()), Ok(size));
        }

        #[test]
        fn ulimits_keep_their_order(soft in -1_i64..100, hard in -1_i64..100) {
            let fine = hard == -1 || (soft != -1 && soft <= hard);
            prop_assert_eq!(ulimit(&format!("nproc={soft}:{hard}")).is_ok(), fine);
        }
    }
}
