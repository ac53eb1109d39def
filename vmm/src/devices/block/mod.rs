//! Block device (5.2): a raw disk image, sparse and staying so.
//!
//! Requests are carried out one after the other on the transport's thread, with data
//! moved straight between the image and guest memory. What a flush says is on disk,
//! is on disk.

mod image;
mod journal;
mod request;
mod resize;

use std::os::fd::{AsRawFd, BorrowedFd};

use image::Image;
pub use image::OpenError;
pub use resize::BlockHandle;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_TOPOLOGY, VIRTIO_BLK_F_WRITE_ZEROES,
};

use super::{DeviceType, VirtioDevice, Virtqueues, read_config_from};
use crate::config::DiskConfig;

const REQUEST_QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 1] = [256];

/// A sector (5.2.4): the unit of all addresses on the wire.
const SECTOR_SHIFT: u32 = 9;

/// What the driver is told of limits (5.2.4).
mod limits {
    /// Data segments in a request: what a queue of 128 has room for, with header
    /// and status.
    pub(super) const SEGMENTS: u32 = 126;
    /// Sectors in one range to discard: 1 GiB.
    pub(super) const DISCARD_SECTORS: u32 = 1 << 21;
    /// Sectors in one range to zero: 64 MiB, as they may have to be written.
    pub(super) const ZERO_SECTORS: u32 = 1 << 17;
    /// Ranges in one request to discard or zero.
    pub(super) const RANGES: u32 = 32;
    /// What the image's file system deals in: 2^3 sectors.
    pub(super) const PHYSICAL_BLOCK_EXPONENT: u8 = 3;
}

/// A disk.
pub struct Block {
    image: Image,
    id: String,
    features: u64,
    /// The host failed the last request: it is said once, not for each.
    failing: bool,
    handle: BlockHandle,
}

impl Block {
    /// Opens the disk image.
    ///
    /// # Errors
    /// When it cannot be opened, or is no file or block device.
    pub fn open(config: &DiskConfig) -> Result<Self, OpenError> {
        let id = config.path.file_name().unwrap_or_default();
        let handle = BlockHandle::new().map_err(|source| OpenError::Open {
            path: config.path.clone(),
            source,
        })?;
        Ok(Self {
            image: Image::open(&config.path, config.read_only, config.journal.as_deref())?,
            id: id.to_string_lossy().into_owned(),
            features: 0,
            failing: false,
            handle,
        })
    }

    /// What tells it that its image has grown, for other threads.
    pub fn handle(&self) -> BlockHandle {
        self.handle.clone()
    }

    fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }
}

impl VirtioDevice for Block {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn features(&self) -> u64 {
        let features =
            1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_TOPOLOGY;
        if self.image.read_only() {
            features | 1 << VIRTIO_BLK_F_RO
        } else {
            features
                | 1 << VIRTIO_BLK_F_FLUSH
                | 1 << VIRTIO_BLK_F_DISCARD
                | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn acknowledge_features(&mut self, features: u64) {
        self.features = features;
    }

    /// The layout of 5.2.4.
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let mut config = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = config.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(0, &self.image.sectors().to_le_bytes());
        put(12, &limits::SEGMENTS.to_le_bytes());
        put(20, &(1_u32 << SECTOR_SHIFT).to_le_bytes());
        put(24, &[limits::PHYSICAL_BLOCK_EXPONENT]);
        // A flush is needed: data is in the host's cache until then.
        put(32, &[u8::from(!self.image.read_only())]);
        put(34, &1_u16.to_le_bytes());
        if !self.image.read_only() {
            put(36, &limits::DISCARD_SECTORS.to_le_bytes());
            put(40, &limits::RANGES.to_le_bytes());
            put(
                44,
                &(1_u32 << limits::PHYSICAL_BLOCK_EXPONENT).to_le_bytes(),
            );
            put(48, &limits::ZERO_SECTORS.to_le_bytes());
            put(52, &limits::RANGES.to_le_bytes());
            // Zeroing with the unmap flag makes a hole.
            put(56, &[1]);
        }
        read_config_from(&config, offset, data);
    }

    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        if index != REQUEST_QUEUE {
            return;
        }
        // Without flushes to rely on, each write has to last (5.2.6.2).
        let write_through = !self.has(VIRTIO_BLK_F_FLUSH);
        while let Some(chain) = queues.pop(REQUEST_QUEUE) {
            let head = chain.head;
            let done = request::execute(&self.image, &self.id, write_through, chain);
            queues.add_used(REQUEST_QUEUE, head, done.written);
            if let Some(error) = &done.failure
                && !self.failing
            {
                tracing::error!(disk = self.id, %error, "the disk image fails");
            }
            self.failing = done.failure.is_some();
        }
    }

    /// Readable when somebody wants it to look at its image again.
    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        let asked = self.handle.shared().asked.as_raw_fd();
        // SAFETY: the descriptor is open for as long as the handle, which `self` has.
        Some(unsafe { BorrowedFd::borrow_raw(asked) })
    }

    fn process_event(&mut self, queues: &mut Virtqueues<'_>) {
        let shared = self.handle.shared();
        // Emptied first: who asks after this is answered by a call of its own.
        let _ = shared.asked.read();
        let grown = self.image.grow();
        if let Ok(true) = grown {
            queues.config_changed();
        }
        let size = self.image.sectors() << SECTOR_SHIFT;
        shared.answer(grown.map(|_| size));
    }

    fn reset(&mut self) {
        self.features = 0;
    }
}

#[cfg(test)]
mod tests;
