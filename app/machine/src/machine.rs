//! [`Machine`]: the handle that the engine holds, and what it can be asked.
//!
//! One process at a time starts a machine (a lock file sees to it), and within a
//! process all callers share one boot. The monitor outlives this process; a new
//! one finds it by its sockets.

use std::{
    fmt, fs,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dctl_vmm::control::{self, BalloonStatistics};
use futures_util::{FutureExt, future::BoxFuture, future::Shared};
use serde::Serialize;
use tokio::{net::UnixStream, sync::watch};

use crate::{
    Choice, DriverKind, Error, Paths, Result, Settings, boot, console, disk,
    lock::Lock,
    monitor::{control::Control, process::Monitor},
    paths::MachineFiles,
    vsock,
};

/// Between a power-off that was forced and the end of the process.
const EXIT_WITHIN: Duration = Duration::from_secs(10);

/// A machine, running or not. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) paths: Paths,
    pub(crate) files: MachineFiles,
    /// What this process knows of the machine.
    pub(crate) stage: watch::Sender<Stage>,
    /// How long the guest may take to power off, when somebody wants a boot to end.
    pub(crate) stop: watch::Sender<Option<Duration>>,
    flag: Mutex<Option<DriverKind>>,
    boot: Mutex<Option<Boot>>,
    last_exit: Mutex<Option<String>>,
}

type Boot = Shared<BoxFuture<'static, Result<()>>>;

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

