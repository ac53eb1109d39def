//! Containers and execs as the agent knows them.
//!
//! Configuration is kept in the Docker Engine API's own types, so that what a
//! client sent is what `inspect` gives back. Times are Unix nanoseconds; zero
//! means "never".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    docker::{ContainerConfig, EndpointSettings, HostConfig, MountPoint},
    port::PublishedPort,
};

/// Paths that a container does not see unless it is privileged or says otherwise; Docker's
/// list.
pub const MASKED_PATHS: &[&str] = &[
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

/// The same of paths that it cannot write.
pub const READONLY_PATHS: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Where a container is in its life; Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Made, never started.
    #[default]
    Created,
    /// Its process runs.
    Running,
    /// Its process is frozen.
    Paused,
    /// Between two runs under a restart policy.
    Restarting,
    /// Being removed.
    Removing,
    /// Its process ended.
    Exited,
    /// Its removal failed half-way, or its data is damaged.
    Dead,
}

/// The changing part of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Where it is in its life.
    pub status: Status,
    /// Process id of its init in the guest; zero when it does not run.
    pub pid: u32,
    /// Exit code of the last run: 0 to 255, 128+n for signal n.
    pub exit_code: i64,
    /// Whether the kernel ended it for want of memory.
    pub oom_killed: bool,
    /// Why the last start failed, else empty.
    pub error: String,
    /// When the last run began.
    pub started_at: i64,
    /// When the last run ended.
    pub finished_at: i64,
    /// What its health check found; `None` without one.
    pub health: Option<Health>,
}

/// What a health check has found since the container was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// How many probes in a row failed.
    pub failing_streak: i64,
    /// The last few probes, oldest first.
    pub log: Vec<Probe>,
}

/// A health check's verdict; Docker's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthStatus {
    /// No probe has decided yet.
    #[default]
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// As many probes in a row failed as it takes, or nobody looks any more.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a health check's command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// When it began.
    pub start: i64,
    /// When it ended.
    pub end: i64,
    /// Its exit code; -1 when it was not run or did not end in time.
    pub exit_code: i64,
    /// What it said, cut to 4096 bytes.
    pub output: String,
}

impl ContainerState {
    /// Whether there is a process: running, paused or about to be restarted.
    pub fn is_running(&self) -> bool {
        matches!(
            self.status,
            Status::Running | Status::Paused | Status::Restarting
        )
    }
}

/// A container, whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Its name, without a leading slash.
    pub name: String,
    /// When it was created.
    pub created: i64,
    /// The image as the user named it.
    pub image: String,
    /// The image's id: `sha256:` and 64 hex digits.
    pub image_id: String,
    /// The program that is (to be) run: entrypoint and command resolved.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// The user's configuration merged over the image's.
    pub config: ContainerConfig,
    /// What the user asked of the host, with defaults filled in.
    pub host_config: HostConfig,
    /// Its state now.
    pub state: ContainerState,
    /// How often a restart policy has started it again.
    pub restart_count: i64,
    /// What is mounted into it.
    pub mounts: Vec<MountPoint>,
    /// Its networks, by name: what the user asked for and, while it runs, what it
    /// has there.
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Its log on the data disk (a path in the guest).
    pub log_path: String,
    /// `linux`.
    pub platform: String,
    /// Ids of its running execs.
    pub exec_ids: Vec<String>,
    /// The host's ports that lead to it, as they were bound for its last run.
    pub ports: Vec<PublishedPort>,
}

/// A command run in a running container.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    /// The container's id.
    pub container_id: String,
    /// What to run and how.
    pub config: ExecConfig,
    /// Whether it runs now.
    pub running: bool,
    /// Its exit code once it has ended, recorded before its stream ends.
    pub exit_code: Option<i64>,
    /// Process id in the guest; zero when it does not run.
    pub pid: u32,
}

/// What to run in a container; the fields of Docker's `ExecConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecConfig {
    /// Keep stdin open and carry it.
    pub attach_stdin: bool,
    /// Carry stdout.
    pub attach_stdout: bool,
    /// Carry stderr.
    pub attach_stderr: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Terminal size, \[height, width\].
    pub console_size: Option<[u16; 2]>,
    /// Key sequence that detaches, Docker's syntax; empty for the default.
    pub detach_keys: String,
    /// Variables as `NAME=value`, over the container's.
    pub env: Vec<String>,
    /// Program and arguments.
    pub cmd: Vec<String>,
    /// All capabilities.
    pub privileged: bool,
    /// `user`, `user:group`, `uid:gid`; empty for the container's.
    pub user: String,
    /// Working directory; empty for the container's.
    pub working_dir: String,
}

/// Something that happened; the engine gives it Docker's shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// `container`, `image`, `volume`, `network`.
    pub kind: String,
    /// Docker's action: `create`, `start`, `die`, `exec_create: sh` and so on.
    pub action: String,
    /// The id of what it happened to.
    pub id: String,
    /// Docker's attributes for it: `name`, `image`, `exitCode`, labels.
    pub attributes: BTreeMap<String, String>,
    /// When.
    pub time: i64,
}
