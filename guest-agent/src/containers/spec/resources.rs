//! Limits of a container: memory, CPU, processes, rlimits; and its devices.

use std::{
    fs::Metadata,
    os::unix::fs::{FileTypeExt, MetadataExt},
};

use guest_protocol::{
    AgentError,
    docker::{DeviceMapping, HostConfig},
};
use serde_json::{Map, Value, json};

use crate::{
    error::{Context, Result},
    runtime::devices::{self, Rule},
};

/// Docker's least memory limit.
const LEAST_MEMORY: i64 = 6 * 1024 * 1024;

/// The period that `--cpus` is worked out over, in microseconds.
const CPU_PERIOD: i64 = 100_000;

/// Resources that setrlimit(2) knows, as `--ulimit` names them.
const RLIMITS: &[(&str, &str)] = &[
    ("core", "RLIMIT_CORE"),
    ("cpu", "RLIMIT_CPU"),
    ("data", "RLIMIT_DATA"),
    ("fsize", "RLIMIT_FSIZE"),
    ("locks", "RLIMIT_LOCKS"),
    ("memlock", "RLIMIT_MEMLOCK"),
    ("msgqueue", "RLIMIT_MSGQUEUE"),
    ("nice", "RLIMIT_NICE"),
    ("nofile", "RLIMIT_NOFILE"),
    ("nproc", "RLIMIT_NPROC"),
    ("rss", "RLIMIT_RSS"),
    ("rtprio", "RLIMIT_RTPRIO"),
    ("rttime", "RLIMIT_RTTIME"),
    ("sigpending", "RLIMIT_SIGPENDING"),
    ("stack", "RLIMIT_STACK"),
];

/// Refuses limits that make no sense.
///
/// # Errors
/// In Docker's words.
pub(super) fn check(host: &HostConfig) -> Result<()> {
    if host
        .memory
        .is_some_and(|memory| memory > 0 && memory < LEAST_MEMORY)
    {
        return Err(AgentError::invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.nano_cpus.is_some_and(|cpus| cpus > 0) && host.cpu_quota.is_some_and(|quota| quota > 0)
    {
        return Err(AgentError::invalid(
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set.",
        ));
    }
    for limit in host.ulimits.iter().flatten() {
        let name = limit.name.as_deref().unwrap_or_default();
        if !RLIMITS.iter().any(|(known, _)| *known == name) {
            return Err(AgentError::invalid(format!("invalid ulimit type: {name}")));
        }
    }
    if let Some(score) = host
        .oom_score_adj
        .filter(|score| !(-1000..=1000).contains(score))
    {
        return Err(AgentError::invalid(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]."
        )));
    }
    Ok(())
}

/// The `resources` of a specification.
pub(super) fn of(host: &HostConfig) -> Value {
    let mut memory = Map::new();
    if let Some(limit) = host.memory.filter(|limit| *limit > 0) {
        memory.insert("limit".into(), json!(limit));
        // Docker's default: as much swap again as memory.
        let swap = match host.memory_swap {
            Some(-1) => -1,
            Some(swap) if swap > 0 => swap,
            _ => limit.saturating_mul(2),
        };
        memory.insert("swap".into(), json!(swap));
    }
    if let Some(reservation) = host.memory_reservation.filter(|bytes| *bytes > 0) {
        memory.insert("reservation".into(), json!(reservation));
    }
    let mut cpu = Map::new();
    if let Some(shares) = host.cpu_shares.filter(|shares| *shares > 0) {
        cpu.insert("shares".into(), json!(shares));
    }
    if let Some(nano) = host.nano_cpus.filter(|nano| *nano > 0) {
        cpu.insert(
            "quota".into(),
            json!(nano.saturating_mul(CPU_PERIOD) / 1_000_000_000),
        );
        cpu.insert("period".into(), json!(CPU_PERIOD));
    } else {
        if let Some(quota) = host.cpu_quota.filter(|quota| *quota > 0) {
            cpu.insert("quota".into(), json!(quota));
        }
        if let Some(period) = host.cpu_period.filter(|period| *period > 0) {
            cpu.insert("period".into(), json!(period));
        }
    }
    for (name, value) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            cpu.insert(name.into(), json!(value));
        }
    }
    let mut resources = Map::new();
    for (name, values) in [("memory", memory), ("cpu", cpu)] {
        if !values.is_empty() {
            resources.insert(name.into(), Value::Object(values));
        }
    }
    if let Some(limit) = host.pids_limit.filter(|limit| *limit > 0) {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    Value::Object(resources)
}

