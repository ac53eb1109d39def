//! Starting a container: from its record to a process that runs.
//!
//! The order: what the last run left is gone ([`cleanup`](super::cleanup)), the process's
//! surroundings ([`preparation`](super::preparation)), the process
//! ([`process`](super::process)), the record. From then on
//! [`supervision`](super::supervision) has it.

use std::{sync::Arc, time::Duration};

use guest_protocol::{AgentError, ErrorKind, container::Status};

use super::{
    Containers, Entry, Record, cleanup::unmounted, health, process::Process,
    supervision::FIRST_PAUSE,
};
use crate::{
    clock,
    error::{Context, Result},
    stdio::Stdio,
};

impl Containers {
    /// Starts a container.
    ///
    /// # Errors
    /// [`ErrorKind::NotModified`] when it runs; else why it does not.
    pub(crate) async fn start(&self, reference: &str) -> Result<()> {
        let entry = self.find(reference)?;
        self.start_entry(&entry).await
    }

    /// Notes that a container was not started because the host could not do its part.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) async fn start_failed(&self, reference: &str, message: &str) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let status = entry.record().container.state.status;
        if matches!(status, Status::Created | Status::Exited) {
            let error = AgentError::new(ErrorKind::System, message);
            self.note_failed_start(&entry, &error);
        }
        Ok(())
    }

    pub(super) async fn start_entry(&self, entry: &Arc<Entry>) -> Result<()> {
        let _lifecycle = entry.lifecycle.lock().await;
        let status = entry.record().container.state.status;
        match status {
            Status::Running => {
                return Err(AgentError::new(
                    ErrorKind::NotModified,
                    format!("container {} is already running", entry.id),
                ));
            }
            Status::Paused => {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Status::Removing | Status::Dead => {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Restarting | Status::Exited => {}
        }
        self.launch(entry, FIRST_PAUSE, false).await
    }

    /// Starts it; `pause` is how long its restart policy waits when this run ends.
    pub(super) async fn launch(
        &self,
        entry: &Arc<Entry>,
        pause: Duration,
        again: bool,
    ) -> Result<()> {
        if *self.shared.closing.borrow() {
            return Err(AgentError::new(
                ErrorKind::Unavailable,
                "the machine is shutting down",
            ));
        }
        let stdio = entry.stdio();
        match self.launch_with(entry, &stdio, pause, again).await {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::warn!("container {} did not start: {error}", &entry.id[..12]);
                self.clear(entry).await;
                stdio.cancel();
                self.note_failed_start(entry, &error);
                Err(error)
            }
        }
    }

    async fn launch_with(
        &self,
        entry: &Arc<Entry>,
        stdio: &Arc<Stdio>,
        pause: Duration,
        again: bool,
    ) -> Result<()> {
        unmounted(entry).await;
        let container = entry.container();
        let (user, confinement) = tokio::task::block_in_place(|| self.prepare(entry))?;
        let mut running = entry.record().clone();
        note_running(&mut running, again);
        // The disk takes its time: the process is made meanwhile.
        let (containers, record) = (self.clone(), running.clone());
        let kept = tokio::task::spawn_blocking(move || containers.shared.records.put(&record));
        let made = self
            .make_and_start(entry, &container, &user, stdio, confinement)
            .await;
        let kept = kept.await.context("keeping a record failed").flatten();
        let Process {
            pid,
            descriptor,
            exit,
            networks,
        } = made?;
        running.container.networks = networks;
        if let Err(error) = &kept {
            // It goes on in memory; the disk tells the truth with the next change.
            tracing::error!("the state of container {} was not kept: {error}", entry.id);
        }
        running.container.state.pid = pid.as_raw_nonzero().get().unsigned_abs();
        *entry.record() = running;
        entry.live().process = Some(Arc::new(descriptor));
        entry.history.send_modify(|history| history.running = true);
        self.tell(entry, "start", &[]);
        self.tell_linking(entry);
        self.tend_health(entry);
        let (containers, entry, stdio) = (self.clone(), Arc::clone(entry), Arc::clone(stdio));
        tokio::spawn(async move { containers.supervise(entry, stdio, exit, pause).await });
        Ok(())
    }
}

fn note_running(record: &mut Record, again: bool) {
    record.stopped_by_user = false;
    let container = &mut record.container;
    if again {
        container.restart_count += 1;
    } else {
        container.restart_count = 0;
    }
    let state = &mut container.state;
    state.status = Status::Running;
    state.exit_code = 0;
    state.oom_killed = false;
    state.error.clear();
    state.started_at = clock::now();
    state.finished_at = 0;
    container.state.health = health::at_start(container);
}
