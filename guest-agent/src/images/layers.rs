//! The directories that layers are unpacked into, and who brings which.
//!
//! A layer is unpacked beside its place and renamed into it when it is complete,
//! checked and flushed; only then the database hears of it. What the database
//! does not name is rubbish.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use guest_protocol::{AgentError, ErrorKind, image::LayerDescriptor};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::sync::OwnedMutexGuard;

use super::{
    import::{Incoming, LayerStream, StreamError},
    trash::Trash,
    unpack::{UnpackError, unpack},
};

/// How long a layer that nothing uses is kept for the image that is to be made of
/// it: a pull brings other layers in the meantime.
const LEASE: Duration = Duration::from_hours(1);

/// Name of the directory in a layer's own that holds its files.
const FILES: &str = "fs";
const TEMPORARY_PREFIX: &str = "tmp-";

/// The layers' directory on the data disk.
#[derive(Debug)]
pub(super) struct Layers {
    path: PathBuf,
    directory: OwnedFd,
    trash: Arc<Trash>,
    /// Number of the next import, for its temporary directory's name.
    next: AtomicU64,
    /// Locks of the layers that somebody brings, by diff id.
    importing: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Until when a layer is kept, by diff id.
    leases: Mutex<HashMap<String, Instant>>,
}

/// The sole right to bring a layer.
#[derive(Debug)]
pub(super) struct ImportLock {
    diff_id: String,
    _guard: OwnedMutexGuard<()>,
}

impl ImportLock {
    /// The layer.
    pub(super) fn diff_id(&self) -> &str {
        &self.diff_id
    }
}

