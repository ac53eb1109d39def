//! What a user left open about a container and Docker fills in, and options that
//! exclude each other or name something that is not there.

use guest_protocol::{
    AgentError, ErrorKind,
    docker::{
        ContainerConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigIsolationEnum,
        HostConfigLogConfig, RestartPolicy, RestartPolicyNameEnum,
    },
};

use super::spec::{mounts, resources};
use crate::error::Result;

/// The runtime's name that clients see; the others are those that scripts ask for.
const RUNTIME: &str = "dctl";
const RUNTIMES: [&str; 4] = ["", RUNTIME, "runc", "io.containerd.runc.v2"];

/// Log drivers, each with its options.
const LOG_DRIVERS: [(&str, &[&str]); 3] = [
    (
        "json-file",
        &[
            "compress",
            "env",
            "env-regex",
            "labels",
            "labels-regex",
            "max-file",
            "max-size",
            "mode",
            "max-buffer-size",
            "tag",
        ],
    ),
    (
        "local",
        &[
            "compress",
            "max-file",
            "max-size",
            "mode",
            "max-buffer-size",
        ],
    ),
    ("none", &[]),
];

/// Fills in what the user left open, as `inspect` shows it; says what is left out.
pub(super) fn fill(host: &mut HostConfig) -> Vec<String> {
    let text = |slot: &mut Option<String>, default: &str| {
        if slot.as_ref().is_none_or(String::is_empty) {
            *slot = Some(default.to_owned());
        }
    };
    if host.network_mode.as_deref() == Some("default") {
        host.network_mode = None;
    }
    text(&mut host.network_mode, "bridge");
    text(&mut host.ipc_mode, "private");
    text(&mut host.runtime, RUNTIME);
    host.shm_size = Some(mounts::shared_memory_size(host));
    if !matches!(host.cgroupns_mode, Some(HostConfigCgroupnsModeEnum::HOST)) {
        host.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::PRIVATE);
    }
    host.restart_policy.get_or_insert(RestartPolicy {
        name: Some(RestartPolicyNameEnum::NO),
        maximum_retry_count: Some(0),
    });
    let log = host.log_config.get_or_insert_default();
    *log = HostConfigLogConfig {
        typ: Some(log_driver(log).to_owned()),
        config: Some(log.config.take().unwrap_or_default()),
    };
    resources::adjust(host)
}

fn log_driver(log: &HostConfigLogConfig) -> &str {
    log.typ
        .as_deref()
        .filter(|name| !name.is_empty())
        .unwrap_or("json-file")
}

/// Refuses what is not there, and options that exclude each other.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let refuse = |message: String| Err(AgentError::invalid(message));
    let runtime = host.runtime.as_deref().unwrap_or_default();
    if !RUNTIMES.contains(&runtime) {
        return refuse(format!("unknown or invalid runtime name: {runtime}"));
    }
    if let Some(isolation @ (HostConfigIsolationEnum::PROCESS | HostConfigIsolationEnum::HYPERV)) =
        host.isolation
    {
        return refuse(format!(
            "invalid isolation ({isolation}): linux only supports 'default'"
        ));
    }
    if host
        .storage_opt
        .as_ref()
        .is_some_and(|options| !options.is_empty())
    {
        return refuse(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"
                .to_owned(),
        );
    }
    let volume_driver = host.volume_driver.as_deref().unwrap_or_default();
    if !["", "local"].contains(&volume_driver) {
        return Err(AgentError::new(
            ErrorKind::NotFound,
            format!(
                "error looking up volume plugin {volume_driver}: plugin \"{volume_driver}\" not found"
            ),
        ));
    }
    if let Some(log) = &host.log_config {
        check_log(log)?;
    }
    conflicts(config, host).map_err(AgentError::invalid)
}

fn check_log(log: &HostConfigLogConfig) -> Result<()> {
    let driver = log_driver(log);
    let Some((_, options)) = LOG_DRIVERS.iter().find(|(known, _)| *known == driver) else {
        return Err(AgentError::invalid(format!(
            "error looking up logging plugin {driver}: plugin \"{driver}\" not found"
        )));
    };
    let unknown = log
        .config
        .iter()
        .flatten()
        .map(|(name, _)| name)
        .find(|name| !options.contains(&name.as_str()));
    match unknown {
        Some(name) => Err(AgentError::invalid(format!(
            "unknown log opt '{name}' for {driver} log driver"
        ))),
        None => Ok(()),
    }
}

