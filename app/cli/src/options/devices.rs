//! Devices: which a container gets, and how much of a block device it may use.

use bollard_stubs::models::{DeviceMapping, ResourcesBlkioWeightDevice, ThrottleDevice};

use super::resources;

/// `path[:path[:permissions]]`, permissions of the letters `rwm`.
pub(crate) fn device(text: &str) -> Result<DeviceMapping, String> {
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target, permissions) = match fields.as_slice() {
        [source] => (*source, *source, "rwm"),
        [source, permissions] if are_permissions(permissions) => (*source, *source, *permissions),
        [source, target] => (*source, *target, "rwm"),
        [source, target, permissions] if are_permissions(permissions) => {
            (*source, *target, *permissions)
        }
        [_, _, permissions] => return Err(format!("bad mode specified: {permissions}")),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if source.is_empty() {
        return Err(format!("bad format for path: {text}"));
    }
    if !target.starts_with('/') {
        return Err(format!("{target} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: Some(source.to_owned()),
        path_in_container: Some(target.to_owned()),
        cgroup_permissions: Some(permissions.to_owned()),
    })
}

fn are_permissions(text: &str) -> bool {
    let once = |letter: char| text.matches(letter).count() <= 1;
    !text.is_empty() && text.chars().all(|letter| "rwm".contains(letter)) && "rwm".chars().all(once)
}

/// `type major:minor permissions`: `c 42:* rmw`.
pub(crate) fn cgroup_rule(text: &str) -> Result<String, String> {
    let fields: Vec<&str> = text.split(' ').collect();
    let number = |text: &str| {
        text == "*" || (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let valid = match fields.as_slice() {
        ["a" | "b" | "c", numbers, permissions] => {
            numbers
                .split_once(':')
                .is_some_and(|(major, minor)| number(major) && number(minor))
                && (1..=3).contains(&permissions.len())
                && permissions.chars().all(|letter| "rwm".contains(letter))
        }
        _ => false,
    };
    if valid {
        return Ok(text.to_owned());
    }
    Err(format!("invalid device cgroup format '{text}'"))
}

/// `path:weight`, from 10 to 1000, or 0 for none.
pub(crate) fn weight(text: &str) -> Result<ResourcesBlkioWeightDevice, String> {
    let (path, weight) = block_device(text)?;
    let weight = weight
        .parse::<usize>()
        .ok()
        .filter(|weight| *weight == 0 || (10..=1000).contains(weight))
        .ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(ResourcesBlkioWeightDevice {
        path: Some(path.to_owned()),
        weight: Some(weight),
    })
}

/// `path:bytes` a second, with a unit if need be.
pub(crate) fn bytes_rate(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = block_device(text)?;
    let rate = resources::bytes(rate).map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    })?;
    Ok(throttle(path, rate))
}

/// `path:number` a second.
pub(crate) fn operations_rate(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = block_device(text)?;
    let rate = rate.parse().ok().filter(|rate| *rate >= 0).ok_or_else(|| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )
    })?;
    Ok(throttle(path, rate))
}

fn throttle(path: &str, rate: i64) -> ThrottleDevice {
    ThrottleDevice {
        path: Some(path.to_owned()),
        rate: Some(rate),
    }
}

fn block_device(text: &str) -> Result<(&str, &str), String> {
    let (path, value) = text
        .split_once(':')
        .filter(|(path, _)| !path.is_empty())
        .ok_or_else(|| format!("bad format: {text}"))?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    Ok((path, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_in_every_form() {
        let fields = |text: &str| {
            let device = device(text).unwrap();
            [
                device.path_on_host.unwrap(),
                device.path_in_container.unwrap(),
                device.cgroup_permissions.unwrap(),
            ]
        };
        assert_eq!(fields("/dev/a"), ["/dev/a", "/dev/a", "rwm"]);
        assert_eq!(fields("/dev/a:r"), ["/dev/a", "/dev/a", "r"]);
        assert_eq!(fields("/dev/a:/dev/b"), ["/dev/a", "/dev/b", "rwm"]);
        assert_eq!(fields("/dev/a:/dev/b:mr"), ["/dev/a", "/dev/b", "mr"]);
        for text in [
            "",
            "/dev/a:b",
            "/dev/a:/dev/b:x",
            "/dev/a:/dev/b:rr",
            "a:b:c:d",
        ] {
            assert!(device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_weights_and_rates() {
        assert!(cgroup_rule("c 42:* rmw").is_ok());
        for text in ["c 42 r", "x 1:1 r", "c 1:1 x", "c  1:1 r", "c 1:1 rwmr"] {
            assert!(cgroup_rule(text).is_err(), "{text}");
        }
        assert_eq!(weight("/dev/vda:10").unwrap().weight, Some(10));
        for text in ["/dev/vda:9", "vda:10", "/dev/vda", ":10", "/dev/vda:x"] {
            assert!(weight(text).is_err(), "{text}");
        }
        assert_eq!(bytes_rate("/dev/vda:1mb").unwrap().rate, Some(1 << 20));
        assert_eq!(operations_rate("/dev/vda:100").unwrap().rate, Some(100));
        assert!(bytes_rate("/dev/vda:-1").is_err());
        assert!(operations_rate("/dev/vda:1k").is_err());
    }
}
