//! Limits of a container: memory, CPU, disks, processes, rlimits; and its devices.

mod check;
pub(crate) mod devices;

use guest_protocol::docker::HostConfig;
use serde_json::{Map, Value, json};

pub(crate) use self::check::{adjust, check};
use self::devices::Throttled;
use crate::error::Result;

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

/// The `resources` of a specification.
pub(crate) fn of(host: &HostConfig) -> Value {
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
    if let Some(weight) = host.blkio_weight.filter(|weight| *weight > 0) {
        let weight = io_weight(weight.into()).to_string();
        resources.insert("unified".into(), json!({ "io.weight": weight }));
    }
    Value::Object(resources)
}

/// Adds what block devices may be used for to the `resources` of a specification.
///
/// # Errors
/// When the machine has no such device.
pub(super) fn throttle(host: &HostConfig, resources: &mut Value) -> Result<()> {
    let mut limits = Map::new();
    for Throttled {
        name,
        major,
        minor,
        rate,
    } in devices::throttled(host)?
    {
        let list = limits.entry(name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!({"major": major, "minor": minor, "rate": rate}));
        }
    }
    if !limits.is_empty() {
        resources["blockIO"] = Value::Object(limits);
    }
    Ok(())
}

/// A weight of Docker's, from 10 to 1000, on the scale of cgroup v2, from 1 to 10000;
/// runc's formula.
fn io_weight(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

/// What the container's `io.weight` is to hold for single devices, a line each.
///
/// # Errors
/// When the machine has no such device.
pub(crate) fn device_weights(host: &HostConfig) -> Result<Vec<String>> {
    host.blkio_weight_device
        .iter()
        .flatten()
        .filter_map(|device| Some((device.path.as_deref()?, device.weight?)))
        .filter(|(_, weight)| *weight > 0)
        .map(|(path, weight)| {
            let (major, minor) = devices::block_device(path)?;
            Ok(format!("{major}:{minor} {}", io_weight(weight as u64)))
        })
        .collect()
}

/// What Docker says when a device shares by no weights.
pub(crate) fn weight_warning(host: &HostConfig) -> Option<String> {
    let weights = device_weights(host).ok()?;
    let enabled = std::fs::read_to_string("/sys/fs/cgroup/io.cost.qos").unwrap_or_default();
    weights
        .iter()
        .any(|weight| !shares_by_weight(&enabled, weight))
        .then(|| {
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. \
             Weight-device discarded."
                .to_owned()
        })
}

/// Whether the device that a line of `io.weight` is for has the cost model that shares
/// it, according to `io.cost.qos` (`Documentation/admin-guide/cgroup-v2.rst`).
fn shares_by_weight(cost_models: &str, weight: &str) -> bool {
    cost_models.lines().any(|line| {
        line.split_whitespace().next() == weight.split_whitespace().next()
            && line.split_whitespace().any(|field| field == "enable=1")
    })
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

#[cfg(test)]
mod tests {
    use guest_protocol::docker::ResourcesUlimits;

    use super::*;

    #[test]
    fn a_weight_needs_a_cost_model() {
        let models = "253:0 enable=1 ctrl=auto\n253:16 enable=0 ctrl=auto\n";
        assert!(shares_by_weight(models, "253:0 100"));
        for weight in ["253:16 100", "253:1 100", "53:0 100"] {
            assert!(!shares_by_weight(models, weight), "{weight}");
        }
    }

    #[test]
    fn limits_become_resources() {
        let host = HostConfig {
            memory: Some(64 << 20),
            nano_cpus: Some(1_000_000_000),
            pids_limit: Some(10),
            blkio_weight: Some(1000),
            ..HostConfig::default()
        };
        check(&host).unwrap();
        let resources = of(&host);
        assert_eq!(resources["memory"]["swap"], 128 << 20);
        assert_eq!(resources["cpu"]["quota"], 100_000);
        assert_eq!(resources["pids"]["limit"], 10);
        assert_eq!(resources["unified"]["io.weight"], "10000");
        assert_eq!(of(&HostConfig::default()), json!({}));
    }

    #[test]
    fn an_unlimited_ulimit_is_all_bits() {
        let host = HostConfig {
            ulimits: Some(vec![ResourcesUlimits {
                name: Some("nofile".into()),
                soft: Some(-1),
                hard: Some(-1),
            }]),
            ..HostConfig::default()
        };
        assert_eq!(rlimits(&host)[0]["soft"], u64::MAX);
    }
}
