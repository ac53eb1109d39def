//! What boots a machine: [`kvm`], our own monitor on hardware; [`qemu`], QEMU's
//! software CPU with our devices beside it. [`choice`] says which.
//!
//! A driver knows how to start a VM and reach its vsock, and nothing else: each is
//! a process that is given a [`VmConfig`] and speaks [`dctl_vmm::control`].

pub(crate) mod choice;
pub(crate) mod kvm;
pub(crate) mod probe;
pub(crate) mod qemu;

use std::{env, fmt, path::PathBuf, str::FromStr, time::Duration};

use dctl_vmm::config::{self, DiskConfig, SharesConfig, VmConfig, VsockConfig};
use serde::{Deserialize, Serialize};

pub use choice::Choice;

use crate::{
    Error, Result, Settings, ShareTransport, assets::Guest, file, monitor::process::Monitor,
    paths::MachineFiles, shares,
};

/// Names a file to record in what guests write to their disks; the fault campaign
/// sets it.
const JOURNAL_VARIABLE: &str = "DCTL_DISK_JOURNAL";

/// Which driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverKind {
    /// Our monitor on /dev/kvm.
    Kvm,
    /// QEMU's software CPU.
    Qemu,
}

impl DriverKind {
    /// Its name, as settings and flags have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }

    /// How long a guest may take to be ready.
    pub(crate) fn ready_within(self) -> Duration {
        match self {
            Self::Kvm => Duration::from_mins(1),
            Self::Qemu => Duration::from_mins(3),
        }
    }

    /// Starts a monitor; returns before the guest runs.
    pub(crate) fn start(
        self,
        files: &MachineFiles,
        settings: &Settings,
        guest: &Guest,
    ) -> Result<Monitor> {
        let (subcommand, command_line) = match self {
            Self::Kvm => (kvm::SUBCOMMAND, kvm::COMMAND_LINE),
            Self::Qemu => (qemu::SUBCOMMAND, qemu::COMMAND_LINE),
        };
        let config = VmConfig {
            kernel: guest.kernel.clone(),
            initramfs: guest.initramfs.clone(),
            command_line: command_line.join(" "),
            cpus: settings.cpus(),
            memory_mib: settings.memory_mib(),
            disks: vec![DiskConfig {
                path: files.disk(),
                read_only: false,
                journal: env::var_os(JOURNAL_VARIABLE)
                    .filter(|path| !path.is_empty())
                    .map(PathBuf::from),
            }],
            vsock: VsockConfig {
                cid: guest_protocol::GUEST_CID,
                socket: files.vsock_socket(),
            },
            shares: Some(SharesConfig {
                transport: match settings.share_transport.unwrap_or_default() {
                    ShareTransport::Virtiofs => config::ShareTransport::VirtioFs {
                        tag: guest_protocol::SHARES_TAG.to_owned(),
                    },
                    ShareTransport::Vsock => config::ShareTransport::Vsock {
                        port: guest_protocol::SHARES_PORT,
                    },
                },
                exports: shares::load(files)?.into_iter().map(Into::into).collect(),
                changes_port: guest_protocol::SHARE_CHANGES_PORT,
            }),
            control_socket: files.control_socket(),
            console_log: files.console_log(),
            power_button_port: guest_protocol::POWER_BUTTON_PORT,
            lock_file: files.lock(),
        };
        let path = files.config();
        let json = serde_json::to_vec_pretty(&config)
            .map_err(|error| Error::io("write", &path, std::io::Error::other(error)))?;
        file::replace(&path, &json)?;
        Monitor::spawn(subcommand, &path, &files.monitor_log())
    }
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DriverKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Kvm, Self::Qemu]
            .into_iter()
            .find(|driver| driver.name() == name)
            .ok_or_else(|| format!("'{name}' is not a driver: use kvm or qemu"))
    }
}