impl Machine {
    /// The machine of that name. Touches nothing: it is made when it first boots.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::SocketPathTooLong`].
    pub fn open(paths: &Paths, name: &str) -> Result<Self> {
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                paths: paths.clone(),
                files: paths.machine(name)?,
                stage: watch::Sender::new(Stage::Off),
                stop: watch::Sender::new(None),
                flag: Mutex::default(),
                boot: Mutex::default(),
                last_exit: Mutex::default(),
            }),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its files.
    pub fn files(&self) -> &MachineFiles {
        &self.inner.files
    }

    /// Forces a driver for as long as this process boots the machine.
    ///
    /// # Errors
    /// [`Error::OtherDriver`] when it runs on another, [`Error::Settings`].
    pub async fn force_driver(&self, driver: DriverKind) -> Result<()> {
        let status = self.status().await?;
        match status.driver {
            Some(choice) if choice.driver != driver => Err(Error::OtherDriver {
                name: status.name,
                running: choice.driver,
                asked: driver,
            }),
            _ => {
                *lock(&self.inner.flag) = Some(driver);
                Ok(())
            }
        }
    }

    /// Where it is, and each change. A change to [`Stage::Off`] is the end of a
    /// machine that ran, however it came about.
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.inner.stage.subscribe()
    }

    /// Boots the machine unless it runs; returns when its agent answers. Callers at
    /// the same time share one boot, which goes on when one of them gives up.
    ///
    /// Needs a Tokio runtime that outlives the call: it watches the monitor.
    ///
    /// # Errors
    /// Whatever keeps it from running, among them [`Error::NoDriver`],
    /// [`Error::NoAssets`] and [`Error::BootFailed`].
    pub async fn ensure_running(&self) -> Result<()> {
        let boot = {
            let mut slot = lock(&self.inner.boot);
            match slot.as_ref() {
                Some(boot) => boot.clone(),
                None if *self.inner.stage.borrow() == Stage::Running => return Ok(()),
                None => slot.insert(self.begin_boot()).clone(),
            }
        };
        boot.await
    }

    fn begin_boot(&self) -> Boot {
        self.inner.stop.send_replace(None);
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            // However the task ends, the next caller starts anew.
            let _done = BootDone(Arc::clone(&inner));
            boot::boot(&inner).await
        });
        async move {
            match task.await {
                Ok(result) => result,
                Err(error) => Err(Error::Monitor(format!("the boot was given up: {error}"))),
            }
        }
        .boxed()
        .shared()
    }

    /// Connects to a vsock port in the guest. Does not boot the machine.
    ///
    /// # Errors
    /// [`Error::NotRunning`], and [`Error::Refused`] when nothing listens there.
    pub async fn connect(&self, port: u32) -> Result<UnixStream> {
        if let Some(stream) = vsock::connect(&self.inner.files.vsock_socket(), port).await? {
            return Ok(stream);
        }
        // Its monitor is gone. Let that be known here before the caller tries again.
        let mut stage = self.inner.stage.subscribe();
        let ended = stage.wait_for(|stage| *stage != Stage::Running);
        let _ = tokio::time::timeout(EXIT_WITHIN, ended).await;
        Err(self.inner.not_running())
    }

    /// What there is to say of it.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::Io`].
    pub async fn status(&self) -> Result<Status> {
        let files = &self.inner.files;
        let settings = Settings::load(files)?;
        let disk = disk::usage(&files.disk())?;
        let (starting, driver) = match &*self.inner.stage.borrow() {
            Stage::Preparing => (true, None),
            Stage::Booting(choice) => (true, Some(choice.clone())),
            Stage::Off | Stage::Running => (false, None),
        };
        let mut status = Status {
            name: self.inner.name.clone(),
            state: if starting {
                RunState::Starting
            } else {
                RunState::Off
            },
            driver,
            cpus: settings.cpus(),
            memory_mib: settings.memory_mib(),
            disk_size: disk.size,
            disk_used: disk.used,
            process_id: None,
            uptime_ms: None,
            balloon: None,
            last_exit: lock(&self.inner.last_exit).clone(),
            console_log: files.console_log(),
            monitor_log: files.monitor_log(),
        };
        let Some(mut control) = Control::connect(&files.control_socket()).await? else {
            return Ok(status);
        };
        status.driver = status.driver.or_else(|| boot::recorded_choice(files));
        status.process_id = control.process().map(|pid| pid.as_raw_pid() as u32);
        let Ok(state) = control.state().await else {
            status.state = RunState::Unresponsive;
            return Ok(status);
        };
        status.state = match state.run_state {
            control::RunState::Running if starting => RunState::Starting,
            control::RunState::Running => RunState::Running,
            control::RunState::Paused => RunState::Paused,
            control::RunState::PoweringOff => RunState::PoweringOff,
        };
        status.cpus = state.cpus;
        status.memory_mib = state.memory_mib;
        status.process_id = Some(state.process_id);
        status.uptime_ms = Some(state.uptime_ms);
        status.balloon = control.balloon().await.ok();
        Ok(status)
    }

    /// Powers it off: presses the power button, and uses force when the guest does
    /// not follow within `timeout`. Returns when it is off. One that is off is fine.
    ///
    /// # Errors
    /// [`Error::Unresponsive`] when not even force helps; [`Error::Io`].
    pub async fn stop(&self, timeout: Duration) -> Result<()> {
        // A boot under way ends itself.
        let boot = lock(&self.inner.boot).clone();
        if let Some(boot) = boot {
            self.inner.stop.send_replace(Some(timeout));
            match boot.await {
                // It was ready just before.
                Ok(()) => {}
                Err(_) => return Ok(()),
            }
        }
        let Some(control) = Control::connect(&self.inner.files.control_socket()).await? else {
            return Ok(());
        };
        let Some(monitor) = attach(&self.inner, control).await? else {
            return Ok(());
        };
        power_off(&self.inner, &monitor, timeout).await?;
        // The one that watches the monitor for this process sees it, too.
        let mut stage = self.inner.stage.subscribe();
        let off = stage.wait_for(|stage| *stage != Stage::Running);
        let _ = tokio::time::timeout(EXIT_WITHIN, off).await;
        Ok(())
    }

    /// [`Machine::stop`], then [`Machine::ensure_running`].
    ///
    /// # Errors
    /// Those of both.
    pub async fn restart(&self, timeout: Duration) -> Result<()> {
        self.stop(timeout).await?;
        self.ensure_running().await
    }

    /// Deletes the machine: disk, settings, logs. It must be off.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::Io`].
    pub async fn remove(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let files = &inner.files;
            let running = || Error::Running(inner.name.clone());
            crate::paths::create_private(files.directory())?;
            crate::paths::create_private(files.runtime())?;
            // Neither starting nor running, nor able to until the locks are gone.
            let _starting = Lock::try_acquire(&files.start_lock())?.ok_or_else(running)?;
            let _running = Lock::try_acquire(&files.lock())?.ok_or_else(running)?;
            for directory in [files.directory(), files.runtime()] {
                match fs::remove_dir_all(directory) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", directory, error));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }

    /// What the guest wrote to its console in its last boot, from the end back to
    /// 1 MiB: what is there when the agent cannot be asked for its log.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub async fn console_log(&self) -> Result<Vec<u8>> {
        let path = self.inner.files.console_log();
        blocking(move || console::read_tail(&path)).await
    }
}

