//! Volumes: folders on the data disk that outlive the containers that use them.
//!
//! Lives here: [`Volumes`] (names, records and who may go), their files
//! ([`files`]), and the options of their one driver ([`options`]). The method
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
mod options;
mod records;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use guest_protocol::{
    AgentError, ErrorKind,
    volume::{ANONYMOUS_LABEL, Volume},
};
use redb::{Database, WriteTransaction};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags},
};

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

pub(crate) use self::options::check_name;

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

/// A volume that somebody has mounted. A tmpfs goes with the last.
#[derive(Debug)]
pub(crate) struct Mounted {
    inner: Arc<Inner>,
    name: String,
    /// Where a folder in it is mounted, for who may have no more.
    part: Option<PathBuf>,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let unmounted = rustix::mount::unmount(part, UnmountFlags::DETACH)
                .map_err(io::Error::from)
                .and_then(|()| fs::remove_dir(part));
            if let Err(error) = unmounted {
                tracing::warn!("{} is left over: {error}", part.display());
            }
        }
        let mut state = self.inner.state();
        let Some(count) = state.mounted.get_mut(&self.name) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        state.mounted.remove(&self.name);
        let is_tmpfs = state
            .volumes
            .get(&self.name)
            .is_some_and(|record| options::tmpfs(&record.options).is_some());
        if is_tmpfs {
            self.inner.unmount(&self.name);
        }
    }
}

/// Volumes that are about to be removed together with a container.
#[derive(Debug)]
pub(crate) struct Leaving {
    inner: Arc<Inner>,
    volumes: Vec<(String, Record)>,
    gone: bool,
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

    /// Makes a volume ready for somebody who mounts it: its folder is there, a tmpfs
    /// mounted.
    ///
    /// # Errors
    /// When it is gone or being restored, or the mount fails.
    pub(crate) fn mount(&self, name: &str) -> Result<Mounted> {
        let mut state = self.inner.state();
        let record = match state.volumes.get(name) {
            Some(record) if !record.removed => record.clone(),
            _ => return Err(AgentError::no_such_volume(name)),
        };
        if state.replaced.contains(name) {
            return Err(AgentError::new(
                ErrorKind::Conflict,
                format!("volume {name} is being restored"),
            ));
        }
        let files = self.inner.files(name);
        // A folder that was made right before a power cut is not on the disk.
        files
            .make()
            .context(format_args!("cannot make the folder of volume {name}"))?;
        if let Some(options) = options::tmpfs(&record.options)
            && !state.mounted.contains_key(name)
        {
            mount_tmpfs(&files.data(), &options)
                .context(format_args!("failed to mount local volume {name}"))?;
        }
        *state.mounted.entry(name.to_owned()).or_default() += 1;
        Ok(Mounted {
            inner: Arc::clone(&self.inner),
            name: name.to_owned(),
            part: None,
        })
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

impl Mounted {
    /// Fills the volume, if it is empty, with what the folder `source` of an image
    /// has.
    ///
    /// # Errors
    /// When something cannot be read or written.
    pub(crate) fn fill(&self, source: &OwnedFd) -> Result<()> {
        let _one_at_a_time = self
            .inner
            .filling
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let in_place = {
            let state = self.inner.state();
            let others = state
                .mounted
                .get(&self.name)
                .is_some_and(|count| *count > 1);
            let is_tmpfs = state
                .volumes
                .get(&self.name)
                .is_some_and(|record| options::tmpfs(&record.options).is_some());
            others || is_tmpfs
        };
        self.inner
            .files(&self.name)
            .fill(source, in_place, &self.inner.trash)
            .context(format_args!("failed to populate volume {}", self.name))
    }

    /// Mounts the folder `subpath` of the volume at `target`, which is made. Whatever
    /// who else has the volume does to it, that folder and no other is mounted.
    ///
    /// # Errors
    /// When there is no such folder, or a link is on the way to it.
    pub(crate) fn bind_part(&mut self, subpath: &str, target: PathBuf) -> Result<()> {
        let what = format!("cannot mount {subpath:?} of volume {}", self.name);
        let files = self.inner.files(&self.name).open().context(&what)?;
        let folder = rustix::fs::openat2(
            &files,
            subpath,
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        )
        .context(&what)?;
        let stat = rustix::fs::fstat(&folder).context(&what)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            fs::create_dir_all(&target).context(&what)?;
        } else {
            return Err(AgentError::invalid(format!("{what}: it is no folder")));
        }
        let tree = rustix::mount::open_tree(
            &folder,
            "",
            OpenTreeFlags::AT_EMPTY_PATH
                | OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC,
        )
        .context(&what)?;
        rustix::mount::move_mount(
            &tree,
            "",
            CWD,
            &target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
        .context(&what)?;
        self.part = Some(target);
        Ok(())
    }

    /// Where what is to be mounted is.
    pub(crate) fn source(&self) -> PathBuf {
        match &self.part {
            Some(part) => part.clone(),
            None => self.inner.files(&self.name).data(),
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

    fn finish_removals(&self) {
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
    fn discard(&self, name: &str) -> Result<()> {
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

    fn unmount(&self, name: &str) {
        let data = self.files(name).data();
        match rustix::mount::unmount(&data, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Nothing is mounted there, or it is not there at all.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => tracing::warn!("volume {name} stays mounted: {error}"),
        }
    }

    fn empty_trash(self: &Arc<Self>) {
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

fn being_removed(name: &str) -> AgentError {
    AgentError::new(
        ErrorKind::Conflict,
        format!("volume {name} is being removed"),
    )
}

fn mount_tmpfs(target: &Path, options: &[&str]) -> io::Result<()> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for option in options {
        flags |= match *option {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "rw" | "suid" | "dev" | "exec" | "defaults" => MountFlags::empty(),
            other => {
                data.push(other);
                MountFlags::empty()
            }
        };
    }
    let data = std::ffi::CString::new(data.join(","))?;
    Ok(rustix::mount::mount(
        "tmpfs",
        target,
        "tmpfs",
        flags,
        Some(data.as_c_str()),
    )?)
}
