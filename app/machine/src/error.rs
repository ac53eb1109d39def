//! What can go wrong with a machine, in words a user can act on.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::DriverKind;

/// Why something could not be done with a machine.
///
/// Cheap to clone: callers that wait for one boot all get its error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No place for dctl's files is known.
    #[error("neither DCTL_HOME nor HOME is set to an absolute path: set one of them")]
    NoHome,
    /// A directory that must be the user's own is not.
    #[error(
        "{} {problem}: dctl does not trust it; remove it or set XDG_RUNTIME_DIR or DCTL_HOME to a directory of your own",
        path.display()
    )]
    UnsafeDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A unix socket's path does not fit in a socket address.
    #[error(
        "the path {} is {length} bytes long, and a unix socket's can have {limit} at most: set DCTL_HOME or XDG_RUNTIME_DIR to a shorter directory",
        path.display()
    )]
    SocketPathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// The most that is possible.
        limit: usize,
    },
    /// A driver was asked for, and the machine runs on another.
    #[error(
        "machine {name} runs on the {running} driver: `dctl machine restart --driver {asked}` boots it on {asked}"
    )]
    OtherDriver {
        /// The machine.
        name: String,
        /// What it runs on.
        running: DriverKind,
        /// What was asked for.
        asked: DriverKind,
    },
    /// A machine's name is not one.
    #[error(
        "'{0}' is not a machine name: use 1 to 32 of a-z, 0-9 and '-', beginning with a letter or digit"
    )]
    InvalidName(String),
    /// No machine has that name.
    #[error(
        "no such machine: {0}: `dctl machine ls` shows those there are, `dctl machine create {0}` makes it"
    )]
    NoSuchMachine(String),
    /// A machine has that name.
    #[error("a machine named {0} exists already")]
    Exists(String),
    /// A machine could not be exported or imported.
    #[error("the machine cannot be transferred: {0}")]
    Transfer(String),
    /// What is asked for cannot be had.
    #[error("{0}")]
    Unacceptable(String),
    /// `machine.toml` or the environment asks for what cannot be.
    #[error("{origin}: {problem}")]
    Settings {
        /// The file or variable.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// The binary holds no guest.
    #[error("this dctl was built without guest assets: run `cargo xtask build`")]
    NoAssets,
    /// An embedded asset does not have the digest that was recorded when it was built.
    #[error(
        "the {name} embedded in this dctl is corrupt ({problem}): the file was damaged, install dctl again"
    )]
    CorruptAsset {
        /// Which.
        name: &'static str,
        /// How that shows.
        problem: String,
    },
    /// No driver can run here.
    #[error(
        "no machine can run on this host. KVM: {kvm}. QEMU: {qemu}. Run `dctl doctor` for details"
    )]
    NoDriver {
        /// Why not KVM.
        kvm: String,
        /// Why not QEMU, and how to install it.
        qemu: String,
    },
    /// The driver that was asked for cannot run here.
    #[error("the driver '{driver}' was asked for ({by}) but cannot be used: {problem}")]
    DriverUnusable {
        /// Which.
        driver: DriverKind,
        /// Who asked.
        by: String,
        /// Why not.
        problem: String,
    },
    /// The monitor ended before the guest was ready.
    #[error("the machine did not start: {reason}{}\nlogs: {} and {}", detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default(), console_log.display(), monitor_log.display())]
    BootFailed {
        /// How the monitor ended.
        reason: String,
        /// The kernel's panic line or the monitor's last words.
        detail: Option<String>,
        /// The guest's console.
        console_log: PathBuf,
        /// The monitor's output.
        monitor_log: PathBuf,
    },
    /// The guest was not ready in time.
    #[error("the machine was not ready after {} s and was switched off\nlogs: {} and {}", after.as_secs(), console_log.display(), monitor_log.display())]
    BootTimeout {
        /// How long it was given.
        after: Duration,
        /// The guest's console.
        console_log: PathBuf,
        /// The monitor's output.
        monitor_log: PathBuf,
    },
    /// Somebody stopped it.
    #[error("the machine was stopped while it started")]
    Stopped,
    /// It does not run.
    #[error("the machine '{name}' does not run{}", last_exit.as_ref().map(|exit| format!(": {exit}")).unwrap_or_default())]
    NotRunning {
        /// The machine.
        name: String,
        /// How it ended, if this process saw it.
        last_exit: Option<String>,
    },
    /// It runs, and must not for this.
    #[error("the machine '{0}' runs: stop it first")]
    Running(String),
    /// A monitor holds the machine's lock and does not answer.
    #[error(
        "the machine '{name}' is held by a monitor that does not answer: see {}",
        monitor_log.display()
    )]
    Unresponsive {
        /// The machine.
        name: String,
        /// The monitor's output.
        monitor_log: PathBuf,
    },
    /// Nothing in the guest listens there.
    #[error("the guest refused a connection to vsock port {port}")]
    Refused {
        /// The guest's port.
        port: u32,
    },
    /// The monitor answered with an error, or not as agreed.
    #[error("the machine's monitor: {0}")]
    Monitor(String),
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`]: `cannot {action} {path}: {source}`.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source: Arc::new(source.into()),
        }
    }
}
