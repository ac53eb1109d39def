//! The OCI runtime specification of a container, as Docker would make it.
//!
//! Built from a container's record and what was found in its root file system;
//! written to the bundle that the runtime process reads. Whatever Docker's
//! `HostConfig` asks for is worked out here or in the modules below, or refused
//! when the container is created ([`check`]).

pub(crate) mod capabilities;
pub(crate) mod files;
pub(crate) mod mounts;
pub(crate) mod resources;
pub(crate) mod rootfs;
pub(crate) mod user;

use std::path::Path;

use guest_protocol::{
    AgentError,
    container::{Container, ExecConfig},
    docker::{HostConfig, HostConfigCgroupnsModeEnum},
};
use serde_json::{Value, json};

use self::user::User;
use crate::{
    error::Result,
    runtime::{executor::DEFAULT_PATH, job::Confinement},
};

/// The version of the OCI runtime specification that is written.
const OCI_VERSION: &str = "1.2.0";

/// Capabilities that installing a system call filter and then dropping
/// capabilities take; the executor drops these, too.
const FOR_CONFINING: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// Paths that hide the machine's internals; Docker's list.
pub(crate) const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths that cannot be written; Docker's list.
pub(crate) const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// What a container's specification is made of.
#[derive(Debug)]
pub(crate) struct Sources<'a> {
    pub(crate) container: &'a Container,
    pub(crate) user: &'a User,
    /// The mounted root file system.
    pub(crate) rootfs: &'a Path,
    /// The container's folder on the data disk.
    pub(crate) folder: &'a Path,
    /// This program, for containers that want an init process.
    pub(crate) init_program: &'a Path,
    /// Process id of the container's init whose namespace is joined, for each
    /// namespace that belongs to another container.
    pub(crate) joined: &'a [(&'static str, u32)],
}

/// The namespaces a container may share, as OCI and as Docker's options name them.
pub(crate) fn shared_namespaces(host: &HostConfig) -> [(&'static str, &str); 4] {
    [
        ("network", host.network_mode.as_deref().unwrap_or_default()),
        ("pid", host.pid_mode.as_deref().unwrap_or_default()),
        ("ipc", host.ipc_mode.as_deref().unwrap_or_default()),
        ("uts", host.uts_mode.as_deref().unwrap_or_default()),
    ]
}

/// Refuses what this agent cannot do, so that `create` fails rather than `start`.
///
/// # Errors
/// Names the option.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    capabilities::of(host)?;
    resources::check(host)?;
    for option in host.security_opt.iter().flatten() {
        security_option(option)?;
    }
    Ok(())
}

enum SecurityOption {
    Unconfined,
    NoNewPrivileges,
    /// `AppArmor` and `SELinux`, which the machine's kernel has not.
    Ignored,
}

fn security_option(option: &str) -> Result<SecurityOption> {
    match option.split_once(['=', ':']).unwrap_or((option, "")) {
        ("seccomp", "unconfined") => Ok(SecurityOption::Unconfined),
        ("no-new-privileges", "" | "true") => Ok(SecurityOption::NoNewPrivileges),
        ("no-new-privileges", "false") | ("seccomp", "builtin") | ("apparmor" | "label", _) => {
            Ok(SecurityOption::Ignored)
        }
        _ => Err(AgentError::invalid(format!(
            "security option {option:?} is not supported"
        ))),
    }
}

fn has_option(host: &HostConfig, wanted: fn(&SecurityOption) -> bool) -> bool {
    host.security_opt
        .iter()
        .flatten()
        .filter_map(|option| security_option(option).ok())
        .any(|option| wanted(&option))
}

/// What the executor sees to for a container's first process.
///
/// # Errors
/// When a capability does not exist.
pub(crate) fn confinement(host: &HostConfig) -> Result<Confinement> {
    let unconfined = host.privileged == Some(true)
        || has_option(host, |option| matches!(option, SecurityOption::Unconfined));
    Ok(Confinement {
        capabilities: capabilities::of(host)?.into_iter().collect(),
        seccomp: !unconfined,
    })
}

