//! What a container uses at one moment; the engine gives it Docker's shape, and
//! subtracts one sample from the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One sample. All but the identity is zero or empty when the container does not
/// run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// The container's id.
    pub id: String,
    /// Its name, without a leading slash.
    pub name: String,
    /// When the sample was taken, Unix nanoseconds; zero when it does not run.
    pub time: i64,
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Bytes from and to block devices.
    pub block_io: Vec<BlockIo>,
    /// Interfaces of its network namespace but for the loopback, by name.
    pub networks: BTreeMap<String, Network>,
}

/// CPU time, in nanoseconds since the container started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Of all kinds.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Of all CPUs of the machine together, idle time included, since it booted.
    pub machine: u64,
    /// CPUs of the machine.
    pub online: u32,
    /// Periods in which its limit was enforced.
    pub periods: u64,
    /// Of those, the ones in which it was held back.
    pub throttled_periods: u64,
    /// How long it was held back.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// In use, page cache included.
    pub usage: u64,
    /// Its limit, or the machine's memory.
    pub limit: u64,
    /// How often it ran into its limit and nothing could be reclaimed.
    pub failures: u64,
    /// The kernel's `memory.stat`.
    pub details: BTreeMap<String, u64>,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// How many there are.
    pub current: u64,
    /// How many there may be; zero for no limit.
    pub limit: u64,
}

/// Bytes from and to one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

/// What went through one network interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets received with errors.
    pub rx_errors: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets that were dropped instead of sent.
    pub tx_dropped: u64,
}
