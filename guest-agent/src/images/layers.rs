//! The directories that layers are unpacked into, and who brings which.
//!
//! A layer is unpacked beside its place and renamed into it when it is complete,
//! checked and flushed; only then the database hears of it. What the database
//! does not name is rubbish.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    fs,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use guest_protocol::{AgentError, ErrorKind, image::LayerDescriptor, methods::NewLayer};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

use super::{
    import::{LayerStream, StreamError},
    trash::Trash,
    unpack::{self, RebuildError, UnpackError, unpack},
};

/// How long a layer that nothing uses is kept for the image that is to be made of
/// it: a pull brings other layers in the meantime.
const LEASE: Duration = Duration::from_hours(1);

const TEMPORARY_PREFIX: &str = "tmp-";
/// What a layer without a digest is called in errors.
const NEW: &str = "of the archive";

/// The layers' directory on the data disk.
#[derive(Debug)]
pub(super) struct Layers {
    path: PathBuf,
    /// Where archives lie while they are loaded; made when one is.
    loading: PathBuf,
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

/// A layer that is unpacked and not in its place.
#[derive(Debug)]
pub(super) struct Unpacked {
    directory: String,
    pub(super) layer: NewLayer,
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
        let loading = data_root.join("loading");
        if loading.try_exists()? {
            tracing::info!("throwing away an archive whose loading was interrupted");
            let data_root = rustix::fs::open(
                data_root,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            trash.put(data_root.as_fd(), b"loading")?;
        }
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
            loading,
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
        self.path.join(directory_name(diff_id)).join(unpack::FILES)
    }

    /// Where archives lie while they are loaded.
    pub(super) fn loading_directory(&self) -> PathBuf {
        self.loading.clone()
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
        stream: Result<LayerStream, StreamError>,
    ) -> Result<u64, AgentError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = format!("{TEMPORARY_PREFIX}{number}");
        let result = self
            .unpack_into(&temporary, layer, stream)
            .and_then(|size| {
                self.put_in_place(&temporary, &layer.diff_id)
                    .map_err(|error| disk_error(&layer.digest, "put it in its place", error))?;
                Ok(size)
            });
        if result.is_err()
            && let Err(error) = self.discard(&temporary)
        {
            tracing::warn!(%error, layer = layer.digest, "cannot clear away a failed import");
        }
        result
    }

    /// The length of the tar that a layer was unpacked from, in bytes.
    pub(super) fn archive_size(&self, diff_id: &str) -> Result<u64, AgentError> {
        self.open_directory(&directory_name(diff_id))
            .map_err(|error| RebuildError::Recipe(error.into()))
            .and_then(|layer| unpack::archive_size(layer.as_fd()))
            .map_err(|error| rebuild_error(diff_id, &error))
    }

    /// Writes the tar that a layer was unpacked from. It is an error, noticed at
    /// the end, when that is not what its digest says.
    pub(super) fn export(&self, diff_id: &str, output: &mut impl Write) -> Result<(), AgentError> {
        let mut hashing = Hashing {
            output,
            hasher: Sha256::new(),
        };
        self.open_directory(&directory_name(diff_id))
            .map_err(|error| RebuildError::Recipe(error.into()))
            .and_then(|layer| unpack::rebuild(layer.as_fd(), &mut hashing))
            .map_err(|error| rebuild_error(diff_id, &error))?;
        let actual = format!("sha256:{}", hex::encode(hashing.hasher.finalize()));
        if actual != diff_id {
            return Err(AgentError::new(
                ErrorKind::Corrupt,
                format!(
                    "layer {diff_id} is damaged on the machine's disk: its archive has digest \
                     {actual}; remove the image and pull it again"
                ),
            ));
        }
        Ok(())
    }

