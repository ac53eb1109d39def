//! Ending a container: signals, stop, restart, and all of them at shutdown.

use std::{sync::Arc, time::Duration};

use guest_protocol::{AgentError, ErrorKind, container::Status};
use rustix::{io::Errno, process::pidfd_send_signal};
use tokio::time::timeout;

use super::{Containers, Entry, signal::SignalNumber};
use crate::error::{Context, Result};

/// Seconds between the stop signal and SIGKILL unless configured; Docker's value.
const STOP_TIMEOUT: i64 = 10;

/// How long a killed container may take to be gone.
const KILL_GRACE: Duration = Duration::from_secs(20);

impl Containers {
    /// Sends the stop signal, waits, then kills.
    ///
    /// # Errors
    /// [`ErrorKind::NotModified`] when it does not run.
    pub(crate) async fn stop(
        &self,
        reference: &str,
        signal: Option<&str>,
        seconds: Option<i64>,
    ) -> Result<()> {
        let entry = self.find(reference)?;
        self.stop_entry(&entry, signal, seconds, true).await
    }

    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// As [`stop`](Self::stop) and [`start`](Self::start).
    pub(crate) async fn restart(
        &self,
        reference: &str,
        signal: Option<&str>,
        seconds: Option<i64>,
    ) -> Result<()> {
        let entry = self.find(reference)?;
        // An `AutoRemove` container would be gone before it is started again.
        let auto_remove = self.set_auto_remove(&entry, false)?;
        match self.stop_entry(&entry, signal, seconds, true).await {
            Err(error) if error.kind != ErrorKind::NotModified => return Err(error),
            _ => {}
        }
        let started = self.start_entry(&entry).await;
        if auto_remove {
            self.set_auto_remove(&entry, true)?;
        }
        started?;
        self.tell(&entry, "restart", &[]);
        Ok(())
    }

    fn set_auto_remove(&self, entry: &Entry, wanted: bool) -> Result<bool> {
        let before = entry.record().container.host_config.auto_remove == Some(true);
        if before != wanted {
            self.change(entry, |record| {
                record.container.host_config.auto_remove = Some(wanted);
            })?;
        }
        Ok(before)
    }

    /// Sends a signal. Waits for the end that SIGKILL brings, so that what comes next
    /// finds the container stopped.
    ///
    /// # Errors
    /// When there is no such signal, or the container does not run, or does not end.
    pub(crate) async fn kill(&self, reference: &str, signal: &str) -> Result<()> {
        let signal = if signal.is_empty() {
            SignalNumber::KILL
        } else {
            SignalNumber::parse(signal)?
        };
        let entry = self.find(reference)?;
        let restarting = entry.record().container.state.status == Status::Restarting;
        let ends = signal == SignalNumber::KILL || signal == stop_signal(&entry)?;
        if ends {
            self.change(&entry, |record| record.stopped_by_user = true)?;
        }
        if restarting {
            // Between two runs there is no process for other signals.
            return if ends {
                self.give_up_restart(&entry)
            } else {
                Ok(())
            };
        }
        let run = entry.history.borrow().runs;
        self.send(&entry, signal)?;
        if signal == SignalNumber::KILL {
            // Ends a frozen process, too.
            killed(&entry, run).await?;
        } else if ends {
            // A frozen process does not act on what it was sent.
            self.resume(&entry)?;
        }
        Ok(())
    }

    /// Sends the stop signal, and kills what has not ended in time. Meanwhile others may
    /// end it sooner: whoever waits for a process that never ends holds up nobody.
    async fn stop_entry(
        &self,
        entry: &Arc<Entry>,
        signal: Option<&str>,
        seconds: Option<i64>,
        by_user: bool,
    ) -> Result<()> {
        let lifecycle = async || {
            if by_user {
                Some(entry.lifecycle.lock().await)
            } else {
                // A shutdown waits for nobody.
                None
            }
        };
        let (run, patience) = {
            let _lifecycle = lifecycle().await;
            let Some(patience) = self.ask_to_end(entry, signal, seconds, by_user)? else {
                return Ok(());
            };
            (entry.history.borrow().runs, patience)
        };
        if timeout(patience, ended(entry, run)).await.is_err() {
            let _lifecycle = lifecycle().await;
            if entry.history.borrow().runs == run {
                self.kill_and_wait(entry).await?;
            }
        }
        self.tell(entry, "stop", &[]);
        Ok(())
    }