/// As [`confinement`], for an exec.
///
/// # Errors
/// When a capability does not exist.
pub(crate) fn exec_confinement(host: &HostConfig, exec: &ExecConfig) -> Result<Confinement> {
    if exec.privileged {
        return Ok(Confinement {
            capabilities: capabilities::all().into_iter().collect(),
            seccomp: false,
        });
    }
    confinement(host)
}

/// The variables of a container's first process.
pub(crate) fn environment(container: &Container, hostname: &str, home: &str) -> Vec<String> {
    let mut env = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={hostname}"),
    ];
    if container.config.tty == Some(true) {
        env.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut env, container.config.env.iter().flatten());
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    env
}

/// Sets `variables` in `env`; one without `=` is removed.
pub(crate) fn merge_environment<'a>(
    env: &mut Vec<String>,
    variables: impl Iterator<Item = &'a String>,
) {
    for variable in variables {
        let name = variable.split('=').next().unwrap_or_default();
        let same = |known: &String| known.split('=').next() == Some(name);
        let known = env.iter().position(same);
        match (known, variable.contains('=')) {
            (Some(at), true) => env[at].clone_from(variable),
            (None, true) => env.push(variable.clone()),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, false) => {}
        }
    }
}

/// The name a container goes by in its own UTS namespace.
pub(crate) fn hostname(container: &Container) -> String {
    container
        .config
        .hostname
        .as_ref()
        .filter(|name| !name.is_empty())
        .cloned()
        .unwrap_or_else(|| container.id.chars().take(12).collect())
}

/// The OCI process of an exec in a running container.
pub(crate) fn exec_process(
    container: &Container,
    user: &User,
    exec: &ExecConfig,
    confinement: &Confinement,
) -> Value {
    let mut env = environment(container, &hostname(container), &user.home);
    if exec.tty && !env.iter().any(|variable| variable.starts_with("TERM=")) {
        env.push("TERM=xterm".to_owned());
    }
    merge_environment(&mut env, exec.env.iter());
    let cwd = [
        exec.working_dir.as_str(),
        container.config.working_dir.as_deref().unwrap_or_default(),
        "/",
    ]
    .into_iter()
    .find(|folder| !folder.is_empty());
    json!({
        "terminal": exec.tty,
        "user": oci_user(user),
        "args": exec.cmd,
        "env": env,
        "cwd": cwd,
        "capabilities": oci_capabilities(confinement),
        "noNewPrivileges": no_new_privileges(&container.host_config),
        "rlimits": resources::rlimits(&container.host_config),
        "oomScoreAdj": container.host_config.oom_score_adj.unwrap_or(0),
    })
}

/// The whole specification.
///
/// # Errors
/// When the record asks for something that does not exist.
pub(crate) fn container(sources: &Sources<'_>, confinement: &Confinement) -> Result<Value> {
    let container = sources.container;
    let host = &container.host_config;
    let hostname = hostname(container);
    let init = host.init == Some(true);
    let mut args = Vec::new();
    if init {
        args.extend([mounts::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    args.push(container.path.clone());
    args.extend(container.args.iter().cloned());

    let cwd = container
        .config
        .working_dir
        .as_deref()
        .filter(|folder| !folder.is_empty())
        .unwrap_or("/");
    let namespaces = namespaces(sources)?;
    let own = |kind: &str| {
        namespaces
            .iter()
            .any(|namespace| namespace["type"] == kind && namespace.get("path").is_none())
    };
    let (own_uts, own_ipc, own_network) = (own("uts"), own("ipc"), own("network"));
    let privileged = host.privileged == Some(true);
    let paths = |asked: Option<&Vec<String>>, default: &[&str]| match asked {
        Some(asked) => json!(asked),
        None if privileged => json!([]),
        None => json!(default),
    };
    let mut spec = json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": container.config.tty == Some(true),
            "user": oci_user(sources.user),
            "args": args,
            "env": environment(container, &hostname, &sources.user.home),
            "cwd": cwd,
            "capabilities": oci_capabilities(confinement),
            "noNewPrivileges": no_new_privileges(host),
            "rlimits": resources::rlimits(host),
            "oomScoreAdj": host.oom_score_adj.unwrap_or(0),
        },
        "root": {
            "path": sources.rootfs,
            "readonly": host.readonly_rootfs == Some(true),
        },
        "mounts": mounts::of(sources, own_ipc)?,
        "linux": {
            "cgroupsPath": cgroup_path(&container.id),
            "namespaces": namespaces,
            "resources": resources::of(host),
            "devices": resources::devices(host)?,
            "sysctl": sysctls(host, own_network),
            "maskedPaths": paths(host.masked_paths.as_ref(), MASKED_PATHS),
            "readonlyPaths": paths(host.readonly_paths.as_ref(), READONLY_PATHS),
        },
    });
    if own_uts {
        spec["hostname"] = json!(hostname);
        if let Some(domain) = container
            .config
            .domainname
            .as_ref()
            .filter(|name| !name.is_empty())
        {
            spec["domainname"] = json!(domain);
        }
    }
    Ok(spec)
}

