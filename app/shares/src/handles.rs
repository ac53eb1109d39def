//! What the client has open.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustix::io::Errno;

use crate::exports::Export;
use crate::inodes::Inode;

/// Something open.
#[derive(Debug)]
pub(crate) enum Handle {
    /// A regular file.
    File {
        /// What it is.
        inode: Arc<Inode>,
        /// Opened as the client asked.
        file: OwnedFd,
    },
    /// A directory. Reading moves its position.
    Directory {
        /// What it is.
        inode: Arc<Inode>,
        /// Opened for reading.
        file: Mutex<OwnedFd>,
    },
    /// The session's root.
    Root,
    /// A file that is opened only so that watchers in the guest hear of it.
    Replay,
}

impl Handle {
    fn inode(&self) -> Option<&Arc<Inode>> {
        match self {
            Self::File { inode, .. } | Self::Directory { inode, .. } => Some(inode),
            Self::Root | Self::Replay => None,
        }
    }

    /// The regular file.
    pub(crate) fn file(&self) -> Result<(&Arc<Inode>, &OwnedFd), Errno> {
        match self {
            Self::File { inode, file } => Ok((inode, file)),
            _ => Err(Errno::BADF),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(inode) = self.inode() {
            inode.unpin();
        }
    }
}

/// All that is open.
#[derive(Debug)]
pub(crate) struct Handles {
    open: RwLock<HashMap<u64, Arc<Handle>>>,
    next: AtomicU64,
    most: usize,
}

impl Handles {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            open: RwLock::default(),
            next: AtomicU64::new(1),
            most,
        }
    }

    /// Keeps something open and gives it a number. Its inode keeps its descriptor.
    pub(crate) fn add(&self, handle: Handle) -> Result<u64, Errno> {
        if let Some(inode) = handle.inode() {
            inode.pin();
        }
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= self.most {
            return Err(Errno::NFILE);
        }
        // Looked at with the table locked: closing an export's handles comes later.
        let live = handle.inode().is_none_or(|inode| inode.export.is_live());
        if !live {
            return Err(Errno::STALE);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        open.insert(number, Arc::new(handle));
        Ok(number)
    }

    pub(crate) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned().ok_or(Errno::BADF)
    }

    pub(crate) fn close(&self, number: u64) -> Option<Arc<Handle>> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.remove(&number)
    }

    pub(crate) fn close_export(&self, export: &Arc<Export>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, handle| {
            let inode = handle.inode();
            !inode.is_some_and(|inode| Arc::ptr_eq(&inode.export, export))
        });
    }

    pub(crate) fn clear(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.clear();
    }

    pub(crate) fn count(&self) -> usize {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.len()
    }
}
