//! The files that the client knows, by node number.
//!
//! Each is held by an `O_PATH` descriptor, so that it stays what it is whatever happens
//! to its name. There can be more files than descriptors: the least recently used of
//! those that can be found again by name are closed, and opened again, and compared, when
//! they are needed.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use crate::exports::Export;
use crate::host::{self, Name};
use crate::ownership::Known;
use crate::wire;

/// What tells files of the host apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    /// Files of several exports are several files.
    export: u64,
    pub(crate) device: u64,
    pub(crate) number: u64,
    /// The same directory may be mounted at two places.
    pub(crate) mount: u64,
}

impl FileKey {
    pub(crate) fn new(export: &Export, status: &Statx) -> Self {
        Self {
            export: export.serial,
            device: device(status),
            number: status.stx_ino,
            mount: status.stx_mnt_id,
        }
    }
}

/// The device that attributes name, as one number.
pub(crate) fn device(status: &Statx) -> u64 {
    u64::from(status.stx_dev_major) << 32 | u64::from(status.stx_dev_minor)
}

/// How a file came to be known.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found<'a> {
    /// It is an export's root.
    Root,
    /// It has no name (`O_TMPFILE`).
    Nameless,
    /// In the directory with this node number, under this name.
    At(u64, Name<'a>),
}

/// Where a file was found last.
#[derive(Debug, Clone)]
struct Place {
    parent: u64,
    name: Box<[u8]>,
}

/// A file that the client knows.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Its node number, never used again for another.
    pub(crate) node: u64,
    pub(crate) export: Arc<Export>,
    pub(crate) key: FileKey,
    pub(crate) kind: FileType,
    pub(crate) is_root: bool,
    /// When it was made, where the file system tells: a number may be another file's later.
    born: (i64, u32),
    place: Mutex<Option<Place>>,
    file: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
    /// Reasons to keep the descriptor: open handles, names that are gone.
    pins: AtomicUsize,
    /// References the client has; changed with the table locked.
    lookups: AtomicU64,
    /// What is known of its owner and mode beyond what the host stores.
    pub(crate) ownership: Mutex<Known>,
    /// What it was like when it was opened last: see `operations::open`.
    pub(crate) opened: Mutex<Option<crate::operations::Opened>>,
}