/// The `rlimits` of a process.
pub(super) fn rlimits(host: &HostConfig) -> Value {
    host.ulimits
        .iter()
        .flatten()
        .filter_map(|limit| {
            let name = limit.name.as_deref()?;
            let (_, kind) = RLIMITS.iter().find(|(known, _)| *known == name)?;
            // -1 is "unlimited": all bits set.
            let soft = limit.soft.unwrap_or(-1) as u64;
            let hard = limit.hard.unwrap_or(-1) as u64;
            Some(json!({"type": kind, "soft": soft, "hard": hard}))
        })
        .collect()
}

/// The `devices` of a specification, beyond those that every container has.
///
/// # Errors
/// When the machine has no such device.
pub(super) fn devices(host: &HostConfig) -> Result<Vec<Value>> {
    host.devices
        .iter()
        .flatten()
        .map(|device| {
            let source = device.path_on_host.as_deref().unwrap_or_default();
            let target = device
                .path_in_container
                .as_deref()
                .filter(|path| !path.is_empty())
                .unwrap_or(source);
            let (kind, metadata) = device_node(device)?;
            let (major, minor) = numbers(&metadata);
            Ok(json!({
                "path": target,
                "type": kind,
                "major": major,
                "minor": minor,
                "fileMode": metadata.mode() & 0o777,
                "uid": metadata.uid(),
                "gid": metadata.gid(),
            }))
        })
        .collect()
}

/// The devices that a container may open; `None` for all.
///
/// # Errors
/// When a rule cannot be understood, or the machine has no such device.
pub(crate) fn device_rules(host: &HostConfig) -> Result<Option<Vec<Rule>>> {
    if host.privileged == Some(true) {
        return Ok(None);
    }
    let mut rules = devices::ALWAYS.to_vec();
    for text in host.device_cgroup_rules.iter().flatten() {
        rules.push(Rule::parse(text).ok_or_else(|| {
            AgentError::invalid(format!("invalid device cgroup rule format: '{text}'"))
        })?);
    }
    for device in host.devices.iter().flatten() {
        let (kind, metadata) = device_node(device)?;
        let (major, minor) = numbers(&metadata);
        let access = device
            .cgroup_permissions
            .as_deref()
            .filter(|access| !access.is_empty())
            .unwrap_or("rwm");
        rules.push(
            Rule::new(kind, Some(major), Some(minor), access).ok_or_else(|| {
                AgentError::invalid(format!("invalid device permissions: {access:?}"))
            })?,
        );
    }
    Ok(Some(rules))
}

fn numbers(metadata: &Metadata) -> (u32, u32) {
    let device = metadata.rdev();
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// A device of the machine: `b` or `c`, and the rest.
fn device_node(device: &DeviceMapping) -> Result<(&'static str, Metadata)> {
    let source = device.path_on_host.as_deref().unwrap_or_default();
    let metadata = std::fs::metadata(source).context(format_args!(
        "error gathering device information while adding custom device {source:?}"
    ))?;
    let kind = metadata.file_type();
    if kind.is_char_device() {
        Ok(("c", metadata))
    } else if kind.is_block_device() {
        Ok(("b", metadata))
    } else {
        Err(AgentError::invalid(format!("{source:?} is not a device")))
    }
}

#[cfg(test)]
mod tests {
    use guest_protocol::docker::ResourcesUlimits;

    use super::*;

    #[test]
    fn limits_become_resources() {
        let host = HostConfig {
            memory: Some(64 << 20),
            nano_cpus: Some(1_500_000_000),
            pids_limit: Some(10),
            ..HostConfig::default()
        };
        check(&host).unwrap();
        let resources = of(&host);
        assert_eq!(resources["memory"]["swap"], 128 << 20);
        assert_eq!(resources["cpu"]["quota"], 150_000);
        assert_eq!(resources["pids"]["limit"], 10);
        assert_eq!(of(&HostConfig::default()), json!({}));
    }

    #[test]
    fn ulimits_are_checked_and_unlimited_is_all_bits() {
        let host = |name: &str| HostConfig {
            ulimits: Some(vec![ResourcesUlimits {
                name: Some(name.into()),
                soft: Some(-1),
                hard: Some(-1),
            }]),
            ..HostConfig::default()
        };
        assert_eq!(rlimits(&host("nofile"))[0]["soft"], u64::MAX);
        assert!(check(&host("nonsense")).is_err());
    }
}