/// A container's cgroup, below the root of the hierarchy.
pub(crate) fn cgroup_path(id: &str) -> String {
    format!("/containers/{id}")
}

/// Whether the container gets a network namespace of its own.
pub(crate) fn own_network(host: &HostConfig) -> bool {
    let mode = host.network_mode.as_deref().unwrap_or_default();
    mode != "host" && !mode.starts_with("container:")
}

fn namespaces(sources: &Sources<'_>) -> Result<Vec<Value>> {
    let host = &sources.container.host_config;
    let mut namespaces = vec![json!({"type": "mount"})];
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
        let (_, pid) = sources
            .joined
            .iter()
            .find(|(joined, _)| *joined == kind)
            .ok_or_else(|| AgentError::system(format!("there is no {kind} namespace to join")))?;
        let file = if kind == "network" { "net" } else { kind };
        namespaces.push(json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")}));
    }
    Ok(namespaces)
}

/// Docker's defaults, so that no privilege is needed for low ports and for `ping`,
/// and what the user set.
fn sysctls(host: &HostConfig, own_network: bool) -> Value {
    let mut sysctls = serde_json::Map::new();
    if own_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), json!("0"));
        sysctls.insert("net.ipv4.ping_group_range".into(), json!("0 2147483647"));
    }
    for (name, value) in host.sysctls.iter().flatten() {
        sysctls.insert(name.clone(), json!(value));
    }
    Value::Object(sysctls)
}

fn no_new_privileges(host: &HostConfig) -> bool {
    has_option(host, |option| {
        matches!(option, SecurityOption::NoNewPrivileges)
    })
}

fn oci_user(user: &User) -> Value {
    json!({
        "uid": user.uid,
        "gid": user.gid,
        "umask": 0o22,
        "additionalGids": user.additional_gids,
    })
}

fn oci_capabilities(confinement: &Confinement) -> Value {
    let mut set: Vec<&str> = confinement
        .capabilities
        .iter()
        .map(String::as_str)
        .collect();
    if confinement.seccomp {
        set.extend(FOR_CONFINING);
        set.sort_unstable();
        set.dedup();
    }
    json!({
        "bounding": set,
        "effective": set,
        "permitted": set,
        "inheritable": [],
        "ambient": [],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_overridden_in_place() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        let more = ["B=3".to_owned(), "C=".to_owned(), "A".to_owned()];
        merge_environment(&mut env, more.iter());
        assert_eq!(env, ["B=3", "C="]);
    }

    #[test]
    fn unknown_security_options_are_refused() {
        let host = |option: &str| HostConfig {
            security_opt: Some(vec![option.to_owned()]),
            ..HostConfig::default()
        };
        assert!(check(&host("seccomp=/profile.json")).is_err());
        assert!(check(&host("no-new-privileges")).is_ok());
        assert!(no_new_privileges(&host("no-new-privileges:true")));
        assert!(!confinement(&host("seccomp=unconfined")).unwrap().seccomp);
    }
}
