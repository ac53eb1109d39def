//! Lock files: flock(2), so that the kernel lets go when a process dies in
//! whatever way.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};

use crate::{Error, Result};

/// A lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until the lock is free, and takes it. Blocks.
    pub(crate) fn acquire(path: &Path) -> Result<Self> {
        Self::take(path, FlockOperation::LockExclusive)?
            .ok_or_else(|| Error::io("lock", path, io::ErrorKind::WouldBlock))
    }

    /// Takes the lock if it is free.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>> {
        Self::take(path, FlockOperation::NonBlockingLockExclusive)
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Option<Self>> {
        let failed = |error: io::Error| Error::io("lock", path, error);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(failed)?;
            match rustix::io::retry_on_intr(|| flock(&file, operation)) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(failed(error.into())),
            }
            // Its directory may have been removed meanwhile, and made again.
            let locked = file.metadata().map_err(failed)?;
            match std::fs::metadata(path) {
                Ok(now) if (now.dev(), now.ino()) == (locked.dev(), locked.ino()) => {
                    return Ok(Some(Self { _file: file }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let held = Lock::acquire(&path).unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_none());
        drop(held);
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_file_that_was_removed_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let _old = Lock::acquire(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(Lock::try_acquire(&path).unwrap().is_some());
    }
}
