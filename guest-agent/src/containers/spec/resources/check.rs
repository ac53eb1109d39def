//! Limits that make no sense, refused in Docker's words, and those that this kernel
//! has not, left out with a warning as Docker does.

use std::{collections::BTreeSet, fs};

use guest_protocol::{AgentError, docker::HostConfig};

use super::{RLIMITS, devices};
use crate::error::Result;

/// Docker's least memory limit.
const LEAST_MEMORY: i64 = 6 * 1024 * 1024;

/// CPUs and memory nodes have lower numbers than this.
const MOST_MEMBERS: u32 = 8192;

const NANO: i64 = 1_000_000_000;

/// Fills in and leaves out what Docker does at a container's creation; says what was
/// left out.
pub(crate) fn adjust(host: &mut HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    if host.memory.is_some_and(|memory| memory > 0) && host.memory_swap.unwrap_or(0) == 0 {
        // As much swap again as memory.
        host.memory_swap = host.memory.map(|memory| memory.saturating_mul(2));
    }
    if host
        .memory_swappiness
        .take()
        .is_some_and(|value| value >= 0)
    {
        warnings.push(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not \
             mounted. Memory swappiness discarded."
                .to_owned(),
        );
    }
    if host.oom_kill_disable.take() == Some(true) {
        warnings.push(
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.".to_owned(),
        );
    }
    if host.kernel_memory_tcp.take().is_some_and(|bytes| bytes > 0) {
        warnings.push(
            "Specifying a kernel memory TCP limit is not supported on cgroup v2; it is discarded."
                .to_owned(),
        );
    }
    if host.pids_limit.is_some_and(|limit| limit <= 0) {
        host.pids_limit = None;
    }
    warnings
}

/// Refuses limits that make no sense.
///
/// # Errors
/// In Docker's words.
pub(crate) fn check(host: &HostConfig) -> Result<()> {
    let refuse = |message: String| Err(AgentError::invalid(message));
    memory(host).map_err(AgentError::invalid)?;
    cpu(host)?;
    let weight = host.blkio_weight.unwrap_or(0);
    if weight != 0 && !(10..=1000).contains(&weight) {
        return refuse("Range of blkio weight is from 10 to 1000".to_owned());
    }
    for device in host.blkio_weight_device.iter().flatten() {
        let weight = device.weight.unwrap_or(0);
        if weight != 0 && !(10..=1000).contains(&weight) {
            let path = device.path.as_deref().unwrap_or_default();
            return refuse(format!("invalid weight for device: {path}:{weight}"));
        }
    }
    super::device_weights(host)?;
    devices::throttled(host)?;
    for limit in host.ulimits.iter().flatten() {
        let name = limit.name.as_deref().unwrap_or_default();
        if !RLIMITS.iter().any(|(known, _)| *known == name) {
            return refuse(format!("invalid ulimit type: {name}"));
        }
    }
    if let Some(score) = host
        .oom_score_adj
        .filter(|score| !(-1000..=1000).contains(score))
    {
        return refuse(format!(
            "Invalid value {score}, range for oom score adj is [-1000, 1000]"
        ));
    }
    if host.shm_size.is_some_and(|size| size < 0) {
        return refuse("SHM size can not be less than 0".to_owned());
    }
    Ok(())
}

fn memory(host: &HostConfig) -> std::result::Result<(), &'static str> {
    let memory = host.memory.unwrap_or(0);
    let swap = host.memory_swap.unwrap_or(0);
    let reservation = host.memory_reservation.unwrap_or(0);
    if memory != 0 && memory < LEAST_MEMORY {
        return Err("Minimum memory limit allowed is 6MB");
    }
    if memory > 0 && swap > 0 && swap < memory {
        return Err("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if memory == 0 && swap > 0 {
        return Err(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        );
    }
    if reservation > 0 && reservation < LEAST_MEMORY {
        return Err("Minimum memory reservation allowed is 6MB");
    }
    if memory > 0 && reservation > 0 && memory < reservation {
        return Err(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        );
    }
    Ok(())
}

fn cpu(host: &HostConfig) -> Result<()> {
    let refuse = |message: String| Err(AgentError::invalid(message));
    let nano = host.nano_cpus.unwrap_or(0);
    let (period, quota) = (host.cpu_period.unwrap_or(0), host.cpu_quota.unwrap_or(0));
    if nano > 0 && period > 0 {
        return refuse(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set".to_owned(),
        );
    }
    if nano > 0 && quota > 0 {
        return refuse(
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set".to_owned(),
        );
    }
    if nano != 0 {
        let count = i64::try_from(members(&available("cpu")).map_or(1, |cpus| cpus.len()))
            .unwrap_or(i64::MAX);
        if nano < 0 || nano > count.saturating_mul(NANO) {
            return refuse(format!(
                "range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available"
            ));
        }
    }
    if period != 0 && !(1000..=1_000_000).contains(&period) {
        return refuse(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"
                .to_owned(),
        );
    }
    if quota > 0 && quota < 1000 {
        return refuse("CPU cfs quota can not be less than 1ms (i.e. 1000)".to_owned());
    }
    let realtime = [host.cpu_realtime_period, host.cpu_realtime_runtime];
    if realtime.iter().any(|time| time.unwrap_or(0) != 0) {
        return refuse("kernel does not support CPU real-time scheduler".to_owned());
    }
    for (kind, what, unavailable, asked) in [
        ("cpu", "cpus", "CPUs", &host.cpuset_cpus),
        ("node", "mems", "memory nodes", &host.cpuset_mems),
    ] {
        let Some(asked) = asked.as_deref().filter(|asked| !asked.is_empty()) else {
            continue;
        };
        let Some(wanted) = members(asked) else {
            let why = if asked
                .bytes()
                .all(|b| b.is_ascii_digit() || b",- ".contains(&b))
            {
                "value of out range, maximum is 8192".to_owned()
            } else {
                format!("invalid format: {asked}")
            };
            return refuse(format!("Invalid value {asked} for cpuset {what}: {why}"));
        };
        let available = available(kind);
        let there = members(&available).unwrap_or_default();
        if !wanted.is_subset(&there) {
            return refuse(format!(
                "Requested {unavailable} are not available - requested {asked}, available: {available}"
            ));
        }
    }
    Ok(())
}

