//! How volumes go: by themselves, or with the container that they were made for. The
//! record says so first, then the files go, then the record.

use std::{os::fd::AsFd, sync::Arc};

use guest_protocol::{AgentError, ErrorKind, volume::ANONYMOUS_LABEL};
use redb::WriteTransaction;
use rustix::io::Errno;

use super::{
    Inner, Volumes,
    records::{self, Record},
};
use crate::error::{Context, Result};

/// Volumes that are about to be removed together with a container.
#[derive(Debug)]
pub(crate) struct Leaving {
    inner: Arc<Inner>,
    volumes: Vec<(String, Record)>,
    gone: bool,
}

impl Volumes {
    /// Removes a volume; `users` tells which containers have it.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::Conflict`].
    pub(crate) fn remove(&self, name: &str, users: &dyn Fn(&str) -> Vec<String>) -> Result<()> {
        {
            let mut state = self.inner.state();
            let record = match state.volumes.get(name) {
                Some(record) if !record.removed => record.clone(),
                _ => return Err(AgentError::no_such_volume(name)),
            };
            let mut users = users(name);
            if !users.is_empty() || state.held.contains_key(name) {
                users.sort();
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    format!("remove {name}: volume is in use - [{}]", users.join(", ")),
                ));
            }
            let record = Record {
                removed: true,
                ..record
            };
            self.inner.records.put(name, &record)?;
            state.volumes.insert(name.to_owned(), record);
        }
        self.inner.discard(name)?;
        self.inner.empty_trash();
        Ok(())
    }

    /// Of the volumes `names`, a container's, those that go with it: without a name
    /// of their own, and nobody else's. Nobody can begin to use them any more; they
    /// come back unless [`Leaving::done`] is called.
    pub(crate) fn leaving(&self, names: &[String], used: &dyn Fn(&str) -> bool) -> Leaving {
        let mut state = self.inner.state();
        let mut volumes = Vec::new();
        for name in names {
            if state.held.contains_key(name) || used(name) {
                continue;
            }
            if let Some(record) = state.volumes.get_mut(name)
                && !record.removed
                && record.labels.contains_key(ANONYMOUS_LABEL)
            {
                record.removed = true;
                volumes.push((name.clone(), record.clone()));
            }
        }
        Leaving {
            inner: Arc::clone(&self.inner),
            volumes,
            gone: false,
        }
    }
}

impl Leaving {
    /// Has `transaction` remove them.
    pub(crate) fn remove_in(
        &self,
        transaction: &WriteTransaction,
    ) -> std::result::Result<(), redb::Error> {
        self.volumes
            .iter()
            .try_for_each(|(name, record)| records::put(transaction, name, record))
    }

    /// The transaction is on the disk: deletes their files. What is left over is
    /// deleted at the next boot.
    pub(crate) fn done(mut self) {
        self.gone = true;
        for (name, _) in &self.volumes {
            if let Err(error) = self.inner.discard(name) {
                tracing::warn!("the files of volume {name} are left over: {error}");
            }
        }
        if !self.volumes.is_empty() {
            self.inner.empty_trash();
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.gone {
            return;
        }
        let mut state = self.inner.state();
        for (name, _) in &self.volumes {
            if let Some(record) = state.volumes.get_mut(name) {
                record.removed = false;
            }
        }
    }
}

impl Inner {
    /// Finishes the removals that an interruption left.
    pub(super) fn finish_removals(&self) {
        let removed: Vec<String> = self
            .state()
            .volumes
            .iter()
            .filter(|(_, record)| record.removed || record.unclaimed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in removed {
            if let Err(error) = self.discard(&name) {
                tracing::warn!("volume {name} is left over: {error}");
            }
        }
    }

    /// Takes away the folder and then the record of a volume that is marked as
    /// removed.
    pub(super) fn discard(&self, name: &str) -> Result<()> {
        self.unmount(name);
        match self.trash.put(self.directory.as_fd(), name.as_bytes()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => {
                return Err(error)
                    .context(format_args!("cannot remove the files of volume {name}"));
            }
        }
        // A commit of the database need not bring the rename to the disk, and a folder
        // without a record would be a volume again.
        rustix::fs::fsync(&self.directory)
            .context(format_args!("cannot remove the files of volume {name}"))?;
        self.records.remove(name)?;
        self.state().volumes.remove(name);
        Ok(())
    }

    /// Deletes what was removed, in the background.
    pub(super) fn empty_trash(self: &Arc<Self>) {
        let inner = Arc::clone(self);
        let emptied = std::thread::Builder::new()
            .name("volume-trash".into())
            .spawn(move || {
                if let Err(error) = inner.trash.empty() {
                    tracing::warn!("cannot delete removed volumes: {error}; trying again later");
                }
            });
        if let Err(error) = emptied {
            tracing::warn!("cannot delete removed volumes: {error}; trying again later");
        }
    }
}
