//! Which namespaces a container has of its own and which it shares, and the kernel
//! parameters in those of its own.

use guest_protocol::{
    AgentError,
    container::Container,
    docker::{HostConfig, HostConfigCgroupnsModeEnum},
};
use serde_json::{Value, json};

use super::Sources;
use crate::{containers::user_namespace, error::Result};

/// Kernel parameters that each IPC namespace has for itself; those that begin with
/// `fs.mqueue.` are, too.
const OF_IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The namespaces a container may share, as OCI and as Docker's options name them.
pub(crate) fn shared_namespaces(host: &HostConfig) -> [(&'static str, &str); 4] {
    [
        ("network", host.network_mode.as_deref().unwrap_or_default()),
        ("pid", host.pid_mode.as_deref().unwrap_or_default()),
        ("ipc", host.ipc_mode.as_deref().unwrap_or_default()),
        ("uts", host.uts_mode.as_deref().unwrap_or_default()),
    ]
}

/// Whether the container's `/dev/shm` is there for others to share.
pub(crate) fn shares_memory(host: &HostConfig) -> bool {
    host.ipc_mode.as_deref() == Some("shareable")
}

/// Whether the container gets a network namespace of its own.
pub(crate) fn own_network(host: &HostConfig) -> bool {
    let mode = host.network_mode.as_deref().unwrap_or_default();
    mode != "host" && !mode.starts_with("container:")
}

/// Where containers' cgroups are, below the root of the hierarchy.
const CGROUPS: &str = "/containers";

/// How many components a cgroup's parent may have.
const DEEPEST_PARENT: usize = 16;

/// The container's cgroup, below the root of the hierarchy: by itself or, of
/// containers that share limits of somebody else's, in their parent.
pub(crate) fn cgroup(container: &Container) -> String {
    let parent = container.host_config.cgroup_parent.as_deref();
    parent
        .unwrap_or_default()
        .split('/')
        .filter(|name| !name.is_empty())
        .fold(CGROUPS.to_owned(), |path, name| format!("{path}/{name}"))
        + "/"
        + &container.id
}

/// Refuses a parent that would be elsewhere, or the cgroup of a container.
fn check_cgroup_parent(parent: &str) -> Result<()> {
    let names = || parent.split('/').filter(|name| !name.is_empty());
    let is_name = |name: &str| {
        let is_id = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        !matches!(name, "." | "..")
            && name.len() <= 255
            && !is_id
            && !name.contains(char::is_control)
    };
    if names().all(is_name) && names().count() <= DEEPEST_PARENT {
        return Ok(());
    }
    Err(AgentError::invalid(format!(
        "invalid cgroup parent: {parent:?}"
    )))
}

/// Refuses modes that are none, and combinations that make no sense.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    let refuse = |message: String| Err(AgentError::invalid(message));
    let text = |mode: &'_ Option<String>| mode.clone().unwrap_or_default();
    let joins = |mode: &str| {
        mode.strip_prefix("container:")
            .is_some_and(|name| !name.is_empty())
    };
    for (name, mode, modes, can_join) in [
        (
            "IPC",
            text(&host.ipc_mode),
            &["", "none", "private", "shareable", "host"][..],
            true,
        ),
        ("PID", text(&host.pid_mode), &["", "host"], true),
        ("UTS", text(&host.uts_mode), &["", "host"], false),
        (
            "userns",
            text(&host.userns_mode),
            &["", "host", "private"],
            false,
        ),
    ] {
        let known = modes.contains(&mode.as_str()) || (can_join && joins(&mode));
        if !known {
            return refuse(format!("invalid {name} mode: {mode}"));
        }
    }
    check_cgroup_parent(host.cgroup_parent.as_deref().unwrap_or_default())?;
    if user_namespace::is_wanted(host) {
        check_user_namespace(host).map_err(AgentError::invalid)?;
    }
    let own_ipc = !matches!(host.ipc_mode.as_deref(), Some("host"))
        && !joins(host.ipc_mode.as_deref().unwrap_or_default());
    for name in host.sysctls.iter().flatten().map(|(name, _)| name) {
        let of_ipc = OF_IPC.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
        if of_ipc && !own_ipc {
            return refuse(format!(
                "sysctl {name:?} is not allowed in the hosts ipc namespace"
            ));
        }
        let of_network = name.starts_with("net.");
        if of_network && !own_network(host) {
            return refuse(format!(
                "sysctl {name:?} not allowed in host network namespace"
            ));
        }
        if !of_ipc && !of_network || name.contains("..") || name.contains('/') {
            return refuse(format!(
                "sysctl {name:?} is not in a separate kernel namespace"
            ));
        }
    }
    Ok(())
}

/// Refuses to share what belongs to the machine's user namespace.
fn check_user_namespace(host: &HostConfig) -> std::result::Result<(), &'static str> {
    if host.privileged == Some(true) {
        return Err(
            "privileged mode is incompatible with user namespaces.  You must run the container \
             in the host namespace when running privileged mode",
        );
    }
    for (kind, mode) in shared_namespaces(host) {
        match (kind, mode) {
            ("network", "host") => {
                return Err(
                    "cannot share the host's network namespace when user namespaces are enabled",
                );
            }
            ("pid", "host") => {
                return Err("cannot share the host PID namespace when user namespaces are enabled");
            }
            ("ipc", "host") => {
                return Err("cannot share the host IPC namespace when user namespaces are enabled");
            }
            (_, mode) if mode.starts_with("container:") => {
                return Err(
                    "cannot share a namespace of another container when user namespaces are enabled",
                );
            }
            _ => {}
        }
    }
    if host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST) {
        return Err("cannot share the host cgroup namespace when user namespaces are enabled");
    }
    Ok(())
}

