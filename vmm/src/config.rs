//! What a virtual machine is made of: the file that a driver writes and a
//! monitor reads.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A virtual machine, as given to a monitor with `--config FILE` (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// An uncompressed x86-64 `vmlinux` (ELF).
    pub kernel: PathBuf,
    /// The initial RAM file system (cpio, may be compressed).
    pub initramfs: PathBuf,
    /// The kernel's command line; the monitor appends what its devices need.
    pub command_line: String,
    /// Virtual CPUs, 1 to 64.
    pub cpus: u8,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Block devices, in the guest's order: `vda`, `vdb`.
    #[serde(default)]
    pub disks: Vec<DiskConfig>,
    /// The road between host and guest.
    pub vsock: VsockConfig,
    /// Where the control socket is made, mode 0600.
    pub control_socket: PathBuf,
    /// Where the guest's console (kernel messages) is written; bounded.
    pub console_log: PathBuf,
    /// The guest's vsock port that is its power button; see
    /// [`crate::control::Request::PowerOff`].
    pub power_button_port: u32,
    /// A file that the monitor locks for as long as it runs, so that no two
    /// monitors open one machine's disk.
    pub lock_file: PathBuf,
}

/// A raw, sparse disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// The image. Its length is the disk's size.
    pub path: PathBuf,
    /// Refuse writes.
    #[serde(default)]
    pub read_only: bool,
}

/// The vsock device.
///
/// The host reaches a guest port by connecting to `socket`, writing
/// `CONNECT <port>\n` and reading `OK <host port>\n`. The guest reaches host port
/// `n` when something listens on the unix socket `<socket>_<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VsockConfig {
    /// The guest's context id.
    pub cid: u32,
    /// The unix socket, made with mode 0600.
    pub socket: PathBuf,
}

impl VsockConfig {
    /// The unix socket that a guest's connection to the host's `port` arrives at.
    pub fn host_port_socket(&self, port: u32) -> PathBuf {
        host_port_socket(&self.socket, port)
    }
}

/// The unix socket that a guest's connection to the host's `port` arrives at,
/// for the vsock device behind `socket`.
pub fn host_port_socket(socket: &Path, port: u32) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(format!("_{port}"));
    name.into()
}