impl Layers {
    /// Opens the layers below `data_root`; `known` are those in the database.
    /// What else is there is thrown away. Returns those of `known` that are not
    /// there, too.
    pub(super) fn open(
        data_root: &Path,
        known: &BTreeMap<String, u64>,
    ) -> io::Result<(Self, Vec<String>)> {
        let path = data_root.join("layers");
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let directory = rustix::fs::open(
            &path,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let trash = Trash::open(&data_root.join("trash"))?;
        let mut lost: BTreeMap<String, &String> = known
            .keys()
            .map(|diff_id| (directory_name(diff_id), diff_id))
            .collect();
        for entry in fs::read_dir(&path)? {
            let name = entry?.file_name();
            let is_known = name
                .to_str()
                .is_some_and(|name| lost.remove(name).is_some());
            if !is_known {
                tracing::info!(name = ?name, "throwing away a layer that was never finished");
                trash.put(directory.as_fd(), name.as_encoded_bytes())?;
            }
        }
        let lost = lost.into_values().cloned().collect();
        let layers = Self {
            path,
            directory,
            trash: Arc::new(trash),
            next: AtomicU64::new(0),
            importing: Mutex::default(),
            leases: Mutex::default(),
        };
        layers.empty_trash();
        Ok((layers, lost))
    }

    /// The directory with a layer's files.
    pub(super) fn files(&self, diff_id: &str) -> PathBuf {
        self.path.join(directory_name(diff_id)).join(FILES)
    }

    /// Keeps a layer for a while even when nothing uses it.
    pub(super) fn lease(&self, diff_id: &str) {
        let until = Instant::now() + LEASE;
        locked(&self.leases).insert(diff_id.to_owned(), until);
    }

    /// Whether a layer is kept for an image to come.
    pub(super) fn is_leased(&self, diff_id: &str) -> bool {
        locked(&self.leases)
            .get(diff_id)
            .is_some_and(|until| Instant::now() < *until)
    }

    /// Ends leases: the layers have an image that keeps them.
    pub(super) fn end_leases(&self, diff_ids: &[String]) {
        let now = Instant::now();
        locked(&self.leases).retain(|diff_id, until| now < *until && !diff_ids.contains(diff_id));
    }

    /// Waits until nobody else brings this layer.
    pub(super) async fn lock(&self, diff_id: &str) -> ImportLock {
        let lock = {
            let mut importing = locked(&self.importing);
            // Locks that only this map holds have served.
            importing.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(importing.entry(diff_id.to_owned()).or_default())
        };
        ImportLock {
            diff_id: diff_id.to_owned(),
            _guard: lock.lock_owned().await,
        }
    }

    /// Unpacks a layer and puts it in its place; the database does not know it
    /// yet. Returns the bytes that its files hold. Blocks for as long as the bytes
    /// take to come. On an error nothing is left.
    pub(super) fn import(
        &self,
        layer: &LayerDescriptor,
        incoming: Incoming,
    ) -> Result<u64, AgentError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY_PREFIX}{number}");
        let result = self
            .unpack_into(&temporary, layer, incoming)
            .and_then(|size| {
                self.put_in_place(&temporary, &layer.diff_id)
                    .map_err(|error| disk_error(layer, "put it in its place", error))?;
                Ok(size)
            });
        if result.is_err()
            && let Err(error) = self.discard(&temporary)
        {
            tracing::warn!(%error, layer = layer.digest, "cannot clear away a failed import");
        }
        result
    }

    /// Deletes layers' files, in the background.
    pub(super) fn delete(&self, diff_ids: &[String]) -> io::Result<()> {
        for diff_id in diff_ids {
            match self.discard_later(&directory_name(diff_id)) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.empty_trash();
        Ok(())
    }

    fn unpack_into(
        &self,
        temporary: &str,
        layer: &LayerDescriptor,
        incoming: Incoming,
    ) -> Result<u64, AgentError> {
        let disk = |error| disk_error(layer, "make its directory", error);
        rustix::fs::mkdirat(&self.directory, temporary, Mode::RWXU).map_err(disk)?;
        let files = format!("{temporary}/{FILES}");
        rustix::fs::mkdirat(&self.directory, &files, Mode::RWXU).map_err(disk)?;
        let root = rustix::fs::openat(
            &self.directory,
            &files,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(disk)?;
        // What a layer gets that has no entry for its root.
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(disk)?;
        let mut stream = LayerStream::new(incoming, layer.compression)
            .map_err(|error| stream_error(layer, &error))?;
        let size =
            unpack(&mut stream, root, &self.trash).map_err(|error| unpack_error(layer, &error))?;
        let diff_id = stream
            .finish()
            .map_err(|error| stream_error(layer, &error))?;
        if diff_id != layer.diff_id {
            return Err(AgentError::new(
                ErrorKind::Corrupt,
                format!(
                    "layer {} is not what its image says: its content has digest {diff_id}, expected {}",
                    layer.digest, layer.diff_id
                ),
            ));
        }
        Ok(size)
    }

    fn put_in_place(&self, temporary: &str, diff_id: &str) -> Result<(), Errno> {
        let name = directory_name(diff_id);
        // One that the database does not know: left by a crash, or lost.
        match self.discard_later(&name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        rustix::fs::syncfs(&self.directory)?;
        rustix::fs::renameat(&self.directory, temporary, &self.directory, &name)?;
        rustix::fs::fsync(&self.directory)
    }

    fn discard(&self, name: &str) -> Result<(), Errno> {
        match self.discard_later(name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        self.trash.empty()
    }

    fn discard_later(&self, name: &str) -> Result<(), Errno> {
        self.trash.put(self.directory.as_fd(), name.as_bytes())
    }

    fn empty_trash(&self) {
        let trash = Arc::clone(&self.trash);
        let emptied = std::thread::Builder::new()
            .name("image-trash".into())
            .spawn(move || {
                if let Err(error) = trash.empty() {
                    tracing::warn!(%error, "cannot delete what was removed; trying again later");
                }
            });
        if let Err(error) = emptied {
            tracing::warn!(%error, "cannot delete what was removed; trying again later");
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A diff id is `sha256:` and hex: checked before it comes here.
fn directory_name(diff_id: &str) -> String {
    diff_id.replace(':', "-")
}

fn stream_error(layer: &LayerDescriptor, error: &StreamError) -> AgentError {
    let kind = match error {
        StreamError::Aborted => ErrorKind::Unavailable,
        StreamError::Truncated { .. } | StreamError::Compression(_) => ErrorKind::Corrupt,
    };
    AgentError::new(kind, format!("layer {}: {error}", layer.digest))
}

fn unpack_error(layer: &LayerDescriptor, error: &UnpackError) -> AgentError {
    if let Some(error) = error.stream_error() {
        return stream_error(layer, &StreamError::of(error));
    }
    let kind = match error {
        _ if error.is_no_space() => ErrorKind::NoSpace,
        UnpackError::Disk { .. } => ErrorKind::System,
        UnpackError::Archive(_) | UnpackError::Refused { .. } => ErrorKind::Corrupt,
    };
    let mut message = format!("layer {}: {error}", layer.digest);
    if kind == ErrorKind::NoSpace {
        let _ = write!(message, ": the machine's disk is full");
    }
    AgentError::new(kind, message)
}

fn disk_error(layer: &LayerDescriptor, action: &str, error: Errno) -> AgentError {
    let kind = match error {
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        _ => ErrorKind::System,
    };
    AgentError::new(
        kind,
        format!("layer {}: cannot {action}: {error}", layer.digest),
    )
}
