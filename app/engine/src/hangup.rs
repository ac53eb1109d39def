//! Notices that a client is gone though nothing moves on its connection.
//!
//! Reading tells no closed connection from a client that has said all it has to say
//! and waits for the answer; the socket's state does.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
};

/// Tells when a unix socket's peer has closed altogether.
pub(crate) struct Hangup {
    // Watched for nothing but EPOLLHUP, which epoll always reports.
    socket: AsyncFd<OwnedFd>,
}

impl Hangup {
    /// Watches `socket`, through a descriptor of its own.
    pub(crate) fn of(socket: &UnixStream) -> io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` gives the same descriptor each time it is asked, and
        // keeps it open until the `AsyncFd` that owns it is dropped.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::PRIORITY) }?;
        Ok(Self { socket })
    }

    /// Returns when the peer has closed.
    pub(crate) async fn wait(&self) {
        loop {
            match self.socket.ready(Interest::PRIORITY).await {
                Ok(mut guard) => {
                    if guard.ready().is_read_closed() || guard.ready().is_write_closed() {
                        return;
                    }
                    guard.clear_ready();
                }
                // The runtime ends.
                Err(_) => return,
            }
        }
    }
}
