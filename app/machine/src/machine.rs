//! [`Machine`]: the handle that the engine holds, and what it can be asked.
//!
//! One process at a time starts a machine (a lock file sees to it), and within a
//! process all callers share one boot. The monitor outlives this process; a new
//! one finds it by its sockets.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use dctl_vmm::control;
use futures_util::FutureExt;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};

use crate::{
    Change, DriverKind, Error, Paths, Result, Settings,
    blocking::blocking,
    boot, console, disk,
    monitor::control::Control,
    new_machine::NewMachine,
    paths::{MachineFiles, create_private},
    power::{EXIT_WITHIN, attach, power_off},
    state::{Boot, Inner, RunState, Stage, Status, lock},
    vsock,
};

/// A machine, running or not. Clones are the same machine.
#[derive(Debug, Clone)]
pub struct Machine {
    pub(crate) inner: Arc<Inner>,
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

    /// Makes a machine with these settings; it boots when it is wanted.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Unacceptable`], [`Error::InvalidName`],
    /// [`Error::Io`].
    pub async fn create(
        paths: &Paths,
        name: &str,
        change: Change,
        driver: Option<DriverKind>,
    ) -> Result<Self> {
        let machine = Self::open(paths, name)?;
        let settings = change.apply(&Settings {
            driver,
            ..Settings::default()
        })?;
        let inner = Arc::clone(&machine.inner);
        blocking(move || {
            inner.paths.create()?;
            let new = NewMachine::begin(&inner.paths)?;
            new.write_settings(&settings)?;
            new.finish(&inner.name, &inner.files)
        })
        .await?;
        Ok(machine)
    }

    /// Whether the machine has been made. The default one is when it first boots.
    pub fn exists(&self) -> bool {
        self.inner.files.directory().is_dir()
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

    /// Listens where the guest's connections to one host port arrive, in place of who
    /// did before. Returns the socket's path, too: a machine that boots removes it.
    ///
    /// # Errors
    /// [`Error::NoSuchMachine`], [`Error::Io`].
    pub fn listen(&self, port: u32) -> Result<(UnixListener, PathBuf)> {
        self.inner.require()?;
        self.inner.paths.create()?;
        create_private(self.inner.files.runtime())?;
        let path = self.inner.files.host_port_socket(port);
        crate::file::remove(&path)?;
        Ok((vsock::listen(&path)?, path))
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
            userns: settings.userns.unwrap_or_default(),
            egress_allow: settings.egress_allow.clone(),
            egress_deny: settings.egress_deny.clone(),
            disk_size: match disk.size {
                // There is none before the first boot.
                0 => settings.disk_bytes(),
                size => size,
            },
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

    /// What a user asks of it. Reads `machine.toml` alone.
    ///
    /// # Errors
    /// [`Error::Settings`], [`Error::Io`].
    pub async fn settings(&self) -> Result<Settings> {
        let files = self.inner.files.clone();
        blocking(move || Settings::load(&files)).await
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
            let _off = inner.hold_off()?;
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

    /// Empties the machine: its disk goes, its settings stay. It must be off.
    ///
    /// # Errors
    /// [`Error::Running`], [`Error::NoSuchMachine`], [`Error::Io`].
    pub async fn reset(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.require()?;
            let _off = inner.hold_off()?;
            crate::file::remove(&inner.files.exports())?;
            crate::file::remove(&inner.files.engine_access())?;
            crate::file::remove(&inner.files.disk())?;
            crate::file::sync_directory(inner.files.directory())
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
