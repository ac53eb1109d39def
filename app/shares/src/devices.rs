//! Inode numbers as the client sees them: it has one device for all that is shared, the
//! host may have several.

use std::sync::{PoisonError, RwLock};

use rustix::fs::Statx;

use crate::inodes::device;

/// Devices that are told apart; more have numbers like the last one's.
const MOST: usize = 4096;

/// Where a device's position is in a number: no file system has more inodes.
const SHIFT: u32 = 52;

/// The host's devices, in the order in which they turned up.
#[derive(Debug, Default)]
pub(crate) struct Devices(RwLock<Vec<u64>>);

impl Devices {
    /// A file's inode number: the host's own on the first device, and on others one that
    /// no file of another device has.
    pub(crate) fn number(&self, status: &Statx) -> u64 {
        let wanted = device(status);
        let find = |devices: &[u64]| devices.iter().position(|device| *device == wanted);
        let found = find(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let position = found.unwrap_or_else(|| {
            let mut devices = self.0.write().unwrap_or_else(PoisonError::into_inner);
            find(&devices).unwrap_or_else(|| {
                if devices.len() < MOST {
                    devices.push(wanted);
                }
                devices.len() - 1
            })
        });
        status.stx_ino ^ (position as u64) << SHIFT
    }
}
