//! What a virtual machine is made of: the file that a driver writes and a
//! monitor reads.

use std::fs::File;
use std::io::{self, Read};
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
    /// What of the host's files the guest sees; without it, nothing ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<SharesConfig>,
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

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Virtual CPUs that the monitor can run.
const MAX_CPUS: u8 = 64;
/// Less memory boots no Linux.
const MIN_MEMORY_MIB: u32 = 32;
/// More does not fit the physical addresses of common processors.
const MAX_MEMORY_MIB: u32 = 1 << 20;

/// Why a [`VmConfig`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no JSON, or not of the right shape.
    #[error("the configuration {} is malformed: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// It asks for what cannot be.
    #[error("{0}")]
    Unusable(String),
}

impl VmConfig {
    /// Reads a configuration from a file, and checks it.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let read_error = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
            .map_err(read_error)?;
        let config: Self =
            serde_json::from_slice(&bytes).map_err(|source| ConfigError::Malformed {
                path: path.to_owned(),
                source,
            })?;
        config.check()?;
        Ok(config)
    }

    /// Refuses what no machine can have.
    pub fn check(&self) -> Result<(), ConfigError> {
        let unusable = |reason: String| Err(ConfigError::Unusable(reason));
        if self.cpus == 0 || self.cpus > MAX_CPUS {
            return unusable(format!(
                "a machine has 1 to {MAX_CPUS} CPUs, not {}",
                self.cpus
            ));
        }
        if !(MIN_MEMORY_MIB..=MAX_MEMORY_MIB).contains(&self.memory_mib) {
            return unusable(format!(
                "a machine has {MIN_MEMORY_MIB} to {MAX_MEMORY_MIB} MiB of memory, not {}",
                self.memory_mib
            ));
        }
        // 0 and 1 are reserved, 2 is the host (virtio 1.2, 5.10.4).
        if self.vsock.cid < 3 {
            return unusable(format!(
                "a guest's vsock context id is 3 or more, not {}",
                self.vsock.cid
            ));
        }
        Ok(())
    }
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
    /// A file to record all writes and flushes in, for tests that cut the power.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<PathBuf>,
}

/// Files of the host that the guest sees: one file system, in whose root each export
/// is an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharesConfig {
    /// The road that requests take.
    pub transport: ShareTransport,
    /// What is exported from the start. One that cannot be opened is no error: see
    /// [`crate::control::Request::AddExport`].
    #[serde(default)]
    pub exports: Vec<ExportConfig>,
    /// The guest's vsock port that is told of changes on the host.
    pub changes_port: u32,
}

/// How the guest's file system reaches the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ShareTransport {
    /// A virtio-fs device with this tag.
    VirtioFs {
        /// At most 36 bytes.
        tag: String,
    },
    /// FUSE over a connection of the guest to this vsock port of the host.
    Vsock {
        /// The port.
        port: u32,
    },
}

/// A file or directory of the host that is shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// The entry's name in the file system's root.
    pub name: String,
    /// What it is.
    pub path: PathBuf,
    /// Refuse changes.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> VmConfig {
        VmConfig {
            kernel: "/k".into(),
            initramfs: "/i".into(),
            command_line: String::new(),
            cpus: 1,
            memory_mib: 64,
            disks: Vec::new(),
            vsock: VsockConfig {
                cid: 3,
                socket: "/v".into(),
            },
            shares: None,
            control_socket: "/c".into(),
            console_log: "/l".into(),
            power_button_port: 1026,
            lock_file: "/f".into(),
        }
    }

    #[test]
    fn what_no_machine_can_have_is_refused() {
        config().check().unwrap();
        for spoil in [
            (|config: &mut VmConfig| config.cpus = 0) as fn(&mut VmConfig),
            |config| config.cpus = 65,
            |config| config.memory_mib = 31,
            |config| config.memory_mib = u32::MAX,
            |config| config.vsock.cid = 2,
        ] {
            let mut config = config();
            spoil(&mut config);
            assert!(matches!(config.check(), Err(ConfigError::Unusable(_))));
        }
    }

    #[test]
    fn files_are_read_back_and_errors_name_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert!(matches!(
            VmConfig::read(&path),
            Err(ConfigError::Read { .. })
        ));
        std::fs::write(&path, serde_json::to_vec(&config()).unwrap()).unwrap();
        assert_eq!(VmConfig::read(&path).unwrap(), config());
        std::fs::write(&path, b"{\"kernel\":1}").unwrap();
        let error = VmConfig::read(&path).unwrap_err();
        assert!(error.to_string().contains("config.json"));
    }
}