    fn open_directory(&self, name: &str) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(
            &self.directory,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
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
        stream: Result<LayerStream, StreamError>,
    ) -> Result<u64, AgentError> {
        let (size, diff_id, _) = self.unpack_stream(temporary, &layer.digest, stream)?;
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

    /// Unpacks `stream` into the new directory `temporary`; `layer` names it in
    /// errors. Returns the bytes that its files hold, and digest and length of its
    /// tar.
    fn unpack_stream(
        &self,
        temporary: &str,
        layer: &str,
        stream: Result<LayerStream, StreamError>,
    ) -> Result<(u64, String, u64), AgentError> {
        let mut stream = stream.map_err(|error| stream_error(layer, &error))?;
        let disk = |error| disk_error(layer, "make its directory", error);
        rustix::fs::mkdirat(&self.directory, temporary, Mode::RWXU).map_err(disk)?;
        let directory = self.open_directory(temporary).map_err(disk)?;
        let size =
            unpack(&mut stream, directory.as_fd()).map_err(|error| unpack_error(layer, &error))?;
        let (diff_id, length) = stream
            .finish()
            .map_err(|error| stream_error(layer, &error))?;
        Ok((size, diff_id, length))
    }

    /// Unpacks a layer that nobody knows the digest of yet. It has to be
    /// [kept](Self::keep_new) or it is thrown away.
    pub(super) fn unpack_new(
        &self,
        stream: Result<LayerStream, StreamError>,
    ) -> Result<Unpacked, AgentError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let unpacked = Unpacked {
            directory: format!("{TEMPORARY_PREFIX}{number}"),
            layer: NewLayer::default(),
        };
        match self.unpack_stream(&unpacked.directory, NEW, stream) {
            Ok((size, diff_id, tar_size)) => Ok(Unpacked {
                layer: NewLayer {
                    diff_id,
                    tar_size,
                    size,
                },
                ..unpacked
            }),
            Err(error) => {
                self.throw_away(&unpacked);
                Err(error)
            }
        }
    }

    /// Puts a new layer in its place; the database does not know it yet.
    pub(super) fn keep_new(&self, unpacked: &Unpacked) -> Result<(), AgentError> {
        let diff_id = &unpacked.layer.diff_id;
        self.put_in_place(&unpacked.directory, diff_id)
            .map_err(|error| {
                self.throw_away(unpacked);
                disk_error(diff_id, "put it in its place", error)
            })
    }

    /// Deletes a new layer that is not needed.
    pub(super) fn throw_away(&self, unpacked: &Unpacked) {
        if let Err(error) = self.discard(&unpacked.directory) {
            tracing::warn!(%error, "cannot clear away a layer");
        }
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

/// Hashes what it passes on.
struct Hashing<'output, W> {
    output: &'output mut W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A diff id is `sha256:` and hex: checked before it comes here.
fn directory_name(diff_id: &str) -> String {
    diff_id.replace(':', "-")
}

fn rebuild_error(diff_id: &str, error: &RebuildError) -> AgentError {
    let kind = match error {
        RebuildError::NoRecipe => ErrorKind::NotFound,
        RebuildError::Output(_) => ErrorKind::Unavailable,
        RebuildError::Recipe(_) | RebuildError::File { .. } => ErrorKind::System,
    };
    let remedy = match error {
        RebuildError::NoRecipe => ": remove its images and pull them again",
        _ => "",
    };
    AgentError::new(
        kind,
        format!("cannot give back the archive of layer {diff_id}: {error}{remedy}"),
    )
}

fn stream_error(layer: &str, error: &StreamError) -> AgentError {
    let kind = match error {
        StreamError::Aborted => ErrorKind::Unavailable,
        StreamError::Truncated { .. } | StreamError::Compression(_) => ErrorKind::Corrupt,
    };
    AgentError::new(kind, format!("layer {layer}: {error}"))
}

fn unpack_error(layer: &str, error: &UnpackError) -> AgentError {
    if let Some(error) = error.stream_error() {
        return stream_error(layer, &StreamError::of(error));
    }
    let kind = match error {
        _ if error.is_no_space() => ErrorKind::NoSpace,
        UnpackError::Disk { .. } => ErrorKind::System,
        UnpackError::Archive(_) | UnpackError::Refused { .. } | UnpackError::Kind { .. } => {
            ErrorKind::Corrupt
        }
    };
    let mut message = format!("layer {layer}: {error}");
    if kind == ErrorKind::NoSpace {
        let _ = write!(message, ": the machine's disk is full");
    }
    AgentError::new(kind, message)
}

fn disk_error(layer: &str, action: &str, error: Errno) -> AgentError {
    let kind = match error {
        Errno::NOSPC | Errno::DQUOT => ErrorKind::NoSpace,
        _ => ErrorKind::System,
    };
    AgentError::new(kind, format!("layer {layer}: cannot {action}: {error}"))
}
