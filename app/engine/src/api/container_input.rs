//! What `POST /containers/create` refuses before anything is asked of the machine, in
//! Docker's words.

use guest_protocol::docker::{ContainerConfig, HostConfig};
use serde_json::Value;

use super::ApiError;

/// Names of restart policies.
const RESTART_POLICIES: &[&str] = &["", "no", "always", "on-failure", "unless-stopped"];
const MOUNT_TYPES: &[&str] = &["bind", "volume", "image", "tmpfs", "npipe", "cluster"];

/// Refuses names that the types of a configuration would not take, for which nobody
/// has good words.
///
/// # Errors
/// 400.
pub(super) fn check_names(body: &Value) -> Result<(), ApiError> {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str);
    check_restart_policy(text("/HostConfig/RestartPolicy/Name"))?;
    if let Some(mode) = text("/HostConfig/CgroupnsMode")
        && !["", "private", "host"].contains(&mode)
    {
        return Err(ApiError::bad_request(format!(
            "invalid cgroup namespace mode: {mode}"
        )));
    }
    let mounts = body.pointer("/HostConfig/Mounts").and_then(Value::as_array);
    for mount in mounts.into_iter().flatten() {
        let kind = mount.get("Type").and_then(Value::as_str);
        if let Some(kind) = kind.filter(|kind| !MOUNT_TYPES.contains(kind)) {
            return Err(ApiError::bad_request(format!(
                "invalid mount config for type {kind:?}: mount type unknown"
            )));
        }
    }
    Ok(())
}

/// Refuses a restart policy that nobody knows.
///
/// # Errors
/// 400.
pub(super) fn check_restart_policy(name: Option<&str>) -> Result<(), ApiError> {
    match name {
        Some(name) if !RESTART_POLICIES.contains(&name) => Err(ApiError::bad_request(format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', \
             'on-failure', or 'unless-stopped'"
        ))),
        _ => Ok(()),
    }
}

/// Refuses values that make no sense.
///
/// # Errors
/// 400.
pub(super) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::bad_request(message));
    let mut environment = config.env.iter().flatten();
    if let Some(variable) = environment.find(|it| it.is_empty() || it.starts_with('=')) {
        return refuse(format!("invalid environment variable: {variable}"));
    }
    for extra in host.extra_hosts.iter().flatten() {
        let Some((_, address)) = extra.split_once(':').or_else(|| extra.split_once('=')) else {
            return refuse(format!("bad format for add-host: {extra:?}"));
        };
        let bare = address.trim_start_matches('[').trim_end_matches(']');
        if address != "host-gateway" && bare.parse::<std::net::IpAddr>().is_err() {
            return refuse(format!("invalid IP address in add-host: {address:?}"));
        }
    }
    if host
        .annotations
        .iter()
        .flatten()
        .any(|(name, _)| name.is_empty())
    {
        return refuse(
            "invalid Annotations: the empty string is not permitted as an annotation key"
                .to_owned(),
        );
    }
    if host.shm_size.is_some_and(|size| size < 0) {
        return refuse("SHM size can not be less than 0".to_owned());
    }
    match host.memory_swappiness {
        Some(value) if !(-1..=100).contains(&value) => refuse(format!(
            "Invalid value: {value}, valid memory swappiness range is 0-100"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |config: Value, host: Value| {
            let config = serde_json::from_value(config).unwrap();
            let host = serde_json::from_value(host).unwrap();
            check(&config, &host).err().map(|error| error.message)
        };
        let none = json!({});
        assert_eq!(refused(json!({"Env": ["A=B", "C"]}), none.clone()), None);
        assert!(refused(json!({"Env": ["=x"]}), none.clone()).is_some());
        for (host, fine) in [
            (
                json!({"ExtraHosts": ["a:10.0.0.1", "b:host-gateway", "c:[::1]", "d:::1"]}),
                true,
            ),
            (json!({"ExtraHosts": ["a"]}), false),
            (json!({"ExtraHosts": ["a:b"]}), false),
            (json!({"Annotations": {"": "x"}}), false),
            (json!({"ShmSize": -1}), false),
            (json!({"MemorySwappiness": 101}), false),
            (json!({"MemorySwappiness": -1}), true),
        ] {
            assert_eq!(
                refused(none.clone(), host.clone()).is_none(),
                fine,
                "{host}"
            );
        }
        let names = |host: Value| check_names(&json!({"HostConfig": host})).is_ok();
        assert!(names(
            json!({"RestartPolicy": {"Name": "always"}, "Mounts": [{"Type": "bind"}]})
        ));
        assert!(!names(json!({"RestartPolicy": {"Name": "x"}})));
        assert!(!names(json!({"Mounts": [{"Type": "x"}]})));
        assert!(!names(json!({"CgroupnsMode": "x"})));
    }
}
