//! A reserve on the data disk that what comes from outside does not get: containers
//! that run need some room, and so does removing things.

use std::os::fd::AsFd;

use rustix::io::Errno;

/// The reserve, in bytes.
const RESERVE: u64 = 128 * 1024 * 1024;
/// The largest part of a disk that is reserved.
const RESERVED_PART: u64 = 50;
/// How much may be written before the disk is looked at again, in bytes.
const LOOK_AFTER: u64 = 8 * 1024 * 1024;

/// What one writer takes of the disk.
#[derive(Debug)]
pub(super) struct Spending {
    /// About how many bytes were written since the disk was looked at.
    not_looked: u64,
}

impl Default for Spending {
    /// Looks at once.
    fn default() -> Self {
        Self {
            not_looked: LOOK_AFTER,
        }
    }
}

impl Spending {
    /// Accounts for `bytes` that are written to the disk that `file` is on.
    ///
    /// # Errors
    /// `ENOSPC` when no more than the reserve is left, and what the kernel says.
    pub(super) fn spend(&mut self, file: impl AsFd, bytes: u64) -> Result<(), Errno> {
        self.not_looked = self.not_looked.saturating_add(bytes);
        if self.not_looked < LOOK_AFTER {
            return Ok(());
        }
        self.not_looked = 0;
        let disk = rustix::fs::fstatvfs(file)?;
        let size = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free < RESERVE.min(size / RESERVED_PART) {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }
}