impl Inner {
    pub(crate) fn flag(&self) -> Option<DriverKind> {
        *lock(&self.flag)
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
            let described = blocking(move || Ok(boot::describe(&files, exit))).await;
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

struct BootDone(Arc<Inner>);

impl Drop for BootDone {
    fn drop(&mut self) {
        // Under the lock: whoever looks sees a boot under way, or how it ended.
        let mut slot = lock(&self.0.boot);
        self.0.stage.send_if_modified(|stage| {
            let failed = *stage != Stage::Running && *stage != Stage::Off;
            if failed {
                *stage = Stage::Off;
            }
            failed
        });
        *slot = None;
    }
}

/// A handle on the process behind `control`; `None` when it has ended meanwhile.
pub(crate) async fn attach(inner: &Inner, mut control: Control) -> Result<Option<Monitor>> {
    let unresponsive = || Error::Unresponsive {
        name: inner.name.clone(),
        monitor_log: inner.files.monitor_log(),
    };
    let process = control.process().ok_or_else(unresponsive)?;
    let monitor = match Monitor::attach(process) {
        Ok(monitor) => monitor,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Ok(None);
        }
        Err(error) => {
            return Err(Error::io(
                "watch the monitor of",
                inner.files.runtime(),
                error,
            ));
        }
    };
    // Ids are used again: it is the monitor if that still holds its end.
    if control.state().await.is_ok() {
        return Ok(Some(monitor));
    }
    match Control::connect(&inner.files.control_socket()).await? {
        None => Ok(None),
        Some(again) if again.process() == Some(process) => Ok(Some(monitor)),
        Some(_) => Err(unresponsive()),
    }
}

/// Powers off, by force when `timeout` has passed, and waits for the end.
pub(crate) async fn power_off(inner: &Inner, monitor: &Monitor, timeout: Duration) -> Result<()> {
    let asked = match Control::connect(&inner.files.control_socket()).await? {
        Some(mut control) => control.power_off(timeout).await,
        None => Err(inner.not_running()),
    };
    let patience = match asked {
        Ok(()) => timeout.saturating_add(EXIT_WITHIN),
        Err(error) => {
            tracing::debug!(%error, "the monitor cannot be asked to power off");
            Duration::ZERO
        }
    };
    if tokio::time::timeout(patience, monitor.exited())
        .await
        .is_ok()
    {
        return Ok(());
    }
    monitor.kill();
    tokio::time::timeout(EXIT_WITHIN, monitor.exited())
        .await
        .map(drop)
        .map_err(|_| Error::Unresponsive {
            name: inner.name.clone(),
            monitor_log: inner.files.monitor_log(),
        })
}

/// Runs what blocks where it may.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Monitor(format!("a task was given up: {error}"))),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