/// Options that exclude each other.
fn conflicts(config: &ContainerConfig, host: &HostConfig) -> std::result::Result<(), &'static str> {
    fn any<T>(list: Option<&Vec<T>>) -> bool {
        list.is_some_and(|list| !list.is_empty())
    }
    let named = config
        .hostname
        .as_ref()
        .is_some_and(|name| !name.is_empty());
    if named && host.uts_mode.as_deref() == Some("host") {
        return Err("conflicting options: hostname and the UTS mode");
    }
    let network = host.network_mode.as_deref().unwrap_or_default();
    if network == "host" && any(host.links.as_ref()) {
        return Err(
            "conflicting options: host type networking can't be used with links. This would \
             result in undefined behavior",
        );
    }
    if !network.starts_with("container:") {
        return Ok(());
    }
    let publishes = host.publish_all_ports == Some(true)
        || host
            .port_bindings
            .as_ref()
            .is_some_and(|ports| !ports.is_empty());
    let exposes = config
        .exposed_ports
        .as_ref()
        .is_some_and(|ports| !ports.is_empty());
    for (given, message) in [
        (named, "conflicting options: hostname and the network mode"),
        (
            any(host.links.as_ref()),
            "conflicting options: container type network can't be used with links. This would \
             result in undefined behavior",
        ),
        (
            any(host.dns.as_ref()),
            "conflicting options: dns and the network mode",
        ),
        (
            any(host.extra_hosts.as_ref()),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            publishes,
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            exposes,
            "conflicting options: port exposing and the container type network mode",
        ),
    ] {
        if given {
            return Err(message);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    fn refused(config: &Value, host: &Value) -> Option<String> {
        let config = ContainerConfig::deserialize(config).unwrap();
        let host = HostConfig::deserialize(host).unwrap();
        check(&config, &host).err().map(|error| error.message)
    }

    #[test]
    fn what_is_left_open_is_docker_s() {
        let mut host = HostConfig::default();
        assert!(fill(&mut host).is_empty());
        let host = serde_json::to_value(host).unwrap();
        assert_eq!(host["NetworkMode"], "bridge");
        assert_eq!(host["IpcMode"], "private");
        assert_eq!(host["CgroupnsMode"], "private");
        assert_eq!(host["ShmSize"], 64 << 20);
        assert_eq!(
            host["LogConfig"],
            json!({"Type": "json-file", "Config": {}})
        );
        assert_eq!(host["RestartPolicy"]["Name"], "no");
    }

    #[test]
    fn what_is_not_there_is_refused() {
        for (host, message) in [
            (
                json!({"Runtime": "nope"}),
                "unknown or invalid runtime name: nope",
            ),
            (
                json!({"Isolation": "hyperv"}),
                "linux only supports 'default'",
            ),
            (
                json!({"StorageOpt": {"size": "1g"}}),
                "--storage-opt is supported only for",
            ),
            (json!({"VolumeDriver": "nope"}), "plugin \"nope\" not found"),
            (
                json!({"LogConfig": {"Type": "nope"}}),
                "error looking up logging plugin nope: plugin \"nope\" not found",
            ),
            (
                json!({"LogConfig": {"Type": "", "Config": {"x": "y"}}}),
                "unknown log opt 'x' for json-file log driver",
            ),
        ] {
            let error = refused(&json!({}), &host).unwrap();
            assert!(error.contains(message), "{error}");
        }
        let fine = json!({"Runtime": "runc", "LogConfig": {"Type": "local", "Config": {"max-size": "1m"}}});
        assert_eq!(refused(&json!({}), &fine), None);
    }

    #[test]
    fn options_that_exclude_each_other_are_refused() {
        for (config, host, message) in [
            (
                json!({"Hostname": "a"}),
                json!({"UTSMode": "host"}),
                "hostname and the UTS mode",
            ),
            (
                json!({"Hostname": "a"}),
                json!({"NetworkMode": "container:b"}),
                "hostname and the network mode",
            ),
            (
                json!({}),
                json!({"NetworkMode": "container:b", "Dns": ["1.1.1.1"]}),
                "dns and the network mode",
            ),
            (
                json!({}),
                json!({"NetworkMode": "host", "Links": ["a"]}),
                "host type networking can't be used with links",
            ),
            (
                json!({}),
                json!({"NetworkMode": "container:b", "PublishAllPorts": true}),
                "port publishing and the container type network mode",
            ),
        ] {
            let error = refused(&config, &host).unwrap();
            assert!(error.contains(message), "{error}");
        }
    }
}
