//! Volumes: folders on the data disk that outlive the containers that use them.
//!
//! Lives here: [`Volumes`] (names, records and who holds them), their files
//! ([`files`]), who has them mounted ([`mounted`]), how they go ([`removal`]), and the
//! options of their one driver ([`options`]). The method
//! handlers and the containers call it. It knows nothing of containers: who uses a
//! volume is asked of the caller.
//!
//! On disk, below the data root:
//!
//! ```text
//! volumes/<name>/_data   its files; a mount point when the volume is a tmpfs
//! volumes/<name>/_new    what is to become its files; thrown away at start
//! volumes-trash/*        what is being deleted; emptied at start
//! ```
//!
//! The record is there before the folder, and goes after it: one that says
//! `removed` is a removal to be finished. A folder without a record is a volume
//! from before there were records, and gets one.

mod files;
mod mounted;
mod options;
mod records;
mod removal;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    AgentError, ErrorKind,
    volume::{ANONYMOUS_LABEL, Volume},
};
use redb::{Database, WriteTransaction};
use rustix::fs::{CWD, Mode, OFlags};

use self::{
    files::Files,
    records::{Record, Records},
};
use crate::{
    clock,
    error::{Context, Result},
    identity::new_id,
    images::trash::Trash,
};

pub(crate) use self::{mounted::Mounted, options::check_name, removal::Leaving};

/// What a volume is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `None` for one of its own that has no name.
    pub(crate) name: Option<String>,
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

/// All volumes. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Volumes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    directory: OwnedFd,
    trash: Trash,
    records: Records,
    state: Mutex<State>,
    /// Held while a volume is filled.
    filling: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, Record>,
    /// How many hold on to a volume that no container has yet.
    held: HashMap<String, usize>,
    /// How many have it mounted.
    mounted: HashMap<String, usize>,
    /// Those whose files are being replaced.
    replaced: HashSet<String>,
}

/// Keeps a volume from being removed.
#[derive(Debug)]
pub(crate) struct Hold {
    inner: Arc<Inner>,
    name: String,
    /// Of an unclaimed volume: its record once it is claimed.
    claim: Option<Record>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        let Some(count) = state.held.get_mut(&self.name) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.held.remove(&self.name);
        let Some(record) = state.volumes.get_mut(&self.name) else {
            return;
        };
        if !record.unclaimed {
            return;
        }
        // The container that it was made for did not come to be.
        record.removed = true;
        drop(state);
        if let Err(error) = self.inner.discard(&self.name) {
            tracing::warn!("volume {} is left over: {error}", self.name);
        }
        self.inner.empty_trash();
    }
}

impl Hold {
    /// Has `transaction`, which keeps the container that the volume was made for,
    /// keep the volume as well.
    pub(crate) fn claim_in(
        &self,
        transaction: &WriteTransaction,
    ) -> std::result::Result<(), redb::Error> {
        // Without a look at the state: who holds that may wait for this transaction.
        match &self.claim {
            Some(record) => records::put(transaction, &self.name, record),
            None => Ok(()),
        }
    }

    /// The transaction is on the disk.
    pub(crate) fn claimed(&self) {
        if let Some(record) = self.inner.state().volumes.get_mut(&self.name) {
            record.unclaimed = false;
        }
    }
}

impl Volumes {
    /// Opens the volumes below `data_root`, and finishes what an interruption left.
    ///
    /// # Errors
    /// When records or folders cannot be read.
    pub(crate) fn open(data_root: &Path, database: Arc<Database>) -> Result<Self> {
        let records = Records::open(database)?;
        let root = data_root.join("volumes");
        fs::create_dir_all(&root).context(format_args!("cannot make {}", root.display()))?;
        let trash = Trash::open(&data_root.join("volumes-trash"))
            .context("cannot open the volumes' trash")?;
        let directory = rustix::fs::openat(
            CWD,
            &root,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .context(format_args!("cannot open {}", root.display()))?;
        let volumes = Self {
            inner: Arc::new(Inner {
                root,
                directory,
                trash,
                state: Mutex::new(State {
                    volumes: records.load()?,
                    ..State::default()
                }),
                filling: Mutex::default(),
                records,
            }),
        };
        volumes.inner.take_over_folders()?;
        volumes.inner.finish_removals();
        volumes.inner.make_lost_folders();
        volumes.inner.empty_trash();
        Ok(volumes)
    }

    /// Makes a volume, or finds the one that has the name.
    ///
    /// # Errors
    /// When name, driver or options are none that can be had.
    pub(crate) fn create(&self, wanted: &Wanted) -> Result<(Volume, bool)> {
        self.find_or_make(wanted, false)
            .map(|(volume, _, made)| (volume, made))
    }

    /// As [`create`](Self::create), and keeps it from being removed for as long as
    /// the hold lasts. One without a name of its own goes with the hold, or with a
    /// crash, unless it is [claimed](Hold::claim_in). Also tells whether it was made.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub(crate) fn create_held(&self, wanted: &Wanted) -> Result<(Volume, Hold, bool)> {
        self.find_or_make(wanted, wanted.name.is_none())
    }

