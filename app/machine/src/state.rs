//! What this process knows of a machine, shared by all handles on it, and what there
//! is to tell of one.
//!
//! [`crate::machine`] and [`crate::boot`] read and change it. It starts nothing and
//! stops nothing.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dctl_vmm::control::BalloonStatistics;
use futures_util::future::{BoxFuture, Shared};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    Choice, DEFAULT_MACHINE, Destination, DriverKind, Error, Paths, Result, UserNamespace,
    blocking::blocking,
    ending,
    lock::Lock,
    monitor::process::Monitor,
    paths::{MachineFiles, create_private},
};

/// A machine, to all handles on it.
pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) paths: Paths,
    pub(crate) files: MachineFiles,
    /// What this process knows of the machine.
    pub(crate) stage: watch::Sender<Stage>,
    /// How long the guest may take to power off, when somebody wants a boot to end.
    pub(crate) stop: watch::Sender<Option<Duration>>,
    pub(crate) flag: Mutex<Option<DriverKind>>,
    pub(crate) boot: Mutex<Option<Boot>>,
    pub(crate) last_exit: Mutex<Option<String>>,
}

/// A boot that several callers wait for.
pub(crate) type Boot = Shared<BoxFuture<'static, Result<()>>>;

/// Where a machine is in its life, for whoever waits for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It does not run, as far as this process knows.
    Off,
    /// Its files are made ready and its driver is chosen.
    Preparing,
    /// The guest boots, on this driver.
    Booting(Choice),
    /// The agent answers.
    Running,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "The machine is off",
            Self::Preparing => "Preparing the machine…",
            Self::Booting(_) => "Booting the machine…",
            Self::Running => "The machine runs",
        })
    }
}

/// Whether a machine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// No monitor runs.
    Off,
    /// This process starts it; the guest is not ready yet.
    Starting,
    /// It runs.
    Running,
    /// Its CPUs are stopped.
    Paused,
    /// Its power button was pressed.
    PoweringOff,
    /// A monitor runs and does not answer.
    Unresponsive,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::PoweringOff => "powering off",
            Self::Unresponsive => "unresponsive",
        })
    }
}

/// What there is to say of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Whether it runs.
    pub state: RunState,
    /// The driver of a running machine, and why that one.
    pub driver: Option<Choice>,
    /// Virtual CPUs: those it runs with, or would.
    pub cpus: u8,
    /// Memory in MiB: what it runs with, or would.
    pub memory_mib: u32,
    /// The user namespace of containers that ask for none.
    pub userns: UserNamespace,
    /// What containers may reach; everything when there is none.
    pub egress_allow: Vec<Destination>,
    /// What they may not, even if it is allowed.
    pub egress_deny: Vec<Destination>,
    /// Size of its data disk in bytes; zero before its first boot.
    pub disk_size: u64,
    /// What the disk takes on the host, in bytes.
    pub disk_used: u64,
    /// The monitor's process.
    pub process_id: Option<u32>,
    /// Time since its monitor was started, in milliseconds.
    pub uptime_ms: Option<u64>,
    /// Memory that went back to the host.
    pub balloon: Option<BalloonStatistics>,
    /// How it ended when it last did so on its own, if this process saw it.
    pub last_exit: Option<String>,
    /// The guest's console.
    pub console_log: std::path::PathBuf,
    /// The monitor's output.
    pub monitor_log: std::path::PathBuf,
}

impl Inner {
    /// The default machine is made when it first boots; others exist or do not.
    pub(crate) fn require(&self) -> Result<()> {
        if self.name == DEFAULT_MACHINE || self.files.directory().is_dir() {
            Ok(())
        } else {
            Err(Error::NoSuchMachine(self.name.clone()))
        }
    }

    pub(crate) fn flag(&self) -> Option<DriverKind> {
        *lock(&self.flag)
    }

    /// Keeps the machine off for as long as the locks are held.
    ///
    /// # Errors
    /// [`Error::Running`] when it runs or starts.
    pub(crate) fn hold_off(&self) -> Result<[Lock; 2]> {
        let running = || Error::Running(self.name.clone());
        create_private(self.files.directory())?;
        create_private(self.files.runtime())?;
        Ok([
            Lock::try_acquire(&self.files.start_lock())?.ok_or_else(running)?,
            Lock::try_acquire(&self.files.lock())?.ok_or_else(running)?,
        ])
    }

    pub(crate) fn not_running(&self) -> Error {
        Error::NotRunning {
            name: self.name.clone(),
            last_exit: lock(&self.last_exit).clone(),
        }
    }

    /// Tells everyone when this monitor ends. Called once the guest is ready.
    pub(crate) fn watch(self: &Arc<Self>, monitor: Monitor) {
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            let exit = monitor.exited().await;
            tracing::info!(machine = inner.name, "{exit}");
            let files = inner.files.clone();
            let described = blocking(move || Ok(ending::describe(&files, exit))).await;
            *lock(&inner.last_exit) = Some(described.unwrap_or_else(|_| exit.to_string()));
            inner.stage.send_replace(Stage::Off);
        });
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine")
            .field("name", &self.name)
            .field("stage", &*self.stage.borrow())
            .finish_non_exhaustive()
    }
}

/// Locks, also after a holder panicked: every change is one assignment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
