//! One sample of a container's use, worked out as Docker's client does.

use std::collections::BTreeMap;

use serde::Deserialize;

/// `GET /containers/{id}/stats`, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Sample {
    id: String,
    name: String,
    cpu_stats: Cpu,
    precpu_stats: Cpu,
    memory_stats: Memory,
    pids_stats: Pids,
    blkio_stats: BlockIo,
    networks: Option<BTreeMap<String, Network>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpu {
    #[serde(rename = "cpu_usage")]
    used: CpuUsage,
    system_cpu_usage: u64,
    online_cpus: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CpuUsage {
    total_usage: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    usage: u64,
    limit: u64,
    stats: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pids {
    current: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct BlockIo {
    io_service_bytes_recursive: Option<Vec<Transfer>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Transfer {
    op: String,
    value: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Network {
    rx_bytes: u64,
    tx_bytes: u64,
}

/// What a container uses, as it is shown.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Use {
    pub(super) id: String,
    pub(super) name: String,
    /// Percent of one CPU.
    pub(super) cpu: f64,
    /// Bytes, without what the kernel could drop at once.
    pub(super) memory: u64,
    pub(super) memory_limit: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) read: u64,
    pub(super) written: u64,
    pub(super) pids: u64,
}

impl Use {
    /// Percent of the limit.
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    pub(super) fn memory_share(&self) -> f64 {
        if self.memory_limit == 0 {
            return 0.0;
        }
        self.memory as f64 / self.memory_limit as f64 * 100.0
    }
}

impl Sample {
    /// What it says.
    pub(super) fn used(&self) -> Use {
        let memory = &self.memory_stats;
        let cache = memory.stats.get("inactive_file").copied().unwrap_or(0);
        let transferred = |letter: &str| {
            let transfers = self.blkio_stats.io_service_bytes_recursive.iter().flatten();
            transfers
                .filter(|transfer| transfer.op.to_ascii_lowercase().starts_with(letter))
                .fold(0_u64, |sum, transfer| sum.saturating_add(transfer.value))
        };
        let networks = || self.networks.iter().flat_map(BTreeMap::values);
        Use {
            id: self.id.clone(),
            name: self.name.trim_start_matches('/').to_owned(),
            cpu: self.cpu(),
            memory: if cache < memory.usage {
                memory.usage - cache
            } else {
                memory.usage
            },
            memory_limit: memory.limit,
            received: networks().map(|network| network.rx_bytes).sum(),
            sent: networks().map(|network| network.tx_bytes).sum(),
            read: transferred("r"),
            written: transferred("w"),
            pids: self.pids_stats.current,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    fn cpu(&self) -> f64 {
        let (now, before) = (&self.cpu_stats, &self.precpu_stats);
        let used = now.used.total_usage.saturating_sub(before.used.total_usage);
        let machine = now.system_cpu_usage.saturating_sub(before.system_cpu_usage);
        if used == 0 || machine == 0 {
            return 0.0;
        }
        used as f64 / machine as f64 * f64::from(now.online_cpus) * 100.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn use_is_worked_out_as_docker_does() {
        let sample: Sample = serde_json::from_value(json!({
            "id": "ab", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 1500}, "system_cpu_usage": 20_000, "online_cpus": 4},
            "precpu_stats": {"cpu_usage": {"total_usage": 1000}, "system_cpu_usage": 18_000},
            "memory_stats": {"usage": 100, "limit": 400, "stats": {"inactive_file": 20}},
            "pids_stats": {"current": 3},
            "blkio_stats": {"io_service_bytes_recursive": [
                {"op": "read", "value": 1}, {"op": "Write", "value": 2}, {"op": "read", "value": 4}]},
            "networks": {"eth0": {"rx_bytes": 5, "tx_bytes": 6}, "eth1": {"rx_bytes": 1}},
        }))
        .unwrap();
        let used = sample.used();
        assert!((used.cpu - 100.0).abs() < 1e-9, "{}", used.cpu);
        assert!((used.memory_share() - 20.0).abs() < 1e-9);
        assert_eq!((used.read, used.written), (5, 2));
        assert_eq!((used.received, used.sent), (6, 6));
        assert_eq!((used.name.as_str(), used.pids), ("web", 3));
    }

    #[test]
    fn one_that_does_not_run_uses_nothing() {
        let json = r#"{"id":"ab","name":"/web","read":"0001-01-01T00:00:00Z","pids_stats":{},
            "blkio_stats":{"io_service_bytes_recursive":null},"memory_stats":{}}"#;
        let used = serde_json::from_str::<Sample>(json).unwrap().used();
        assert_eq!((used.memory, used.pids), (0, 0));
        assert!(used.cpu.abs() < f64::EPSILON && used.memory_share().abs() < f64::EPSILON);
    }
}
