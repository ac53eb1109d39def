//! The machine's lock: no two monitors open one machine's disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// Held for as long as it lives, and let go by the kernel however its holder ends.
#[derive(Debug)]
pub struct MachineLock(#[expect(dead_code, reason = "holds the lock")] File);

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    /// Another monitor has it.
    Held,
    /// The file cannot be made or locked.
    Io(io::Error),
}

impl MachineLock {
    /// Locks the file at `path`, which is made if it is missing.
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(LockError::Io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held),
            Err(error) => Err(LockError::Io(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_free_again_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = MachineLock::take(&path).unwrap();
        assert!(matches!(MachineLock::take(&path), Err(LockError::Held)));
        drop(first);
        MachineLock::take(&path).unwrap();
        assert!(matches!(
            MachineLock::take(&directory.path().join("no/lock")),
            Err(LockError::Io(_))
        ));
    }
}
