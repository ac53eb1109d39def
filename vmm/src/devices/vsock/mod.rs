//! Socket device (5.10): streams between unix sockets of the host and vsock ports of
//! the guest.
//!
//! A host reaches a guest port by connecting to the device's unix socket, writing
//! `CONNECT <port>\n` and reading `OK <host port>\n`; a connection that fails is
//! closed instead. A guest that connects to port `n` of the host (CID 2) arrives at
//! whoever listens on `<socket>_<n>`, and is refused when nobody does.
//!
//! - [`packet`]: the header on the wire.
//! - [`connection`]: one stream, its credit and its two ends.
//! - [`connections`]: all of them, their events and turns; [`deadlines`]: their
//!   time-outs.
//! - [`handshake`], [`listener`]: the unix sockets.
//!
//! Packets are read and written here rather than with the `virtio-vsock` crate: that
//! one knows only headers and payloads in one descriptor each, which a device may not
//! rely on (2.7.4.1).

mod connection;
mod connections;
mod deadlines;
mod handshake;
mod listener;
mod packet;

use std::{io, os::fd::BorrowedFd};

use connections::Connections;
pub use listener::BindError;
use listener::Listener;
use packet::{HEADER_SIZE, Header};

use super::{DeviceType, VirtioDevice, Virtqueues, read_config_from};
use crate::config::VsockConfig;

/// Queues (5.10.2). The event queue tells of migrations, of which there are none.
const RECEIVE_QUEUE: usize = 0;
const TRANSMIT_QUEUE: usize = 1;
const QUEUE_SIZES: [u16; 3] = [128, 256, 16];

/// The socket device.
pub struct Vsock {
    cid: u32,
    connections: Connections,
}

/// The device cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// Its unix socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The host gives no event or timer file descriptors.
    #[error("cannot watch vsock connections: {0}")]
    Watch(#[from] io::Error),
}

impl Vsock {
    /// Binds the unix socket, with mode 0600. Connections to it are accepted as soon as
    /// the device runs, and answered when the guest's driver does.
    ///
    /// # Errors
    /// When the socket cannot be bound.
    pub fn new(config: &VsockConfig) -> Result<Self, VsockError> {
        let listener = Listener::bind(&config.socket)?;
        Ok(Self {
            cid: config.cid,
            connections: Connections::new(config.cid, listener)?,
        })
    }

    /// Moves packets both ways until there is nothing to move or no room for it.
    fn run(&mut self, queues: &mut Virtqueues<'_>) {
        loop {
            let stalled = self.transmit(queues);
            if let Err(error) = self.connections.settle() {
                Self::give_up(&error, queues);
                return;
            }
            self.receive(queues);
            // Answers that took up all room may have gone out by now.
            if !stalled || !self.connections.can_receive() {
                return;
            }
        }
    }

    fn give_up(error: &io::Error, queues: &mut Virtqueues<'_>) {
        tracing::error!(%error, "vsock connections cannot be watched any more");
        queues.fail("the host cannot watch sockets");
    }

    /// Handles packets of the guest. Returns whether there is no room for answers.
    fn transmit(&mut self, queues: &mut Virtqueues<'_>) -> bool {
        while self.connections.can_receive() {
            let Some(mut chain) = queues.pop(TRANSMIT_QUEUE) else {
                return false;
            };
            let mut header = [0; HEADER_SIZE];
            if chain.readable.read(&mut header) == HEADER_SIZE {
                let header = Header::decode(&header);
                let length = header.length as usize;
                // A packet without its payload is dropped.
                if chain.readable.len() >= length {
                    let _padding = chain.readable.split_off(length);
                    self.connections.receive(&header, chain.readable);
                }
            }
            queues.add_used(TRANSMIT_QUEUE, chain.head, 0);
        }
        true
    }

    /// Gives packets to the guest.
    fn receive(&mut self, queues: &mut Virtqueues<'_>) {
        while self.connections.has_packets() {
            let Some(chain) = queues.pop(RECEIVE_QUEUE) else {
                return;
            };
            let mut header_part = chain.writable;
            let mut data = header_part.split_off(HEADER_SIZE);
            if header_part.len() < HEADER_SIZE || data.is_empty() {
                // Of no use for a packet.
                queues.add_used(RECEIVE_QUEUE, chain.head, 0);
                continue;
            }
            let Some(header) = self.connections.next_packet(&mut data) else {
                queues.undo_pop(RECEIVE_QUEUE);
                return;
            };
            header_part.write(&header.encode());
            queues.add_used(
                RECEIVE_QUEUE,
                chain.head,
                HEADER_SIZE as u32 + header.length,
            );
        }
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Vsock
    }

    /// Streams need none.
    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn acknowledge_features(&mut self, _features: u64) {}

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        read_config_from(&u64::from(self.cid).to_le_bytes(), offset, data);
    }

    fn event_source(&self) -> Option<BorrowedFd<'_>> {
        Some(self.connections.event_source())
    }

    fn process_queue(&mut self, index: usize, queues: &mut Virtqueues<'_>) {
        if index == RECEIVE_QUEUE || index == TRANSMIT_QUEUE {
            self.run(queues);
        }
    }

    fn process_event(&mut self, queues: &mut Virtqueues<'_>) {
        if let Err(error) = self.connections.handle_events() {
            Self::give_up(&error, queues);
            return;
        }
        self.run(queues);
    }

    fn reset(&mut self) {
        self.connections.reset();
    }
}

#[cfg(test)]
mod tests;
