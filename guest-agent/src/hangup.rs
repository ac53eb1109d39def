//! Notices that the host has closed a connection altogether, while nothing is to be
//! read or written.
//!
//! The end of what the host sends says nothing: a client without input closes that
//! direction at once, and waits for output.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::net::{SendFlags, send};
use tokio::io::{Interest, unix::AsyncFd};

/// Tells when the peer of a stream socket, unix or vsock, takes nothing any more.
#[derive(Debug)]
pub(crate) struct Hangup {
    socket: AsyncFd<OwnedFd>,
}

impl Hangup {
    /// Watches `socket`, through a descriptor of its own.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub(crate) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let socket = socket.try_clone_to_owned()?;
        // Once its peer has closed, a vsock socket counts as writable: it would fail.
        // SAFETY: an `OwnedFd` gives the same descriptor each time it is asked, and
        // keeps it open until the `AsyncFd` that owns it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::WRITABLE) }?;
        Ok(Self { socket })
    }

    /// Returns when the peer has closed; at once if it has done so before.
    pub(crate) async fn wait(&self) {
        while !self.has_closed() {
            match self.socket.writable().await {
                // The next change is what counts, whatever there was before.
                Ok(mut ready) => ready.clear_ready(),
                Err(_) => return,
            }
        }
    }

    /// Returns that much later.
    pub(crate) async fn wait_and_linger(&self, linger: Duration) {
        self.wait().await;
        tokio::time::sleep(linger).await;
    }

    /// Sending nothing fails as sending something would.
    fn has_closed(&self) -> bool {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(self.socket.get_ref().as_fd(), &[], flags) {
            Ok(_) => false,
            Err(error) => error != rustix::io::Errno::AGAIN && error != rustix::io::Errno::INTR,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;

    #[tokio::test]
    async fn a_closed_direction_is_no_end() {
        const MOMENT: Duration = Duration::from_millis(50);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let gone = Hangup::of(ours.as_fd()).unwrap();
        assert!(tokio::time::timeout(MOMENT, gone.wait()).await.is_err());
        theirs.shutdown().await.unwrap();
        assert!(tokio::time::timeout(MOMENT, gone.wait()).await.is_err());
        drop(theirs);
        for _ in 0..2 {
            let noticed = tokio::time::timeout(Duration::from_secs(10), gone.wait()).await;
            assert!(noticed.is_ok());
        }
    }
}
