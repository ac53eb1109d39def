//! What a monitor does with [`Request::ResizeDisk`](crate::control::Request::ResizeDisk),
//! whatever runs its CPUs.

use std::time::Duration;

use crate::control::Answer;
use crate::devices::block::BlockHandle;

/// A disk's thread may be waiting for the host's disk.
const RESIZE_PATIENCE: Duration = Duration::from_secs(4);

/// The machine's disks, in the configuration's order.
#[derive(Default)]
pub struct Disks(Vec<BlockHandle>);

impl Disks {
    /// Adds the next one.
    pub fn push(&mut self, disk: BlockHandle) {
        self.0.push(disk);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes over the size of a disk's image.
    pub fn resize(&self, index: u16) -> Answer {
        let Some(disk) = self.0.get(usize::from(index)) else {
            return Answer::Error {
                message: format!("the machine has no disk {index}"),
            };
        };
        match disk.resize(RESIZE_PATIENCE) {
            Ok(bytes) => Answer::DiskSize { bytes },
            Err(error) => Answer::Error {
                message: format!("cannot take over the size of disk {index}: {error}"),
            },
        }
    }
}
