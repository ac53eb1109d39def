//! Device models: what a guest's virtio drivers talk to.
//!
//! A model is a [`VirtioDevice`]. It knows virtqueues and guest memory (through
//! [`Virtqueues`]) and the host resource behind it, and no transport: the same
//! object is run by `transport::mmio` in our own monitor and by
//! `transport::vhost_user` beside QEMU. Section numbers are those of the Virtual
//! I/O Device (VIRTIO) specification, version 1.2.
//!
//! Everything read from a queue or from guest memory is hostile. A model answers
//! a malformed request with its protocol's error, drops it, or declares the device
//! broken with [`Virtqueues::fail`]; it never panics, never loops without bound
//! and never allocates what the guest says.

mod buffers;
mod virtqueues;

#[cfg(test)]
pub(crate) mod test_driver;

pub mod balloon;
pub mod block;
pub mod console;
pub mod fs;
pub mod rng;
pub mod vsock;

use std::os::fd::BorrowedFd;

pub use buffers::{Buffers, Chain};
pub use virtqueues::{DetachedChain, Outcome, Virtqueues};

/// Guest memory as all devices and transports see it.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// Device IDs (5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DeviceType {
    /// Block device (5.2).
    Block = 2,
    /// Console (5.3).
    Console = 3,
    /// Entropy source (5.4).
    Rng = 4,
    /// Traditional memory balloon (5.5).
    Balloon = 5,
    /// Socket device (5.10).
    Vsock = 19,
    /// File system device (5.11).
    Fs = 26,
}

/// A device model. One thread at a time calls it; which one, is the transport's
/// business.
pub trait VirtioDevice: Send {
    /// What it is.
    fn device_type(&self) -> DeviceType;

    /// Feature bits of this device type that it offers (2.2, bits 0 to 23 and 50
    /// and up). The transport adds those of queues and transport.
    fn features(&self) -> u64;

    /// The largest size of each queue; each a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// The features that the driver accepted: a subset of those offered.
    fn acknowledge_features(&mut self, features: u64);

    /// Fills `data` from the configuration space at `offset`; zeros beyond its end.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// The driver writes `data` to the configuration space at `offset`. What is
    /// read-only or does not exist is left alone.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// A file descriptor that becomes readable when [`Self::process_event`] has
    /// something to do. It stays the same for the device's life.
    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Handles what the driver made available in queue `index`.
    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>);

    /// Handles what made [`Self::event_source`] readable. Also called before the
    /// driver is ready: its queues are empty then.
    fn process_event(&mut self, _queues: &mut Virtqueues<'_>) {}

    /// Back to the state after construction (2.4): nothing of the driver is kept.
    fn reset(&mut self);
}

/// [`VirtioDevice::read_config`] for a configuration space that is `config`.
fn read_config_from(config: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    let available = config.get(offset..).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(available) {
        *to = *from;
    }
}
