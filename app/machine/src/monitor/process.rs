//! Starts monitors, and tells when one has ended.

use std::{
    env,
    fs::OpenOptions,
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::OpenOptionsExt, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use dctl_vmm::exit::Reason;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::Command,
    sync::watch,
};

use crate::{Error, Result};

/// How a monitor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With an exit code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Nobody knows: it was another process's child.
    Unknown,
}

impl Exit {
    /// The reason behind the exit code, if it is one of ours.
    pub(crate) fn reason(self) -> Option<Reason> {
        match self {
            Self::Code(code) => u8::try_from(code).ok().and_then(Reason::from_code),
            Self::Signal(_) | Self::Unknown => None,
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.reason(), self) {
            (Some(reason), _) => reason.fmt(f),
            (None, Self::Code(code)) => write!(f, "the monitor ended with exit code {code}"),
            (None, Self::Signal(signal)) => {
                write!(f, "the monitor was ended by signal {signal}")
            }
            (None, Self::Unknown) => f.write_str("the monitor ended"),
        }
    }
}

/// A running monitor. Dropping this does nothing to the process.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<Exit>>,
}

impl Monitor {
    /// Starts `dctl <subcommand> --config <config>` in a session of its own, its
    /// output appended to `log`: it outlives this process and its terminal.
    pub(crate) fn spawn(subcommand: &str, config: &Path, log: &Path) -> Result<Self> {
        let executable = executable()?;
        let failed = |error| Error::io("run", &executable, error);
        let output = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(log)
            .map_err(|error| Error::io("open", log, error))?;
        let errors = output
            .try_clone()
            .map_err(|error| Error::io("open", log, error))?;
        let mut command = Command::new(&executable);
        command
            .arg(subcommand)
            .arg("--config")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors);
        // SAFETY: setsid(2) is async-signal-safe and touches no memory.
        unsafe {
            command.pre_exec(|| match rustix::process::setsid() {
                Ok(_) => Ok(()),
                Err(error) => Err(io::Error::from(error)),
            });
        }
        let mut child = command.spawn().map_err(failed)?;
        // Not reaped yet, so the id is its own.
        let pidfd = child
            .id()
            .and_then(|id| Pid::from_raw(id as i32))
            .ok_or(io::Error::from(io::ErrorKind::NotFound))
            .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?))
            .map_err(failed)?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let exit = child.wait().await.map_or(Exit::Unknown, Exit::from);
            sender.send_replace(Some(exit));
        });
        Ok(Self {
            pidfd: Arc::new(pidfd),
            exit,
        })
    }

    /// A monitor that another process started. The caller makes sure afterwards
    /// that `process` is still the monitor's, by asking it something.
    pub(crate) fn attach(process: Pid) -> io::Result<Self> {
        let pidfd = Arc::new(pidfd_open(process, PidfdFlags::empty())?);
        // SAFETY: an OwnedFd is always the same descriptor, open for as long as it lives.
        let ended =
            unsafe { AsyncFd::register_with_interest(Arc::clone(&pidfd), Interest::READABLE) }?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            // A pidfd becomes readable when the process ends (pidfd_open(2)).
            let _ = ended.readable().await;
            sender.send_replace(Some(Exit::Unknown));
        });
        Ok(Self { pidfd, exit })
    }

    /// Waits until it has ended.
    pub(crate) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Unknown),
            // The task that watches it is gone with its runtime.
            Err(_) => Exit::Unknown,
        }
    }

    /// Ends it at once; one that has ended already is fine.
    pub(crate) fn kill(&self) {
        if let Err(error) = pidfd_send_signal(&self.pidfd, Signal::KILL)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(%error, "cannot kill the monitor");
        }
    }
}

/// This program, whose hidden subcommands are the monitors. `DCTL_EXE` names
/// another, for tests that are not dctl.
pub(crate) fn executable() -> Result<PathBuf> {
    if let Some(path) = env::var_os("DCTL_EXE").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let this = Path::new("/proc/self/exe");
    match env::current_exe() {
        Ok(path) if path.exists() => Ok(path),
        // Replaced or removed while it runs: the old one can still be run.
        Ok(_) => Ok(this.to_owned()),
        Err(error) => Err(Error::io("find", this, error)),
    }
}
