//! Freezing a container and letting it go on, by its cgroup's freezer.

use std::sync::Arc;

use guest_protocol::{AgentError, ErrorKind, container::Status};

use super::{Containers, Entry, cgroup, health};
use crate::{
    error::{Context, Result},
    stdio::Stdio,
};

impl Containers {
    /// Freezes its processes.
    ///
    /// # Errors
    /// In Docker's words, when it does not run or is frozen already.
    pub(crate) async fn pause(&self, reference: &str) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        let conflict = |message: String| Err(AgentError::new(ErrorKind::Conflict, message));
        let status = entry.record().container.state.status;
        match status {
            Status::Running => {}
            Status::Paused => {
                return conflict(format!("Container {} is already paused", entry.id));
            }
            Status::Restarting => return Err(restarting(&entry.id)),
            _ => return conflict(format!("container {} is not running", entry.id)),
        }
        health::stop_probing(&entry);
        let frozen = self.freeze(&entry).await;
        self.tend_health(&entry);
        frozen?;
        self.tell(&entry, "pause", &[]);
        Ok(())
    }

    async fn freeze(&self, entry: &Entry) -> Result<()> {
        let frozen = cgroup::freeze(&entry.cgroup())
            .await
            .context("cannot pause the container");
        // It may have ended meanwhile, which is noted without the lifecycle lock.
        let noted = frozen.and_then(|()| {
            self.change(entry, |record| {
                let state = &mut record.container.state;
                let running = state.status == Status::Running;
                if running {
                    state.status = Status::Paused;
                }
                running
            })
        });
        match noted {
            Ok(true) => Ok(()),
            Ok(false) => Err(AgentError::new(
                ErrorKind::Conflict,
                format!("container {} is not running", entry.id),
            )),
            Err(error) => {
                // Nothing may stay frozen that is not known to be. The error that is
                // told is the first.
                let _ = cgroup::thaw(&entry.cgroup());
                Err(error)
            }
        }
    }

    /// Lets its processes go on.
    ///
    /// # Errors
    /// In Docker's words, when it is not frozen.
    pub(crate) async fn unpause(&self, reference: &str) -> Result<()> {
        let entry = self.find(reference)?;
        let _lifecycle = entry.lifecycle.lock().await;
        if self.resume(&entry)? {
            return Ok(());
        }
        Err(AgentError::system(format!(
            "Container {} is not paused",
            entry.id
        )))
    }

    /// Lets it go on if it is frozen, and says whether it was.
    pub(super) fn resume(&self, entry: &Arc<Entry>) -> Result<bool> {
        if entry.record().container.state.status != Status::Paused {
            return Ok(false);
        }
        cgroup::thaw(&entry.cgroup()).context("cannot resume the container")?;
        let resumed = self.change(entry, |record| {
            let state = &mut record.container.state;
            let paused = state.status == Status::Paused;
            if paused {
                state.status = Status::Running;
            }
            paused
        })?;
        if resumed {
            self.tell(entry, "unpause", &[]);
            self.tend_health(entry);
        }
        Ok(resumed)
    }

    /// The stdio of the container's run, or of its next, for a connection to join.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`]; [`ErrorKind::Conflict`] when it is paused.
    pub(crate) fn attachable(&self, reference: &str) -> Result<Arc<Stdio>> {
        let entry = self.find(reference)?;
        if entry.record().container.state.status == Status::Paused {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!("container {reference} is paused, unpause the container before attach"),
            ));
        }
        Ok(entry.stdio())
    }
}

/// What Docker says when something needs the process of a container that is between
/// two runs.
pub(super) fn restarting(container: &str) -> AgentError {
    AgentError::new(
        ErrorKind::Conflict,
        format!("Container {container} is restarting, wait until the container is running"),
    )
}
