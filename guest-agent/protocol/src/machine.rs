//! The machine as seen from inside.

use serde::{Deserialize, Serialize};

/// What the agent says of itself and of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    pub protocol: u32,
    /// The agent's version.
    pub agent_version: String,
    /// Kernel release, as `uname -r`.
    pub kernel_version: String,
    /// Machine architecture, as `uname -m`.
    pub architecture: String,
    /// Identifies this boot of the kernel.
    pub boot_id: String,
    /// Time since the kernel started, in milliseconds.
    pub uptime_ms: u64,
    /// CPUs online.
    pub cpus: u32,
    /// Memory in all, in bytes.
    pub memory_total: u64,
    /// Memory that could be had without swapping, in bytes.
    pub memory_available: u64,
    /// Size of the data disk's file system, in bytes.
    pub disk_total: u64,
    /// Free space on it, in bytes.
    pub disk_available: u64,
    /// Containers in all.
    pub containers: u64,
    /// Of these, running.
    pub containers_running: u64,
    /// Of these, paused.
    pub containers_paused: u64,
    /// Images.
    pub images: u64,
    /// The guest's clock, Unix nanoseconds.
    pub time: i64,
    /// When each stage of start-up was reached, in milliseconds since the kernel
    /// started, in order.
    pub boot_stages: Vec<(String, u64)>,
}
