//! The threads that serve our devices to QEMU, and the event that one has ended.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
};

use dctl_vmm::transport::vhost_user::Server;
use rustix::event::{EventfdFlags, eventfd};

/// All devices that are served.
pub(super) struct Servers {
    /// Readable when a device is served no more: QEMU has gone, or it failed.
    ended: Arc<OwnedFd>,
    waiting: Vec<JoinHandle<io::Result<()>>>,
}

impl Servers {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            ended: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?),
            waiting: Vec::new(),
        })
    }

    pub(super) fn add(&mut self, server: Server) -> io::Result<()> {
        let ended = Arc::clone(&self.ended);
        let waiting = thread::Builder::new()
            .name("vhost-wait".to_owned())
            .spawn(move || {
                let result = server.wait();
                // Nothing else is ever written to it: it cannot be full.
                let _ = rustix::io::write(&ended, &1_u64.to_ne_bytes());
                result
            })?;
        self.waiting.push(waiting);
        Ok(())
    }

    /// Waits until QEMU is served no more; after that everything that the guest wrote
    /// is in its file.
    pub(super) fn wait(self) -> io::Result<()> {
        let mut outcome = Ok(());
        for thread in self.waiting {
            let result = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a device's thread panicked")));
            outcome = outcome.and(result);
        }
        outcome
    }
}

impl AsFd for Servers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}
