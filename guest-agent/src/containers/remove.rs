//! Removing a container and what only it used.

use std::{os::fd::AsFd, sync::Arc};

use guest_protocol::{
    AgentError, ErrorKind,
    container::{Container, Status},
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};

use super::{Containers, Entry, cleanup::unmounted};
use crate::{error::Result, volumes::Leaving};

impl Containers {
    /// Removes a container; `force` kills it first, `volumes` takes its anonymous
    /// volumes along.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it runs.
    pub(crate) async fn remove(&self, reference: &str, force: bool, volumes: bool) -> Result<()> {
        let entry = self.find(reference)?;
        self.remove_entry(&entry, force, volumes).await
    }

    /// Removes a container that ended, in a task of its own.
    pub(super) fn remove_soon(&self, entry: &Arc<Entry>) {
        let (containers, entry) = (self.clone(), Arc::clone(entry));
        tokio::spawn(async move {
            match containers.remove_entry(&entry, true, true).await {
                // Somebody else was faster.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => tracing::error!("container {} was not removed: {error}", entry.id),
                Ok(()) => {}
            }
        });
    }

    async fn remove_entry(&self, entry: &Arc<Entry>, force: bool, volumes: bool) -> Result<()> {
        if force && entry.is_running() {
            // Not waiting for a stop that holds the lock.
            let _ = self.kill(&entry.id, "KILL").await;
        }
        let _lifecycle = entry.lifecycle.lock().await;
        if entry.history.borrow().removed {
            return Err(AgentError::no_such_container(&entry.id));
        }
        if entry.is_running() {
            if !force {
                let container = entry.container();
                let why = match container.state.status {
                    Status::Paused => "container is paused and must be unpaused first",
                    Status::Restarting => {
                        "container is restarting: stop the container before removing or force remove"
                    }
                    _ => "container is running: stop the container before removing or force remove",
                };
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    format!("cannot remove container \"{}\": {why}", container.name),
                ));
            }
            self.kill_and_wait(entry).await?;
        }
        // One transaction: with the record goes the container. Folders that are left
        // after a crash are cleared away at the next boot.
        let container = entry.container();
        let leaving = volumes.then(|| self.leaving_volumes(&container));
        self.shared.records.remove_and(&entry.id, |transaction| {
            leaving
                .as_ref()
                .map_or(Ok(()), |leaving| leaving.remove_in(transaction))
        })?;
        {
            let mut index = self.index();
            index.entries.remove(&entry.id);
            index.names.remove(&container.name);
        }
        entry.stdio().cancel();
        self.shared.execs.forget(&entry.id);
        let (containers, removed) = (self.clone(), Arc::clone(entry));
        tokio::spawn(async move { containers.clear_away(&removed, leaving).await });
        self.tell(entry, "destroy", &[]);
        entry.history.send_modify(|history| {
            history.running = false;
            history.removed = true;
        });
        Ok(())
    }

    /// Gives the space back of a container that is gone for its users already.
    async fn clear_away(&self, entry: &Entry, volumes: Option<Leaving>) {
        unmounted(entry).await;
        tokio::task::block_in_place(|| {
            self.delete_folder(&entry.id);
            if let Some(volumes) = volumes {
                volumes.done();
            }
            if let Err(error) = self.shared.images.collect(&|image| self.users_of(image)) {
                tracing::warn!("unused images stay on the disk: {error}");
            }
        });
    }
}

impl Containers {
    /// Deletes a container's folder, however deep it is. What cannot be deleted is
    /// reported, and tried again at the next boot.
    pub(super) fn delete_folder(&self, id: &str) {
        self.throw_away(id);
        self.empty_trash();
    }

    /// Takes a container's folder away, to be deleted with the trash.
    pub(super) fn throw_away(&self, id: &str) {
        let paths = &self.shared.paths;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let thrown = rustix::fs::open(paths.containers(), flags, Mode::empty())
            .and_then(|folder| self.shared.trash.put(folder.as_fd(), id.as_bytes()));
        match thrown {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                tracing::warn!("{} is left over: {error}", paths.container(id).display());
            }
        }
    }

    /// Deletes what was thrown away.
    pub(super) fn empty_trash(&self) {
        if let Err(error) = self.shared.trash.empty() {
            let trash = self.shared.paths.trash();
            tracing::warn!("something is left over in {}: {error}", trash.display());
        }
    }
}

/// Whether a container is to be removed at boot: it was to go with its run, which
/// ended with the machine, if not before. One that was never started stays.
pub(super) fn wanted_after_boot(container: &Container) -> bool {
    let state = &container.state;
    let over = match state.status {
        // Unless its start failed.
        Status::Created => state.exit_code != 0,
        _ => true,
    };
    container.host_config.auto_remove == Some(true) && over || state.status == Status::Removing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_with_its_run_goes_at_boot() {
        let mut container = Container::default();
        for (auto_remove, status, exit_code, gone) in [
            (true, Status::Created, 0, false),
            (true, Status::Created, 127, true),
            (true, Status::Running, 0, true),
            (true, Status::Paused, 0, true),
            (true, Status::Exited, 0, true),
            (true, Status::Dead, 0, true),
            (false, Status::Created, 127, false),
            (false, Status::Running, 0, false),
            (false, Status::Exited, 1, false),
            (false, Status::Removing, 0, true),
        ] {
            container.host_config.auto_remove = Some(auto_remove);
            container.state.status = status;
            container.state.exit_code = exit_code;
            assert_eq!(
                wanted_after_boot(&container),
                gone,
                "{status:?} {exit_code}"
            );
        }
    }
}