/// The `namespaces` of a specification.
///
/// # Errors
/// When the container whose namespace is to be joined is not given.
pub(super) fn of(sources: &Sources<'_>) -> Result<Vec<Value>> {
    let host = &sources.container.host_config;
    let mut namespaces = vec![json!({"type": "mount"})];
    if user_namespace::is_wanted(host) {
        namespaces.push(json!({"type": "user"}));
    }
    if host.cgroupns_mode != Some(HostConfigCgroupnsModeEnum::HOST) {
        namespaces.push(json!({"type": "cgroup"}));
    }
    for (kind, mode) in shared_namespaces(host) {
        if mode == "host" {
            continue;
        }
        if !mode.starts_with("container:") {
            namespaces.push(json!({"type": kind}));
            continue;
        }
        let joined = sources
            .joined
            .iter()
            .find(|joined| joined.kind == kind)
            .ok_or_else(|| AgentError::system(format!("there is no {kind} namespace to join")))?;
        let file = if kind == "network" { "net" } else { kind };
        namespaces.push(json!({"type": kind, "path": format!("/proc/{}/ns/{file}", joined.pid)}));
    }
    Ok(namespaces)
}

/// Docker's defaults, so that no privilege is needed for low ports and for `ping`,
/// and what the user set.
pub(super) fn sysctls(host: &HostConfig, own_network: bool) -> Value {
    let mut sysctls = serde_json::Map::new();
    if own_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
        // Groups that a user namespace does not have cannot be named.
        let groups = if user_namespace::is_wanted(host) {
            "0 65535"
        } else {
            "0 2147483647"
        };
        sysctls.insert("net.ipv4.ping_group_range".into(), json!(groups));
    }
    for (name, value) in host.sysctls.iter().flatten() {
        sysctls.insert(name.clone(), json!(value));
    }
    Value::Object(sysctls)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn modes_that_are_none_are_refused() {
        let host = HostConfig::default;
        let mode = |text: &str| Some(text.to_owned());
        for (host, message) in [
            (
                HostConfig {
                    ipc_mode: mode("x"),
                    ..host()
                },
                "invalid IPC mode: x",
            ),
            (
                HostConfig {
                    ipc_mode: mode("container:"),
                    ..host()
                },
                "invalid IPC mode: container:",
            ),
            (
                HostConfig {
                    pid_mode: mode("private"),
                    ..host()
                },
                "invalid PID mode: private",
            ),
            (
                HostConfig {
                    uts_mode: mode("container:a"),
                    ..host()
                },
                "invalid UTS mode: container:a",
            ),
            (
                HostConfig {
                    userns_mode: mode("x"),
                    ..host()
                },
                "invalid userns mode: x",
            ),
        ] {
            assert_eq!(check(&host).unwrap_err().message, message);
        }
        for ipc in ["", "none", "private", "shareable", "host", "container:a"] {
            check(&HostConfig {
                ipc_mode: mode(ipc),
                ..host()
            })
            .unwrap();
        }
    }

    #[test]
    fn a_cgroup_is_in_its_parent_and_never_elsewhere() {
        let container = |parent: &str| Container {
            id: "ab".into(),
            host_config: HostConfig {
                cgroup_parent: Some(parent.into()),
                ..HostConfig::default()
            },
            ..Container::default()
        };
        for (parent, path) in [
            ("", "/containers/ab"),
            ("/", "/containers/ab"),
            ("jobs", "/containers/jobs/ab"),
            ("/jobs//night/", "/containers/jobs/night/ab"),
        ] {
            let container = container(parent);
            check(&container.host_config).unwrap();
            assert_eq!(cgroup(&container), path);
        }
        let (id, long, deep) = ("0a".repeat(32), "x".repeat(256), "/x".repeat(17));
        for parent in ["..", "/a/../b", "a/.", "a\nb", "a\0", &id, &long, &deep] {
            assert!(check(&container(parent).host_config).is_err(), "{parent:?}");
        }
    }

    #[test]
    fn kernel_parameters_are_those_of_namespaces() {
        let host = |name: &str| HostConfig {
            sysctls: Some(HashMap::from([(name.to_owned(), "1".to_owned())])),
            ..HostConfig::default()
        };
        for name in ["net.core.somaxconn", "kernel.msgmax", "fs.mqueue.msg_max"] {
            check(&host(name)).unwrap();
        }
        for name in ["vm.swappiness", "kernel.hostname", "net./../../x", "net..x"] {
            let error = check(&host(name)).unwrap_err().message;
            assert!(
                error.contains("is not in a separate kernel namespace"),
                "{error}"
            );
        }
        let mut shared = host("net.core.somaxconn");
        shared.network_mode = Some("host".into());
        assert!(check(&shared).is_err());
        let mut shared = host("kernel.msgmax");
        shared.ipc_mode = Some("host".into());
        assert!(check(&shared).is_err());
    }
}
