//! What is exported: names, paths, and which file or directory each was when it was
//! opened.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use shares::{ExportOptions, Server, open_root};

use super::Job;
use crate::{config::ExportConfig, control::Answer};

/// A device and inode number.
type Identity = (u64, u64);

pub(super) struct Exports {
    server: Arc<Server>,
    /// By name.
    live: BTreeMap<String, (ExportConfig, Identity)>,
    /// What was wanted from the start and could not be opened: containers that start
    /// with the machine wait for it.
    missing: Vec<ExportConfig>,
}

/// How often what is missing is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// As good as never.
const IDLE: Duration = Duration::from_hours(24);

impl Exports {
    pub(super) fn new(server: Arc<Server>) -> Self {
        Self {
            server,
            live: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    /// Exports these as soon as they can be opened.
    pub(super) fn add_later(&mut self, exports: Vec<ExportConfig>) {
        self.missing.extend(exports);
    }

    /// How long [`Self::retry`] can wait.
    pub(super) fn next_retry(&self) -> Duration {
        if self.missing.is_empty() { IDLE } else { RETRY }
    }

    /// Tries what is missing.
    pub(super) fn retry(&mut self) {
        for export in std::mem::take(&mut self.missing) {
            if let Err(error) = self.add(export.clone()) {
                tracing::debug!(%error, path = %export.path.display(), "not shared yet");
                self.missing.push(export);
            }
        }
    }

    pub(super) fn answer(&mut self, job: Job) -> Answer {
        match job {
            Job::Add(export) => {
                let path = export.path.clone();
                match self.add(export) {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::Error {
                        message: format!("cannot share {}: {error}", path.display()),
                    },
                }
            }
            Job::Remove(name) => {
                self.remove(&name);
                Answer::Done
            }
            Job::Names => Answer::Exports {
                names: self.live.keys().cloned().collect(),
            },
        }
    }

    /// Exports a path, or what is at that path now instead of what was.
    pub(super) fn add(&mut self, export: ExportConfig) -> io::Result<()> {
        let root = open_root(&export.path)?;
        let identity = identity(&root)?;
        if let Some(known) = self.live.get(&export.name) {
            if *known == (export.clone(), identity) {
                return Ok(());
            }
            self.remove(&export.name);
        }
        let options = ExportOptions {
            read_only: export.read_only,
            ..ExportOptions::default()
        };
        self.server
            .add_export(&export.name, root, options)
            .map_err(io::Error::other)?;
        self.missing.retain(|other| other.name != export.name);
        self.live.insert(export.name.clone(), (export, identity));
        Ok(())
    }

    fn remove(&mut self, name: &str) {
        self.missing.retain(|export| export.name != name);
        if self.live.remove(name).is_some()
            && let Err(error) = self.server.remove_export(name)
        {
            tracing::warn!(%error, "an export was gone");
        }
    }
}

fn identity(root: &OwnedFd) -> io::Result<Identity> {
    let stat = rustix::fs::fstat(root.as_fd())?;
    Ok((stat.st_dev, stat.st_ino))
}
