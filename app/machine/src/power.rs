//! Finds the process of a machine that runs, and powers it off.
//!
//! Called by [`crate::machine`] and, for a boot that is given up, by [`crate::boot`].

use std::time::Duration;

use crate::{
    Error, Result,
    monitor::{control::Control, process::Monitor},
    state::Inner,
};

/// Between a power-off that was forced and the end of the process.
pub(crate) const EXIT_WITHIN: Duration = Duration::from_secs(10);

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