    /// Sends the stop signal, and says how long to wait for the end; nothing when there is
    /// none to wait for.
    fn ask_to_end(
        &self,
        entry: &Arc<Entry>,
        signal: Option<&str>,
        seconds: Option<i64>,
        by_user: bool,
    ) -> Result<Option<Duration>> {
        let signal = match signal.filter(|signal| !signal.is_empty()) {
            Some(signal) => SignalNumber::parse(signal)?,
            None => stop_signal(entry)?,
        };
        let (status, seconds) = {
            let container = &entry.record().container;
            let own = container.config.stop_timeout;
            (
                container.state.status,
                seconds.or(own).unwrap_or(STOP_TIMEOUT),
            )
        };
        if by_user && entry.is_running() {
            self.change(entry, |record| record.stopped_by_user = true)?;
        }
        match status {
            Status::Running | Status::Paused => {}
            Status::Restarting => {
                self.give_up_restart(entry)?;
                self.tell(entry, "stop", &[]);
                return Ok(None);
            }
            _ => {
                return Err(AgentError::new(
                    ErrorKind::NotModified,
                    format!("container {} is already stopped", entry.id),
                ));
            }
        }
        if let Err(error) = self.send(entry, signal) {
            // It ended by itself just now; the wait below sees that.
            tracing::debug!("stopping container {}: {error}", entry.id);
        }
        self.resume(entry)?;
        Ok(Some(match u64::try_from(seconds) {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => Duration::MAX,
        }))
    }

    pub(super) async fn kill_and_wait(&self, entry: &Entry) -> Result<()> {
        let run = entry.history.borrow().runs;
        // When it ended just now, there is nothing to kill and nothing to wait for.
        let _ = self.send(entry, SignalNumber::KILL);
        killed(entry, run).await
    }

    /// Ends a container that waits to be started again.
    fn give_up_restart(&self, entry: &Entry) -> Result<()> {
        self.change(entry, |record| {
            record.container.state.status = Status::Exited;
        })?;
        entry.history.send_modify(|history| history.running = false);
        Ok(())
    }

    fn send(&self, entry: &Entry, signal: SignalNumber) -> Result<()> {
        let process = entry.live().process.clone();
        let gone = || {
            let name = &entry.record().container.name;
            AgentError::new(
                ErrorKind::Conflict,
                format!(
                    "cannot kill container: {name}: container {} is not running",
                    entry.id
                ),
            )
        };
        let process = process.ok_or_else(gone)?;
        match pidfd_send_signal(&*process, signal.as_signal()) {
            Err(Errno::SRCH) => return Err(gone()),
            result => result.context("cannot send the signal")?,
        }
        self.tell(entry, "kill", &[("signal", signal.to_string())]);
        Ok(())
    }

    /// Stops all containers, for as long as `patience` at most, and lets none be
    /// started. Their restart policies see to them at the next boot.
    pub(crate) async fn stop_all(&self, patience: Duration) {
        self.shared.closing.send_replace(true);
        let seconds = patience.as_secs() as i64;
        let stops: Vec<_> = self
            .entries()
            .into_iter()
            .filter(|entry| entry.is_running())
            .map(|entry| {
                let containers = self.clone();
                tokio::spawn(async move {
                    let own = entry.record().container.config.stop_timeout;
                    let seconds = match own.unwrap_or(STOP_TIMEOUT) {
                        ..0 => seconds,
                        own => own.min(seconds),
                    };
                    match containers
                        .stop_entry(&entry, None, Some(seconds), false)
                        .await
                    {
                        Err(error) if error.kind != ErrorKind::NotModified => {
                            tracing::error!("container {} was not stopped: {error}", entry.id);
                        }
                        _ => {}
                    }
                })
            })
            .collect();
        for stop in stops {
            // It panicked, which was reported; the others go on.
            let _ = stop.await;
        }
    }
}

fn stop_signal(entry: &Entry) -> Result<SignalNumber> {
    let signal = entry.record().container.config.stop_signal.clone();
    SignalNumber::parse(
        signal
            .as_deref()
            .filter(|signal| !signal.is_empty())
            .unwrap_or("TERM"),
    )
}

/// Waits for the end of a container that was killed, in the run that so many had ended
/// before.
async fn killed(entry: &Entry, run: u64) -> Result<()> {
    timeout(KILL_GRACE, ended(entry, run)).await.map_err(|_| {
        AgentError::system(format!(
            "container {} was killed and does not end: a process of it hangs in the kernel",
            entry.id
        ))
    })
}

/// Waits for the end of the run that so many had ended before.
async fn ended(entry: &Entry, run: u64) {
    // An error means that the entry is gone, and the container with it.
    let _ = entry
        .history
        .subscribe()
        .wait_for(|history| !history.running || history.runs != run)
        .await;
}