/// The CPUs or memory nodes of the machine, as the kernel lists them.
fn available(kind: &str) -> String {
    match fs::read_to_string(format!("/sys/devices/system/{kind}/online")) {
        Ok(list) => list.trim().to_owned(),
        // A kernel without NUMA has one node.
        Err(_) => "0".to_owned(),
    }
}

/// The members of a list such as `0-2,4`.
fn members(list: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| {
        text.trim()
            .parse::<u32>()
            .ok()
            .filter(|number| *number < MOST_MEMBERS)
    };
    let mut members = BTreeSet::new();
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (number(low)?, number(high)?);
        if low > high {
            return None;
        }
        members.extend(low..=high);
    }
    Some(members)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_of_cpus() {
        let list = |text: &str| members(text).map(|set| set.into_iter().collect::<Vec<_>>());
        assert_eq!(list("0-2,4"), Some(vec![0, 1, 2, 4]));
        for text in ["", "a", "2-1", "1-", "0,,1", "0-9999999"] {
            assert_eq!(list(text), None, "{text}");
        }
    }

    #[test]
    fn docker_fills_in_and_leaves_out() {
        let mut host = HostConfig {
            memory: Some(64 << 20),
            memory_swappiness: Some(60),
            oom_kill_disable: Some(true),
            pids_limit: Some(-1),
            ..HostConfig::default()
        };
        assert_eq!(adjust(&mut host).len(), 2);
        assert_eq!(host.memory_swap, Some(128 << 20));
        assert_eq!((host.memory_swappiness, host.pids_limit), (None, None));
        host.memory_swap = Some(-1);
        assert!(adjust(&mut host).is_empty());
        assert_eq!(host.memory_swap, Some(-1));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_dockers_words() {
        for (host, message) in [
            (
                json!({"Memory": 1 << 20}),
                "Minimum memory limit allowed is 6MB",
            ),
            (
                json!({"Memory": 64 << 20, "MemorySwap": 32 << 20}),
                "Minimum memoryswap limit should be larger than memory limit, see usage",
            ),
            (
                json!({"MemorySwap": 64 << 20}),
                "You should always set the Memory limit when using Memoryswap limit, see usage",
            ),
            (
                json!({"MemoryReservation": 1 << 20}),
                "Minimum memory reservation allowed is 6MB",
            ),
            (
                json!({"Memory": 8 << 20, "MemoryReservation": 16 << 20}),
                "Minimum memory limit can not be less than memory reservation limit, see usage",
            ),
            (
                json!({"NanoCpus": 1, "CpuPeriod": 1000}),
                "Conflicting options: Nano CPUs and CPU Period cannot both be set",
            ),
            (
                json!({"NanoCpus": 1, "CpuQuota": 1000}),
                "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
            ),
            (
                json!({"NanoCpus": i64::MAX}),
                "range of CPUs is from 0.01 to ",
            ),
            (json!({"CpuPeriod": 999}), "CPU cfs period can not be less"),
            (json!({"CpuQuota": 999}), "CPU cfs quota can not be less"),
            (
                json!({"CpuRealtimeRuntime": 950_000}),
                "kernel does not support CPU real-time scheduler",
            ),
            (
                json!({"CpusetCpus": "x"}),
                "Invalid value x for cpuset cpus",
            ),
            (
                json!({"CpusetCpus": "0,4000"}),
                "Requested CPUs are not available - requested 0,4000, available: 0",
            ),
            (
                json!({"CpusetMems": "4000"}),
                "Requested memory nodes are not available - requested 4000, available: 0",
            ),
            (
                json!({"BlkioWeight": 9}),
                "Range of blkio weight is from 10 to 1000",
            ),
            (
                json!({"BlkioWeightDevice": [{"Path": "/dev/x", "Weight": 1001}]}),
                "invalid weight for device: /dev/x:1001",
            ),
            (
                json!({"BlkioDeviceReadBps": [{"Path": "/dev/no-such-disk", "Rate": 1}]}),
                "/dev/no-such-disk",
            ),
            (
                json!({"Ulimits": [{"Name": "x", "Soft": 1, "Hard": 1}]}),
                "invalid ulimit type: x",
            ),
            (
                json!({"OomScoreAdj": 1001}),
                "Invalid value 1001, range for oom score adj is [-1000, 1000]",
            ),
            (json!({"ShmSize": -1}), "SHM size can not be less than 0"),
        ] {
            let host = HostConfig::deserialize(host).unwrap();
            let error = check(&host).unwrap_err().message;
            assert!(error.contains(message), "{message}: {error}");
        }
        let fine = json!({
            "Memory": 64 << 20, "MemorySwap": -1, "MemoryReservation": 32 << 20,
            "CpusetCpus": "0", "CpusetMems": "0", "BlkioWeight": 500,
            "CpuPeriod": 100_000, "CpuQuota": 20_000,
            "Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}],
        });
        check(&HostConfig::deserialize(fine).unwrap()).unwrap();
    }
}