    fn find_or_make(&self, wanted: &Wanted, unclaimed: bool) -> Result<(Volume, Hold, bool)> {
        options::check_driver(&wanted.driver)?;
        options::check(&wanted.options)?;
        let mut labels = wanted.labels.clone();
        let name = if let Some(name) = &wanted.name {
            check_name(name)?;
            name.clone()
        } else {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
            new_id()?
        };
        let mut state = self.inner.state();
        let mut made = false;
        let record = match state.volumes.get(&name) {
            Some(record) if record.removed => return Err(being_removed(&name)),
            Some(record) => record.clone(),
            None => {
                let record = Record {
                    labels,
                    options: wanted.options.clone(),
                    created: clock::now(),
                    removed: false,
                    unclaimed,
                };
                self.inner.records.put(&name, &record)?;
                state.volumes.insert(name.clone(), record.clone());
                made = true;
                record
            }
        };
        let hold = self.inner.hold(&mut state, &name);
        drop(state);
        self.inner
            .files(&name)
            .make()
            .context(format_args!("cannot make the folder of volume {name}"))?;
        Ok((self.inner.volume(&name, &record), hold, made))
    }

    /// Keeps a volume from being removed.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn hold(&self, name: &str) -> Result<Hold> {
        let mut state = self.inner.state();
        match state.volumes.get(name) {
            Some(record) if record.removed => Err(being_removed(name)),
            Some(_) => Ok(self.inner.hold(&mut state, name)),
            None => Err(AgentError::no_such_volume(name)),
        }
    }

    /// All volumes, by name. Their users are the caller's to fill in.
    pub(crate) fn list(&self) -> Vec<Volume> {
        self.inner
            .state()
            .volumes
            .iter()
            .filter(|(_, record)| !record.removed)
            .map(|(name, record)| self.inner.volume(name, record))
            .collect()
    }

    /// One volume, without its users.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn get(&self, name: &str) -> Result<Volume> {
        match self.inner.state().volumes.get(name) {
            Some(record) if !record.removed => Ok(self.inner.volume(name, record)),
            _ => Err(AgentError::no_such_volume(name)),
        }
    }

    /// Bytes that its files take on the disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], or why they cannot be read.
    pub(crate) fn usage(&self, name: &str) -> Result<u64> {
        let _hold = self.hold(name)?;
        self.inner
            .files(name)
            .usage()
            .context(format_args!("cannot measure volume {name}"))
    }

    /// Opens a volume's folder.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn open_files(&self, name: &str) -> Result<OwnedFd> {
        self.get(name)?;
        self.inner
            .files(name)
            .open()
            .context(format_args!("cannot open volume {name}"))
    }

    /// Has `write` write a volume's files anew, all or nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when somebody has it mounted; `write`'s, and those of
    /// the disk.
    pub(crate) fn replace(
        &self,
        name: &str,
        write: impl FnOnce(OwnedFd) -> Result<()>,
    ) -> Result<()> {
        let _hold = self.hold(name)?;
        {
            let mut state = self.inner.state();
            if state.mounted.contains_key(name) {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    format!(
                        "cannot restore volume {name}: a running container has it: stop the \
                         container first"
                    ),
                ));
            }
            let is_tmpfs = state
                .volumes
                .get(name)
                .is_some_and(|record| options::tmpfs(&record.options).is_some());
            if is_tmpfs {
                return Err(AgentError::invalid(format!(
                    "cannot restore volume {name}: it is a tmpfs and keeps nothing"
                )));
            }
            if !state.replaced.insert(name.to_owned()) {
                return Err(AgentError::new(
                    ErrorKind::Conflict,
                    format!("volume {name} is being restored"),
                ));
            }
        }
        let result = self.inner.files(name).replace(&self.inner.trash, write);
        self.inner.state().replaced.remove(name);
        self.inner.empty_trash();
        result
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self, name: &str) -> Files {
        Files::of(self.root.join(name))
    }

    fn volume(&self, name: &str, record: &Record) -> Volume {
        Volume {
            name: name.to_owned(),
            driver: "local".to_owned(),
            labels: record.labels.clone(),
            options: record.options.clone(),
            created: record.created,
            mountpoint: self.files(name).data().to_string_lossy().into_owned(),
            users: Vec::new(),
        }
    }

    fn hold(self: &Arc<Self>, state: &mut State, name: &str) -> Hold {
        *state.held.entry(name.to_owned()).or_default() += 1;
        let claim = state
            .volumes
            .get(name)
            .filter(|record| record.unclaimed)
            .map(|record| Record {
                unclaimed: false,
                ..record.clone()
            });
        Hold {
            inner: Arc::clone(self),
            name: name.to_owned(),
            claim,
        }
    }

    /// Gives folders that have no record one, and clears what was never finished.
    fn take_over_folders(&self) -> Result<()> {
        let read = format!("cannot read {}", self.root.display());
        let mut state = self.state();
        for folder in fs::read_dir(&self.root).context(&read)? {
            let folder = folder.context(&read)?;
            let name = folder.file_name().to_string_lossy().into_owned();
            if check_name(&name).is_err() || !folder.path().is_dir() {
                continue;
            }
            if let Err(error) = self.files(&name).clear_unfinished(&self.trash) {
                tracing::warn!("what was never finished of volume {name} stays: {error}");
            }
            if state.volumes.contains_key(&name) {
                continue;
            }
            let mut record = Record {
                created: clock::now(),
                ..Record::default()
            };
            if name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                record
                    .labels
                    .insert(ANONYMOUS_LABEL.to_owned(), String::new());
            }
            self.records.put(&name, &record)?;
            state.volumes.insert(name, record);
        }
        Ok(())
    }

    /// The record of a volume can have reached the disk without its folder.
    fn make_lost_folders(&self) {
        for name in self.state().volumes.keys() {
            if let Err(error) = self.files(name).make() {
                tracing::warn!("volume {name} has no folder: {error}");
            }
        }
    }
}

fn being_removed(name: &str) -> AgentError {
    AgentError::new(
        ErrorKind::Conflict,
        format!("volume {name} is being removed"),
    )
}
