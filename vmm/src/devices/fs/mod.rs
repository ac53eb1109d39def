//! File system device (5.11): a FUSE session over virtqueues.
//!
//! The device moves requests and replies and knows nothing of files: a
//! [`shares::Server`] answers, straight from and to guest memory ([`memory`]). Requests
//! that come alone and are quick are answered on the device's own thread, which saves a
//! wake-up each; the rest goes to the threads of a [`Pool`], so that a slow disk of the
//! host or a large write keeps no other request waiting. Those that wait for a file
//! lock wait together on one thread ([`pending`]). Chains come back in batches, with
//! one look at the used ring's notification state for each batch.

mod memory;
mod pending;
mod pool;
mod shared;

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    sync::Arc,
};

pub use pool::Pool;
use shared::Shared;
use shares::Server;

use super::{DetachedChain, DeviceType, VirtioDevice, Virtqueues, read_config_from};

/// Queues (5.11.2): requests that overtake others (FORGET, INTERRUPT), and the rest.
const HIGH_PRIORITY_QUEUE: usize = 0;
const QUEUE_SIZES: [u16; 2] = [128, 512];

/// Bytes of a tag (5.11.4).
pub const TAG_SIZE: usize = 36;

/// The file system device.
pub struct Fs {
    tag: [u8; TAG_SIZE],
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

impl Fs {
    /// The file system `tag` (at most [`TAG_SIZE`] bytes), whose requests `server`
    /// answers, with the help of `pool`'s threads.
    ///
    /// # Errors
    /// When the tag is too long or there is no event file descriptor.
    pub fn new(tag: &str, server: Arc<Server>, pool: Arc<Pool>) -> io::Result<Self> {
        let mut field = [0; TAG_SIZE];
        field
            .get_mut(..tag.len())
            .ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("the tag of a file system has at most {TAG_SIZE} bytes"),
                )
            })?
            .copy_from_slice(tag.as_bytes());
        Ok(Self {
            tag: field,
            shared: Shared::new(server)?,
            pool,
        })
    }

    /// Answers a request on this thread.
    fn answer(&self, index: usize, chain: DetachedChain, queues: &mut Virtqueues<'_>) {
        if let Some(done) = self.shared.answer(index, chain) {
            queues.add_used(done.queue, done.head, done.written);
        }
    }

    /// Gives finished chains back.
    fn give_back(&self, queues: &mut Virtqueues<'_>) {
        for done in self.shared.take_done() {
            queues.add_used(done.queue, done.head, done.written);
        }
    }
}

impl VirtioDevice for Fs {
    fn device_type(&self) -> DeviceType {
        DeviceType::Fs
    }

    /// Notifications to the driver are not offered: Linux knows none.
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn acknowledge_features(&mut self, _features: u64) {}

    /// `struct virtio_fs_config`: the tag, and the number of request queues.
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        let request_queues = QUEUE_SIZES.len() as u32 - 1;
        let mut config = [0; TAG_SIZE + 4];
        let (tag, queues) = config.split_at_mut(TAG_SIZE);
        tag.copy_from_slice(&self.tag);
        queues.copy_from_slice(&request_queues.to_le_bytes());
        read_config_from(&config, offset, data);
    }

    /// Becomes readable when requests were answered.
    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        let done = self.shared.event().as_raw_fd();
        // SAFETY: the descriptor is open for as long as `shared`, which `self` has.
        Some(unsafe { BorrowedFd::borrow_raw(done) })
    }

    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        let mut last = None;
        while let Some(chain) = queues.pop_detached(index) {
            if index == HIGH_PRIORITY_QUEUE {
                // These never take long.
                self.answer(index, chain, queues);
            } else if let Some(earlier) = last.replace(chain) {
                // More than one: others work on them at the same time.
                self.pool.hand_over(&self.shared, index, earlier);
            }
        }
        if let Some(chain) = last {
            if memory::may_take_long(&chain) {
                self.pool.hand_over(&self.shared, index, chain);
            } else {
                self.answer(index, chain, queues);
            }
        }
        self.give_back(queues);
    }

    fn process_event(&mut self, queues: &mut Virtqueues<'_>) {
        self.shared.clear_event();
        self.give_back(queues);
    }

    /// Waits for requests that are being answered: afterwards nobody writes to guest
    /// memory. What the guest had open is closed.
    fn reset(&mut self) {
        self.shared.settle();
    }
}

#[cfg(test)]
mod tests;
