//! What a container uses now: from its cgroup, the machine's `/proc` and its
//! network namespace.
//!
//! Files that are not there, as for controllers that the kernel has not, count as
//! nothing used. Source: `Documentation/admin-guide/cgroup-v2.rst`.

use std::{collections::BTreeMap, fs, path::Path};

use guest_protocol::stats::{BlockIo, Cpu, Memory, Network, Pids, Sample};

use super::Containers;
use crate::{clock, error::Result};

/// The kernel's `USER_HZ`, which times in `/proc` are counted in.
const TICKS: u64 = 100;

impl Containers {
    /// What it uses now; nothing when it does not run.
    ///
    /// # Errors
    /// When there is no such container.
    pub(crate) fn stats(&self, reference: &str) -> Result<Sample> {
        let entry = self.find(reference)?;
        let (name, pid) = {
            let record = entry.record();
            let container = &record.container;
            (container.name.clone(), container.state.pid)
        };
        let mut sample = Sample {
            id: entry.id.clone(),
            name,
            ..Sample::default()
        };
        if entry.live().process.is_some() {
            measure(&mut sample, &entry.cgroup(), pid);
        }
        Ok(sample)
    }
}

fn measure(sample: &mut Sample, cgroup: &Path, pid: u32) {
    let read = |name: &str| fs::read_to_string(cgroup.join(name)).unwrap_or_default();
    sample.time = clock::now();
    sample.cpu = cpu(&read("cpu.stat"));
    let machine = fs::read_to_string("/proc/stat").unwrap_or_default();
    (sample.cpu.machine, sample.cpu.online) = machine_cpu(&machine);
    let machine = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    sample.memory = Memory {
        usage: number(&read("memory.current")),
        limit: limit(&read("memory.max"), machine_memory(&machine)),
        failures: field(&read("memory.events"), "oom"),
        details: fields(&read("memory.stat")),
    };
    sample.pids = Pids {
        current: number(&read("pids.current")),
        limit: limit(&read("pids.max"), 0),
    };
    sample.block_io = block_io(&read("io.stat"));
    let networks = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    sample.networks = interfaces(&networks);
}

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// A limit, which is `otherwise` when there is none or it is above that.
fn limit(text: &str, otherwise: u64) -> u64 {
    match text.trim().parse() {
        Ok(limit) if otherwise == 0 || limit < otherwise => limit,
        _ => otherwise,
    }
}

/// Lines of a name and a number.
fn fields(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(known, _)| *known == name)
        .map_or(0, |(_, value)| number(value))
}

fn cpu(stat: &str) -> Cpu {
    let nanoseconds = |name: &str| field(stat, name).saturating_mul(1000);
    Cpu {
        total: nanoseconds("usage_usec"),
        user: nanoseconds("user_usec"),
        system: nanoseconds("system_usec"),
        periods: field(stat, "nr_periods"),
        throttled_periods: field(stat, "nr_throttled"),
        throttled: nanoseconds("throttled_usec"),
        ..Cpu::default()
    }
}

/// Time of all CPUs in nanoseconds, and how many there are, from `/proc/stat`.
fn machine_cpu(stat: &str) -> (u64, u32) {
    // User, nice, system, idle, iowait, irq, softirq: what Docker adds up.
    let times = stat.lines().next().unwrap_or_default();
    let ticks: u64 = times.split_whitespace().skip(1).take(7).map(number).sum();
    let is_cpu = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|digit: char| digit.is_ascii_digit()))
    };
    let online = stat.lines().filter(is_cpu).count();
    (
        ticks.saturating_mul(1_000_000_000 / TICKS),
        u32::try_from(online).unwrap_or(0),
    )
}

/// Bytes of memory, from `/proc/meminfo`.
fn machine_memory(info: &str) -> u64 {
    info.lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .map_or(0, |rest| number(rest.trim_end_matches("kB")))
        .saturating_mul(1024)
}

/// `8:0 rbytes=1 wbytes=2 …`, a line for each device.
fn block_io(stat: &str) -> Vec<BlockIo> {
    stat.lines()
        .filter_map(|line| {
            let (device, values) = line.split_once(' ')?;
            let (major, minor) = device.split_once(':')?;
            let value = |name: &str| {
                values
                    .split(' ')
                    .filter_map(|pair| pair.split_once('='))
                    .find(|(known, _)| *known == name)
                    .map_or(0, |(_, value)| number(value))
            };
            Some(BlockIo {
                major: major.parse().ok()?,
                minor: minor.parse().ok()?,
                read: value("rbytes"),
                written: value("wbytes"),
            })
        })
        .collect()
}

/// `eth0: bytes packets errs drop …`, sixteen numbers after each name.
fn interfaces(list: &str) -> BTreeMap<String, Network> {
    list.lines()
        .filter_map(|line| {
            let (name, values) = line.split_once(':')?;
            let name = name.trim();
            let values: Vec<u64> = values.split_whitespace().map(number).collect();
            let at = |index: usize| values.get(index).copied().unwrap_or(0);
            let network = Network {
                rx_bytes: at(0),
                rx_packets: at(1),
                rx_errors: at(2),
                rx_dropped: at(3),
                tx_bytes: at(8),
                tx_packets: at(9),
                tx_errors: at(10),
                tx_dropped: at(11),
            };
            // Tunnels that the kernel makes in every namespace never carry anything.
            let idle = network == Network::default();
            let left_out = name == "lo" || (idle && !name.starts_with("eth"));
            (!left_out).then(|| (name.to_owned(), network))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_read() {
        let used = cpu(
            "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 7\nnr_throttled 4\nthrottled_usec 9\n",
        );
        assert_eq!((used.total, used.user, used.system), (5000, 3000, 2000));
        assert_eq!(
            (used.periods, used.throttled_periods, used.throttled),
            (7, 4, 9000)
        );
        let stat = "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1\ncpu1 1 1\nintr 5\n";
        assert_eq!(machine_cpu(stat), (280_000_000, 2));
        assert_eq!(
            machine_memory("MemTotal:        2048 kB\nMemFree: 1 kB\n"),
            2 << 20
        );
        assert_eq!(limit("max\n", 7), 7);
        assert_eq!(limit("5\n", 7), 5);
        assert_eq!(limit("9\n", 7), 7);
        assert_eq!(limit("9\n", 0), 9);
        let io = block_io("254:0 rbytes=10 wbytes=20 rios=1 wios=2\nnonsense\n");
        assert_eq!(
            io,
            [BlockIo {
                major: 254,
                minor: 0,
                read: 10,
                written: 20
            }]
        );
        let list = "Inter-|   Receive\n face |bytes\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 5 6 7 8 0 0 0 0 9 10 11 12 0 0 0 0\n  sit0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
        let interfaces = interfaces(list);
        assert_eq!(interfaces.len(), 1);
        assert_eq!(interfaces["eth0"].rx_bytes, 5);
        assert_eq!(interfaces["eth0"].tx_dropped, 12);
    }

    #[test]
    fn this_machine_is_measured() {
        let mut sample = Sample::default();
        measure(&mut sample, Path::new("/sys/fs/cgroup"), std::process::id());
        assert!(sample.time > 0 && sample.cpu.machine > 0 && sample.cpu.online > 0);
        assert!(sample.memory.limit > 0);
    }
}