impl Inode {
    /// Keeps the descriptor open until [`unpin`](Self::unpin).
    pub(crate) fn pin(&self) {
        self.pins.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn unpin(&self) {
        self.pins.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All files that the client knows.
#[derive(Debug)]
pub(crate) struct Inodes {
    tables: RwLock<Tables>,
    next: AtomicU64,
    most: usize,
    descriptors: Descriptors,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Tables {
    nodes: HashMap<u64, Arc<Inode>>,
    keys: HashMap<FileKey, u64>,
    /// By a hash of the directory's node and the name, for names that are gone.
    places: HashMap<u64, u64>,
}

/// The descriptors that are open, oldest first.
#[derive(Debug)]
struct Descriptors {
    queue: Mutex<VecDeque<u64>>,
    most: usize,
}

impl Inodes {
    pub(crate) fn new(most: usize, descriptors: usize) -> Self {
        Self {
            tables: RwLock::default(),
            next: AtomicU64::new(wire::ROOT + 1),
            most,
            descriptors: Descriptors {
                queue: Mutex::default(),
                most: descriptors,
            },
            hasher: RandomState::new(),
        }
    }

    /// The file with this node number, if its export is still there.
    pub(crate) fn get(&self, node: u64) -> Result<Arc<Inode>, Errno> {
        let inode = self.read().nodes.get(&node).cloned();
        inode
            .filter(|inode| inode.export.is_live())
            .ok_or(Errno::STALE)
    }

    /// Whether the client knows this file.
    pub(crate) fn knows(&self, key: &FileKey) -> bool {
        self.read().keys.contains_key(key)
    }

    /// Makes a file known, or known once more.
    pub(crate) fn know(
        &self,
        export: &Arc<Export>,
        file: Arc<OwnedFd>,
        status: &Statx,
        found: Found<'_>,
    ) -> Result<Arc<Inode>, Errno> {
        let key = FileKey::new(export, status);
        let kind = host::file_type(status);
        let born = (status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
        let place = match found {
            Found::At(parent, name) => Some((parent, name)),
            Found::Root | Found::Nameless => None,
        };
        let owned_place = place.map(|(parent, name)| Place {
            parent,
            name: name.bytes().into(),
        });
        let hash = place.map(|(parent, name)| self.place_hash(parent, name.bytes()));
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let known = tables
            .keys
            .get(&key)
            .and_then(|node| tables.nodes.get(node))
            .filter(|inode| inode.kind == kind && inode.born == born)
            .cloned();
        let (inode, opened) = if let Some(inode) = known {
            inode.lookups.fetch_add(1, Ordering::Relaxed);
            let mut open = lock(&inode.file);
            let opened = open.is_none();
            if opened {
                *open = Some(file);
            }
            drop(open);
            if owned_place.is_some() && !inode.is_root {
                *lock(&inode.place) = owned_place;
            }
            (inode, opened)
        } else {
            if tables.nodes.len() >= self.most {
                return Err(Errno::NFILE);
            }
            let inode = Arc::new(Inode {
                node: self.next.fetch_add(1, Ordering::Relaxed),
                export: Arc::clone(export),
                key,
                kind,
                is_root: matches!(found, Found::Root),
                born,
                pins: AtomicUsize::new(usize::from(owned_place.is_none())),
                place: Mutex::new(owned_place),
                file: Mutex::new(Some(file)),
                used: AtomicBool::new(true),
                lookups: AtomicU64::new(1),
                ownership: Mutex::default(),
                opened: Mutex::default(),
            });
            tables.nodes.insert(inode.node, Arc::clone(&inode));
            tables.keys.insert(key, inode.node);
            (inode, true)
        };
        if let Some(hash) = hash {
            tables.places.insert(hash, inode.node);
        }
        drop(tables);
        if !export.is_live() {
            // Its descriptors may have been closed before this one was there.
            *lock(&inode.file) = None;
        } else if opened {
            self.count_descriptor(inode.node);
        }
        Ok(inode)
    }

    /// One more reference to a file that the client knows.
    pub(crate) fn again(&self, inode: &Arc<Inode>) -> Result<Arc<Inode>, Errno> {
        let tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let known = tables.nodes.get(&inode.node).ok_or(Errno::STALE)?;
        known.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(known))
    }

    /// Takes `count` of the client's references to a file away, and the file with the last.
    pub(crate) fn forget(&self, node: u64, count: u64) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let Some(inode) = tables.nodes.get(&node).cloned() else {
            return;
        };
        let left = inode.lookups.load(Ordering::Relaxed).saturating_sub(count);
        inode.lookups.store(left, Ordering::Relaxed);
        if left > 0 {
            return;
        }
        tables.nodes.remove(&node);
        if tables.keys.get(&inode.key) == Some(&node) {
            tables.keys.remove(&inode.key);
        }
        if let Some(place) = &*lock(&inode.place) {
            let hash = self.place_hash(place.parent, &place.name);
            if tables.places.get(&hash) == Some(&node) {
                tables.places.remove(&hash);
            }
        }
    }

    /// Forgets everything, at the end of a session.
    pub(crate) fn clear(&self) {
        *self.tables.write().unwrap_or_else(PoisonError::into_inner) = Tables::default();
        lock(&self.descriptors.queue).clear();
    }

    /// Closes the descriptors of an export that is no more.
    pub(crate) fn close_export(&self, export: &Arc<Export>) {
        for inode in self.read().nodes.values() {
            if Arc::ptr_eq(&inode.export, export) {
                *lock(&inode.file) = None;
            }
        }
    }

    /// The file that was last found under a name, while the client knows it.
    pub(crate) fn at_place(&self, parent: u64, name: Name<'_>) -> Option<Arc<Inode>> {
        let hash = self.place_hash(parent, name.bytes());
        let tables = self.read();
        let inode = tables.nodes.get(tables.places.get(&hash)?)?.clone();
        drop(tables);
        let same = lock(&inode.place)
            .as_ref()
            .is_some_and(|place| place.parent == parent && *place.name == *name.bytes());
        same.then_some(inode)
    }

    /// A file has another name now.
    pub(crate) fn moved(&self, inode: &Inode, parent: u64, name: Name<'_>) {
        if inode.is_root {
            return;
        }
        let hash = self.place_hash(parent, name.bytes());
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let before = lock(&inode.place).replace(Place {
            parent,
            name: name.bytes().into(),
        });
        if let Some(before) = before {
            let hash = self.place_hash(before.parent, &before.name);
            if tables.places.get(&hash) == Some(&inode.node) {
                tables.places.remove(&hash);
            }
        }
        if tables.nodes.contains_key(&inode.node) {
            tables.places.insert(hash, inode.node);
        }
    }

    /// A name is gone: the file can't be found by it any more, so that its descriptor is
    /// kept as long as the client knows it.
    pub(crate) fn unnamed(&self, inode: &Inode) {
        // A hostile client may remove any number of names and forget none.
        if lock(&self.descriptors.queue).len() < self.descriptors.most && !inode.is_root {
            inode.pin();
        }
    }

    /// The directory's descriptor, or the file's.
    pub(crate) fn file(&self, inode: &Arc<Inode>) -> Result<Arc<OwnedFd>, Errno> {
        inode.used.store(true, Ordering::Relaxed);
        if let Some(file) = &*lock(&inode.file) {
            return Ok(Arc::clone(file));
        }
        // Up to the first directory that is open, then down again.
        let mut closed = vec![Arc::clone(inode)];
        let mut file = loop {
            let place = closed.last().and_then(|last| lock(&last.place).clone());
            let parent = self.get(place.ok_or(Errno::STALE)?.parent)?;
            let open = lock(&parent.file).clone();
            match open {
                Some(file) => break file,
                // Directories can't be in circles, their hostile renames could make it
                // seem so.
                None if closed.len() > self.most => return Err(Errno::STALE),
                None => closed.push(parent),
            }
        };
        while let Some(inode) = closed.pop() {
            let place = lock(&inode.place).clone().ok_or(Errno::STALE)?;
            let name = Name::new(&place.name)?;
            let found = host::child(file.as_fd(), name).map_err(|_| Errno::STALE)?;
            let status = host::status(&found)?;
            let born = (status.stx_btime.tv_sec, status.stx_btime.tv_nsec);
            if FileKey::new(&inode.export, &status) != inode.key || born != inode.born {
                return Err(Errno::STALE);
            }
            file = Arc::new(found);
            let mut open = lock(&inode.file);
            let before = open.get_or_insert_with(|| Arc::clone(&file));
            let opened = Arc::ptr_eq(before, &file);
            file = Arc::clone(before);
            drop(open);
            if !inode.export.is_live() {
                *lock(&inode.file) = None;
                return Err(Errno::STALE);
            }
            if opened {
                self.count_descriptor(inode.node);
            }
        }
        Ok(file)
    }

    /// One more descriptor is open: closes one that was not used lately if there are too
    /// many.
    fn count_descriptor(&self, node: u64) {
        /// Entries that one call looks at: the work of closing is spread out.
        const EFFORT: usize = 32;
        let mut queue = lock(&self.descriptors.queue);
        queue.push_back(node);
        let mut effort = EFFORT;
        while queue.len() > self.descriptors.most && effort > 0 {
            effort -= 1;
            let Some(oldest) = queue.pop_front() else {
                return;
            };
            let Some(inode) = self.read().nodes.get(&oldest).cloned() else {
                continue;
            };
            let pinned = inode.pins.load(Ordering::Acquire) > 0;
            if oldest != node && !pinned && !inode.used.swap(false, Ordering::Relaxed) {
                *lock(&inode.file) = None;
            } else {
                queue.push_back(oldest);
            }
        }
    }

    fn place_hash(&self, parent: u64, name: &[u8]) -> u64 {
        self.hasher.hash_one((parent, name))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many files are known, and how many descriptors they have.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let tables = self.read();
        let open = tables.nodes.values();
        let open = open.filter(|inode| lock(&inode.file).is_some()).count();
        (tables.nodes.len(), open)
    }
}

/// Locks what stays sound when a thread that held it panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
